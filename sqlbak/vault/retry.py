"""Retries around any object store, for stores that cannot be reached or ask for fewer calls.

A conditional write that is sent again needs care: when the first attempt reached the store and
only its answer was lost, the second one finds the object "changed by another writer", who was
ourselves. So after an attempt with an unknown end, a lost race is believed only if the object does
not hold exactly our bytes. (Every lease and manifest holds something unique to its writer.)
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import TypeVar

from sqlbak.errors import ObjectNotFound, PreconditionFailed, StoreUnreachable
from sqlbak.stopping import NEVER, StopSignal
from sqlbak.vault.store import ObjectInfo, ObjectStore, ObjectWriter

__all__ = ["NO_RETRY", "Retry", "RetryPolicy", "RetryingStore"]

Result = TypeVar("Result")

_DELETE_BATCH = 1000
_COMPARE_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long. Waits double from ``first_wait_seconds`` up to
    ``longest_wait_seconds``; each is cut at random to between half of it and all of it, so that
    many clients of one store do not come back at the same moment."""

    attempts: int = 8
    total_seconds: float = 300.0
    first_wait_seconds: float = 0.25
    longest_wait_seconds: float = 30.0

    def wait_seconds(self, failures: int, chance: float) -> float:
        """How long to wait after so many failures (1 or more); ``chance`` is in [0, 1)."""
        longest = min(self.first_wait_seconds * 2.0 ** (failures - 1), self.longest_wait_seconds)
        return longest * (0.5 + chance / 2)


class Attempts:
    """Failures of one operation so far."""

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self._failures = 0
        self._begun = time.monotonic()

    @property
    def is_first(self) -> bool:
        """Whether no attempt failed yet, so that nothing can have reached the store."""
        return self._failures == 0

    def wait_after(self, error: StoreUnreachable) -> None:
        """Wait before the next attempt. Raises ``error`` when there shall be none, Interrupted
        when somebody asks to stop meanwhile."""
        policy, stop = self._retry.policy, self._retry.stop
        self._failures += 1
        if self._failures >= policy.attempts:
            raise error
        wait = policy.wait_seconds(self._failures, random.random())  # noqa: S311 - no secret
        if time.monotonic() - self._begun + wait > policy.total_seconds:
            raise error
        if stop.wait(wait):
            stop.check()

    def restart(self) -> None:
        """The operation came further than ever before: count anew."""
        self._failures = 0
        self._begun = time.monotonic()


@dataclass(frozen=True, slots=True)
class Retry:
    """A policy, and the signal that ends its waits. The first attempt is made even when the
    signal is set: cleaning up after a stop needs the store."""

    policy: RetryPolicy = RetryPolicy()
    stop: StopSignal = NEVER

    def call(self, action: Callable[[], Result]) -> Result:
        """``action()``, again while it raises StoreUnreachable. For actions that may be done
        twice without harm."""
        attempts = Attempts(self)
        while True:
            try:
                return action()
            except StoreUnreachable as error:
                attempts.wait_after(error)

    def call_once(
        self,
        action: Callable[[], Result],
        was_ours: Callable[[], Result | None],
    ) -> Result:
        """``action()``, a conditional write, again while it raises StoreUnreachable. If a later
        attempt finds the condition broken, ``was_ours`` tells whether that was an earlier one of
        ours that had reached the store: it returns the result then, else None."""
        attempts = Attempts(self)
        while True:
            try:
                return action()
            except PreconditionFailed:
                if attempts.is_first or (result := self.call(was_ours)) is None:
                    raise
                return result
            except StoreUnreachable as error:
                attempts.wait_after(error)


NO_RETRY = Retry(RetryPolicy(attempts=1))
"""Every operation is tried once."""


