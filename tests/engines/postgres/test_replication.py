"""The replication protocol's messages, from bytes."""

from __future__ import annotations

import struct
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlbak.engines.postgres.replication import (
    ArchiveBegins,
    Keepalive,
    ManifestBegins,
    MessageDamaged,
    ProgressReport,
    WalData,
    parse_backup_message,
    parse_wal_message,
    standby_status,
)


def test_a_base_backup_announces_its_parts() -> None:
    assert parse_backup_message(b"nbase.tar\0\0") == ArchiveBegins("base.tar", "")
    assert parse_backup_message(b"n16384.tar\0/srv/space\0") == ArchiveBegins(
        "16384.tar", "/srv/space"
    )
    assert parse_backup_message(memoryview(b"m")) == ManifestBegins()
    assert parse_backup_message(b"p" + (123).to_bytes(8)) == ProgressReport(123)


@given(st.binary(max_size=40).filter(lambda message: message[:1] not in (b"n", b"m", b"p")))
def test_an_unknown_message_inside_a_base_backup_is_refused(message: bytes) -> None:
    with pytest.raises(MessageDamaged):
        parse_backup_message(message)


@pytest.mark.parametrize("message", [b"nbase.tar", b"nbase.tar\0", b"mx", b"p123", b"n\0\0\0"])
def test_a_mutilated_message_inside_a_base_backup_is_refused(message: bytes) -> None:
    with pytest.raises(MessageDamaged):
        parse_backup_message(message)


@given(st.integers(0, 2**63), st.binary(max_size=100))
def test_log_bytes_come_with_their_position(start: int, data: bytes) -> None:
    message = b"w" + struct.pack("!QQq", start, start + len(data), 0) + data
    parsed = parse_wal_message(message)
    assert isinstance(parsed, WalData)
    assert (parsed.start, bytes(parsed.data)) == (start, data)


@given(st.integers(0, 2**64 - 1), st.booleans())
def test_a_keepalive_says_whether_it_wants_an_answer(end: int, wants_reply: bool) -> None:
    message = b"k" + struct.pack("!QqB", end, -1, wants_reply)
    assert parse_wal_message(message) == Keepalive(end, wants_reply)


@given(st.binary(max_size=24))
def test_what_is_too_short_for_log_bytes_or_a_keepalive_is_refused(message: bytes) -> None:
    if message[:1] == b"k" and len(message) == 18:
        return
    with pytest.raises(MessageDamaged):
        parse_wal_message(message)


def test_the_status_promises_what_is_flushed_and_never_that_anything_was_applied() -> None:
    noon = datetime(2000, 1, 1, 12, tzinfo=UTC)
    status = standby_status(written=7, flushed=5, now=noon, wants_reply=True)
    assert struct.unpack("!cQQQqB", status) == (b"r", 7, 5, 0, 12 * 3600 * 10**6, 1)
