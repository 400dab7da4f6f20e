"""The log is known again by its last bytes, however it is chunked."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlbak.engines.postgres.logtail import LogTail, TailKeeper, without_tail
from sqlbak.errors import LogChainBroken

SEGMENT = 1 << 20


def chunked(log: bytes, cuts: list[int]) -> list[memoryview]:
    edges = sorted({0, len(log), *(cut % (len(log) + 1) for cut in cuts)})
    return [memoryview(log)[a:b] for a, b in itertools.pairwise(edges)]


def tail_of(start: int, log: bytes, cuts: list[int]) -> LogTail | None:
    keeper = TailKeeper(start)
    assert b"".join(keeper.passing(chunked(log, cuts))) == log
    return keeper.tail(SEGMENT)


starts = st.one_of(st.integers(0, 2**40), st.integers(SEGMENT - 9000, SEGMENT + 10))
logs = st.integers(0, 9000).flatmap(
    lambda size: st.binary(min_size=1, max_size=16).map(
        lambda seed: (seed * (size // len(seed) + 1))[:size]
    )
)
cuts = st.lists(st.integers(0, 2**16), max_size=6)


@given(starts, logs, cuts, cuts)
def test_how_a_log_was_chunked_does_not_change_its_tail(
    start: int, log: bytes, some: list[int], others: list[int]
) -> None:
    tail = tail_of(start, log, some)
    assert tail == tail_of(start, log, others)
    assert (tail is None) == (log == b"")
    if tail is not None:
        end = start + len(log)
        assert tail.last_lsn == end
        assert max(start, end - 4096) <= tail.first_lsn < end
        assert tail.first_lsn // SEGMENT == (end - 1) // SEGMENT
        assert LogTail.of_facts({"log_tail": tail.as_fact()}, at=end) == tail


@given(starts, logs, st.binary(max_size=50), cuts)
def test_what_follows_a_known_tail_is_passed_on(
    start: int, log: bytes, more: bytes, some: list[int]
) -> None:
    tail = tail_of(start, log, [])
    if tail is None:
        return
    again = log[tail.first_lsn - start :] + more
    assert b"".join(without_tail(chunked(again, some), tail)) == more


@given(logs.filter(bool), st.integers(0, 2**16), cuts)
def test_another_log_is_refused_before_any_of_it_is_passed_on(
    log: bytes, place: int, some: list[int]
) -> None:
    tail = tail_of(0, log, [])
    assert tail is not None
    other = bytearray(log[tail.first_lsn :])
    other[place % len(other)] ^= 1
    with pytest.raises(LogChainBroken, match="not the log in the vault"):
        next(without_tail(chunked(bytes(other) + b"more", some), tail), None)


def test_facts_without_a_tail_or_of_another_end_prove_nothing() -> None:
    assert LogTail.of_facts(None, at=5) is None
    assert LogTail.of_facts({"log_tail": None}, at=5) is None
    assert LogTail.of_facts({"log_tail": LogTail(1, 4, "x").as_fact()}, at=5) is None
