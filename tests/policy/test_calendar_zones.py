"""The calendar over the whole tz database and over a simulated year, reckoned in other ways too.

The C library reads the same tz files with code of its own and says when the clocks of a zone
changed; arithmetic then says when a wall time is first shown or passed, and that is when a daily
run starts.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from zoneinfo import ZoneInfo, available_timezones

import pytest
from croniter import croniter

from sqlbak.model import Point, PointType
from sqlbak.policy.calendar import next_slot, slots
from sqlbak.policy.cron import CronLine
from sqlbak.policy.rules import schedule_problems
from sqlbak.policy.schema import LogCadence, Policy
from sqlbak.scheduler.due import Protected, due, quiet_until

FULL, DIFFERENTIAL, LOG = PointType.FULL, PointType.DIFFERENTIAL, PointType.LOG
DAY = timedelta(days=1)
FIRST, LAST = datetime(2016, 11, 1, tzinfo=UTC), datetime(2027, 12, 31, tzinfo=UTC)
TIMES = ("00:00", "00:30", "01:00", "01:30", "02:00", "02:30", "03:00", "12:00", "23:30")


def policy(full: str, zone: str, differential: str | None = None, log: str | None = None) -> Policy:
    return Policy(
        vault="main",
        timezone=zone,
        full=CronLine.parse(full),
        differential=None if differential is None else CronLine.parse(differential),
        log=None if log is None else LogCadence(log),
    )


@dataclass(frozen=True)
class Change:
    """Clocks of a zone that go from ``before`` to ``after`` seconds east of Greenwich at ``at``."""

    at: int
    before: int
    after: int


@contextmanager
def c_library_in(zone: str) -> Iterator[None]:
    """The C library's clock in ``zone``, from the very files that zoneinfo reads."""
    path = Path(str(files("tzdata") / "zoneinfo" / zone))
    system = [folder for folder in ("/usr/share/zoneinfo",) if (Path(folder) / zone).exists()]
    was = os.environ.get("TZ")
    os.environ["TZ"] = f":{Path(system[0]) / zone if system else path}"
    time.tzset()
    try:
        yield
    finally:
        if was is None:
            del os.environ["TZ"]
        else:
            os.environ["TZ"] = was
        time.tzset()


def changes_of(zone: str) -> tuple[Change, ...]:
    with c_library_in(zone):
        found = []
        instant, end, step = int(FIRST.timestamp()), int(LAST.timestamp()), 5 * 86400
        offset = time.localtime(instant).tm_gmtoff
        while instant < end:
            following = instant + step
            if time.localtime(following).tm_gmtoff != offset:
                low, high = instant, following
                while high - low > 1:
                    middle = (low + high) // 2
                    same = time.localtime(middle).tm_gmtoff == offset
                    low, high = (middle, high) if same else (low, middle)
                after = time.localtime(high).tm_gmtoff
                found.append(Change(high, offset, after))
                offset, following = after, high
            instant = following
        return tuple(found)


def first_shown(wall: datetime, change: Change) -> datetime:
    """When the clock first shows ``wall`` or something later, near one change."""
    seconds = int((wall - datetime(1970, 1, 1)).total_seconds())  # noqa: DTZ001 - a wall time
    before = seconds - change.before
    instant = before if before < change.at else max(change.at, seconds - change.after)
    return datetime.fromtimestamp(instant, UTC)


def test_around_every_clock_change_of_every_zone_in_ten_years_each_day_has_its_one_slot() -> None:
    seen: set[tuple[Change, ...]] = set()
    checked = 0
    for zone in sorted(available_timezones() - {"Factory", "localtime"}):
        changes = changes_of(zone)
        if not changes or changes in seen:
            continue
        seen.add(changes)
        lines = [(at, policy(f"{int(at[3:])} {int(at[:2])} * * *", zone)) for at in TIMES]
        for index, change in enumerate(changes):
            alone = all(
                abs(other.at - change.at) > 5 * 86400
                for place, other in enumerate(changes)
                if place != index
            )
            if not alone:
                continue  # two changes within five days need more than this arithmetic
            at = datetime.fromtimestamp(change.at, UTC)
            days = [at.astimezone(ZoneInfo(zone)).date() + n * DAY for n in (-2, -1, 0, 1, 2)]
            for text, daily in lines[index % 3 :: 3] if index < len(changes) - 4 else lines:
                walls = [datetime.fromisoformat(f"{day}T{text}") for day in days]
                expected = sorted({first_shown(wall, change) for wall in walls})
                found = slots(daily, FULL, expected[0] - timedelta(seconds=1), expected[-1])
                assert [slot.instant for slot in found] == expected, (zone, text, at)
                checked += 1
    assert len(seen) > 60
    assert checked > 3000


