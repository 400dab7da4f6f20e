"""Policies that are edited and moved to other zones, and clocks that are set: what is due then.

The world here has a true time, a scheduler whose clock is some hours off, and a database server
whose clock is right or off by as much.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from sqlbak.model import Point, PointType
from sqlbak.policy.calendar import previous_slot
from sqlbak.policy.cron import CronLine
from sqlbak.policy.schema import LogCadence, Policy
from sqlbak.scheduler.due import DueJob, Protected, due, quiet_until

START = datetime(2026, 10, 19, 12, 7, tzinfo=UTC)  # a Monday; the clocks go back within the span
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def policy(
    full: str = "0 1 * * *",
    differential: str | None = None,
    zone: str = "Europe/Berlin",
    log: LogCadence | None = LogCadence.EVERY_15_MINUTES,
) -> Policy:
    return Policy(
        vault="main",
        timezone=zone,
        full=CronLine.parse(full),
        differential=None if differential is None else CronLine.parse(differential),
        log=log,
    )


@dataclass
class World:
    """``off``: what the scheduler's clock shows beyond the truth. ``taken``: what was taken, when
    it really was, and under which policy."""

    policy: Policy
    server_is_right: bool = True
    true: datetime = START
    off: timedelta = timedelta(0)
    points: list[Point] = field(default_factory=list)
    taken: list[tuple[Point, datetime, Policy]] = field(default_factory=list)

    @property
    def now(self) -> datetime:
        return self.true + self.off

    def jobs(self) -> list[DueJob]:
        return due([Protected("orders", self.policy, self.points)], self.now)

    def take(self, kind: PointType) -> None:
        claimed = f"{self.now:%Y%m%dT%H%M%SZ}"
        at = self.true if self.server_is_right else self.now
        position = 1000 + len(self.points)
        point = Point(
            id=f"{claimed}-aaaaaaaaaa",
            type=kind,
            lineage="1",
            first_lsn=0,
            last_lsn=position,
            started_at=at,
            finished_at=at,
        )
        self.points.append(point)
        self.taken.append((point, self.true, self.policy))

    def look(self) -> list[PointType]:
        jobs = self.jobs()
        for job in jobs:
            self.take(job.type)
        return [job.type for job in jobs]

    def pass_time(self, span: timedelta, step: timedelta = timedelta(minutes=15)) -> None:
        end = self.true + span
        while self.true < end:
            self.true = min(self.true + step, end)
            self.look()

    def really(self, kind: PointType) -> list[datetime]:
        return [true for point, true, _ in self.taken if point.type is kind]

    def claimed_days(self, kind: PointType) -> list[date]:
        """Local days in the zone of the policy that is in force now."""
        return [
            (true + (claimed(point) - true)).astimezone(self.policy.zone).date()
            for point, true, _ in self.taken
            if point.type is kind
        ]


def claimed(point: Point) -> datetime:
    return datetime.strptime(point.id[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def test_a_clock_that_was_a_year_ahead_does_not_end_backups_for_a_year() -> None:
    for server_is_right in (True, False):
        world = World(policy(), server_is_right)
        world.look()
        world.off = 365 * DAY
        world.look()
        world.off = timedelta(0)
        before = len(world.points)
        world.pass_time(3 * DAY)
        fulls = [true for true in world.really(PointType.FULL) if true > START]
        assert len(fulls) >= 3
        logs = [true for true in world.really(PointType.LOG) if true > START]
        assert len(logs) >= 3 * 96
        assert len(world.points) - before <= 3 * 97 + 2


def test_a_clock_that_was_ahead_costs_full_only_policies_no_day_either() -> None:
    for server_is_right in (True, False):
        world = World(policy(log=None), server_is_right)
        world.look()
        world.off = 40 * DAY
        world.look()
        world.off = timedelta(0)
        world.pass_time(5 * DAY)
        assert len([true for true in world.really(PointType.FULL) if true > START]) >= 5


def test_a_clock_set_back_over_midnight_makes_no_second_full_of_the_day() -> None:
    world = World(policy())
    world.take(PointType.FULL)
    world.true = datetime(2026, 10, 20, 23, 5, tzinfo=UTC)  # 01:05 of the 21st in Berlin
    assert PointType.FULL in world.look()
    world.off = -2 * HOUR
    world.pass_time(6 * HOUR)
    days = world.claimed_days(PointType.FULL)
    assert len(days) == len(set(days))


def test_moving_the_time_of_day_on_a_day_with_a_full_makes_no_second_one() -> None:
    for line in ("0 3 * * *", "30 1 * * *", "0 23 * * *", "59 23 * * *", "0 0 * * *"):
        world = World(policy())
        world.take(PointType.FULL)
        world.true = datetime(2026, 10, 20, 23, 0, tzinfo=UTC)
        assert PointType.FULL in world.look()
        world.policy = policy(line)
        world.pass_time(22 * HOUR)
        days = world.claimed_days(PointType.FULL)
        assert len(days) == len(set(days)), line


def test_missed_slots_are_counted_from_what_was_taken_last() -> None:
    world = World(policy())
    world.look()
    world.true += 3 * DAY
    full, log = world.jobs()
    assert (full.type, log.type) == (PointType.FULL, PointType.LOG)
    assert [slot.identity for slot in full.missed] == [
        "full@2026-10-20T01:00",
        "full@2026-10-21T01:00",
    ]
    assert len(log.missed) == 3 * 96 - 1
    assert "after 2 missed" in full.reason


MONTHLY = policy("0 1 1 * *", "0 1 2-28 * *")


def test_a_differential_or_log_on_a_full_of_more_than_15_days_becomes_a_full() -> None:
    world = World(MONTHLY)
    world.true = datetime(2026, 9, 30, 23, tzinfo=UTC)
    world.look()
    world.pass_time(35 * DAY, step=HOUR)
    fulls = world.really(PointType.FULL)
    assert [f"{full:%d.%m.}" for full in fulls] == ["30.09.", "16.10.", "01.11."]
    differentials = world.claimed_days(PointType.DIFFERENTIAL)
    assert not set(world.claimed_days(PointType.FULL)) & set(differentials)
    converted = World(MONTHLY, points=world.points[:1], true=fulls[0] + 15 * DAY + HOUR)
    jobs = {job.type: job for job in converted.jobs()}
    assert jobs[PointType.FULL].asked in (PointType.DIFFERENTIAL, PointType.LOG)
    assert "older than 15 days" in jobs[PointType.FULL].reason
    assert PointType.DIFFERENTIAL not in jobs


def test_no_full_replaces_an_old_one_on_the_day_of_the_next() -> None:
    world = World(policy("0 22 16 * *"))
    world.true = datetime(2026, 9, 30, 12, tzinfo=UTC)
    world.take(PointType.FULL)
    world.true = datetime(2026, 10, 16, 6, tzinfo=UTC)
    assert world.look() == [PointType.LOG]
    world.true = datetime(2026, 10, 16, 20, tzinfo=UTC)
    assert PointType.FULL in world.look()


def test_a_nightly_full_that_starts_after_midnight_does_not_take_the_next_nights_place() -> None:
    world = World(policy("58 23 * * *", zone="UTC"))
    world.true = datetime(2026, 10, 20, 12, tzinfo=UTC)
    world.look()
    for day in range(21, 28):
        world.true = datetime(2026, 10, day, 0, 5, tzinfo=UTC)  # seven minutes late
        assert (PointType.FULL in world.look()) == (day > 21)  # the first day has one from noon


POLICIES = [
    policy(),
    policy("30 2 * * *"),
    policy("30 23 * * *", zone="America/New_York"),
    policy("0 1 * * sun", "0 1 * * mon-sat"),
    policy("0 1 * * wed", "30 4 * * thu-tue", zone="Asia/Tokyo"),
    policy("0 22 * * *", zone="Pacific/Apia", log=LogCadence.HOURLY),
    policy("15 0 * * sat", "45 0 * * sun-fri", zone="America/Santiago"),
]

changes = st.one_of(
    st.just(None),
    st.sampled_from(POLICIES),
    st.sampled_from([timedelta(0), HOUR, -HOUR, 5 * HOUR, -7 * HOUR, 2 * DAY, -2 * DAY, 9 * DAY]),
)


@given(
    steps=st.lists(st.tuples(st.integers(1, 60 * 30), changes), min_size=1, max_size=40),
    first=st.sampled_from(POLICIES),
    server_is_right=st.booleans(),
)
@settings(deadline=None, max_examples=150)
def test_edits_moves_and_clocks_make_no_second_full_no_needless_differential_and_lose_no_slot(
    steps: list[tuple[int, timedelta | Policy | None]], first: Policy, server_is_right: bool
) -> None:
    world = World(first, server_is_right)
    for minutes, change in steps:
        world.true += timedelta(minutes=minutes)
        if isinstance(change, timedelta):
            world.off = change
        elif change is not None:
            world.policy = change
        fulls_before = set(world.claimed_days(PointType.FULL)) if world.points else set()
        both_before = fulls_before | set(world.claimed_days(PointType.DIFFERENTIAL))
        made = world.look()
        today = world.now.astimezone(world.policy.zone).date()
        if len(made) and world.points and fulls_before:
            assert not (PointType.FULL in made and today in fulls_before)
            assert not (PointType.DIFFERENTIAL in made and today in both_before)
        assert not {PointType.FULL, PointType.DIFFERENTIAL} <= set(made)
        # What was due is served now, whatever clocks and policies did before.
        assert world.jobs() == []
        slot = previous_slot(world.policy, PointType.FULL, world.now)
        assert slot is not None
        # A slot is lost if nothing was taken for it, nor after it, nor on its day.
        covered = [
            one
            for one, true, _ in world.taken
            if one.type is PointType.FULL
            and (
                true == world.true
                or claimed(one) >= slot.instant
                or claimed(one).astimezone(world.policy.zone).date() in (slot.local_date, today)
            )
        ]
        assert covered
        if world.policy.log is not None:
            log = previous_slot(world.policy, PointType.LOG, world.now)
            assert log is not None
            assert any(
                true == world.true
                # Clocks of two schedulers may differ by a minute: so little ahead is no other time.
                or log.instant <= claimed(one) <= world.now + timedelta(minutes=1)
                # The server's clock may say, rightly, that it was taken after that slot.
                or log.instant <= one.started_at <= world.now
                or true + world.off >= log.instant
                for one, true, _ in world.taken
            )


@given(
    policy=st.sampled_from([*POLICIES, MONTHLY]),
    minutes=st.integers(0, 60 * 24 * 40),
)
@settings(deadline=None, max_examples=100)
def test_between_two_looks_at_the_calendar_nothing_becomes_due(
    policy: Policy, minutes: int
) -> None:
    world = World(policy)
    world.true += timedelta(minutes=minutes)
    world.look()
    until = quiet_until(policy, world.now)
    assert until > world.now
    world.true = until - timedelta(seconds=1)
    assert world.jobs() == []
