"""Makes the archives of a differential out of those of a whole base backup, while they pass by.

A relation file that the full has hashes of is replaced by the server's own incremental layout
(``INCREMENTAL.<name>``, see incrementalfile.py) with the pages whose hashes differ, none if nothing
changed. A file all of whose pages changed, and everything else, is kept whole. What the archives of
the differential do not name is gone.

Only the pages' bytes are compared. Their log positions say nothing here: hint bits, free space
maps and new pages change without one.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import SpooledTemporaryFile

from sqlbak.engines.port import PayloadSink, StreamSink
from sqlbak.engines.postgres.incrementalfile import MAGIC, PREFIX
from sqlbak.engines.postgres.pagehash import HASH_BYTES, PageCutter, PageHash
from sqlbak.engines.postgres.pagemap import MappedFile, PageMap
from sqlbak.engines.postgres.relationfiles import archive_prefix, is_archive
from sqlbak.engines.postgres.tarstream import Content, Entry, TarDamaged, TarStream
from sqlbak.engines.postgres.tarwriting import TarWriter
from sqlbak.errors import BackupFailed

__all__ = ["ChangedPagesSink", "incremental_header"]

_SPOOL_BYTES = 16 << 20
_COPY_BYTES = 1 << 20


def incremental_header(numbers: array[int], length: int, block_size: int) -> bytes:
    """What stands before the blocks of an incremental file; ``length`` of the whole one is in
    blocks."""
    header = struct.pack(f"<III{len(numbers)}I", MAGIC, len(numbers), length, *numbers)
    return header + bytes(-len(header) % block_size) if numbers else header


class ChangedPagesSink:
    """A payload sink that passes everything on to another one, but of archives only what differs
    from the full that ``page_map`` tells of.

    Changed pages of one file are kept in memory, or beyond 16 MiB in a temporary file, until their
    number is known. Raises BaseUnusable when the page map is damaged.
    """

    def __init__(self, sink: PayloadSink, page_hash: PageHash, page_map: PageMap) -> None:
        self._sink = sink
        self._page_hash = page_hash
        self._page_map = page_map

    @contextmanager
    def stream(self, name: str) -> Iterator[StreamSink]:
        """Open a stream of the sink behind."""
        with self._sink.stream(name) as writer:
            if not is_archive(name):
                yield writer
                return
            reducer = _ArchiveReducer(writer, name, self._page_hash, self._page_map)
            try:
                yield reducer
                reducer.finish()
            finally:
                reducer.close()


class _ArchiveReducer:
    """Reads one archive and writes another one."""

    def __init__(
        self, writer: StreamSink, name: str, page_hash: PageHash, page_map: PageMap
    ) -> None:
        self._prefix = archive_prefix(name)
        self._tar = TarStream(name)
        self._out = TarWriter(writer)
        self._page_hash = page_hash
        self._page_map = page_map
        self._file: _ChangedFile | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        try:
            for event in self._tar.feed(data):
                if isinstance(event, Entry):
                    self._end_file()
                    self._begin(event)
                else:
                    self._add(event)
        except TarDamaged as problem:
            raise BackupFailed(f"the server sent an unreadable archive: {problem}") from None

    def _begin(self, entry: Entry) -> None:
        path = self._prefix + entry.path
        is_relation = entry.size > 0 and self._page_hash.covers(entry, path)
        base = self._page_map.find(path) if is_relation else None
        if base is None:
            self._out.begin(entry.header, entry.size)
        else:
            self._file = _ChangedFile(entry, base, self._page_hash, self._page_map)

    def _add(self, content: Content) -> None:
        if self._file is None:
            self._out.write(content.data)
        else:
            self._file.add(content.data)

    def _end_file(self) -> None:
        if self._file is not None:
            self._file.write_to(self._out)
            self.close()

    def finish(self) -> None:
        try:
            self._tar.finish()
        except TarDamaged as problem:
            raise BackupFailed(f"the server sent an unreadable archive: {problem}") from None
        self._end_file()
        self._out.finish()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class _ChangedFile:
    """The pages of one relation file that differ from the full's."""

    def __init__(
        self, entry: Entry, base: MappedFile, page_hash: PageHash, page_map: PageMap
    ) -> None:
        self._entry = entry
        self._base = base
        self._page_hash = page_hash
        self._page_map = page_map
        self._length = entry.size // page_hash.block_size
        self._cutter = PageCutter(page_hash.block_size)
        self._next_block = 0
        self._numbers = array("I")
        self._pages = SpooledTemporaryFile[bytes](_SPOOL_BYTES)

    def add(self, data: memoryview) -> None:
        """The next piece of the file."""
        for pages in self._cutter.feed(data):
            self._compare(pages)

    def _compare(self, pages: memoryview) -> None:
        size, first = self._page_hash.block_size, self._next_block
        count = len(pages) // size
        self._next_block += count
        before = self._page_map.hashes(self._base, first, count)
        known = pages[: len(before) // HASH_BYTES * size]
        now = self._page_hash.of(known)
        if now == before and len(known) == len(pages):
            return
        for number in range(count):
            at = number * HASH_BYTES
            if at >= len(before) or now[at : at + HASH_BYTES] != before[at : at + HASH_BYTES]:
                self._numbers.append(first + number)
                self._keep(pages[number * size : (number + 1) * size])

    def _keep(self, page: memoryview) -> None:
        try:
            self._pages.write(page)
        except OSError as problem:
            raise BackupFailed(
                f"changed pages of {self._entry.path} cannot be kept for a moment: {problem}",
                hint="changed pages of one file go through a temporary file; let TMPDIR name a "
                "directory with 1 GiB to spare",
            ) from problem

    def write_to(self, out: TarWriter) -> None:
        """Put the file into an archive, in whichever form."""
        if len(self._numbers) == self._length:
            out.begin(self._entry.header, self._entry.size)
        else:
            header = incremental_header(self._numbers, self._length, self._page_hash.block_size)
            pages_bytes = len(self._numbers) * self._page_hash.block_size
            out.begin(self._entry.header, len(header) + pages_bytes, name_prefix=PREFIX)
            out.write(header)
        self._pages.seek(0)
        while piece := self._pages.read(_COPY_BYTES):
            out.write(piece)

    def close(self) -> None:
        """Give back memory or temporary file."""
        self._pages.close()
