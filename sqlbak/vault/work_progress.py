"""How far a running job has come, as its lease's heartbeats carry it to other machines.

Objects of a vault are written once; leases are the only exception, and they are renewed all the
time anyway. So progress costs no request of its own, and is as old as a heartbeat at most.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock
from typing import Any, Self

from sqlbak.progress import Progress
from sqlbak.vault.documents import Fields, instant_text

__all__ = ["CountedProgress", "WorkProgress"]


@dataclass(frozen=True, slots=True)
class WorkProgress:
    """What one job is doing.

    Attributes:
        job_id: as in its running record.
        phase: what it does now, for people; empty: it has just begun.
        done_bytes: of this phase.
        total_bytes: of this phase, estimated; None: not known.
        told_at: on the clock of the job's machine.
    """

    job_id: str
    phase: str
    done_bytes: int
    total_bytes: int | None
    told_at: datetime

    def document(self) -> dict[str, Any]:
        """Its JSON form."""
        return {
            "job_id": self.job_id,
            "phase": self.phase,
            "done_bytes": self.done_bytes,
            "total_bytes": self.total_bytes,
            "told_at": instant_text(self.told_at),
        }

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """The reverse; ObjectDamaged naming the field."""
        return cls(
            job_id=fields.text("job_id"),
            phase=fields.text("phase"),
            done_bytes=fields.integer("done_bytes"),
            total_bytes=None if fields.is_null("total_bytes") else fields.integer("total_bytes"),
            told_at=fields.instant("told_at"),
        )


class CountedProgress:
    """Passes progress on to ``shown`` and remembers how far it is. Safe for several threads."""

    def __init__(
        self, shown: Progress, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._shown = shown
        self._now = now
        self._lock = Lock()
        self._phase = ""
        self._done_bytes = 0
        self._total_bytes: int | None = None

    def phase(self, name: str, total_bytes: int | None = None) -> None:
        """A new phase begins."""
        with self._lock:
            self._phase, self._done_bytes, self._total_bytes = name, 0, total_bytes
        self._shown.phase(name, total_bytes)

    def advance(self, size_bytes: int) -> None:
        """More of this phase is done."""
        with self._lock:
            self._done_bytes += size_bytes
        self._shown.advance(size_bytes)

    def so_far(self, job_id: str) -> WorkProgress:
        """How far the job is now."""
        with self._lock:
            return WorkProgress(
                job_id, self._phase, self._done_bytes, self._total_bytes, self._now()
            )
