"""What is restored and where to, and what its last step is told to stop at. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlbak.engines.port import RestoreStep
from sqlbak.engines.sqlserver.address import ServerAddress
from sqlbak.engines.sqlserver.delivery import DiskFolder
from sqlbak.engines.sqlserver.restoring_clock import ClockWitness, StopAt, stop_at_of
from sqlbak.errors import InstantUnreachable
from sqlbak.model import Point, PointType

__all__ = [
    "CLOCKS_DIFFER",
    "DatabaseChain",
    "TargetServer",
    "require_settled",
    "stop_of",
    "witness_of",
]

CLOCKS_DIFFER = timedelta(minutes=1)
"""By how much the clocks of the servers of one group may differ."""


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
    if (last.facts.get("availability_group") or {}).get("clocks_differ"):
        raise InstantUnreachable(
            f"{chain.database}: {chain.stop_at.isoformat()} lies in a log during which the "
            "availability group failed over between servers in different zones: its times cannot "
            "be told apart",
            hint="restore to the end of a recovery point (--to ID; sqlbak list shows them)",
        )
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


def require_settled(steps: Sequence[Point], stop_at: datetime, where: str) -> None:
    """InstantUnreachable where a log before the last step may go on behind ``stop_at`` itself: one
    that a secondary replica took before it had received all. STOPAT is told to the last step only,
    and which of the two it belongs to is not known."""
    for log in steps[:-1]:
        if (
            log.type is PointType.LOG
            and log.covers_until is None
            and log.finished_at + CLOCKS_DIFFER > stop_at
        ):
            raise InstantUnreachable(
                f"{where}: {stop_at.isoformat()} lies in or behind {log.id}, which a secondary "
                "replica took before it had received all log: how far that goes is not known",
                hint="choose an instant outside of it (sqlbak windows), or the end of a recovery "
                "point (--to ID)",
                nearest=(log.finished_at + CLOCKS_DIFFER,),
            )


def witness_of(step: RestoreStep) -> ClockWitness | None:
    """What a step's recovery point saw of its log's clock, when it ended; None: nothing."""
    # The times in a log are the primary's, which may not be the server that gave the log out.
    server = step.facts.get("log_clock") or step.facts.get("server") or {}
    minutes = server.get("utc_offset_minutes")
    if minutes is None:
        return None
    return ClockWitness(
        step.point.finished_at.astimezone(UTC), timedelta(minutes=minutes), server.get("time_zone")
    )
