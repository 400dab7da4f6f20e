from __future__ import annotations

import itertools
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from cronsim import CronSim
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sqlbak.model import PointType
from sqlbak.policy.calendar import Slot, next_slot, previous_slot, slots
from sqlbak.policy.cron import CronLine
from sqlbak.policy.schema import LogCadence, Policy
from tests.policy.strategies import instants, once_a_day_lines, zones

FULL, DIFFERENTIAL, LOG = PointType.FULL, PointType.DIFFERENTIAL, PointType.LOG


def policy(full: str = "30 2 * * *", zone: str = "Europe/Berlin", log: str | None = None) -> Policy:
    return Policy(
        vault="main",
        timezone=zone,
        full=CronLine.parse(full),
        log=None if log is None else LogCadence(log),
    )


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def full_instants(given_policy: Policy, after: str, until: str) -> list[datetime]:
    return [slot.instant for slot in slots(given_policy, FULL, utc(after), utc(until))]


def test_a_slot_in_the_hour_that_is_skipped_runs_at_the_first_instant_after_it() -> None:
    found = slots(policy(), FULL, utc("2027-03-27T22:00"), utc("2027-03-28T22:00"))
    assert found == [
        Slot(FULL, utc("2027-03-28T01:00"), date(2027, 3, 28), "full@2027-03-28T02:30")
    ]


def test_a_slot_in_the_hour_that_is_repeated_runs_once_at_its_first_occurrence() -> None:
    found = slots(policy(), FULL, utc("2026-10-24T22:00"), utc("2026-10-25T22:00"))
    assert found == [
        Slot(FULL, utc("2026-10-25T00:30"), date(2026, 10, 25), "full@2026-10-25T02:30")
    ]
    assert next_slot(policy(), FULL, utc("2026-10-25T00:30")).instant == utc("2026-10-26T01:30")


def test_logs_have_neither_a_hole_nor_a_duplicate_when_the_clocks_change() -> None:
    for day in ("2026-10-25", "2027-03-28"):
        found = slots(policy(log="15m"), LOG, utc(f"{day}T00:00"), utc(f"{day}T04:00"))
        assert [slot.instant for slot in found] == [
            utc(f"{day}T00:00") + timedelta(minutes=15) * step for step in range(1, 17)
        ]
        assert len({slot.identity for slot in found}) == 16


@pytest.mark.parametrize("cadence", LogCadence)
def test_logs_are_aligned_to_midnight_utc(cadence: LogCadence) -> None:
    given_policy = policy(zone="Asia/Tehran", log=cadence.value)
    first = next_slot(given_policy, LOG, utc("2026-06-01T23:59:59"))
    assert first.instant == utc("2026-06-02T00:00")
    assert first.local_date == date(2026, 6, 2)
    assert first.identity == "log@2026-06-02T00:00Z"
    second = next_slot(given_policy, LOG, first.instant)
    assert second.instant - first.instant == cadence.interval
    assert previous_slot(given_policy, LOG, second.instant - timedelta(microseconds=1)) == first


def test_the_date_of_a_log_slot_is_that_of_the_policys_zone() -> None:
    late = next_slot(policy(zone="Pacific/Apia", log="1h"), LOG, utc("2026-06-01T12:30"))
    assert late.local_date == date(2026, 6, 2)


def test_the_day_that_samoa_skipped_keeps_its_slot_and_shares_no_instant() -> None:
    late = policy("0 22 * * *", "Pacific/Apia")
    assert full_instants(late, "2011-12-30T00:00", "2012-01-01T00:00") == [
        utc("2011-12-30T08:00"),  # 29 December, 22:00-10:00
        utc("2011-12-30T10:00"),  # 30 December never was; the 31st begins
        utc("2011-12-31T08:00"),  # 31 December, 22:00+14:00
    ]
    midnight = policy("0 0 * * *", "Pacific/Apia")
    found = slots(midnight, FULL, utc("2011-12-29T12:00"), utc("2011-12-31T12:00"))
    assert [(slot.instant, slot.identity) for slot in found] == [
        (utc("2011-12-30T10:00"), "full@2011-12-31T00:00"),
        (utc("2011-12-31T10:00"), "full@2012-01-01T00:00"),
    ]
    friday = policy("0 22 * * fri", "Pacific/Apia")
    assert utc("2011-12-30T10:00") in full_instants(friday, "2011-12-29T00:00", "2012-01-02T00:00")


def test_a_midnight_that_is_shown_before_the_clocks_go_back_over_it_is_not_lost() -> None:
    newfoundland = policy("0 0 * * *", "America/St_Johns")
    # 7 November 2010, 00:01-02:30 became 6 November, 23:01-03:30.
    assert full_instants(newfoundland, "2010-11-07T02:00", "2010-11-07T03:00") == [
        utc("2010-11-07T02:30")
    ]
    assert full_instants(newfoundland, "2010-11-07T02:30", "2010-11-07T12:00") == []