EXPRESSIONS = (
    "30 2 * * *", "0 2 * * *", "0 3 * * *", "30 1 * * *", "0 0 * * *", "0 6 * * *", "59 1 * * *",
    "5 1-3 * * *", "*/15 * * * *", "0 */2 * * *", "0 * * * *", "30 2 * * sun", "30 2 25,29 * *",
)  # fmt: skip
CHANGES_OF_2026 = {
    "Europe/Berlin": ("2026-03-29T01:00", "2026-10-25T01:00"),
    "America/New_York": ("2026-03-08T07:00", "2026-11-01T06:00"),
}


@pytest.mark.parametrize("zone", CHANGES_OF_2026)
@pytest.mark.parametrize("season", [0, 1])
def test_each_line_fires_once_for_each_wall_time_when_the_clocks_change(
    zone: str, season: int
) -> None:
    at = datetime.fromisoformat(CHANGES_OF_2026[zone][season]).replace(tzinfo=UTC)
    hour = 3600 if season == 0 else -3600
    offset = ZoneInfo(zone).utcoffset((at - DAY).astimezone(ZoneInfo(zone)).replace(tzinfo=None))
    assert offset is not None
    before = int(offset.total_seconds())
    change = Change(int(at.timestamp()), before, before + hour)
    for text in EXPRESSIONS:
        line = CronLine.parse(text)
        day = at.astimezone(ZoneInfo(zone)).date()
        walls = [
            datetime.combine(one, clock)
            for one in line.dates(day - 2 * DAY, day + 2 * DAY)
            for clock in line.times
        ]
        expected = sorted({first_shown(wall, change) for wall in walls})
        if not expected:
            continue
        found = slots(policy(text, zone), FULL, expected[0] - timedelta(seconds=1), expected[-1])
        assert [slot.instant for slot in found] == expected, text
        assert len({slot.identity for slot in found}) == len(found)


def test_croniter_alone_would_run_a_repeated_time_twice() -> None:
    """Why the calendar does not walk with croniter: its runs of 25 October 2026 in Berlin."""
    zone = ZoneInfo("Europe/Berlin")
    begin = datetime(2026, 10, 25, 0, 0, tzinfo=zone)
    walker = croniter("30 2 * * *", begin)
    theirs = [walker.get_next(datetime).astimezone(UTC) for _ in range(2)]
    assert theirs == [datetime(2026, 10, 25, hour, 30, tzinfo=UTC) for hour in (0, 1)]
    ours = policy("30 2 * * *", "Europe/Berlin")
    assert next_slot(ours, FULL, begin).instant == theirs[0]
    assert next_slot(ours, FULL, theirs[0]).instant == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)


def test_croniter_alone_would_run_an_even_hour_line_at_an_odd_hour_in_spring() -> None:
    begin = datetime(2026, 3, 29, 0, 30, tzinfo=ZoneInfo("Europe/Berlin"))
    walker = croniter("0 */2 * * *", begin)
    theirs = [walker.get_next(datetime).hour for _ in range(2)]
    assert theirs == [3, 4]
    # The same instant stands for the skipped 02:00 here, under that identity.
    found = slots(policy("0 */2 * * *", "Europe/Berlin"), FULL, begin, walker.get_current(datetime))
    assert [slot.identity for slot in found] == ["full@2026-03-29T02:00", "full@2026-03-29T04:00"]


