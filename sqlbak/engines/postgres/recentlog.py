"""Looking into the last log that came, on its way into the vault: is the heartbeat in it, and when
was the last transaction in it ended?

A standby cannot say either with certainty: a heartbeat is written on another server, and the time
that it tells of its last transaction may be that of the one before (recoveryStopsAfter in
xlogrecovery.c runs after the position was moved).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from datetime import datetime

from sqlbak.engines.postgres.walrecords import newest_transaction_end, without_page_headers

__all__ = ["RecentLog"]

_KEPT_BYTES = 8 << 20
_LOOKED_THROUGH_BYTES = 1 << 20


class RecentLog:
    """Looks at all chunks of a log stream that begins at ``start`` and remembers the last ones."""

    def __init__(self, start: int, segment_size: int) -> None:
        self._end = start
        self._segment_size = segment_size
        self._chunks: deque[memoryview] = deque()
        self._size = 0

    def passing(self, chunks: Iterable[memoryview]) -> Iterator[memoryview]:
        """The same chunks."""
        for chunk in chunks:
            self.note(chunk)
            yield chunk

    def note(self, chunk: memoryview) -> None:
        """Remember the next chunk."""
        self._end += len(chunk)
        self._chunks.append(chunk)
        self._size += len(chunk)
        while self._size - len(self._chunks[0]) >= _KEPT_BYTES:
            self._size -= len(self._chunks.popleft())

    @property
    def end(self) -> int:
        """The position up to which log has passed."""
        return self._end

    def holds(self, text: str, *, before: int) -> bool:
        """Whether ``text`` stands in the log shortly before the position ``before``."""
        first = before - 4 * len(text) - 512
        data = without_page_headers(*self._between(first, before), self._segment_size)
        return text.encode() in data

    def newest_transaction_end(self) -> datetime | None:
        """The latest time (UTC) in the commit and abort records of the last log, as far as it is
        looked through; None if there is no such record in it."""
        start, data = self._between(self._end - _LOOKED_THROUGH_BYTES, self._end)
        return newest_transaction_end(data, start, self._segment_size)

    def _between(self, first: int, last: int) -> tuple[int, bytes]:
        """What is remembered of that range, and where that begins."""
        begin = self._end - self._size
        data = b"".join(self._chunks)[max(first - begin, 0) : max(last - begin, 0)]
        return max(first, begin), data
