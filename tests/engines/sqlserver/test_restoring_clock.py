"""STOPAT: the source server's wall clock, never a later instant than the one asked for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlbak.engines.sqlserver.restoring_clock import (
    ClockWitness,
    format_stop_at,
    stop_at_of,
    zone_named,
)
from sqlbak.errors import InstantUnreachable

BERLIN = ZoneInfo("Europe/Berlin")
HOUR = timedelta(hours=1)
# The clocks of Berlin: 2026-10-25 01:00 UTC back, 2026-03-29 01:00 UTC forward.
BACK = datetime(2026, 10, 25, 1, tzinfo=UTC)
FORWARD = datetime(2026, 3, 29, 1, tzinfo=UTC)


def witness(at: datetime, zone: str | None = "W. Europe Standard Time") -> ClockWitness:
    return ClockWitness(at, at.astimezone(BERLIN).utcoffset() or timedelta(0), zone)


def asked(
    instant: datetime,
    before: datetime,
    after: datetime,
    *,
    zone: str | None = "W. Europe Standard Time",
    ends: datetime | None = None,
) -> str:
    return stop_at_of(
        instant,
        before=witness(before, zone),
        after=witness(after, zone),
        log_ends_by=ends or after,
        where="Sales",
    ).literal


@given(
    st.integers(0, 10**17).map(
        lambda n: datetime(2000, 1, 1, tzinfo=UTC) + timedelta(microseconds=n % (3 * 10**15))
    ),
    st.integers(min_value=-720, max_value=840),
)
@settings(max_examples=300)
def test_what_is_told_is_never_later_than_asked_and_less_than_a_tick_earlier(
    instant: datetime, minutes: int
) -> None:
    clock = ClockWitness(instant - HOUR, timedelta(minutes=minutes))
    later = ClockWitness(instant + HOUR, timedelta(minutes=minutes))
    found = stop_at_of(
        instant, before=clock, after=later, log_ends_by=instant + HOUR, where="Sales"
    )
    assert instant - timedelta(microseconds=3334) < found.instant <= instant
    told = datetime.fromisoformat(found.literal)
    # A datetime literal is read to the nearest 1/300 second, and this one is on that grid.
    tick = (told.microsecond * 300 + 500_000) // 1_000_000
    assert abs(told.microsecond - tick * 1_000_000 / 300) < 400
    exact = told.replace(microsecond=0) + timedelta(microseconds=tick * 1_000_000 // 300)
    assert exact <= (instant + timedelta(minutes=minutes)).replace(tzinfo=None)


@pytest.mark.parametrize(
    ("microsecond", "expected"),
    [(0, "000"), (3_333, "000"), (3_334, "003"), (6_667, "007"), (9_999, "007"), (999_999, "997")],
)
def test_a_fraction_is_rounded_down_to_the_grid_of_a_datetime(
    microsecond: int, expected: str
) -> None:
    wall = datetime(2026, 5, 1, 10, 22, 13, microsecond, tzinfo=UTC)
    assert format_stop_at(wall) == f"2026-05-01T10:22:13.{expected}"


def test_the_zone_of_the_source_decides_not_ours() -> None:
    instant = datetime(2026, 5, 1, 8, 22, 13, tzinfo=UTC)
    assert asked(instant, instant - HOUR, instant + HOUR) == "2026-05-01T10:22:13.000"


@pytest.mark.parametrize(
    ("minutes", "expected"),
    [(-61, "00:59"), (-1, "01:59"), (0, "03:00"), (30, "03:30"), (61, "04:01")],
)
def test_over_the_hour_that_spring_leaves_out_every_instant_has_its_wall_time(
    minutes: int, expected: str
) -> None:
    instant = FORWARD + timedelta(minutes=minutes)
    told = asked(instant, FORWARD - 3 * HOUR, FORWARD + 3 * HOUR)
    assert told == f"2026-03-29T{expected}:00.000"


def test_before_and_after_the_hour_that_autumn_repeats_the_wall_time_is_told() -> None:
    long_log = {"before": BACK - 3 * HOUR, "after": BACK + 3 * HOUR}
    assert asked(BACK - HOUR - timedelta(seconds=1), **long_log) == "2026-10-25T01:59:59.000"
    assert asked(BACK + HOUR, **long_log) == "2026-10-25T03:00:00.000"


def test_in_the_first_pass_it_is_told_only_if_the_log_ends_before_the_second() -> None:
    instant = BACK - timedelta(minutes=30)
    assert asked(instant, BACK - HOUR, BACK - timedelta(minutes=15)) == "2026-10-25T02:30:00.000"
    with pytest.raises(InstantUnreachable, match="goes on into the second pass"):
        asked(instant, BACK - HOUR, BACK + timedelta(minutes=1))


def test_in_the_second_pass_it_is_refused_with_instants_on_both_sides() -> None:
    with pytest.raises(InstantUnreachable, match="second pass") as refused:
        asked(BACK + timedelta(minutes=30), BACK + timedelta(minutes=15), BACK + HOUR)
    before, after = refused.value.nearest
    assert before < BACK - HOUR
    assert after == BACK + HOUR
    for instant in (before, after):
        asked(instant, BACK - 2 * HOUR, BACK + 2 * HOUR)


def test_without_a_zone_equal_offsets_are_enough_and_different_ones_are_refused() -> None:
    instant = datetime(2026, 5, 1, 8, tzinfo=UTC)
    assert asked(instant, instant - HOUR, instant + HOUR, zone=None) == "2026-05-01T10:00:00.000"
    with pytest.raises(InstantUnreachable, match="not known when"):
        asked(FORWARD, FORWARD - HOUR, FORWARD + HOUR, zone=None)


def test_without_a_zone_an_hour_that_repeats_is_seen_by_earlier_recovery_points() -> None:
    instant = BACK + timedelta(minutes=30)
    with pytest.raises(InstantUnreachable):
        stop_at_of(
            instant,
            before=witness(BACK + timedelta(minutes=15), None),
            after=witness(BACK + HOUR, None),
            earlier=[witness(BACK - timedelta(minutes=15), None)],
            log_ends_by=BACK + HOUR,
            where="Sales",
        )
    later = stop_at_of(
        BACK + timedelta(minutes=100),
        before=witness(BACK + timedelta(minutes=90), None),
        after=witness(BACK + 2 * HOUR, None),
        earlier=[witness(BACK + timedelta(minutes=m), None) for m in (-15, 5, 45)],
        log_ends_by=BACK + 2 * HOUR,
        where="Sales",
    )
    assert later.literal == "2026-10-25T03:40:00.000"


def test_equal_offsets_half_a_year_apart_prove_nothing_without_a_zone() -> None:
    start = datetime(2026, 1, 10, tzinfo=UTC)
    end = datetime(2026, 12, 10, tzinfo=UTC)
    with pytest.raises(InstantUnreachable):
        asked(datetime(2026, 7, 1, tzinfo=UTC), start, end, zone=None)


def test_a_zone_that_the_clock_contradicts_is_not_believed() -> None:
    instant = FORWARD + timedelta(minutes=5)
    with pytest.raises(InstantUnreachable):
        asked(instant, FORWARD - HOUR, FORWARD + HOUR, zone="Tokyo Standard Time")


def test_without_any_word_of_the_clock_nothing_is_told() -> None:
    with pytest.raises(InstantUnreachable, match="how far its clock was"):
        stop_at_of(BACK, before=None, after=None, log_ends_by=BACK, where="Sales")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("W. Europe Standard Time", "Europe/Berlin"),
        ("pacific standard time", "America/Los_Angeles"),
        ("Europe/Paris", "Europe/Paris"),
        ("UTC", "Etc/UTC"),
        ("No Such Time", None),
        ("../etc/passwd", None),
        (None, None),
    ],
)
def test_zones_are_known_by_the_names_of_windows_and_of_iana(
    name: str | None, expected: str | None
) -> None:
    found = zone_named(name)
    assert (None if found is None else str(found)) == expected


@given(st.integers(min_value=-3 * 3600, max_value=3 * 3600), st.integers(1, 7200))
@settings(max_examples=200)
def test_around_the_repeated_hour_the_server_would_stop_where_it_should_or_it_is_refused(
    seconds: int, log_seconds: int
) -> None:
    """The oracle scans a commit a minute in log order, as the server does."""
    instant = BACK + timedelta(seconds=seconds)
    start = instant - timedelta(seconds=log_seconds // 2)
    end = instant + timedelta(seconds=log_seconds)
    try:
        told = datetime.fromisoformat(asked(instant, start, end, ends=end))
    except InstantUnreachable:
        return
    commits = [
        start + timedelta(seconds=step) for step in range(0, int((end - start).total_seconds()), 97)
    ]
    applied = []
    for commit in commits:
        if commit.astimezone(BERLIN).replace(tzinfo=None) > told:
            break
        applied.append(commit)
    assert applied == [commit for commit in commits if commit <= instant]
