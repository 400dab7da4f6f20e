"""Frames of a payload, fetched and decoded by a few threads ahead of the reader.

Memory is bounded: what lies decoded and unread never exceeds the budget, except that one frame is
always allowed.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from sqlbak.engines.port import PayloadSource
from sqlbak.stopping import StopSignal

__all__ = ["FrameReader"]

_BUDGET_BYTES = 32 << 20
_WORKERS = min(4, 1 + (os.cpu_count() or 1))

_Key = tuple[int, str, int]


class FrameReader:
    """Reads byte ranges of streams. Frames near the last position read are kept or fetched ahead.
    Use it in a ``with`` block: leaving it joins its threads. One thread reads at a time."""

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
        self, source: PayloadSource, stream: str, start: int, end: int
    ) -> Iterator[memoryview]:
        """The bytes ``[start, end)`` of a stream, in pieces. Raises what the source raises, and
        Interrupted."""
        edges = self._edges(source, stream)
        index = bisect_right(edges, start) - 1
        while start < end:
            self._stop.check()
            with self._turn:
                future = self._fetch(source, stream, index, edges)
            data = future.result()
            if len(data) != edges[index + 1] - edges[index]:
                raise AssertionError(f"frame {index} of {stream} has another size than its index")
            piece = memoryview(data)[start - edges[index] : end - edges[index]]
            yield piece
            start += len(piece)
            index += 1

    def _edges(self, source: PayloadSource, stream: str) -> list[int]:
        key = (id(source), stream)
        if key not in self._starts:
            self._sources[id(source)] = source  # keeps its id from being used again
            self._starts[key] = [*source.frame_starts(stream), source.size(stream)]
        return self._starts[key]

    def _fetch(
        self, source: PayloadSource, stream: str, index: int, edges: list[int]
    ) -> Future[bytes]:
        """The frame asked for, and as many after it as the budget allows."""
        wanted = self._submit(source, stream, index, edges)
        ahead, ahead_bytes = index + 1, edges[index + 1] - edges[index]
        while ahead + 1 < len(edges):
            ahead_bytes += edges[ahead + 1] - edges[ahead]
            if ahead_bytes > self._budget_bytes or ahead - index > 2 * _WORKERS:
                break
            self._submit(source, stream, ahead, edges)
            ahead += 1
        return wanted

    def _submit(
        self, source: PayloadSource, stream: str, index: int, edges: list[int]
    ) -> Future[bytes]:
        key = (id(source), stream, index)
        if key in self._frames:
            self._frames.move_to_end(key)
            return self._frames[key][1]
        size = edges[index + 1] - edges[index]
        while self._frames and self._held_bytes + size > self._budget_bytes:
            _, (freed, future) = self._frames.popitem(last=False)
            future.cancel()
            self._held_bytes -= freed
        future = self._pool.submit(source.read_frame, stream, index)
        self._frames[key] = (size, future)
        self._held_bytes += size
        return future