def test_several_times_of_one_skipped_hour_make_one_slot() -> None:
    found = full_instants(policy("0,30 2 * * *"), "2027-03-28T00:00", "2027-03-28T12:00")
    assert found == [utc("2027-03-28T01:00")]
    found = full_instants(policy("30 2-3 * * *"), "2027-03-28T00:00", "2027-03-28T12:00")
    assert found == [utc("2027-03-28T01:00"), utc("2027-03-28T01:30")]
    real = slots(policy("0 2-3 * * *"), FULL, utc("2027-03-28T00:00"), utc("2027-03-28T12:00"))
    assert [slot.identity for slot in real] == ["full@2027-03-28T03:00"]


def test_the_range_excludes_its_beginning_and_includes_its_end() -> None:
    at = utc("2026-06-01T00:30")
    given_policy = policy()
    assert (
        previous_slot(given_policy, FULL, at) == slots(given_policy, FULL, at - timedelta(1), at)[0]
    )
    assert next_slot(given_policy, FULL, at).instant == at + timedelta(days=1)
    assert slots(given_policy, FULL, at, at) == []
    assert slots(given_policy, FULL, at, at - timedelta(days=1)) == []


def test_a_kind_that_is_not_scheduled_has_no_slots() -> None:
    now = utc("2026-06-01T00:00")
    for kind in (DIFFERENTIAL, LOG):
        assert slots(policy(), kind, now, now + timedelta(days=30)) == []
        assert previous_slot(policy(), kind, now) is None
        with pytest.raises(ValueError, match=kind.value):
            next_slot(policy(), kind, now)


def test_a_leap_day_is_found_eight_years_away() -> None:
    rare = policy("0 1 29 2 *", "UTC")
    assert next_slot(rare, FULL, utc("2096-03-01T00:00")).instant == utc("2104-02-29T01:00")
    found = previous_slot(rare, FULL, utc("2104-02-28T00:00"))
    assert found is not None
    assert found.instant == utc("2096-02-29T01:00")


def test_an_instant_without_a_zone_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="zone"):
        previous_slot(policy(), FULL, datetime.fromisoformat("2026-06-01"))


FIXED_LINES = (
    "30 2 * * *",
    "0 2 * * *",
    "0 3 * * *",
    "59 1 * * *",
    "30 1 * * *",
    "15 2 * * sun",
    "30 23 * * *",
    "0 0 * * *",
    "30 0 * * *",
    "0 1 * * mon-sat",
    "45 1 1,15 * *",
    "0 22 * * fri",
    "5 3 l * *",
    "30 2 * * sun#1",
)
CHANGES = (
    ("Europe/Berlin", "2026-03-29"),
    ("Europe/Berlin", "2026-10-25"),
    ("America/New_York", "2026-03-08"),
    ("America/New_York", "2026-11-01"),
    ("Australia/Lord_Howe", "2026-04-05"),  # half an hour back
    ("Australia/Lord_Howe", "2026-10-04"),  # half an hour forward
    ("America/Sao_Paulo", "2018-11-04"),  # midnight never was
    ("America/Sao_Paulo", "2018-02-18"),  # 23:xx twice
    ("Africa/Casablanca", "2026-02-15"),  # Ramadan: back
    ("Africa/Casablanca", "2026-03-22"),  # and forward again
    ("Asia/Tehran", "2021-03-22"),
    ("Asia/Tehran", "2021-09-22"),
    ("Pacific/Apia", "2011-09-24"),
    ("Pacific/Apia", "2011-12-30"),  # a whole day
    ("Pacific/Apia", "2012-04-01"),
    ("America/St_Johns", "2010-11-07"),  # 00:01 back to 23:01
    ("America/Nuuk", "2027-03-27"),  # 23:00 to midnight
)


@pytest.mark.parametrize(("zone", "change"), CHANGES)
@pytest.mark.parametrize("line", FIXED_LINES)
def test_the_slots_around_a_clock_change_are_those_of_cronsim(
    line: str, zone: str, change: str
) -> None:
    begin = datetime.fromisoformat(change).replace(tzinfo=ZoneInfo(zone)) - timedelta(days=40)
    end = begin.astimezone(UTC) + timedelta(days=80)
    theirs_line = line.replace(" l ", " L ")
    theirs = [
        instant.astimezone(UTC)
        for instant in itertools.takewhile(
            lambda instant: instant.astimezone(UTC) <= end,
            CronSim(theirs_line, begin),
        )
    ]
    ours = [slot.instant for slot in slots(policy(line, zone), FULL, begin, end)]
    assert ours == theirs


