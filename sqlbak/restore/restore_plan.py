"""What the planner answers: the chain to restore, where to stop, and why not the other points."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from sqlbak.model import Point, ShippedLog
from sqlbak.restore.chain import Certainty

__all__ = [
    "UTC_CLOCK",
    "Clock",
    "Cut",
    "Rejection",
    "RestorePlan",
    "UtcClock",
    "plan_document",
    "step_type",
]


class Clock(Protocol):
    """How instants are written for people and documents."""

    def text(self, instant: datetime) -> str:
        """ISO 8601."""


@dataclass(frozen=True, slots=True)
class UtcClock:
    """ISO 8601 in UTC, with microseconds."""

    def text(self, instant: datetime) -> str:
        """``2024-05-01T10:22:13.000000+00:00``."""
        return instant.astimezone(UTC).isoformat(timespec="microseconds")


UTC_CLOCK = UtcClock()


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a recovery point is not part of the plan, in people's words."""

    point_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Cut:
    """A step whose log reaches past a fork that the plan takes: apply it up to ``lsn`` only.

    PostgreSQL does so by itself when it follows the plan's timeline; SQL Server has to be told
    (``STOPBEFOREMARK = 'lsn:…'``).
    """

    point_id: str
    lsn: int


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """One chain of recovery points that leads to one state.

    Attributes:
        steps: what to restore, in order: a full, at most one differential, logs.
        size_bytes: what is to be fetched.
        estimated_seconds: how long fetching, unpacking and replaying take, by the rates that
            chains were compared with; without the start of a server.
        stop_at: restore every transaction up to this instant and none after it; None: apply the
            last step whole. Where the log ends before a later transaction shows up, its end is
            the state asked for.
        to_the_end: nothing in the chain was committed after ``stop_at``; the last step may be
            applied whole.
        proven_by: the point that proves that nothing up to ``stop_at`` is missing: the last step,
            or an empty log right behind it.
        cuts: the steps that must not be applied whole, at forks.
        rejected: every other point, in the catalog's order.
        clock: how the plan's instants are shown.
        stop_lsn: restore everything before this position of the log and nothing behind it
            (``stop_at`` is then None); None: no such position was asked for.
        shipped: the pieces that the last step stands for where it is shipped log (``is_tail``).
        witness: the piece of shipped log that proves that nothing is missing, where it is none of
            ``shipped``: it holds no log.
    """

    item: str
    lineage: str
    steps: tuple[Point, ...]
    stop_at: datetime | None
    size_bytes: int
    estimated_seconds: float
    certainty: Certainty
    notes: tuple[str, ...]
    rejected: tuple[Rejection, ...]
    proven_by: str
    to_the_end: bool
    cuts: tuple[Cut, ...] = ()
    clock: Clock = field(default=UTC_CLOCK, compare=False)
    stop_lsn: int | None = None
    shipped: tuple[ShippedLog, ...] = ()
    witness: ShippedLog | None = None

    @property
    def proofs(self) -> tuple[ShippedLog, ...]:
        """All shipped log that the plan rests on."""
        return self.shipped if self.witness is None else (*self.shipped, self.witness)


def step_type(step: Point) -> str:
    """What a step is called: the type of its recovery point, or ``tail`` for shipped log."""
    return "tail" if step.is_tail else step.type.value


def plan_document(plan: RestorePlan) -> dict[str, Any]:
    """The plan as JSON values; what ``sqlbak plan --json`` prints."""
    stops = {cut.point_id: cut.lsn for cut in plan.cuts}
    return {
        "item": plan.item,
        "lineage": plan.lineage,
        "steps": [
            {"point": step.id, "type": step_type(step)}
            | ({"stop_lsn": stops[step.id]} if step.id in stops else {})
            for step in plan.steps
        ],
        "bytes": plan.size_bytes,
        "estimated_seconds": round(plan.estimated_seconds, 1),
        "stop_at": None if plan.stop_at is None else plan.clock.text(plan.stop_at),
        "stop_lsn": plan.stop_lsn,
        "certainty": plan.certainty.value,
        "proven_by": plan.proven_by,
        "notes": list(plan.notes),
        "rejected": [
            {"point": rejection.point_id, "reason": rejection.reason} for rejection in plan.rejected
        ],
    }
