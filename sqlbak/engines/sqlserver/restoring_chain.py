"""What is restored and where to, and what its last step is told to stop at. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlbak.engines.port import RestoreStep
from sqlbak.engines.sqlserver.address import ServerAddress
from sqlbak.engines.sqlserver.delivery import DiskFolder
from sqlbak.engines.sqlserver.restoring_clock import ClockWitness, StopAt, stop_at_of
from sqlbak.model import PointType

__all__ = ["DatabaseChain", "TargetServer", "stop_of", "witness_of"]


@dataclass(frozen=True, slots=True)
class TargetServer:
    """The server that a restore goes to. ``folder``: where backups are put for it; None: it reads
    URLs only."""

    instance: str
    address: ServerAddress
    folder: DiskFolder | None


@dataclass(frozen=True, slots=True)
class DatabaseChain:
    """What is restored, from a plan.

    Attributes:
        database: the name that it had at the source.
        stop_at, stop_lsn: where to stop (UTC; or a position, nothing from which on is applied);
            both None: at the end of the last step.
        to_the_end: the last step may be applied whole.
        is_proven: the recovery points prove that nothing up to ``stop_at`` is missing.
        cuts: by point id, the position up to which a step may be applied.
    """

    steps: tuple[RestoreStep, ...]
    database: str
    lineage: str
    stop_at: datetime | None = None
    stop_lsn: int | None = None
    to_the_end: bool = True
    is_proven: bool = True
    cuts: Mapping[str, int] = field(default_factory=dict)


def stop_of(chain: DatabaseChain) -> StopAt | None:
    """What STOPAT is told for the chain's last step; None: it needs no STOPAT. Raises
    InstantUnreachable where SQL Server could not tell the instant from another one."""
    last = chain.steps[-1]
    if chain.stop_at is None or chain.to_the_end or last.point.type is not PointType.LOG:
        return None
    witnesses = [witness for step in chain.steps if (witness := witness_of(step)) is not None]
    after = witness_of(last)
    before = next((w for w in reversed(witnesses) if after is None or w.at < after.at), None)
    return stop_at_of(
        chain.stop_at,
        before=before,
        after=after,
        earlier=witnesses,
        log_ends_by=last.point.finished_at,
        where=chain.database,
    )


def witness_of(step: RestoreStep) -> ClockWitness | None:
    """What a step's recovery point saw of its server's clock, when it ended; None: nothing."""
    server = step.facts.get("server") or {}
    minutes = server.get("utc_offset_minutes")
    if minutes is None:
        return None
    return ClockWitness(
        step.point.finished_at.astimezone(UTC), timedelta(minutes=minutes), server.get("time_zone")
    )
