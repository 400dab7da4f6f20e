"""Writes the page map of a full backup while its archives pass by: a hash of every page.

Two streams beside the archives: ``pages`` holds the hashes, file after file as they come, and
``pages.index`` a line of JSON for each file: ``{"path", "blocks", "offset"}``, with the path in
the data directory and the offset in ``pages`` in bytes. A third one, ``archives.index``, says where
every entry lies in its archive (archiveindex.py). Nothing of it is held in memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlbak.engines.port import PayloadSink, StreamSink
from sqlbak.engines.postgres.archiveindex import ARCHIVE_INDEX_STREAM, FileHash, index_line
from sqlbak.engines.postgres.pagehash import PageCutter, PageHash
from sqlbak.engines.postgres.relationfiles import archive_prefix, is_archive
from sqlbak.engines.postgres.tarstream import Entry, EntryKind, TarDamaged, TarStream
from sqlbak.errors import BackupFailed

__all__ = ["INDEX_STREAM", "MAP_STREAM", "mapping_pages"]

MAP_STREAM = "pages"
INDEX_STREAM = "pages.index"

_WRITE_BYTES = 64 << 10


@contextmanager
def mapping_pages(sink: PayloadSink, page_hash: PageHash) -> Iterator[PayloadSink]:
    """A sink that passes everything on to ``sink`` and, when the block ends, has written the page
    map of all archives there too. BackupFailed when an archive is none."""
    with (
        sink.stream(MAP_STREAM) as map_writer,
        sink.stream(INDEX_STREAM) as index_writer,
        sink.stream(ARCHIVE_INDEX_STREAM) as archive_writer,
    ):
        streams = _Streams(
            _Buffered(map_writer), _Buffered(index_writer), _Buffered(archive_writer)
        )
        yield _MappingSink(sink, page_hash, streams)
        streams.flush()


class _MappingSink:
    """Implements engines.port.PayloadSink."""

    def __init__(self, sink: PayloadSink, page_hash: PageHash, streams: _Streams) -> None:
        self._sink = sink
        self._page_hash = page_hash
        self._streams = streams

    @contextmanager
    def stream(self, name: str) -> Iterator[StreamSink]:
        """Open a stream of the sink behind."""
        with self._sink.stream(name) as writer:
            if not is_archive(name):
                yield writer
                return
            mapper = _ArchiveMapper(writer, name, self._page_hash, self._streams)
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


@dataclass(frozen=True, slots=True)
class _Streams:
    """Where hashes of pages, their index and that of the archives go."""

    hashes: _Buffered
    index: _Buffered
    archives: _Buffered

    def flush(self) -> None:
        for stream in (self.hashes, self.index, self.archives):
            stream.flush()


class _ArchiveMapper:
    """Passes one archive on as it is, and notes the hashes of the pages in it."""

    def __init__(
        self, writer: StreamSink, name: str, page_hash: PageHash, streams: _Streams
    ) -> None:
        self._writer = writer
        self._name = name
        self._prefix = archive_prefix(name)
        self._tar = TarStream(name)
        self._page_hash = page_hash
        self._streams = streams
        self._entry: Entry | None = None
        self._cutter: PageCutter | None = None
        self._file_hash: FileHash | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._writer.write(data)
        try:
            for event in self._tar.feed(data):
                if isinstance(event, Entry):
                    self._end()
                    self._begin(event)
                elif self._cutter is not None:
                    for pages in self._cutter.feed(event.data):
                        self._streams.hashes.write(self._page_hash.of(pages))
                elif self._file_hash is not None:
                    self._file_hash.feed(event.data)
        except TarDamaged as problem:
            raise BackupFailed(f"the server sent an unreadable archive: {problem}") from None

    def _begin(self, entry: Entry) -> None:
        path = self._prefix + entry.path
        self._entry, self._cutter, self._file_hash = entry, None, None
        if not self._page_hash.covers(entry, path):
            if entry.kind is EntryKind.FILE:
                self._file_hash = FileHash(self._page_hash.seed)
            return
        self._cutter = PageCutter(self._page_hash.block_size)
        line = {
            "path": path,
            "blocks": entry.size // self._page_hash.block_size,
            "offset": self._streams.hashes.size,
        }
        self._streams.index.write(json.dumps(line).encode() + b"\n")

    def _end(self) -> None:
        if self._entry is not None:
            file_hash = self._file_hash.text() if self._file_hash is not None else None
            self._streams.archives.write(index_line(self._name, self._entry, file_hash))
            self._entry = None

    def finish(self) -> None:
        try:
            self._tar.finish()
        except TarDamaged as problem:
            raise BackupFailed(f"the server sent an unreadable archive: {problem}") from None
        self._end()
