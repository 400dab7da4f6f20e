"""Spans of a database's history that STOPAT cannot be told of, against the rule for one instant."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlbak.engines.sqlserver.restoring_clock import ClockWitness, stop_at_of
from sqlbak.engines.sqlserver.untold_spans import BackupTimes, untold_spans
from sqlbak.errors import InstantUnreachable

BERLIN = ZoneInfo("Europe/Berlin")
AUTUMN = datetime(2026, 10, 25, 1, tzinfo=UTC)
SPRING = datetime(2026, 3, 29, 1, tzinfo=UTC)
NAMES = {"named": "W. Europe Standard Time", "unnamed": None, "unknown": "Nowhere Standard Time"}


def logs(start: datetime, lengths: list[timedelta]) -> list[BackupTimes]:
    found, at = [], start
    for length in lengths:
        at += length
        found.append(BackupTimes(at, at - timedelta(seconds=1)))
    return found


def clock(backup: BackupTimes, name: str | None) -> ClockWitness:
    at = backup.finished_at
    return ClockWitness(at, at.astimezone(BERLIN).utcoffset() or timedelta(0), name)


def is_told(row: list[BackupTimes], clocks: list[ClockWitness | None], instant: datetime) -> bool:
    index = next(i for i, log in enumerate(row) if log.covers_until >= instant)
    seen = [clock for clock in clocks[:index] if clock is not None]
    try:
        stop_at_of(
            instant,
            before=seen[-1] if seen else None,
            after=clocks[index],
            earlier=[one for one in clocks if one is not None],
            log_ends_by=row[index].finished_at,
            where="Sales",
        )
    except InstantUnreachable:
        return False
    return True


@given(
    change=st.sampled_from([AUTUMN, SPRING]),
    lead=st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=3)),
    lengths=st.lists(
        st.one_of(
            st.timedeltas(min_value=timedelta(seconds=5), max_value=timedelta(minutes=90)),
            st.timedeltas(min_value=timedelta(hours=1), max_value=timedelta(days=60)),
        ),
        min_size=2,
        max_size=12,
    ),
    name=st.sampled_from(sorted(NAMES)),
    blind=st.sets(st.integers(0, 11)),
    at=st.floats(0, 1),
)
def test_outside_of_the_spans_every_instant_can_be_told(
    change: datetime,
    lead: timedelta,
    lengths: list[timedelta],
    name: str,
    blind: set[int],
    at: float,
) -> None:
    row = logs(change - lead, lengths)
    clocks = [None if i in blind else clock(log, NAMES[name]) for i, log in enumerate(row)]
    spans = untold_spans(row, lambda index: clocks[index])
    start = row[0].covers_until
    instant = start + (row[-1].covers_until - start) * at
    inside = any(
        (span.start <= instant if span.has_start else span.start < instant) and instant < span.end
        for span in spans
    )
    if not inside:
        assert is_told(row, clocks, instant), spans


@pytest.mark.parametrize("name", ["named", "unnamed"])
def test_a_year_of_logs_loses_no_more_than_the_hours_around_the_repeated_one(name: str) -> None:
    row = logs(datetime(2026, 1, 1, tzinfo=UTC), [timedelta(minutes=15)] * 4 * 24 * 364)
    asked: list[int] = []

    def clock_of(index: int) -> ClockWitness:
        asked.append(index)
        return clock(row[index], NAMES[name])

    lost = sum((span.end - span.start for span in untold_spans(row, clock_of)), timedelta(0))
    assert timedelta(hours=1) <= lost <= timedelta(hours=2)
    assert len(asked) < 60


def test_the_first_pass_of_the_repeated_hour_stays_where_a_log_ends_with_it() -> None:
    row = logs(AUTUMN - timedelta(hours=3), [timedelta(hours=1)] * 6)
    row[2] = BackupTimes(AUTUMN, AUTUMN - timedelta(seconds=1))
    (span,) = untold_spans(row, lambda index: clock(row[index], NAMES["named"]))
    assert span.start == AUTUMN - timedelta(seconds=1)
    assert not span.has_start
    assert span.end == AUTUMN + timedelta(hours=1)
