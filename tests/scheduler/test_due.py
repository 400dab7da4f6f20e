from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from sqlbak.model import Point, PointType
from sqlbak.policy.calendar import slots
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
WITH_DIFFERENTIALS = Policy(
    vault="main",
    timezone="Europe/Berlin",
    full=CronLine.parse("0 1 * * sun"),
    differential=CronLine.parse("0 1 * * mon-sat"),
    log=LogCadence.EVERY_15_MINUTES,
)
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


SUNDAY_FULL = datetime(2026, 11, 22, 0, 0, tzinfo=UTC)  # 01:00 in Berlin, the slot
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def with_logs(points: list[Point], now: datetime) -> list[PointType]:
    """What is due beside logs, with the policy of differentials."""
    found = kinds(points, now, WITH_DIFFERENTIALS)
    return [kind for kind in found if kind is not PointType.LOG]


def test_a_differential_is_due_at_its_slot_and_not_before() -> None:
    full = taken(PointType.FULL, SUNDAY_FULL)
    assert with_logs([full], SUNDAY_FULL + 23 * HOUR) == []
    assert with_logs([full], SUNDAY_FULL + 24 * HOUR) == [PointType.DIFFERENTIAL]
    served = [full, taken(PointType.DIFFERENTIAL, SUNDAY_FULL + 24 * HOUR)]
    assert with_logs(served, SUNDAY_FULL + 24 * HOUR) == []
    assert with_logs(served, SUNDAY_FULL + 48 * HOUR) == [PointType.DIFFERENTIAL]


def test_without_a_full_or_when_one_is_due_no_differential_is_offered() -> None:
    assert with_logs([], MONDAY_NOON) == [PointType.FULL]
    missed = [taken(PointType.FULL, SUNDAY_FULL - 7 * DAY)]
    assert with_logs(missed, MONDAY_NOON) == [PointType.FULL]
    copy = taken(PointType.FULL, SUNDAY_FULL, is_copy_only=True)
    assert with_logs([copy], MONDAY_NOON) == [PointType.FULL]


def test_a_healing_full_takes_the_place_of_the_days_differential() -> None:
    full = taken(PointType.FULL, SUNDAY_FULL)
    for at in (23 * HOUR + 30 * timedelta(minutes=1), 26 * HOUR, 46 * HOUR):
        healed = [full, taken(PointType.FULL, SUNDAY_FULL + at)]  # on Monday, in Berlin
        for hours in range(24, 47):
            now = SUNDAY_FULL + hours * HOUR
            if now >= healed[1].started_at:
                assert with_logs(healed, now) == []
        assert with_logs(healed, SUNDAY_FULL + 48 * HOUR) == [PointType.DIFFERENTIAL]


def test_a_copy_only_full_takes_no_differentials_place() -> None:
    points = [
        taken(PointType.FULL, SUNDAY_FULL),
        taken(PointType.FULL, SUNDAY_FULL + 25 * HOUR, is_copy_only=True),
    ]
    assert with_logs(points, SUNDAY_FULL + 26 * HOUR) == [PointType.DIFFERENTIAL]


def test_days_of_downtime_cost_one_differential() -> None:
    points = [taken(PointType.FULL, SUNDAY_FULL)]
    now = SUNDAY_FULL + 4 * DAY + 5 * HOUR
    assert with_logs(points, now) == [PointType.DIFFERENTIAL]
    points.append(taken(PointType.DIFFERENTIAL, now))
    assert with_logs(points, now + HOUR) == []


def test_a_missed_differential_is_not_made_up_for_on_the_day_of_the_next_full() -> None:
    points = [taken(PointType.FULL, SUNDAY_FULL), taken(PointType.DIFFERENTIAL, SUNDAY_FULL + DAY)]
    before_the_full = SUNDAY_FULL + 7 * DAY - HOUR / 2  # Sunday 00:30 in Berlin
    assert with_logs(points, before_the_full) == []
    assert with_logs(points, SUNDAY_FULL + 7 * DAY) == [PointType.FULL]


