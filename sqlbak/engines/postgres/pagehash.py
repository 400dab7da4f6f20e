"""Hashes of pages, and pages out of content that comes in pieces of any size. No I/O."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import xxhash

from sqlbak.engines.postgres.relationfiles import relation_file
from sqlbak.engines.postgres.tarstream import Entry, EntryKind
from sqlbak.errors import BaseUnusable

__all__ = ["HASH_BYTES", "PageCutter", "PageHash"]

HASH_BYTES = 8

_HASH = "xxh3_64"


@dataclass(frozen=True, slots=True)
class PageHash:
    """How pages are hashed: xxh3_64 with this seed, big-endian, for pages of this many bytes."""

    seed: int
    block_size: int

    @classmethod
    def new(cls, block_size: int) -> Self:
        """One with a seed that nobody can foresee."""
        return cls(secrets.randbits(63), block_size)

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Self:
        """The one that a full was made with. BaseUnusable if it has none that we know."""
        stated = facts.get("page_map")
        if not isinstance(stated, Mapping):
            raise BaseUnusable("the full has no page map: an older version of sqlbak made it")
        if stated.get("hash") != _HASH or stated.get("hash_bytes") != HASH_BYTES:
            raise BaseUnusable(
                f"the full's page map is made of {stated.get('hash')} hashes of "
                f"{stated.get('hash_bytes')} bytes, which this version does not know"
            )
        return cls(int(stated["seed"]), int(stated["block_size"]))

    def as_fact(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "hash": _HASH,
            "seed": self.seed,
            "block_size": self.block_size,
            "hash_bytes": HASH_BYTES,
        }

    def of(self, pages: memoryview) -> bytes:
        """The hashes of whole pages, one after another."""
        size, seed, digest = self.block_size, self.seed, xxhash.xxh3_64_digest
        return b"".join([digest(pages[at : at + size], seed) for at in range(0, len(pages), size)])

    def covers(self, entry: Entry, path: str) -> bool:
        """Whether a file of an archive consists of pages."""
        return (
            entry.kind is EntryKind.FILE
            and entry.size % self.block_size == 0
            and relation_file(path) is not None
        )


class PageCutter:
    """Cuts the content of one file, which comes in pieces of any size, into whole pages."""

    def __init__(self, block_size: int) -> None:
        self._block_size = block_size
        self._begun = bytearray()

    def feed(self, data: memoryview) -> Iterator[memoryview]:
        """Runs of whole pages, in order. What was begun waits for the next call."""
        size = self._block_size
        if self._begun:
            wanted = size - len(self._begun)
            self._begun += data[:wanted]
            data = data[wanted:]
            if len(self._begun) < size:
                return
            page = bytes(self._begun)
            self._begun.clear()
            yield memoryview(page)
        whole = len(data) - len(data) % size
        if whole:
            yield data[:whole]
        self._begun += data[whole:]
