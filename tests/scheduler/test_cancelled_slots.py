"""What somebody cancelled is not begun again for its slot, under no name; the next one is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlbak.model import Point, PointType
from sqlbak.policy.calendar import next_slot
from sqlbak.policy.cron import CronLine
from sqlbak.policy.schema import LogCadence, Policy
from sqlbak.scheduler.due import DueJob, Protected, due
from sqlbak.vault.cancelled_slots import TypeSlot
from tests.scheduler.test_due import DAILY, MONDAY_NOON, WEEKLY, WITH_DIFFERENTIALS, taken

FULL, DIFFERENTIAL, LOG = PointType.FULL, PointType.DIFFERENTIAL, PointType.LOG
MONTHLY = Policy(vault="main", full=CronLine.parse("0 1 1 * *"), log=LogCadence.EVERY_15_MINUTES)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def jobs(
    points: list[Point], now: datetime, *cancelled: TypeSlot, policy: Policy = DAILY
) -> dict[PointType, DueJob]:
    return {job.type: job for job in due([Protected("orders", policy, points, cancelled)], now)}


def mark(job: DueJob, kind: PointType | None = None) -> TypeSlot:
    assert job.slot is not None
    return TypeSlot(kind or job.type, job.slot.instant)


def test_a_cancelled_log_waits_for_the_next_quarter_and_was_not_missed() -> None:
    points = [taken(FULL, MONDAY_NOON - 11 * HOUR), taken(LOG, MONDAY_NOON - 15 * MINUTE)]
    late = MONDAY_NOON + 14 * MINUTE
    cancelled = mark(jobs(points, late)[LOG])
    assert cancelled.instant == MONDAY_NOON
    assert jobs(points, late, cancelled) == {}
    assert jobs(points, MONDAY_NOON + 15 * MINUTE, cancelled)[LOG].missed == ()
    assert len(jobs(points, MONDAY_NOON + 30 * MINUTE, cancelled)[LOG].missed) == 1


def test_a_slot_that_passes_while_its_forerunner_is_cancelled_is_served() -> None:
    points = [taken(FULL, MONDAY_NOON - 11 * HOUR), taken(LOG, MONDAY_NOON - 15 * MINUTE)]
    cancelled = TypeSlot(LOG, MONDAY_NOON)
    assert LOG in jobs(points, MONDAY_NOON + 16 * MINUTE, cancelled)


def test_logs_go_on_with_the_full_before_until_the_cancelled_ones_next_slot() -> None:
    points = [taken(FULL, MONDAY_NOON - 35 * HOUR), taken(LOG, MONDAY_NOON - 5 * MINUTE)]
    found = jobs(points, MONDAY_NOON)
    assert set(found) == {FULL, LOG}
    cancelled = mark(found[FULL])
    assert set(jobs(points, MONDAY_NOON, cancelled)) == {LOG}
    tomorrow = next_slot(DAILY, FULL, MONDAY_NOON).instant
    assert FULL not in jobs(points, tomorrow - MINUTE, cancelled)
    assert FULL in jobs(points, tomorrow, cancelled)


def test_a_differential_does_not_bring_a_cancelled_full_back() -> None:
    sunday = datetime(2026, 11, 22, 0, 0, tzinfo=UTC)  # 01:00 in Berlin
    points = [taken(FULL, sunday - 7 * DAY)]
    cancelled = mark(jobs(points, sunday + MINUTE, policy=WITH_DIFFERENTIALS)[FULL])
    on_sunday = jobs(points, sunday + 20 * HOUR, cancelled, policy=WITH_DIFFERENTIALS)
    assert set(on_sunday) == {LOG}  # none on a full's day, not even in its place
    on_monday = jobs(points, sunday + DAY, cancelled, policy=WITH_DIFFERENTIALS)
    assert set(on_monday) == {DIFFERENTIAL, LOG}


def test_a_full_that_was_only_due_because_the_last_is_old_stays_cancelled_too() -> None:
    first = datetime(2026, 11, 1, 1, 0, tzinfo=UTC)
    now = first + 16 * DAY
    points = [taken(FULL, first), taken(LOG, now - 15 * MINUTE)]
    by_age = jobs(points, now, policy=MONTHLY)[FULL]
    assert by_age.asked is LOG
    cancelled = mark(by_age)
    for later in (now, now + 15 * MINUTE, now + 5 * DAY):
        assert set(jobs(points, later, cancelled, policy=MONTHLY)) <= {LOG}
    assert FULL in jobs(points, datetime(2026, 12, 1, 1, 0, tzinfo=UTC), cancelled, policy=MONTHLY)


def test_a_full_that_was_taken_instead_of_a_log_leaves_the_next_log_due() -> None:
    points = [taken(FULL, MONDAY_NOON - 11 * HOUR), taken(LOG, MONDAY_NOON - 15 * MINUTE)]
    log = jobs(points, MONDAY_NOON)[LOG]
    both = (mark(log), mark(log, FULL))
    assert jobs(points, MONDAY_NOON + MINUTE, *both) == {}
    assert set(jobs(points, MONDAY_NOON + 15 * MINUTE, *both)) == {LOG}


def test_a_first_full_that_was_cancelled_waits_for_its_next_slot_and_no_log_asks_for_it() -> None:
    first = jobs([], MONDAY_NOON, policy=WEEKLY)[FULL]
    cancelled = mark(first)
    for later in (MONDAY_NOON, MONDAY_NOON + HOUR, MONDAY_NOON + 5 * DAY):
        assert jobs([], later, cancelled, policy=WEEKLY) == {}
    assert set(
        jobs([], next_slot(WEEKLY, FULL, MONDAY_NOON).instant, cancelled, policy=WEEKLY)
    ) == {FULL}


def test_a_backup_by_hand_goes_on_where_a_cancelled_one_ended() -> None:
    cancelled = mark(jobs([], MONDAY_NOON)[FULL])
    by_hand = [taken(FULL, MONDAY_NOON + HOUR)]
    assert set(jobs(by_hand, MONDAY_NOON + 75 * MINUTE, cancelled)) == {LOG}


def test_a_slot_of_a_clock_that_was_ahead_cancels_nothing() -> None:
    points = [taken(FULL, MONDAY_NOON - 35 * HOUR)]
    ahead = (TypeSlot(FULL, MONDAY_NOON + 300 * DAY), TypeSlot(LOG, MONDAY_NOON + 300 * DAY))
    assert jobs(points, MONDAY_NOON, *ahead) == jobs(points, MONDAY_NOON)


@pytest.mark.parametrize("policy", [DAILY, WEEKLY, MONTHLY, WITH_DIFFERENTIALS])
@given(
    ages=st.lists(
        st.tuples(st.sampled_from([FULL, DIFFERENTIAL, LOG]), st.integers(1, 60 * 24 * 40)),
        max_size=6,
    ),
    minutes=st.integers(0, 60 * 24 * 35),
    later=st.floats(0, 0.999),
)
def test_whatever_is_cancelled_is_back_at_its_next_slot_and_not_before(
    policy: Policy, ages: list[tuple[PointType, int]], minutes: int, later: float
) -> None:
    now = MONDAY_NOON + minutes * MINUTE
    points = [taken(kind, now - age * MINUTE) for kind, age in ages]
    for job in jobs(points, now, policy=policy).values():
        cancelled = TypeSlot(job.type, now if job.slot is None else job.slot.instant)
        following = next_slot(policy, job.type, now).instant
        between = now + (following - now) * later
        assert job.type not in jobs(points, between, cancelled, policy=policy)
        assert jobs(points, following, cancelled, policy=policy).keys() == (
            jobs(points, following, policy=policy).keys()
        )
