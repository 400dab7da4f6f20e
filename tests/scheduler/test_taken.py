"""A few of an item's recovery points tell all that decides what is due."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from sqlbak.model import Point, PointType
from sqlbak.scheduler.due import Protected, due
from sqlbak.scheduler.taken import telling
from tests.scheduler.test_due import DAILY, MONDAY_NOON, WITH_DIFFERENTIALS, taken

MINUTE = timedelta(minutes=1)


@st.composite
def histories(draw: st.DrawFn) -> list[Point]:
    """Points of several lineages, of clocks that were right and wrong, some with one end."""
    rows = draw(
        st.lists(
            st.tuples(
                st.sampled_from(PointType),
                st.integers(-60 * 24 * 3, 60 * 24 * 40),
                st.integers(0, 4),
                st.sampled_from("12"),
                st.booleans(),
            ),
            max_size=12,
        )
    )
    found = []
    for number, (kind, age, lsn, lineage, is_copy_only) in enumerate(rows):
        point = taken(kind, MONDAY_NOON - age * MINUTE)
        found.append(
            replace(
                point,
                id=f"{point.id[:-1]}{chr(97 + number)}",
                lineage=lineage,
                last_lsn=lsn,
                is_copy_only=is_copy_only and kind is PointType.FULL,
            )
        )
    return found


@given(points=histories(), minutes=st.integers(-600, 60 * 24 * 9))
def test_what_is_kept_decides_as_all_of_it_does(points: list[Point], minutes: int) -> None:
    now = MONDAY_NOON + minutes * MINUTE
    kept = telling(points)
    assert [point for point in points if point in kept] == list(kept)
    for policy in (DAILY, WITH_DIFFERENTIALS):
        assert due([Protected("orders", policy, kept)], now) == due(
            [Protected("orders", policy, points)], now
        )


def test_a_year_of_logs_is_kept_as_one_and_an_idle_servers_as_a_few() -> None:
    full = taken(PointType.FULL, MONDAY_NOON - MINUTE)
    logs = [
        replace(taken(PointType.LOG, MONDAY_NOON + number * MINUTE), last_lsn=3 + number)
        for number in range(2000)
    ]
    assert telling([full, *logs]) == (full, logs[-1])
    idle = [replace(log, last_lsn=3) for log in logs]
    assert telling([full, *idle]) == (full, *idle[-64:])