WEEK = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "America/Sao_Paulo", "Australia/Lord_Howe",
    "Africa/Casablanca", "Asia/Tehran", "Pacific/Apia", "America/St_Johns", "Africa/Cairo",
    "Europe/Dublin", "America/Santiago", "Asia/Kathmandu", "Pacific/Chatham", "Asia/Beirut",
)  # fmt: skip


def random_policy(chance: random.Random) -> Policy:
    """A valid one: daily, or weekly with differentials on other days, or days of the month."""
    while True:
        clock = f"{chance.randrange(60)} {chance.randrange(24)}"
        zone = chance.choice(ZONES)
        log = chance.choice(["24h", None, None, None])
        kind = chance.randrange(3)
        if kind == 0:
            made = policy(f"{clock} * * *", zone, log=log)
        elif kind == 1:
            days = chance.sample(WEEK, 7)
            cut = chance.randint(1, 3)
            other = f"{chance.randrange(60)} {chance.randrange(24)}"
            differential = f"{other} * * {','.join(days[cut : cut + chance.randint(1, 4)])}"
            made = policy(f"{clock} * * {','.join(days[:cut])}", zone, differential, log)
        else:
            made = policy(f"{clock} 1,11,21 * *", zone, f"{clock} 2-10,12-20 * *", log)
        if not schedule_problems(made.full, made.differential, made.zone):
            return made


def point(kind: PointType, at: datetime, position: int) -> Point:
    return Point(f"{at:%Y%m%dT%H%M%SZ}-aaaaaaaaaa", kind, "1", 0, position, at, at)


def test_a_simulated_year_of_fifty_policies_keeps_the_rules_on_every_local_day() -> None:
    begin, end = datetime(2026, 6, 1, tzinfo=UTC), datetime(2027, 6, 1, tzinfo=UTC)
    for seed in range(50):
        chance = random.Random(seed)
        made = random_policy(chance)
        taken: list[Point] = [point(FULL, begin - 3 * DAY, 1)]
        history: dict[PointType, list[tuple[datetime, str]]] = {kind: [] for kind in PointType}
        now = begin
        while now < end:
            for job in due([Protected("orders", made, taken)], now):
                taken.append(point(job.type, now, taken[-1].last_lsn + 1))
                history[job.type].append((now, "" if job.slot is None else job.slot.identity))

            taken = taken[-60:]  # older ones do not matter, as where retention lets them go
            now = quiet_until(made, now) + timedelta(seconds=chance.choice([0, 0, 7, 50]))
        rules_hold(made, history)
        # Everything that was looked for in time was taken for its slot, and nothing else.
        for kind in (FULL, DIFFERENTIAL):
            independent = independent_slots(made, kind, begin + DAY, end - DAY)
            inside = [one for one in history[kind] if begin + DAY < one[0] < end - DAY]
            served = {identity.partition("@")[2] for _, identity in inside}
            assert {f"{wall.isoformat(timespec='minutes')}" for wall in independent} == served, made


def rules_hold(made: Policy, history: dict[PointType, list[tuple[datetime, str]]]) -> None:
    days: dict[PointType, list[date]] = {
        kind: [at.astimezone(made.zone).date() for at, _ in history[kind]]
        for kind in (FULL, DIFFERENTIAL)
    }
    assert len(days[FULL]) == len(set(days[FULL])), made
    assert len(days[DIFFERENTIAL]) == len(set(days[DIFFERENTIAL])), made
    assert not set(days[FULL]) & set(days[DIFFERENTIAL]), made
    for kind in PointType:
        identities = [identity for _, identity in history[kind]]
        assert len(identities) == len(set(identities)), made


def independent_slots(
    made: Policy, kind: PointType, begin: datetime, end: datetime
) -> list[datetime]:
    """The wall times of one kind that the clock of the zone shows or passes between two instants,
    by croniter in a world without clock changes."""
    line = made.full if kind is FULL else made.differential
    if line is None:
        return []
    low = begin.astimezone(made.zone).replace(tzinfo=None)
    high = end.astimezone(made.zone).replace(tzinfo=None)
    walker = croniter(line.text, low.replace(tzinfo=UTC))
    found = []
    while (wall := walker.get_next(datetime).replace(tzinfo=None)) < high:
        found.append(wall)
    return found
