"""Writes the page map of a full backup while its archives pass by: a hash of every page.

Two streams beside the archives: ``pages`` holds the hashes, file after file as they come, and
``pages.index`` a line of JSON for each file: ``{"path", "blocks", "offset"}``, with the path in
the data directory and the offset in ``pages`` in bytes. Nothing of it is held in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from sqlbak.engines.port import PayloadSink, StreamSink
from sqlbak.engines.postgres.pagehash import PageCutter, PageHash
from sqlbak.engines.postgres.relationfiles import archive_prefix, is_archive
from sqlbak.engines.postgres.tarstream import Entry, TarDamaged, TarStream
from sqlbak.errors import BackupFailed

__all__ = ["INDEX_STREAM", "MAP_STREAM", "mapping_pages"]

MAP_STREAM = "pages"
INDEX_STREAM = "pages.index"

_WRITE_BYTES = 64 << 10


@contextmanager
def mapping_pages(sink: PayloadSink, page_hash: PageHash) -> Iterator[PayloadSink]:
    """A sink that passes everything on to ``sink`` and, when the block ends, has written the page
    map of all archives there too. BackupFailed when an archive is none."""
    with sink.stream(MAP_STREAM) as map_writer, sink.stream(INDEX_STREAM) as index_writer:
        hashes, index = _Buffered(map_writer), _Buffered(index_writer)
        yield _MappingSink(sink, page_hash, hashes, index)
        hashes.flush()
        index.flush()


class _MappingSink:
    """Implements engines.port.PayloadSink."""

    def __init__(
        self, sink: PayloadSink, page_hash: PageHash, hashes: _Buffered, index: _Buffered
    ) -> None:
        self._sink = sink
        self._page_hash = page_hash
        self._hashes = hashes
        self._index = index

    @contextmanager
    def stream(self, name: str) -> Iterator[StreamSink]:
        """Open a stream of the sink behind."""
        with self._sink.stream(name) as writer:
            if not is_archive(name):
                yield writer
                return
            mapper = _ArchiveMapper(writer, name, self._page_hash, self._hashes, self._index)
            yield mapper
            mapper.finish()


class _Buffered:
    """Collects small writes into larger ones, and counts them."""

    def __init__(self, writer: StreamSink) -> None:
        self._writer = writer
        self._pending = bytearray()
        self.size = 0

    def write(self, data: bytes) -> None:
        self._pending += data
        self.size += len(data)
        if len(self._pending) >= _WRITE_BYTES:
            self.flush()

    def flush(self) -> None:
        if self._pending:
            self._writer.write(self._pending)
            self._pending.clear()


class _ArchiveMapper:
    """Passes one archive on as it is, and notes the hashes of the pages in it."""

    def __init__(
        self,
        writer: StreamSink,
        name: str,
        page_hash: PageHash,
        hashes: _Buffered,
        index: _Buffered,
    ) -> None:
        self._writer = writer
        self._prefix = archive_prefix(name)
        self._tar = TarStream(name)
        self._page_hash = page_hash
        self._hashes = hashes
        self._index = index
        self._cutter: PageCutter | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._writer.write(data)
        try:
            for event in self._tar.feed(data):
                if isinstance(event, Entry):
                    self._begin(event)
                elif self._cutter is not None:
                    for pages in self._cutter.feed(event.data):
                        self._hashes.write(self._page_hash.of(pages))
        except TarDamaged as problem:
            raise BackupFailed(f"the server sent an unreadable archive: {problem}") from None

    def _begin(self, entry: Entry) -> None:
        path = self._prefix + entry.path
        if not self._page_hash.covers(entry, path):
            self._cutter = None
            return
        self._cutter = PageCutter(self._page_hash.block_size)
        line = {
            "path": path,
            "blocks": entry.size // self._page_hash.block_size,
            "offset": self._hashes.size,
        }
        self._index.write(json.dumps(line).encode() + b"\n")

    def finish(self) -> None:
        try:
            self._tar.finish()
        except TarDamaged as problem:
            raise BackupFailed(f"the server sent an unreadable archive: {problem}") from None
