"""Cutting the log stream: how the server chunks it never matters, and a hole is never passed on."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlbak.engines.postgres.replication import MessageDamaged, WalData, parse_wal_message
from sqlbak.engines.postgres.walstream import WalCutter, may_release_commits


@st.composite
def chunked_logs(draw: st.DrawFn) -> tuple[int, bytes, list[bytes]]:
    """Where a log begins, its bytes, and the same bytes as the server's messages."""
    start = draw(st.integers(0, 2**40))
    chunks = draw(st.lists(st.binary(max_size=50), max_size=20))
    messages = []
    position = start
    for chunk in chunks:
        messages.append(b"w" + struct.pack("!QQq", position, 2**63, 0) + chunk)
        position += len(chunk)
    return start, b"".join(chunks), messages


def accept(cutter: WalCutter, message: bytes) -> bytes:
    parsed = parse_wal_message(message)
    assert isinstance(parsed, WalData)
    return bytes(cutter.accept(parsed))


@given(chunked_logs(), st.data())
def test_the_log_ends_exactly_at_an_end_known_beforehand(
    case: tuple[int, bytes, list[bytes]], data: st.DataObject
) -> None:
    start, log, messages = case
    length = data.draw(st.integers(0, len(log)))
    cutter = WalCutter(start, start + length)
    kept = b"".join(accept(cutter, message) for message in messages if not cutter.is_done)
    assert kept == log[:length]
    assert cutter.position == start + length
    assert cutter.is_done


@given(chunked_logs(), st.data())
def test_an_end_known_late_cuts_there_or_where_the_stream_is_already(
    case: tuple[int, bytes, list[bytes]], data: st.DataObject
) -> None:
    start, log, messages = case
    end = start + data.draw(st.integers(0, len(log)))
    known_after = data.draw(st.integers(0, len(messages)))
    cutter = WalCutter(start)
    kept = b""
    for index, message in enumerate(messages):
        if index == known_after:
            cutter.end_at(end)
        if cutter.is_done:
            break
        kept += accept(cutter, message)
    cutter.end_at(end)
    seen = sum(len(message) - 25 for message in messages[:known_after])
    assert kept == log[: max(end - start, seen)]
    assert cutter.position == start + len(kept)


@given(chunked_logs().filter(lambda case: len(case[1]) > 0), st.integers(-100, 100))
def test_a_hole_or_a_repetition_is_refused(
    case: tuple[int, bytes, list[bytes]], shift: int
) -> None:
    start, _, messages = case
    cutter = WalCutter(start + 100 + shift)
    if shift == -100:
        return
    with pytest.raises(MessageDamaged, match="jumped"):
        for message in messages:
            accept(cutter, message)


@pytest.mark.parametrize(
    ("names", "released"),
    [
        (None, False),
        ("", False),
        ("replica1, replica2", False),
        ("sqlbak_replica", False),
        ("*", True),
        ("FIRST 1 (replica1, *)", True),
        ('ANY 1 (replica1, "SqlBak")', True),
        ("sqlbak", True),
    ],
)
def test_a_server_that_may_take_us_for_a_synchronous_standby_is_recognised(
    names: str | None, released: bool
) -> None:
    assert may_release_commits(names) is released
