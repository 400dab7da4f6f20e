"""Frames of a payload, fetched and decoded by a few threads ahead of the reader.

Memory is bounded: what lies decoded and unread never exceeds the budget, except that one frame is
always allowed.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from types import TracebackType
from typing import Self

from sqlbak.engines.port import PayloadSource
from sqlbak.stopping import StopSignal

__all__ = ["FrameReader", "Range"]

_BUDGET_BYTES = 32 << 20
_WORKERS = min(4, 1 + (os.cpu_count() or 1))
_AHEAD = 2 * _WORKERS

_Key = tuple[int, str, int]


@dataclass(frozen=True, slots=True)
class Range:
    """The bytes ``[start, end)`` of one stream."""

    source: PayloadSource
    stream: str
    start: int
    end: int


_Frame = tuple[PayloadSource, str, int, int]
"""One frame: its stream, its number there, and its size in bytes."""


class FrameReader:
    """Reads byte ranges of streams. Frames near the last position read are kept, and those that
    come next are fetched ahead; nothing that was not asked for is ever fetched. Use it in a
    ``with`` block: leaving it joins its threads. One thread reads at a time."""

    def __init__(self, stop: StopSignal, *, budget_bytes: int = _BUDGET_BYTES) -> None:
        self._stop = stop
        self._budget_bytes = budget_bytes
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="sqlbak-frames")
        self._frames: OrderedDict[_Key, tuple[int, Future[bytes]]] = OrderedDict()
        self._held_bytes = 0
        self._sources: dict[int, PayloadSource] = {}
        self._starts: dict[tuple[int, str], list[int]] = {}
        self._turn = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._frames.clear()

    def read(
        self,
        source: PayloadSource,
        stream: str,
        start: int,
        end: int,
        *,
        following: Callable[[], Iterable[Range]] = tuple,
    ) -> Iterator[memoryview]:
        """The bytes ``[start, end)`` of a stream, in pieces. ``following``: what will be read
        after them, so that it is fetched meanwhile. Raises what the source raises, and
        Interrupted."""
        edges = self._edges(source, stream)
        while start < end:
            here = Range(source, stream, start, end)
            data = self._fetch(
                chain(self._frames_of(here), chain.from_iterable(map(self._frames_of, following())))
            )
            index = bisect_right(edges, start) - 1
            piece = memoryview(data)[start - edges[index] : end - edges[index]]
            yield piece
            start += len(piece)

    def read_frames(
        self, source: PayloadSource, stream: str, indexes: Sequence[int]
    ) -> Iterator[tuple[int, bytes]]:
        """Just these frames, in this order: where each begins in the stream, and its bytes."""
        edges = self._edges(source, stream)
        for at, index in enumerate(indexes):
            ahead = (indexes[later] for later in range(at, len(indexes)))
            data = self._fetch(
                (source, stream, each, edges[each + 1] - edges[each]) for each in ahead
            )
            yield edges[index], data

    def indexes(self, source: PayloadSource, stream: str, start: int, end: int) -> range:
        """The numbers of the frames that hold ``[start, end)`` of a stream."""
        edges = self._edges(source, stream)
        return range(bisect_right(edges, start) - 1, bisect_right(edges, end - 1))

    def _frames_of(self, wanted: Range) -> Iterator[_Frame]:
        if wanted.start >= wanted.end:
            return
        edges = self._edges(wanted.source, wanted.stream)
        source, stream = wanted.source, wanted.stream
        for index in self.indexes(source, stream, wanted.start, wanted.end):
            yield source, stream, index, edges[index + 1] - edges[index]

    def _edges(self, source: PayloadSource, stream: str) -> list[int]:
        key = (id(source), stream)
        if key not in self._starts:
            self._sources[id(source)] = source  # keeps its id from being used again
            self._starts[key] = [*source.frame_starts(stream), source.size(stream)]
        return self._starts[key]

    def _fetch(self, frames: Iterator[_Frame]) -> bytes:
        """The first of these frames; of those after it as many as the budget allows are begun."""
        self._stop.check()
        with self._turn:
            wanted = next(frames)
            future = self._submit(wanted)
            ahead_bytes = wanted[3]
            for frame in islice(frames, _AHEAD):
                ahead_bytes += frame[3]
                if ahead_bytes > self._budget_bytes:
                    break
                self._submit(frame)
        data = future.result()
        if len(data) != wanted[3]:
            raise AssertionError(
                f"frame {wanted[2]} of {wanted[1]} has another size than its index"
            )
        return data

    def _submit(self, frame: _Frame) -> Future[bytes]:
        source, stream, index, size = frame
        key = (id(source), stream, index)
        if key in self._frames:
            self._frames.move_to_end(key)
            return self._frames[key][1]
        while self._frames and self._held_bytes + size > self._budget_bytes:
            _, (freed, future) = self._frames.popitem(last=False)
            future.cancel()
            self._held_bytes -= freed
        future = self._pool.submit(source.read_frame, stream, index)
        self._frames[key] = (size, future)
        self._held_bytes += size
        return future
