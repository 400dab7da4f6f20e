"""Walks the records of raw WAL, from bytes, to find where the last whole one lies, when its
transactions ended, and which tablespaces it creates. The layout is that of access/xlog_internal.h
and xlogrecord.h; it has been the same in all supported versions. Little-endian servers only, like
sqlbak's other readers.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

__all__ = [
    "Record",
    "TablespaceFinder",
    "last_record",
    "newest_transaction_end",
    "without_page_headers",
]

_PAGE = 8192
_SHORT_HEADER = 24
_LONG_HEADER = 40
_RECORD_HEADER = 24
_CONTINUES = 0x01  # XLP_FIRST_IS_CONTRECORD
_XLOG_MANAGER = 0  # RM_XLOG_ID
_SWITCH = 0x40  # XLOG_SWITCH
_TRANSACTION_MANAGER = 1  # RM_XACT_ID
_ENDS = frozenset({0x00, 0x20, 0x30, 0x40})  # XLOG_XACT_COMMIT, _ABORT, …_PREPARED
_ORIGIN, _TOP_LEVEL = b"\xfd", b"\xfc"  # XLR_BLOCK_ID_ORIGIN, _TOPLEVEL_XID
_SHORT_DATA, _LONG_DATA = b"\xff", b"\xfe"  # XLR_BLOCK_ID_DATA_SHORT, _LONG
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)

_PAGE_START = struct.Struct("<HHIQI")
_RECORD_START = struct.Struct("<IIQBB")


@dataclass(frozen=True, slots=True)
class Record:
    """One record: where it begins, and where the next could begin."""

    start: int
    end: int


def _header_size(page: int, segment_size: int) -> int:
    return _LONG_HEADER if page % segment_size == 0 else _SHORT_HEADER


def _align(value: int) -> int:
    return -(-value // 8) * 8


class _Walk:
    """Record by record over ``read``, which gives the bytes of ``[start, end)`` of the log."""

    def __init__(
        self, read: Callable[[int, int], bytes], segment_size: int, begin: int, end: int
    ) -> None:
        self._segment_size = segment_size
        self._begin = begin - begin % _PAGE
        self._end = end
        self._bytes = read(self._begin, end)

    def _page(self, page: int) -> tuple[int, int] | None:
        """Flags and remaining length of a page's header; None if there is no such page."""
        at = page - self._begin
        if at + _SHORT_HEADER > len(self._bytes):
            return None
        _, flags, _, address, remaining = _PAGE_START.unpack_from(self._bytes, at)
        return (flags, remaining) if address == page else None

    def first(self) -> int | None:
        """Where the first record begins whose beginning is in reach."""
        page = self._begin
        while (header := self._page(page)) is not None:
            flags, remaining = header
            data = page + _header_size(page, self._segment_size)
            if not flags & _CONTINUES:
                return data
            if data + _align(remaining) < page + _PAGE:
                return data + _align(remaining)
            page += _PAGE
        return None

    def record(self, start: int) -> tuple[Record, bool] | None:
        """The whole record at ``start``, and whether the rest of its segment is unused; None when
        there is none, or only the beginning of one."""
        if start % _PAGE == 0:
            if self._page(start) is None:
                return None
            start += _header_size(start, self._segment_size)
        at = start - self._begin
        if at + 4 > len(self._bytes):
            return None
        (length,) = struct.unpack_from("<I", self._bytes, at)
        if length < _RECORD_HEADER:
            return None
        position, left = start, length
        head = b""
        while True:
            room = _PAGE - position % _PAGE
            if len(head) < _RECORD_START.size:
                taken = min(room, left)
                head += self._bytes[position - self._begin : position - self._begin + taken]
            if left <= room:
                break
            left -= room
            position += room
            header = self._page(position)
            if header is None or not header[0] & _CONTINUES or header[1] != left:
                return None
            position += _header_size(position, self._segment_size)
        if position + left > self._end:
            return None
        end = position + _align(left)
        _, _, _, info, manager = _RECORD_START.unpack_from(head)
        is_switch = manager == _XLOG_MANAGER and info & 0xF0 == _SWITCH
        if is_switch:
            end = -(-end // self._segment_size) * self._segment_size
        return Record(start, end), is_switch

    def content(self, record: Record, *, limit: int) -> bytes:
        """The first bytes of a whole record, ``limit`` at most."""
        (length,) = struct.unpack_from("<I", self._bytes, record.start - self._begin)
        left, position = min(length, limit), record.start
        head = b""
        while left:
            taken = min(_PAGE - position % _PAGE, left)
            head += self._bytes[position - self._begin : position - self._begin + taken]
            left -= taken
            position += taken
            position += _header_size(position, self._segment_size) if left else 0
        return head


def last_record(
    read: Callable[[int, int], bytes], *, segment_size: int, begin: int, end: int
) -> Record | None:
    """The last whole record that begins at or after ``begin`` and ends at or before ``end``; None
    if there is none. ``read(start, end)`` gives raw log; ``end`` may lie inside a record."""
    walk = _Walk(read, segment_size, begin, end)
    position = walk.first()
    last: Record | None = None
    while position is not None and position < end:
        found = walk.record(position)
        if found is None:
            # A crash can leave a record without its end; the log then goes on at a later page
            # (XLP_FIRST_IS_OVERWRITE_CONTRECORD). Nothing after it means that it is the end.
            following = position - position % _PAGE + _PAGE
            resumed = _Walk(read, segment_size, following, end) if following < end else None
            position = resumed.first() if resumed is not None else None
            if position is None or walk.record(position) is None:
                break
            continue
        if found[0].start >= begin:
            last = found[0]
        position = found[0].end
    return last


def newest_transaction_end(data: bytes, start: int, segment_size: int) -> datetime | None:
    """The latest time (UTC) in any record that ends a transaction and lies whole in ``data``, the
    log from ``start`` on; None if there is none. Commits are not logged in the order of their
    times, so it need not be the last."""

    def read(first: int, last: int) -> bytes:
        return data[max(first - start, 0) : last - start]

    end = start + len(data)
    newest: datetime | None = None
    # What precedes the first page's header cannot be read without it; behind the end of a segment
    # that was left early, and behind a record that a crash cut off, the next page is looked for.
    page = start + -start % _PAGE
    while page + _SHORT_HEADER <= end:
        if _PAGE_START.unpack_from(data, page - start)[3] != page:
            page += _PAGE
            continue
        walk = _Walk(read, segment_size, page, end)
        position = walk.first()
        while position is not None and (found := walk.record(position)) is not None:
            ended_at = _transaction_end(walk.content(found[0], limit=_LONGEST_BEGINNING))
            if ended_at is not None and (newest is None or ended_at > newest):
                newest = ended_at
            position = found[0].end
        if position is None:
            break
        page = position - position % _PAGE + _PAGE
    return newest


_LONGEST_BEGINNING = 64


def _transaction_end(record: bytes) -> datetime | None:
    """When the transaction ended that this record ends; None for another record. The time is the
    first field of its data (xl_xact_commit and xl_xact_abort in access/xact.h)."""
    _, _, _, info, manager = _RECORD_START.unpack_from(record)
    if manager != _TRANSACTION_MANAGER or info & 0x70 not in _ENDS:
        return None
    rest = record[_RECORD_HEADER:]
    if rest[:1] == _ORIGIN:
        rest = rest[3:]
    if rest[:1] == _TOP_LEVEL:
        rest = rest[5:]
    if rest[:1] not in (_SHORT_DATA, _LONG_DATA):
        return None
    rest = rest[2 if rest[:1] == _SHORT_DATA else 5 :]
    if len(rest) < 8:
        return None
    (micros,) = struct.unpack_from("<q", rest)
    return _EPOCH + timedelta(microseconds=micros)


def without_page_headers(start: int, data: bytes | memoryview, segment_size: int) -> bytes:
    """``data``, the log from ``start`` on, without the headers of the pages in it."""
    parts = []
    for offset in range(-(start % _PAGE), len(data), _PAGE):
        begin = max(offset + _header_size(start + offset, segment_size), 0)
        parts.append(data[begin : offset + _PAGE])
    return b"".join(parts)


# xl_info 0 (XLOG_TBLSPC_CREATE), xl_rmid 5 (RM_TBLSPC_ID), padding, checksum, then the data header
# (XLR_BLOCK_ID_DATA_SHORT or _LONG, length) and xl_tblspc_create_rec: the id and the path.
_CREATE = re.compile(
    rb"(?s)(?P<length>.{4}).{4}.{8}[\x00-\x0f]\x05\x00\x00.{4}"
    rb"(?:\xff.|\xfe.{4})(?P<oid>.{4})(?P<path>/[^\x00]*)\x00"
)
_CREATE_MARK = re.compile(rb"(?s)\x05\x00\x00.{4}(?:\xff.|\xfe.{4}).{4}/")
_MARK_OFFSET = 17
_OVERLAP = 1200  # longer than any such record: a path has at most 1,024 bytes


class TablespaceFinder:
    """Looks through log that is fed page after page, in order, for CREATE TABLESPACE records.

    Replaying one empties ``<path>/PG_*`` on this machine, wherever that is (tblspc_redo in
    commands/tablespace.c), so a restore must know of it first.
    """

    def __init__(self, segment_size: int) -> None:
        self._segment_size = segment_size
        self._tail = b""
        self._expected: int | None = None

    def feed(self, start: int, data: bytes | memoryview) -> list[str]:
        """Paths of tablespaces created by records that end in ``data``, the log from ``start``
        on. Gaps (and rereading) are fine; records across a gap are not seen."""
        parts = [self._tail] if start == self._expected else []
        view = memoryview(data)
        parts.append(without_page_headers(start, view, self._segment_size))
        stripped = b"".join(parts)
        self._tail, self._expected = stripped[-_OVERLAP:], start + len(view)
        paths: list[str] = []
        for mark in _CREATE_MARK.finditer(stripped):
            match = _CREATE.match(stripped, max(mark.start() - _MARK_OFFSET, 0))
            if match is None:
                continue
            if struct.unpack("<I", match["length"])[0] == match.end() - match.start():
                paths.append(match["path"].decode("utf-8", "surrogateescape"))
        return paths
