"""An object store in memory: the twin of the real ones, for tests. It keeps the whole contract
of sqlbak/vault/store.py, so what works on it works on the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self

from sqlbak.errors import ObjectKeyInvalid, ObjectNotFound, PreconditionFailed, UploadGone
from sqlbak.vault.keys import check_key, check_prefix
from sqlbak.vault.store import ObjectInfo

__all__ = ["MemoryStore", "MemoryWriter"]


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class _Held:
    data: bytes
    info: ObjectInfo


@dataclass(slots=True, eq=False)
class _Unfinished:
    key: str
    begun_at: datetime
    data: bytearray = field(default_factory=bytearray)


class MemoryStore:
    """Objects in a dictionary. ``now`` is the store's clock (aware, UTC)."""

    def __init__(
        self, *, url: str = "memory://vault", now: Callable[[], datetime] = _utc_now
    ) -> None:
        self._url = url
        self._now = now
        self._lock = threading.RLock()
        self._objects: dict[str, _Held] = {}
        self._unfinished: list[_Unfinished] = []
        self._versions = 0

    @property
    def url(self) -> str:
        """The name given to the constructor."""
        return self._url

    def put(self, key: str, data: bytes, *, if_absent: bool = True) -> ObjectInfo:
        """See ObjectStore.put."""
        check_key(key)
        with self._lock:
            if if_absent and key in self._objects:
                raise PreconditionFailed(key)
            return self._hold(key, bytes(data))

    def replace(self, key: str, data: bytes, *, if_match: str) -> ObjectInfo:
        """See ObjectStore.replace."""
        check_key(key)
        with self._lock:
            self._require(key, if_match)
            return self._hold(key, bytes(data))

    def writer(self, key: str) -> MemoryWriter:
        """See ObjectStore.writer."""
        check_key(key)
        unfinished = _Unfinished(key, self._now())
        with self._lock:
            self._unfinished.append(unfinished)
        return MemoryWriter(self, unfinished)

    def get(self, key: str) -> bytes:
        """See ObjectStore.get."""
        return self._find(key).data

    def read(self, key: str, start: int, length: int) -> bytes:
        """See ObjectStore.read."""
        return self._find(key).data[start : start + length]

    def head(self, key: str) -> ObjectInfo:
        """See ObjectStore.head."""
        return self._find(key).info

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ObjectStore.list."""
        check_prefix(prefix)
        with self._lock:
            # Legal keys are ASCII, so that str order is byte order.
            keys = sorted(key for key in self._objects if key.startswith(prefix))
        return self._listed(keys)

    def delete(self, keys: Iterable[str]) -> None:
        """See ObjectStore.delete."""
        for key in keys:
            check_key(key)
            with self._lock:
                self._objects.pop(key, None)

    def delete_if(self, key: str, *, if_match: str) -> None:
        """See ObjectStore.delete_if."""
        check_key(key)
        with self._lock:
            self._require(key, if_match)
            del self._objects[key]

    def copy(self, source: str, target: str) -> ObjectInfo:
        """See ObjectStore.copy."""
        check_key(target)
        return self.put(target, self._find(source).data)

    def sweep_unfinished(self, prefix: str, *, older_than: datetime) -> int:
        """See ObjectStore.sweep_unfinished."""
        check_prefix(prefix)
        with self._lock:
            stale = [
                one
                for one in self._unfinished
                if one.key.startswith(prefix) and one.begun_at < older_than
            ]
            for one in stale:
                self._unfinished.remove(one)
        return len(stale)

    def close(self) -> None:
        """Nothing is held outside memory."""

    def _find(self, key: str) -> _Held:
        check_key(key)
        with self._lock:
            if (held := self._objects.get(key)) is None:
                raise ObjectNotFound(key)
            return held

    def _require(self, key: str, etag: str) -> None:
        held = self._objects.get(key)
        if held is None or held.info.etag != etag:
            raise PreconditionFailed(key)

    def _hold(self, key: str, data: bytes) -> ObjectInfo:
        parts = key.split("/")
        for depth in range(1, len(parts)):
            if (shorter := "/".join(parts[:depth])) in self._objects:
                raise ObjectKeyInvalid(key, f"{shorter} is an object")
        if any(other.startswith(key + "/") for other in self._objects):
            raise ObjectKeyInvalid(key, "there are objects below it")
        self._versions += 1
        info = ObjectInfo(key, len(data), f"v{self._versions}", self._now())
        self._objects[key] = _Held(data, info)
        return info

    def _listed(self, keys: Iterable[str]) -> Iterator[ObjectInfo]:
        for key in keys:
            with self._lock:
                held = self._objects.get(key)
            if held is not None:
                yield held.info

    def _commit(self, unfinished: _Unfinished) -> ObjectInfo:
        with self._lock:
            if unfinished not in self._unfinished:
                raise UploadGone(unfinished.key)
            self._unfinished.remove(unfinished)
            return self.put(unfinished.key, bytes(unfinished.data))

    def _forget(self, unfinished: _Unfinished) -> None:
        with self._lock:
            if unfinished in self._unfinished:
                self._unfinished.remove(unfinished)


class MemoryWriter:
    """One streaming upload into a MemoryStore."""

    def __init__(self, store: MemoryStore, unfinished: _Unfinished) -> None:
        self._store = store
        self._unfinished = unfinished
        self._is_open = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """See ObjectWriter.write."""
        if not self._is_open:
            raise ValueError("this writer is finished")
        self._unfinished.data += data

    def commit(self) -> ObjectInfo:
        """See ObjectWriter.commit."""
        if not self._is_open:
            raise ValueError("this writer is finished")
        self._is_open = False
        return self._store._commit(self._unfinished)

    def abort(self) -> None:
        """See ObjectWriter.abort."""
        if self._is_open:
            self._is_open = False
            self._store._forget(self._unfinished)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, value: object, traceback: object) -> None:
        self.abort()
