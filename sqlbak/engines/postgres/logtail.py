"""Knowing the log again: a digest of its last bytes, taken at the end of each backup.

A cluster that is put back to an older copy of itself (a disk snapshot, say) keeps its identity,
its timeline and its slot. Once it has written past the old end, nothing else tells that its log
is not the one in the vault, and the two glued together restore to nothing that ever was.
Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlbak.engines.postgres.timelines import format_lsn, segment_start
from sqlbak.errors import LogRewritten

__all__ = ["LogTail", "TailKeeper", "another_log", "is_tail", "without_tail"]

_TAIL_BYTES = 4096


@dataclass(frozen=True, slots=True)
class LogTail:
    """The SHA-256 of the log from ``first_lsn`` to ``last_lsn``, all of one segment. The server is
    never told that it may discard the segment of the last of these bytes (see slot.py), so it can
    be asked for them again."""

    first_lsn: int
    last_lsn: int
    sha256: str

    def as_fact(self) -> dict[str, Any]:
        """What stands in a recovery point's facts under ``log_tail``."""
        return {"first_lsn": self.first_lsn, "last_lsn": self.last_lsn, "sha256": self.sha256}

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any] | None, *, at: int) -> LogTail | None:
        """The tail in the facts of the recovery point that ended at ``at``; None if it has none."""
        fact = (facts or {}).get("log_tail")
        if fact is None or fact["last_lsn"] != at:
            return None
        return cls(fact["first_lsn"], fact["last_lsn"], fact["sha256"])


class TailKeeper:
    """Looks at all chunks of a log stream that begins at ``start`` and remembers the last bytes."""

    def __init__(self, start: int) -> None:
        self._position = start
        self._last = b""

    def passing(self, chunks: Iterable[memoryview]) -> Iterator[memoryview]:
        """The same chunks."""
        for chunk in chunks:
            self._position += len(chunk)
            self._last = (self._last + bytes(chunk[-_TAIL_BYTES:]))[-_TAIL_BYTES:]
            yield chunk

    def tail(self, segment_size: int) -> LogTail | None:
        """The tail at the end of what has passed; None if nothing has."""
        end = self._position
        size = min(len(self._last), end - segment_start(end - 1, segment_size))
        if size == 0:
            return None
        digest = hashlib.sha256(self._last[len(self._last) - size :]).hexdigest()
        return LogTail(end - size, end, digest)


def another_log(tail: LogTail) -> LogRewritten:
    """The error for a server whose log is not the one that is known."""
    return LogRewritten(
        f"the server's log before {format_lsn(tail.last_lsn)} is not the log in the"
        " vault: the cluster was put back to an older copy and written on since",
        hint="take a full backup; it starts a new chain",
    )


def is_tail(data: bytes, tail: LogTail) -> bool:
    """Whether ``data``, the log of the tail's range, is the log that is known."""
    return hashlib.sha256(data).hexdigest() == tail.sha256


def without_tail(chunks: Iterable[memoryview], tail: LogTail) -> Iterator[memoryview]:
    """The chunks of a stream that begins at ``tail.first_lsn``, from ``tail.last_lsn`` on.
    LogRewritten, before the first of them, if what comes before is not the log we know."""
    missing = tail.last_lsn - tail.first_lsn
    digest = hashlib.sha256()
    for chunk in chunks:
        if missing == 0:
            yield chunk
            continue
        digest.update(chunk[:missing])
        rest = chunk[missing:]
        missing -= len(chunk) - len(rest)
        if missing == 0:
            if digest.hexdigest() != tail.sha256:
                raise another_log(tail)
            if rest:
                yield rest
