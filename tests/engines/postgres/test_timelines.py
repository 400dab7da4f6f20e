"""Timelines, log positions and segment names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlbak.engines.postgres.timelines import (
    HistoryDamaged,
    format_lsn,
    history_name,
    parse_history,
    parse_lsn,
    parse_segment_name,
    segment_name,
    segment_start,
)
from sqlbak.model import Fork, LogPosition

lsns = st.integers(min_value=0, max_value=2**63 - 1)
segment_sizes = st.integers(min_value=20, max_value=30).map(lambda power: 1 << power)


@given(lsns)
def test_a_position_survives_being_written_and_read(lsn: int) -> None:
    assert parse_lsn(format_lsn(lsn)) == lsn


@pytest.mark.parametrize("text", ["", "0", "0/", "/0", "123456789/0", "G/0", "0/0 ", "-1/0"])
def test_other_texts_are_no_position(text: str) -> None:
    with pytest.raises(ValueError):
        parse_lsn(text)


@given(st.integers(1, 2**32 - 1), st.integers(0, 2**56), segment_sizes)
def test_a_segment_name_says_where_its_segment_begins(tli: int, lsn: int, size: int) -> None:
    name = segment_name(tli, lsn, size)
    assert parse_segment_name(name, size) == (tli, segment_start(lsn, size))
    assert segment_start(lsn, size) <= lsn < segment_start(lsn, size) + size


@given(st.integers(0, 2**56), segment_sizes)
def test_segment_names_sort_like_positions(lsn: int, size: int) -> None:
    assert segment_name(1, lsn, size) < segment_name(1, lsn + size, size)


@pytest.mark.parametrize(
    ("lsn", "size", "name"),
    [
        (0x1_0000_0000, 16 << 20, "000000010000000100000000"),
        (0xFF00_0000, 16 << 20, "0000000100000000000000FF"),
        (0x1_0000_0000 - 1, 1 << 20, "000000010000000000000FFF"),
        (0x1_0000_0000 - 1, 1 << 30, "000000010000000000000003"),
    ],
)
def test_segment_names_are_the_servers(lsn: int, size: int, name: str) -> None:
    assert segment_name(1, lsn, size) == name


@pytest.mark.parametrize("name", ["", "x" * 24, "000000010000000000000100", "00000001.history"])
def test_other_file_names_are_no_segment(name: str) -> None:
    with pytest.raises(ValueError):
        parse_segment_name(name, 16 << 20)


HISTORY = parse_history(
    5,
    b"1\t0/3000158\tno recovery target specified\n"
    b"# a remark\n\n"
    b"3\t0/5000000\tbefore 2024-05-01 10:22:13+00\n",
)


def test_a_history_names_each_ancestor_and_where_it_was_left() -> None:
    assert HISTORY.timeline == 5
    assert HISTORY.ancestors == ((1, 0x3000158), (3, 0x5000000))
    assert HISTORY.left_at(1) == 0x3000158
    assert HISTORY.left_at(2) is None
    assert HISTORY.child_of(1) == 3
    assert HISTORY.child_of(3) == 5
    assert HISTORY.forks() == (Fork("3", "1", 0x3000158), Fork("5", "3", 0x5000000))
    assert history_name(31) == "0000001F.history"


@pytest.mark.parametrize(
    ("timeline", "lsn", "held"),
    [
        ("1", 0, True),
        ("1", 0x3000158, True),
        ("1", 0x3000159, False),
        ("2", 0x3000158, False),
        ("3", 0x3000157, False),
        ("3", 0x4000000, True),
        ("5", 0x4FFFFFF, False),
        ("5", 0x5000000, True),
        ("6", 0x5000000, False),
    ],
)
def test_a_position_is_on_the_line_of_descent_or_not(timeline: str, lsn: int, held: bool) -> None:
    assert HISTORY.holds(LogPosition(timeline, lsn)) is held


def test_each_byte_was_written_on_one_timeline() -> None:
    assert [HISTORY.timeline_of(lsn) for lsn in (0, 0x3000157, 0x3000158, 0x5000000)] == [
        1,
        1,
        3,
        5,
    ]


@pytest.mark.parametrize(
    "content",
    [b"not a history\n", b"1\t0/1\tx\n1\t0/2\tx\n", b"1\t0/2\tx\n2\t0/1\tx\n", b"5\t0/1\tx\n"],
)
def test_a_damaged_history_is_refused(content: bytes) -> None:
    with pytest.raises(HistoryDamaged):
        parse_history(5, content)
