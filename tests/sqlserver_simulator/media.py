"""Backup media: families (stripes), positions and sets in real files of a private format.

A file is a row of blocks: tag, length, checksum, content. TAPE describes the family, SSET begins a
set, DATA holds pieces of its payload dealt round-robin over the families, ESET ends it with its
facts. The engine must never look inside.
"""

from __future__ import annotations

import pickle
import random
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

_HEAD = struct.Struct("<4sQI")
CHUNK = 64 * 1024


@dataclass(frozen=True, slots=True)
class SetFile:
    """One database file as a backup set describes it (RESTORE FILELISTONLY)."""

    file_id: int
    kind: str
    logical_name: str
    physical_name: str
    filegroup: str | None
    pages: int
    guid: UUID
    create_lsn: int
    backed_up_pages: int
    max_pages: int = -1
    base_lsn: int | None = None
    base_guid: UUID | None = None
    tde_thumbprint: bytes | None = None


@dataclass(frozen=True, slots=True)
class BackupSet:
    """The facts of one backup set. Names as in msdb.dbo.backupset; dates are local to the server
    that wrote it, cut to whole seconds; LSN ranges are half-open."""

    backup_set_uuid: UUID
    type: str  # D, I or L
    database_name: str
    server_name: str
    machine_name: str
    user_name: str
    position: int
    first_lsn: int
    last_lsn: int
    checkpoint_lsn: int
    database_backup_lsn: int | None
    database_creation_date: datetime
    backup_start_date: datetime
    backup_finish_date: datetime
    time_zone: int
    family_guid: UUID
    database_guid: UUID
    first_recovery_fork_guid: UUID
    last_recovery_fork_guid: UUID
    fork_point_lsn: int | None
    recovery_model: str
    compatibility_level: int
    database_version: int
    software: tuple[int, int, int]
    collation_name: str
    files: tuple[SetFile, ...]
    name: str | None = None
    description: str | None = None
    expiration_date: datetime | None = None
    has_bulk_logged_data: bool = False
    is_snapshot: bool = False
    is_readonly: bool = False
    is_single_user: bool = False
    has_backup_checksums: bool = False
    is_damaged: bool = False
    begins_log_chain: bool = False
    has_incomplete_metadata: bool = False
    is_force_offline: bool = False
    is_copy_only: bool = False
    differential_base_lsn: int | None = None
    differential_base_guid: UUID | None = None
    backup_size: int = 0
    compressed_backup_size: int = 0
    is_compressed: bool = False
    compression_algorithm: str | None = None
    key_algorithm: str | None = None
    encryptor_thumbprint: bytes | None = None
    encryptor_type: str | None = None
    last_valid_restore_time: datetime | None = None
    chain_lsn: int | None = None
    user_access: str = "MULTI_USER"
    finished_at: datetime | None = None

    @property
    def flags(self) -> int:
        """As observed: 512 always, 2048 differential, 1024 copy-only, 16 checksums; the low bits
        as documented in RESTORE HEADERONLY."""
        bits = 512
        for is_set, bit in (
            (self.has_bulk_logged_data, 1),
            (self.is_snapshot, 2),
            (self.is_readonly, 4),
            (self.is_single_user, 8),
            (self.has_backup_checksums, 16),
            (self.is_damaged, 32),
            (self.type == "L" and self.is_force_offline, 64 + 256),
            (self.has_incomplete_metadata, 128),
            (self.is_copy_only, 1024),
            (self.type == "I", 2048),
        ):
            bits |= bit if is_set else 0
        return bits


@dataclass(frozen=True, slots=True)
class Family:
    """The header of one file of a media set."""

    media_set: UUID
    number: int
    count: int
    family_id: UUID
    date: datetime
    is_compressed: bool
    is_encrypted: bool = False
    name: str | None = None
    description: str | None = None
    block_size: int = 4096


class Unreadable(Exception):
    """``where``: header (3241) or data (3183 and 3203)."""

    def __init__(self, where: str, *, truncated: bool = False) -> None:
        self.where = where
        self.truncated = truncated
        super().__init__(where)