class RetryingStore:
    """An ObjectStore whose operations are tried again while the store cannot be reached.

    A ``writer`` is passed on as it is: what was handed to it is gone from the caller's hands, so
    only the store itself can send it again (S3Store does, part by part).
    """

    def __init__(self, store: ObjectStore, retry: Retry) -> None:
        self._store = store
        self._retry = retry

    @property
    def url(self) -> str:
        """See ObjectStore.url."""
        return self._store.url

    @property
    def undecorated(self) -> ObjectStore:
        """The store itself: a probe wants to see each answer once."""
        return self._store

    def put(self, key: str, data: bytes, *, if_absent: bool = True) -> ObjectInfo:
        """See ObjectStore.put."""
        return self._retry.call_once(
            lambda: self._store.put(key, data, if_absent=if_absent),
            lambda: self._info_if_holding(key, data),
        )

    def replace(self, key: str, data: bytes, *, if_match: str) -> ObjectInfo:
        """See ObjectStore.replace."""
        return self._retry.call_once(
            lambda: self._store.replace(key, data, if_match=if_match),
            lambda: self._info_if_holding(key, data),
        )

    def writer(self, key: str) -> ObjectWriter:
        """See ObjectStore.writer."""
        return self._retry.call(lambda: self._store.writer(key))

    def get(self, key: str) -> bytes:
        """See ObjectStore.get."""
        return self._retry.call(lambda: self._store.get(key))

    def read(self, key: str, start: int, length: int) -> bytes:
        """See ObjectStore.read."""
        return self._retry.call(lambda: self._store.read(key, start, length))

    def head(self, key: str) -> ObjectInfo:
        """See ObjectStore.head."""
        return self._retry.call(lambda: self._store.head(key))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ObjectStore.list. A listing that breaks off is begun again, and what was told
        already is passed over."""
        return self._listed(prefix, self._retry.call(lambda: self._store.list(prefix)))

    def delete(self, keys: Iterable[str]) -> None:
        """See ObjectStore.delete."""
        rest = iter(keys)
        while batch := list(islice(rest, _DELETE_BATCH)):
            self._retry.call(lambda batch=batch: self._store.delete(batch))  # type: ignore[misc]

    def delete_if(self, key: str, *, if_match: str) -> None:
        """See ObjectStore.delete_if."""
        self._retry.call_once(
            lambda: self._store.delete_if(key, if_match=if_match),
            lambda: True if self._is_gone(key) else None,
        )

    def copy(self, source: str, target: str) -> ObjectInfo:
        """See ObjectStore.copy."""
        return self._retry.call_once(
            lambda: self._store.copy(source, target),
            lambda: self._info_if_equal(source, target),
        )

    def sweep_unfinished(self, prefix: str, *, older_than: datetime) -> int:
        """See ObjectStore.sweep_unfinished. What an attempt that failed had removed is not
        counted."""
        return self._retry.call(lambda: self._store.sweep_unfinished(prefix, older_than=older_than))

    def close(self) -> None:
        """See ObjectStore.close."""
        self._store.close()

    def _listed(self, prefix: str, found: Iterator[ObjectInfo]) -> Iterator[ObjectInfo]:
        attempts = Attempts(self._retry)
        last = ""
        while True:
            try:
                for info in found:
                    if info.key > last:
                        last = info.key
                        attempts.restart()
                        yield info
                return
            except StoreUnreachable as error:
                attempts.wait_after(error)
                found = self._store.list(prefix)

    def _info_if_holding(self, key: str, data: bytes) -> ObjectInfo | None:
        """The object's facts if its bytes are ``data``: read between two looks at its tag, so
        that the tag returned is the tag of these bytes."""
        try:
            info = self._store.head(key)
            if info.size != len(data) or self._store.get(key) != data:
                return None
            return info if self._store.head(key).etag == info.etag else None
        except ObjectNotFound:
            return None

    def _info_if_equal(self, source: str, target: str) -> ObjectInfo | None:
        try:
            info = self._store.head(target)
            if info.size != self._store.head(source).size:
                return None
            for start in range(0, info.size, _COMPARE_BYTES):
                piece = self._store.read(source, start, _COMPARE_BYTES)
                if piece != self._store.read(target, start, _COMPARE_BYTES):
                    return None
        except ObjectNotFound:
            return None
        return info

    def _is_gone(self, key: str) -> bool:
        try:
            self._store.head(key)
        except ObjectNotFound:
            return True
        return False
