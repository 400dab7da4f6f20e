"""The page map of a full, read back: the hashes with which its pages are compared."""

from __future__ import annotations

import json
from array import array
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from sqlbak.engines.port import PayloadSource
from sqlbak.engines.postgres.pagehash import HASH_BYTES
from sqlbak.engines.postgres.pagemapping import INDEX_STREAM, MAP_STREAM
from sqlbak.engines.postgres.relationfiles import relation_file
from sqlbak.errors import BaseUnusable, ObjectDamaged, ObjectNotFound

__all__ = ["MappedFile", "PageMap"]

_FRAMES_KEPT = 4
"""The server sends its files in much the same order each time, so few frames are needed again."""


@dataclass(frozen=True, slots=True)
class MappedFile:
    """A relation file as it was in the full: how many pages, and where their hashes lie."""

    blocks: int
    offset: int


@dataclass(slots=True)
class _Directory:
    """The relation files of one directory, by number, ascending."""

    numbers: array[int]
    blocks: array[int]
    offsets: array[int]


class PageMap:
    """The page map of a full, read back: which files it knows (held in memory, some 20 bytes
    each), and hashes by random access. Not for use from several threads."""

    def __init__(self, source: PayloadSource) -> None:
        self._source = source
        self._directories: dict[str, _Directory] = {}
        self._frames: OrderedDict[int, bytes] = OrderedDict()
        self._edges: list[int] = []

    @classmethod
    def read(cls, source: PayloadSource) -> Self:
        """Read the index. BaseUnusable when the map is missing or damaged."""
        page_map = cls(source)
        if not {MAP_STREAM, INDEX_STREAM} <= set(source.streams()):
            raise BaseUnusable("the full's page map is missing")
        page_map._edges = [*source.frame_starts(MAP_STREAM), source.size(MAP_STREAM)]
        try:
            for line in page_map._lines():
                page_map._add(json.loads(line))
        except (ValueError, KeyError, TypeError, OverflowError) as problem:
            raise BaseUnusable(f"the full's page map is damaged: {problem!r}") from None
        page_map._sort()
        return page_map

    def find(self, path: str) -> MappedFile | None:
        """A file by its path in the data directory; None: the full has no hashes of it."""
        file = relation_file(path)
        directory = None if file is None else self._directories.get(file.directory)
        if file is None or directory is None:
            return None
        at = bisect_left(directory.numbers, file.number)
        if at == len(directory.numbers) or directory.numbers[at] != file.number:
            return None
        return MappedFile(directory.blocks[at], directory.offsets[at])

    def hashes(self, file: MappedFile, first_block: int, count: int) -> bytes:
        """The hashes of so many pages, or of fewer where the file ended earlier. BaseUnusable
        when the map is damaged."""
        last_block = min(first_block + count, file.blocks)
        start = file.offset + first_block * HASH_BYTES
        end = file.offset + last_block * HASH_BYTES
        found = b""
        while start < end:
            frame = bisect_right(self._edges, start) - 1
            skipped = start - self._edges[frame]
            piece = self._frame(frame)[skipped : skipped + end - start]
            start += len(piece)
            found += piece
        return found

    def _frame(self, index: int) -> bytes:
        frame = self._frames.get(index)
        if frame is None:
            frame = self._fetch(MAP_STREAM, index)
            if len(frame) != self._edges[index + 1] - self._edges[index]:
                raise BaseUnusable("the full's page map has another size than its index tells")
            self._frames[index] = frame
            if len(self._frames) > _FRAMES_KEPT:
                self._frames.popitem(last=False)
        else:
            self._frames.move_to_end(index)
        return frame

    def _fetch(self, stream: str, index: int) -> bytes:
        try:
            return self._source.read_frame(stream, index)
        except (ObjectDamaged, ObjectNotFound) as problem:
            raise BaseUnusable(f"the full's page map is damaged: {problem.message}") from problem

    def _lines(self) -> Iterator[bytes]:
        rest = b""
        for index in range(len(self._source.frame_starts(INDEX_STREAM))):
            *lines, rest = (rest + self._fetch(INDEX_STREAM, index)).split(b"\n")
            yield from lines
        if rest:
            raise ValueError("its index ends within a line")

    def _add(self, line: Mapping[str, Any]) -> None:
        path, blocks, offset = str(line["path"]), int(line["blocks"]), int(line["offset"])
        file = relation_file(path)
        if file is None or offset < 0 or offset + blocks * HASH_BYTES > self._edges[-1]:
            raise ValueError(f"its index is wrong about {path}")
        directory = self._directories.get(file.directory)
        if directory is None:
            directory = _Directory(array("Q"), array("I"), array("Q"))
            self._directories[file.directory] = directory
        directory.numbers.append(file.number)
        directory.blocks.append(blocks)
        directory.offsets.append(offset)

    def _sort(self) -> None:
        for name, found in self._directories.items():
            order = sorted(range(len(found.numbers)), key=found.numbers.__getitem__)
            numbers = array("Q", (found.numbers[at] for at in order))
            if any(numbers[at] == numbers[at - 1] for at in range(1, len(numbers))):
                raise BaseUnusable(f"the full's page map names a file in {name} twice")
            self._directories[name] = _Directory(
                numbers,
                array("I", (found.blocks[at] for at in order)),
                array("Q", (found.offsets[at] for at in order)),
            )