@dataclass(slots=True)
class StoredSet:
    """A set as found on one family. ``facts`` is None where it was never finished."""

    position: int
    facts: BackupSet | None
    chunks: list[tuple[int, int, int]] = field(default_factory=list)  # offset, length, checksum
    is_cut: bool = False


@dataclass(slots=True)
class ReadFamily:
    """One media file, read."""

    family: Family
    sets: list[StoredSet]
    data: bytes

    def payload(self, position: int) -> Iterator[bytes]:
        for stored in self.sets:
            if stored.position == position:
                for offset, length, checksum in stored.chunks:
                    piece = self.data[offset : offset + length]
                    if zlib.crc32(piece) != checksum:
                        raise Unreadable("data")
                    yield piece


def block(tag: bytes, content: bytes) -> bytes:
    return _HEAD.pack(tag, len(content), zlib.crc32(content)) + content


def family_block(family: Family) -> bytes:
    return block(b"TAPE", pickle.dumps(family))


def start_block(position: int) -> bytes:
    return block(b"SSET", pickle.dumps(position))


def end_block(facts: BackupSet) -> bytes:
    return block(b"ESET", pickle.dumps(facts))


def data_block(piece: bytes) -> bytes:
    return block(b"DATA", piece)


def _cut(sets: list[StoredSet]) -> None:
    """The file ends in the middle of something: it was truncated after it had been written."""
    if sets:
        sets[-1].is_cut = True


def read_family(data: bytes) -> ReadFamily:
    """Everything but the payload of one media file. Unreadable where headers are damaged."""
    if not data:
        raise Unreadable("empty")
    family: Family | None = None
    sets: list[StoredSet] = []
    at = 0
    while at < len(data):
        if len(data) - at < _HEAD.size:
            _cut(sets)
            break
        tag, length, checksum = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        if (family is None) == (tag != b"TAPE") or (not sets and tag in {b"DATA", b"ESET"}):
            raise Unreadable("header")
        content = data[at : at + length]
        if tag == b"DATA":
            if at + length > len(data):
                _cut(sets)
                break
            sets[-1].chunks.append((at, length, checksum))
        else:
            if len(content) < length or zlib.crc32(content) != checksum:
                if family is None:
                    raise Unreadable("header")
                _cut(sets)
                break
            value: Any = pickle.loads(content)
            if tag == b"TAPE":
                family = value
            elif tag == b"SSET":
                sets.append(StoredSet(value, None))
            elif tag == b"ESET":
                sets[-1].facts = value
        at += length
    if family is None:
        raise Unreadable("header")
    return ReadFamily(family, sets, data)


_SEGMENT = struct.Struct("<QBQ")


def segment(content: Any, filler: int, *, compress: bool, seed: int) -> bytes:
    """Content and filler as one run of bytes; the filler does not compress."""
    body = pickle.dumps(content)
    if compress:
        body = zlib.compress(body, 1)
    noise = random.Random(seed).randbytes(filler)
    return _SEGMENT.pack(len(body), compress, filler) + body + noise


def segments(data: bytes) -> list[Any]:
    """The contents of a payload, in order. Unreadable where it is cut short."""
    found, at = [], 0
    while at < len(data):
        try:
            length, compressed, filler = _SEGMENT.unpack_from(data, at)
            body = data[at + _SEGMENT.size : at + _SEGMENT.size + length]
            found.append(pickle.loads(zlib.decompress(body) if compressed else body))
        except Exception as error:
            raise Unreadable("data") from error
        at += _SEGMENT.size + length + filler
    if at != len(data):
        raise Unreadable("data", truncated=True)
    return found


def gather(families: Sequence[ReadFamily], position: int) -> bytes:
    """The payload of a set from all its families, in family order."""
    hands = [list(family.payload(position)) for family in families]
    out = bytearray()
    for turn in range(max((len(hand) for hand in hands), default=0)):
        for hand in hands:
            if turn < len(hand):
                out += hand[turn]
    return bytes(out)
