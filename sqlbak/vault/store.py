"""The object-store port. One conformance suite (tests/vault/test_store_conformance.py) runs
against every store; what it asserts is the contract.

Keys are relative to the vault's root: ``items/a/item.json``; segments joined by ``/``, never
empty, never beginning with ``.`` (stores keep their own things there), printable ASCII, at most
900 bytes in all and 240 a segment. No key continues another: where ``a`` is an object, ``a/b``
is not, for a file system could not hold both. sqlbak/vault/keys.py checks this for every store.

Errors (sqlbak.errors): ObjectNotFound, PreconditionFailed, AccessDenied, StoreUnreachable
(StoreThrottled when the store asked for fewer calls), StoreFull, ObjectKeyInvalid, and
VaultUnusable when the place itself (bucket, parent directory) is not there. A store raises
nothing else on purpose. Retry is a decorator (vault/retry.py); a store itself asks once, but for
streaming uploads, whose bytes nobody else still has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, Self

__all__ = ["ObjectInfo", "ObjectStore", "ObjectWriter"]


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object: its key, size in bytes, an opaque version tag for ``if_match``, and when it
    was last written on the store's clock (UTC; for showing and for sweeping, never for order).

    The tag changes whenever the bytes change. S3 gives equal bytes an equal tag, so whoever
    depends on ``if_match`` puts something unique into each version's bytes."""

    key: str
    size: int
    etag: str
    modified_at: datetime


class ObjectWriter(Protocol):
    """A streaming upload. Nothing is visible before ``commit`` returns; after ``abort``, after an
    exception inside the ``with`` block, or after a crash, nothing is visible either (a crash may
    leave leftovers that ``ObjectStore.sweep_unfinished`` removes)."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append. The caller may reuse the buffer as soon as this returns."""

    def commit(self) -> ObjectInfo:
        """Make the object visible, durably. Raises PreconditionFailed if the key exists already:
        payload is written once, like everything else."""

    def abort(self) -> None:
        """Forget everything written so far. Safe to call more than once and after commit."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: object, value: object, traceback: object) -> None:
        """Aborts unless ``commit`` was called."""


class ObjectStore(Protocol):
    """Where objects live. Every method may be called from several threads at once."""

    @property
    def url(self) -> str:
        """Where this is, for messages; holds no secret."""

    def put(self, key: str, data: bytes, *, if_absent: bool = True) -> ObjectInfo:
        """Write a small object at once, durably. With ``if_absent``, PreconditionFailed if it
        exists, decided atomically among concurrent writers."""

    def replace(self, key: str, data: bytes, *, if_match: str) -> ObjectInfo:
        """Overwrite the object only while its etag is still ``if_match``, atomically; else
        PreconditionFailed (also if it is gone). Used for leases only."""

    def writer(self, key: str) -> ObjectWriter:
        """Begin a streaming upload."""

    def get(self, key: str) -> bytes:
        """A whole small object."""

    def read(self, key: str, start: int, length: int) -> bytes:
        """``length`` bytes from ``start``; fewer only at the end of the object."""

    def head(self, key: str) -> ObjectInfo:
        """Facts of one object."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """All objects whose key begins with ``prefix``, ascending by key (byte order), paged
        lazily. Objects of unfinished writers never appear."""

    def delete(self, keys: Iterable[str]) -> None:
        """Delete; a key that is gone already is no error."""

    def delete_if(self, key: str, *, if_match: str) -> None:
        """Delete only while the etag is ``if_match`` (else PreconditionFailed): releases leases."""

    def copy(self, source: str, target: str) -> ObjectInfo:
        """Copy within the store, if ``target`` is absent (else PreconditionFailed)."""

    def sweep_unfinished(self, prefix: str, *, older_than: datetime) -> int:
        """Remove what crashed writers left under ``prefix`` begun before ``older_than``;
        returns how many."""

    def close(self) -> None:
        """Release connections and threads."""
