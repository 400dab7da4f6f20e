from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlbak.errors import InstantAmbiguous, InstantNonexistent, SqlbakError, UsageError
from sqlbak.policy.local_time import end_of_gap, instants, parse_instant
from tests.policy.strategies import instants as some_instants
from tests.policy.strategies import zones

BERLIN, NEW_YORK = ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York")


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-05-01T10:22:13", "2024-05-01T08:22:13"),
        ("2024-05-01 10:22:13", "2024-05-01T08:22:13"),
        ("2024-05-01T10:22", "2024-05-01T08:22"),
        ("2024-12-01T10:22:13", "2024-12-01T09:22:13"),
        ("2024-05-01T10:22:13Z", "2024-05-01T10:22:13"),
        ("2024-05-01t10:22:13z", "2024-05-01T10:22:13"),
        ("2024-05-01T10:22:13 +02:00", "2024-05-01T08:22:13"),
        ("2024-05-01T10:22:13+0530", "2024-05-01T04:52:13"),
        ("2024-05-01T10:22:13-04", "2024-05-01T14:22:13"),
        ("2024-05-01T10:22:13.25Z", "2024-05-01T10:22:13.250000"),
        ("2024-05-01T10:22:13,123456Z", "2024-05-01T10:22:13.123456"),
        ("2024-05-01T10:22:13.123456000Z", "2024-05-01T10:22:13.123456"),
        ("  2024-05-01T10:22:13Z\n", "2024-05-01T10:22:13"),
        ("2024-02-29T23:59:59-12:00", "2024-03-01T11:59:59"),
    ],
)
def test_a_time_is_read_with_its_offset_or_in_the_zone(text: str, expected: str) -> None:
    found = parse_instant(text, BERLIN)
    assert found == utc(expected)
    assert found.utcoffset() == timedelta(0)


def test_a_time_that_happens_twice_is_refused_with_both_readings() -> None:
    with pytest.raises(InstantAmbiguous) as refused:
        parse_instant("2026-11-01 01:30", NEW_YORK)
    assert refused.value.nearest == (utc("2026-11-01T05:30"), utc("2026-11-01T06:30"))
    assert "2026-11-01T01:30:00-04:00" in refused.value.hint
    assert "2026-11-01T01:30:00-05:00" in refused.value.hint
    for instant in refused.value.nearest:
        typed = instant.astimezone(NEW_YORK).isoformat()
        assert parse_instant(typed, NEW_YORK) == instant


def test_a_time_that_never_happens_is_refused_with_its_neighbours() -> None:
    with pytest.raises(InstantNonexistent) as refused:
        parse_instant("2027-03-14T02:30", NEW_YORK)
    assert refused.value.nearest == (utc("2027-03-14T06:59:59"), utc("2027-03-14T07:00"))
    assert "2027-03-14T01:59:59-05:00" in refused.value.hint
    assert "2027-03-14T03:00:00-04:00" in refused.value.hint


def test_the_edges_of_a_clock_change_are_ordinary_times() -> None:
    assert parse_instant("2027-03-14T01:59:59.999999", NEW_YORK) == utc(
        "2027-03-14T06:59:59.999999"
    )
    assert parse_instant("2027-03-14T03:00:00", NEW_YORK) == utc("2027-03-14T07:00")
    assert parse_instant("2026-11-01T00:59:59", NEW_YORK) == utc("2026-11-01T04:59:59")
    assert parse_instant("2026-11-01T02:00:00", NEW_YORK) == utc("2026-11-01T07:00")


def test_with_an_offset_nothing_is_ambiguous() -> None:
    assert parse_instant("2026-11-01T01:30-04:00", NEW_YORK) == utc("2026-11-01T05:30")
    assert parse_instant("2027-03-14T02:30-05:00", NEW_YORK) == utc("2027-03-14T07:30")


