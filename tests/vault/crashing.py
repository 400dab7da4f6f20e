"""A store whose process dies at a chosen call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Self, TypeVar

from sqlbak.errors import StoreUnreachable
from sqlbak.vault.store import ObjectInfo, ObjectStore, ObjectWriter

T = TypeVar("T")


class CrashingStore:
    """Passes calls on to ``inner``. The ``last``-th call (from 1) fails, and so do all after it,
    as for a process that died: ``is_done`` says whether that call still took effect. Without
    ``last`` it only counts."""

    def __init__(
        self, inner: ObjectStore, *, last: int | None = None, is_done: bool = False
    ) -> None:
        self.inner = inner
        self.calls: list[str] = []
        self._last = last
        self._is_done = is_done

    @property
    def url(self) -> str:
        return self.inner.url

    def pass_on(self, what: str, call: Callable[[], T]) -> T:
        self.calls.append(what)
        if self._last is None or len(self.calls) < self._last:
            return call()
        if len(self.calls) == self._last and self._is_done:
            call()
        raise StoreUnreachable(f"died at {what}")

    def put(self, key: str, data: bytes, *, if_absent: bool = True) -> ObjectInfo:
        return self.pass_on(f"put {key}", lambda: self.inner.put(key, data, if_absent=if_absent))

    def replace(self, key: str, data: bytes, *, if_match: str) -> ObjectInfo:
        return self.pass_on(
            f"replace {key}", lambda: self.inner.replace(key, data, if_match=if_match)
        )

    def writer(self, key: str) -> ObjectWriter:
        return self.pass_on(
            f"writer {key}", lambda: CrashingWriter(self, key, self.inner.writer(key))
        )

    def get(self, key: str) -> bytes:
        return self.pass_on(f"get {key}", lambda: self.inner.get(key))

    def read(self, key: str, start: int, length: int) -> bytes:
        return self.pass_on(f"read {key}", lambda: self.inner.read(key, start, length))

    def head(self, key: str) -> ObjectInfo:
        return self.pass_on(f"head {key}", lambda: self.inner.head(key))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self.pass_on(f"list {prefix}", lambda: self.inner.list(prefix))

    def delete(self, keys: Iterable[str]) -> None:
        wanted = tuple(keys)
        self.pass_on(f"delete {' '.join(wanted)}", lambda: self.inner.delete(wanted))

    def delete_if(self, key: str, *, if_match: str) -> None:
        self.pass_on(f"delete {key}", lambda: self.inner.delete_if(key, if_match=if_match))

    def copy(self, source: str, target: str) -> ObjectInfo:
        return self.pass_on(f"copy {target}", lambda: self.inner.copy(source, target))

    def sweep_unfinished(self, prefix: str, *, older_than: datetime) -> int:
        return self.pass_on(
            f"sweep {prefix}", lambda: self.inner.sweep_unfinished(prefix, older_than=older_than)
        )

    def close(self) -> None:
        self.inner.close()


class CrashingWriter:
    """An upload of a CrashingStore."""

    def __init__(self, store: CrashingStore, key: str, inner: ObjectWriter) -> None:
        self._store = store
        self._key = key
        self._inner = inner

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._store.pass_on(f"write {self._key}", lambda: self._inner.write(data))

    def commit(self) -> ObjectInfo:
        return self._store.pass_on(f"commit {self._key}", self._inner.commit)

    def abort(self) -> None:
        """A dead process aborts nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, value: object, traceback: object) -> None:
        self.abort()