@pytest.mark.parametrize(("zone", "change"), CHANGES)
@pytest.mark.parametrize("line", FIXED_LINES)
def test_the_slots_around_a_clock_change_are_those_of_croniter_without_its_second_runs(
    line: str, zone: str, change: str
) -> None:
    begin = datetime.fromisoformat(change).replace(tzinfo=ZoneInfo(zone)) - timedelta(days=40)
    end = begin.astimezone(UTC) + timedelta(days=80)
    theirs: dict[datetime, datetime] = {}
    for instant in croniter(line, begin, datetime):
        if instant.astimezone(UTC) > end:
            break
        theirs.setdefault(instant.replace(tzinfo=None, fold=0), instant.astimezone(UTC))
    ours = [slot.instant for slot in slots(policy(line, zone), FULL, begin, end)]
    assert ours == list(theirs.values())


def minute_by_minute(
    line: CronLine, zone: ZoneInfo, begin: datetime, end: datetime
) -> list[datetime]:
    """An independent reckoning: watch the clock of ``zone`` tick. Each wall time that the line
    names fires when the clock first shows it or first shows something later."""
    found: list[datetime] = []
    clock = begin.astimezone(zone).replace(tzinfo=None)
    reached = clock
    instant = begin
    while instant < end:
        instant += timedelta(minutes=1)
        clock = instant.astimezone(zone).replace(tzinfo=None)
        if clock <= reached:
            continue
        day, fires = reached.date(), False
        while day <= clock.date():
            named = [datetime.combine(day, at) for at in line.times]
            fires = fires or (
                any(reached < at <= clock for at in named) and bool(list(line.dates(day, day)))
            )
            day += timedelta(days=1)
        if fires:
            found.append(instant)
        reached = clock
    return found


@pytest.mark.parametrize(("zone", "change"), CHANGES)
def test_the_slots_around_a_clock_change_are_those_of_a_ticking_clock(
    zone: str, change: str
) -> None:
    begin = (
        datetime.fromisoformat(change).replace(tzinfo=ZoneInfo(zone)) - timedelta(days=1)
    ).astimezone(UTC)
    end = begin + timedelta(days=3)
    for line in ("30 2 * * *", "30 1 * * *", "0 0 * * *", "30 0 * * *", "30 23 * * *", "0 3 * * *"):
        ours = [slot.instant for slot in slots(policy(line, zone), FULL, begin, end)]
        assert ours == minute_by_minute(CronLine.parse(line), ZoneInfo(zone), begin, end), line


@given(once_a_day_lines, zones, instants)
@settings(deadline=None, max_examples=200)
def test_slots_ascend_and_each_has_a_day_and_an_identity_of_its_own(
    line: str, zone: str, begin: datetime
) -> None:
    given_policy = _or_skip(line, zone)
    found = slots(given_policy, FULL, begin, begin + timedelta(days=400))
    assert [slot.instant for slot in found] == sorted({slot.instant for slot in found})
    assert len({slot.identity for slot in found}) == len(found)
    assert len({slot.local_date for slot in found}) == len(found)
    for slot in found:
        wall = slot.instant.astimezone(given_policy.zone).replace(tzinfo=None)
        named = datetime.fromisoformat(slot.identity.removeprefix("full@"))
        assert slot.local_date == named.date()
        assert wall == named or timedelta(0) < wall - named <= timedelta(days=1)


@given(once_a_day_lines, zones, instants, st.timedeltas(timedelta(0), timedelta(days=90)))
@settings(deadline=None, max_examples=150)
def test_neighbours_agree_with_ranges(
    line: str, zone: str, begin: datetime, span: timedelta
) -> None:
    given_policy = _or_skip(line, zone)
    end = begin + span
    found = slots(given_policy, FULL, begin, end)
    walked = []
    at = begin
    while (following := next_slot(given_policy, FULL, at)).instant <= end:
        walked.append(following)
        at = following.instant
    assert walked == found
    if found:
        assert previous_slot(given_policy, FULL, end) == found[-1]
    else:
        before = previous_slot(given_policy, FULL, end)
        assert before is None or before.instant <= begin


@given(zones, st.sampled_from(LogCadence), instants)
def test_log_slots_follow_each_other_at_the_interval(
    zone: str, cadence: LogCadence, begin: datetime
) -> None:
    given_policy = policy(zone=zone, log=cadence.value)
    found = slots(given_policy, LOG, begin, begin + 5 * cadence.interval)
    assert len(found) == 5
    assert all(b.instant - a.instant == cadence.interval for a, b in itertools.pairwise(found))
    assert previous_slot(given_policy, LOG, found[2].instant) == found[2]


def _or_skip(line: str, zone: str) -> Policy:
    try:
        made = policy(line, zone)
    except ValueError:
        assume(False)
        raise
    assume(
        any(made.full.days_of_month(year, month) for year in (2027, 2028) for month in range(1, 13))
    )
    return made
