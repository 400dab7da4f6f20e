"""A cap on what is sent to a store: a decorator around any store.

Several stores may share a cap, and a store may have several. What is read is not capped: a restore
must not wait.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Self

from sqlbak.stopping import NEVER, StopSignal
from sqlbak.vault.store import ObjectInfo, ObjectStore, ObjectWriter

__all__ = ["BandwidthCap", "ThrottledStore", "ended_by"]

_BURST_SECONDS = 0.25
_PIECE_BYTES = 1 << 20


class BandwidthCap:
    """Bytes a second, shared by all threads that ask. Whoever asks for more than there is waits
    until it would have been there, in the order of asking."""

    def __init__(
        self, bytes_per_second: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = float(bytes_per_second)
        self._clock = clock
        self._lock = threading.Lock()
        self._free_at = clock()

    def wait_seconds(self, size_bytes: int) -> float:
        """Book ``size_bytes`` now; how long to wait before sending them."""
        with self._lock:
            now = self._clock()
            begin = max(self._free_at, now - _BURST_SECONDS)
            self._free_at = begin + size_bytes / self._rate
            return max(begin - now, 0.0)

    def take(self, size_bytes: int, stop: StopSignal = NEVER) -> None:
        """Wait until ``size_bytes`` may be sent. Interrupted when ``stop`` is asked meanwhile."""
        wait = self.wait_seconds(size_bytes)
        if wait > 0 and stop.wait(wait):
            stop.check()


class ThrottledStore:
    """``inner``, sending no faster than any of ``caps`` allows. ``stop`` ends the waits."""

    def __init__(
        self, inner: ObjectStore, caps: Sequence[BandwidthCap], *, stop: StopSignal = NEVER
    ) -> None:
        self._inner = inner
        self._caps = tuple(caps)
        self._stop = stop

    @property
    def url(self) -> str:
        """As of the store inside."""
        return self._inner.url

    def ended_by(self, stop: StopSignal) -> ThrottledStore:
        """The same store under the same caps; ``stop`` alone ends the waits."""
        return ThrottledStore(self._inner, self._caps, stop=stop)

    def writer(self, key: str) -> ObjectWriter:
        """A streaming upload that is held back."""
        return _ThrottledWriter(self._inner.writer(key), self._caps, self._stop)

    # Small objects (leases, records, manifests) are never held back: a lease that is not renewed
    # in time is lost.

    def put(self, key: str, data: bytes, *, if_absent: bool = True) -> ObjectInfo:
        """As of the store inside."""
        return self._inner.put(key, data, if_absent=if_absent)

    def replace(self, key: str, data: bytes, *, if_match: str) -> ObjectInfo:
        """As of the store inside."""
        return self._inner.replace(key, data, if_match=if_match)

    def get(self, key: str) -> bytes:
        """As of the store inside."""
        return self._inner.get(key)

    def read(self, key: str, start: int, length: int) -> bytes:
        """As of the store inside."""
        return self._inner.read(key, start, length)

    def head(self, key: str) -> ObjectInfo:
        """As of the store inside."""
        return self._inner.head(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """As of the store inside."""
        return self._inner.list(prefix)

    def delete(self, keys: Iterable[str]) -> None:
        """As of the store inside."""
        self._inner.delete(keys)

    def delete_if(self, key: str, *, if_match: str) -> None:
        """As of the store inside."""
        self._inner.delete_if(key, if_match=if_match)

    def copy(self, source: str, target: str) -> ObjectInfo:
        """As of the store inside."""
        return self._inner.copy(source, target)

    def sweep_unfinished(self, prefix: str, *, older_than: datetime) -> int:
        """As of the store inside."""
        return self._inner.sweep_unfinished(prefix, older_than=older_than)

    def close(self) -> None:
        """As of the store inside."""
        self._inner.close()


def ended_by(store: ObjectStore, stop: StopSignal) -> ObjectStore:
    """``store``, for one piece of work that ``stop`` ends: its waits for bandwidth end with it, and
    those of others go on."""
    return store.ended_by(stop) if isinstance(store, ThrottledStore) else store


class _ThrottledWriter:
    def __init__(self, inner: ObjectWriter, caps: Sequence[BandwidthCap], stop: StopSignal) -> None:
        self._inner = inner
        self._caps = caps
        self._stop = stop

    def write(self, data: bytes | bytearray | memoryview) -> None:
        # In pieces, so that a large frame does not make the others wait for all of it at once.
        view = memoryview(data).cast("B")
        for start in range(0, len(view), _PIECE_BYTES):
            piece = view[start : start + _PIECE_BYTES]
            for cap in self._caps:
                cap.take(len(piece), self._stop)
            self._inner.write(piece)

    def commit(self) -> ObjectInfo:
        return self._inner.commit()

    def abort(self) -> None:
        self._inner.abort()

    def __enter__(self) -> Self:
        self._inner.__enter__()
        return self

    def __exit__(self, kind: object, value: object, traceback: object) -> None:
        self._inner.__exit__(kind, value, traceback)
