"""The messages of the replication protocol, as bytes in and values out. No I/O.

Source: PostgreSQL documentation, "Streaming Replication Protocol". A CopyData message is handed
in without its protocol header, as libpq does.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

__all__ = [
    "CONTENT",
    "ArchiveBegins",
    "BackupMessage",
    "Keepalive",
    "ManifestBegins",
    "MessageDamaged",
    "ProgressReport",
    "WalData",
    "parse_backup_message",
    "parse_wal_message",
    "standby_status",
]

CONTENT = ord("d")
"""First byte of a BASE_BACKUP message that is bytes of the archive or manifest begun last. The
receive loop looks for it by itself: nearly all messages are this one."""

_ARCHIVE = ord("n")
_MANIFEST = ord("m")
_PROGRESS = ord("p")
_WAL = ord("w")
_KEEPALIVE = ord("k")

_INT64 = struct.Struct("!Q")
_WAL_HEADER = struct.Struct("!cQQq")
_KEEPALIVE_MESSAGE = struct.Struct("!cQqB")
_STATUS = struct.Struct("!cQQQqB")
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


class MessageDamaged(ValueError):
    """A message that the protocol does not know, or in an order that it does not allow."""


@dataclass(frozen=True, slots=True)
class ArchiveBegins:
    """A new tar archive: ``base.tar`` or ``<oid>.tar``; ``location`` is the tablespace's
    directory on the server, empty for the data directory itself."""

    name: str
    location: str


@dataclass(frozen=True, slots=True)
class ManifestBegins:
    """The bytes that follow are the backup manifest."""


@dataclass(frozen=True, slots=True)
class ProgressReport:
    """The server has read this many bytes of the current tablespace."""

    done_bytes: int


BackupMessage = ArchiveBegins | ManifestBegins | ProgressReport


def parse_backup_message(message: bytes | memoryview) -> BackupMessage:
    """Any message inside BASE_BACKUP's copy but CONTENT."""
    kind = message[0] if len(message) else -1
    if kind == _ARCHIVE:
        parts = bytes(message[1:]).split(b"\0")
        if len(parts) != 3 or parts[2]:
            raise MessageDamaged("the server announced an archive without a name")
        return ArchiveBegins(parts[0].decode(), parts[1].decode(errors="surrogateescape"))
    if kind == _MANIFEST and len(message) == 1:
        return ManifestBegins()
    if kind == _PROGRESS and len(message) == 9:
        return ProgressReport(_INT64.unpack_from(message, 1)[0])
    raise MessageDamaged(f"the server sent an unknown message inside a base backup ({kind})")


@dataclass(frozen=True, slots=True)
class WalData:
    """Log bytes: ``data`` begins at position ``start``."""

    start: int
    data: memoryview


@dataclass(frozen=True, slots=True)
class Keepalive:
    """The server's sign of life; it has sent everything up to ``end``."""

    end: int
    wants_reply: bool


def parse_wal_message(message: bytes | memoryview) -> WalData | Keepalive:
    """Any message inside START_REPLICATION's copy. ``data`` is a view, not a copy."""
    kind = message[0] if len(message) else -1
    if kind == _WAL and len(message) >= _WAL_HEADER.size:
        _, start, _, _ = _WAL_HEADER.unpack_from(message)
        return WalData(start, memoryview(message)[_WAL_HEADER.size :])
    if kind == _KEEPALIVE and len(message) == _KEEPALIVE_MESSAGE.size:
        _, end, _, wants_reply = _KEEPALIVE_MESSAGE.unpack(message)
        return Keepalive(end, wants_reply != 0)
    raise MessageDamaged(f"the server sent an unknown message inside the log stream ({kind})")


def standby_status(
    *, written: int, flushed: int, now: datetime, wants_reply: bool = False
) -> bytes:
    """Our sign of life. ``flushed`` lets the server discard log, and releases commits that wait
    for a synchronous standby of our name; 0 for both promises nothing. We never apply log."""
    micros = (now - _EPOCH) // timedelta(microseconds=1)
    return _STATUS.pack(b"r", written, flushed, 0, micros, wants_reply)
