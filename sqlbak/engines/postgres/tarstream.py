"""Reads the tar stream that a PostgreSQL server sends, from bytes, without any I/O.

The server writes plain POSIX ustar (src/port/tar.c): names of up to 99 bytes, sizes in octal or,
from 8 GiB, in base 256; files, directories and symbolic links only. Anything else is refused.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

__all__ = ["Content", "Entry", "EntryKind", "TarDamaged", "TarStream"]

_BLOCK = 512
_ZEROS = bytes(_BLOCK)
_HEADER = struct.Struct("100s 8s 8s 8s 12s 12s 8s c 100s 6s 2s 32s 32s 8s 8s 155s 12x")


class TarDamaged(ValueError):
    """Bytes that are no tar stream of a PostgreSQL server; the message says at which byte."""


class EntryKind(Enum):
    """What an entry of the archive is."""

    FILE = b"0"
    DIRECTORY = b"5"
    SYMLINK = b"2"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry begins. ``path`` is relative and free of ``..`` and has no trailing slash; ``""``
    is the top directory itself. ``offset`` is where its content begins in the stream, ``header``
    its header as it stands there."""

    kind: EntryKind
    path: str
    size: int
    mode: int
    link: str
    offset: int
    header: bytes = field(default=b"", repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes of the latest entry, from ``position`` of its file on. ``data`` is a view of what was
    fed: use it before feeding more."""

    position: int
    data: memoryview


class TarStream:
    """Feed it the stream in pieces of any size; call ``finish`` after the last."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._offset = 0  # of the stream, up to which bytes were consumed
        self._header = bytearray()
        self._position = 0  # in the content of the current entry
        self._size = 0
        self._padding = 0
        self._zero_blocks = 0

    def feed(self, data: bytes | bytearray | memoryview) -> Iterator[Entry | Content]:
        """What these bytes hold, in order. The iterator must be used up before the next call.
        Raises TarDamaged."""
        view = memoryview(data)
        while view:
            if self._position < self._size:
                piece = view[: self._size - self._position]
                at = self._position
                self._position += len(piece)
                view = self._consume(view, len(piece))
                yield Content(at, piece)
            elif self._padding:
                skipped = min(self._padding, len(view))
                self._padding -= skipped
                view = self._consume(view, skipped)
            else:
                wanted = _BLOCK - len(self._header)
                self._header += view[:wanted]
                view = self._consume(view, min(wanted, len(view)))
                if len(self._header) == _BLOCK:
                    block = bytes(self._header)
                    self._header.clear()
                    entry = self._begin(block)
                    if entry is not None:
                        yield entry

    def pass_over(self) -> int:
        """Leave out the rest of the current content; the iterator that ``feed`` gave is of no more
        use. Returns the offset in the stream from which to feed on."""
        self._offset += self._size - self._position + self._padding
        self._position, self._padding = self._size, 0
        return self._offset

    def finish(self) -> None:
        """TarDamaged unless the stream ended with its two blocks of zeros."""
        if self._zero_blocks < 2 or self._header or self._position < self._size or self._padding:
            raise self._damaged("it ends before its end mark")

    def _consume(self, view: memoryview, count: int) -> memoryview:
        self._offset += count
        return view[count:]

    def _damaged(self, what: str) -> TarDamaged:
        return TarDamaged(f"{self._name} is damaged at byte {self._offset}: {what}")

    def _begin(self, block: bytes) -> Entry | None:
        if block == _ZEROS:
            self._zero_blocks += 1
            return None
        if self._zero_blocks:
            raise self._damaged("there is more after its end mark")
        fields = _HEADER.unpack(block)
        checksum = sum(block[:148]) + 8 * 0x20 + sum(block[156:])
        if self._number(fields[6]) != checksum or fields[9][:5] != b"ustar":
            raise self._damaged("a header does not match its checksum")
        kind_byte = b"0" if fields[7] == b"\0" else fields[7]
        try:
            kind = EntryKind(kind_byte)
        except ValueError:
            raise self._damaged(f"an entry of unknown kind {kind_byte!r}") from None
        prefix, name = _text(fields[15]), _text(fields[0])
        path = self._safe(f"{prefix}/{name}" if prefix else name)
        self._size = self._number(fields[4]) if kind is EntryKind.FILE else 0
        self._position = 0
        self._padding = -self._size % _BLOCK
        if kind is not EntryKind.DIRECTORY and not path:
            raise self._damaged("a file without a name")
        mode, link = self._number(fields[1]), _text(fields[8])
        return Entry(kind, path, self._size, mode, link, self._offset, block)

    def _number(self, field: bytes) -> int:
        if field[0] & 0x80:
            return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
        digits = field.strip(b" \0")
        try:
            return int(digits, 8) if digits else 0
        except ValueError:
            raise self._damaged(f"{field!r} is no number") from None

    def _safe(self, path: str) -> str:
        """The path without ``.`` and trailing slashes; nothing may lead out of the target."""
        if path.startswith("/") or ".." in path.split("/"):
            raise self._damaged(f"the path {path!r} leads out of the target")
        return "/".join(part for part in path.split("/") if part not in {"", "."})


def _text(field: bytes) -> str:
    return os.fsdecode(field.split(b"\0", 1)[0])