def test_a_day_that_never_was_is_refused() -> None:
    with pytest.raises(InstantNonexistent) as refused:
        parse_instant("2011-12-30T12:00", ZoneInfo("Pacific/Apia"))
    assert refused.value.nearest == (utc("2011-12-30T09:59:59"), utc("2011-12-30T10:00"))


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "2024-05-01T10:22:13"),
        ("yesterday", "2024-05-01T10:22:13"),
        ("latest", "2024-05-01T10:22:13"),
        ("2024-05-01", "2024-05-01T00:00:00"),
        ("2024-W18-3T10:22", "week dates"),
        ("2024W183T1022", "week dates"),
        ("2024-122T10:22", "day numbers"),
        ("20240501T102213Z", "2024-05-01T10:22:13"),
        ("2024-05-01T10", "2024-05-01T10:22:13"),
        ("2024-05-01T10:22:60Z", "59"),
        ("2024-05-01T10:22:61Z", "2024-05-01T10:22:13"),
        ("2024-05-01T24:00:00Z", "next day"),
        ("2024-02-30T10:22:13Z", "2024-05-01T10:22:13"),
        ("2023-02-29T10:22:13Z", "2024-05-01T10:22:13"),
        ("0000-01-01T00:00:00Z", "1970"),
        ("1969-12-31T23:59:59Z", "1970"),
        ("9999-12-31T23:59:59-12:00", "9998"),
        ("+12024-05-01T10:22:13Z", "2024-05-01T10:22:13"),
        ("2024-05-01T10:22:13.1234567Z", "six"),
        ("2024-05-01T10:22:13+25:00", "15:59"),
        ("2024-05-01T10:22:13+02:60", "15:59"),
        ("2024-05-01T10:22:13 Europe/Berlin", "2024-05-01T10:22:13"),
        ("2024-05-01T10:22:13[Europe/Berlin]", "2024-05-01T10:22:13"),
        ("1714552933", "2024-05-01T10:22:13"),
        ("٢٠٢٤-05-01T10:22:13", "2024-05-01T10:22:13"),
        ("2024-05-01T10:22:13\x1b[31m", "2024-05-01T10:22:13"),
        ("2024\N{MINUS SIGN}05\N{MINUS SIGN}01T10:22:13", "2024-05-01T10:22:13"),
    ],
)
def test_anything_else_is_refused_with_what_to_write(text: str, hint: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_instant(text, BERLIN)
    assert hint in refused.value.hint
    assert "\x1b" not in refused.value.message


@given(some_instants, zones)
def test_every_instant_can_be_typed_in_any_zone_with_its_offset(
    instant: datetime, zone: str
) -> None:
    local = instant.astimezone(ZoneInfo(zone))
    assert parse_instant(local.isoformat(), UTC) == instant
    assert parse_instant(local.isoformat(" "), ZoneInfo("Asia/Tehran")) == instant


@given(some_instants, zones)
def test_a_wall_time_stands_for_the_instants_that_show_it(instant: datetime, zone: str) -> None:
    wall = instant.astimezone(ZoneInfo(zone)).replace(tzinfo=None, fold=0)
    found = instants(wall, ZoneInfo(zone))
    assert instant in found
    for each in found:
        assert each.astimezone(ZoneInfo(zone)).replace(tzinfo=None, fold=0) == wall
    typed = wall.isoformat()
    if len(found) == 1:
        assert parse_instant(typed, ZoneInfo(zone)) == instant
    else:
        with pytest.raises(InstantAmbiguous):
            parse_instant(typed, ZoneInfo(zone))


@given(
    st.datetimes(datetime.fromisoformat("2000-01-01"), datetime.fromisoformat("2060-01-01")), zones
)
def test_a_skipped_wall_time_leads_to_the_first_instant_after_the_gap(
    wall: datetime, zone: str
) -> None:
    there = ZoneInfo(zone)
    if instants(wall, there):
        return
    end = end_of_gap(wall, there)
    just_before = end - timedelta(microseconds=1)
    assert just_before.astimezone(there).replace(tzinfo=None) < wall
    assert end.astimezone(there).replace(tzinfo=None) > wall


def test_the_end_of_a_gap_is_exact() -> None:
    wall = datetime.fromisoformat("2027-03-28T02:00:00")
    for minutes in (0, 1, 30, 59):
        assert end_of_gap(wall + timedelta(minutes=minutes), BERLIN) == utc("2027-03-28T01:00")


@given(st.text(max_size=40))
def test_no_text_makes_it_fail_in_another_way(text: str) -> None:
    try:
        assert parse_instant(text, BERLIN).tzinfo is UTC
    except SqlbakError as error:
        assert error.hint


@given(
    st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2})?(Z|[+-][0-9]{4})?")
)
def test_no_near_miss_makes_it_fail_in_another_way(text: str) -> None:
    try:
        assert parse_instant(text, NEW_YORK).tzinfo is UTC
    except SqlbakError as error:
        assert error.hint
