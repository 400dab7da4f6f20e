from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from sqlbak.model import Point, PointType
from sqlbak.policy.cron import CronLine
from sqlbak.policy.schema import LogCadence, Policy
from sqlbak.scheduler.due import Protected, due

DAILY = Policy(
    vault="main",
    timezone="Europe/Berlin",
    full=CronLine.parse("0 1 * * *"),
    log=LogCadence.EVERY_15_MINUTES,
)
WEEKLY = Policy(vault="main", full=CronLine.parse("0 1 * * sun"), log=LogCadence.EVERY_15_MINUTES)
MONDAY_NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def taken(kind: PointType, at: datetime, *, is_copy_only: bool = False) -> Point:
    return Point(
        id=f"{at.astimezone(UTC):%Y%m%dT%H%M%SZ}-aaaaaaaaaa",
        type=kind,
        lineage="1",
        first_lsn=1,
        last_lsn=2,
        started_at=at,
        finished_at=at,
        is_copy_only=is_copy_only,
    )


def kinds(points: list[Point], now: datetime, policy: Policy = DAILY) -> list[PointType]:
    return [job.type for job in due([Protected("orders", policy, points)], now)]


def test_an_item_without_backups_gets_a_full_at_once_and_no_log_yet() -> None:
    assert kinds([], MONDAY_NOON) == [PointType.FULL]


def test_a_copy_only_full_is_no_full_of_the_schedule() -> None:
    copy = taken(PointType.FULL, MONDAY_NOON - timedelta(minutes=1), is_copy_only=True)
    assert PointType.FULL in kinds([copy], MONDAY_NOON)


def test_nothing_is_due_when_the_newest_slots_are_served() -> None:
    points = [
        taken(PointType.FULL, MONDAY_NOON - timedelta(hours=12)),
        taken(PointType.LOG, MONDAY_NOON),
    ]
    assert kinds(points, MONDAY_NOON) == []


def test_a_log_is_due_at_each_quarter_of_an_hour() -> None:
    points = [
        taken(PointType.FULL, MONDAY_NOON - timedelta(hours=12)),
        taken(PointType.LOG, MONDAY_NOON),
    ]
    assert kinds(points, MONDAY_NOON + timedelta(minutes=14, seconds=59)) == []
    assert kinds(points, MONDAY_NOON + timedelta(minutes=15)) == [PointType.LOG]


def test_three_days_of_downtime_cost_one_full_and_one_log() -> None:
    points = [
        taken(PointType.FULL, MONDAY_NOON - timedelta(days=3)),
        taken(PointType.LOG, MONDAY_NOON - timedelta(days=3)),
    ]
    assert kinds(points, MONDAY_NOON) == [PointType.FULL, PointType.LOG]


def test_a_healing_full_earlier_on_the_day_serves_the_days_slot() -> None:
    slot = datetime(2026, 11, 23, 0, 0, tzinfo=UTC)  # 01:00 in Berlin
    points = [taken(PointType.FULL, slot - timedelta(minutes=30))]  # 00:30 in Berlin, same day
    assert PointType.FULL not in kinds(points, slot + timedelta(minutes=1))


def test_a_full_late_on_the_day_before_does_not_serve_the_days_slot() -> None:
    slot = datetime(2026, 11, 23, 0, 0, tzinfo=UTC)
    points = [taken(PointType.FULL, slot - timedelta(minutes=90))]  # 23:30 in Berlin
    assert PointType.FULL in kinds(points, slot + timedelta(minutes=1))


def test_a_policy_without_logs_never_takes_one() -> None:
    policy = DAILY.model_copy(update={"log": None})
    points = [taken(PointType.FULL, MONDAY_NOON - timedelta(days=9))]
    assert kinds(points, MONDAY_NOON, policy) == [PointType.FULL]


@given(
    minutes=st.lists(st.integers(1, 60 * 24 * 2), min_size=1, max_size=30),
    policy=st.sampled_from([DAILY, WEEKLY]),
)
def test_whatever_the_looks_at_the_clock_no_local_day_has_two_scheduled_fulls(
    minutes: list[int], policy: Policy
) -> None:
    now = datetime(2026, 10, 20, tzinfo=UTC)  # the clocks go back within the span
    points: list[Point] = []
    for step in minutes:
        now += timedelta(minutes=step)
        points += [taken(job.type, now) for job in due([Protected("orders", policy, points)], now)]
    days = [
        point.started_at.astimezone(policy.zone).date()
        for point in points
        if point.type is PointType.FULL
    ]
    assert len(days) == len(set(days))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60))
def test_after_every_look_the_newest_log_slot_is_served(minutes: list[int]) -> None:
    now = MONDAY_NOON
    points = [taken(PointType.FULL, now)]
    for step in minutes:
        now += timedelta(minutes=step)
        points += [taken(job.type, now) for job in due([Protected("orders", DAILY, points)], now)]
        assert kinds(points, now) == []