def test_a_differential_made_up_for_after_midnight_serves_the_new_day() -> None:
    late = SUNDAY_FULL + DAY + 23 * HOUR + HOUR / 2  # Tuesday 00:30 in Berlin
    points = [taken(PointType.FULL, SUNDAY_FULL)]
    assert with_logs(points, late) == [PointType.DIFFERENTIAL]
    points.append(taken(PointType.DIFFERENTIAL, late))
    assert with_logs(points, SUNDAY_FULL + 2 * DAY) == []
    assert with_logs(points, SUNDAY_FULL + 3 * DAY) == [PointType.DIFFERENTIAL]


LATE_ALTERNATIVES = [
    WITH_DIFFERENTIALS,
    WITH_DIFFERENTIALS.model_copy(
        update={
            "timezone": "America/New_York",
            "full": CronLine.parse("30 23 * * sun"),
            "differential": CronLine.parse("30 1 * * mon-sat"),
        }
    ),
    WITH_DIFFERENTIALS.model_copy(
        update={
            "full": CronLine.parse("0 2 1,15 * *"),
            "differential": CronLine.parse("30 2 2-14,16-28 * *"),
        }
    ),
]


@given(
    steps=st.lists(
        st.tuples(st.integers(1, 60 * 24 * 2), st.sampled_from(["", "", "", "heal", "fail"])),
        min_size=1,
        max_size=40,
    ),
    start=st.sampled_from([datetime(2026, 10, 20, tzinfo=UTC), datetime(2027, 3, 8, tzinfo=UTC)]),
    policy=st.sampled_from(LATE_ALTERNATIVES),
)
def test_whatever_happens_no_local_day_has_two_differentials_or_one_after_a_full(
    steps: list[tuple[int, str]], start: datetime, policy: Policy
) -> None:
    now = start  # the clocks change within the span
    points: list[Point] = []
    for minutes, event in steps:
        now += timedelta(minutes=minutes)
        jobs = due([Protected("orders", policy, points)], now)
        assert len({job.type for job in jobs}) == len(jobs)
        assert {PointType.FULL, PointType.DIFFERENTIAL} - {job.type for job in jobs}
        for job in jobs:
            if event == "fail":
                continue
            heals = event == "heal" and job.type is not PointType.FULL
            points.append(taken(PointType.FULL if heals else job.type, now))
        if event != "fail":
            again = {job.type for job in due([Protected("orders", policy, points)], now)}
            assert not again & {PointType.FULL, PointType.DIFFERENTIAL}
    days = {
        kind: [
            point.started_at.astimezone(policy.zone).date()
            for point in points
            if point.type is kind
        ]
        for kind in (PointType.FULL, PointType.DIFFERENTIAL)
    }
    differentials = days[PointType.DIFFERENTIAL]
    assert len(differentials) == len(set(differentials))
    scheduled = {
        slot.local_date for slot in slots(policy, PointType.FULL, start - DAY, now + 2 * DAY)
    }
    assert not scheduled & set(differentials)
    for point in points:
        if point.type is PointType.DIFFERENTIAL:
            day = point.started_at.astimezone(policy.zone).date()
            earlier = [
                one.started_at.astimezone(policy.zone).date()
                for one in points
                if one.type is PointType.FULL and one.started_at < point.started_at
            ]
            assert earlier
            assert day not in earlier


@given(st.integers(0, 60 * 24 * 21))
def test_however_long_nobody_looked_there_is_one_catch_up(minutes: int) -> None:
    now = SUNDAY_FULL + timedelta(minutes=minutes)
    points = [taken(PointType.FULL, SUNDAY_FULL)]
    for _ in range(3):
        points += [taken(kind, now) for kind in with_logs(points, now)]
    assert len(points) <= 2
