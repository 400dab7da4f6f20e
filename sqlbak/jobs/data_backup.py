"""Fulls and differentials of one run, and what is taken where neither of them can go on."""

from __future__ import annotations

from sqlbak.engines.port import BackupResult, DiscoveredItem, PayloadSink
from sqlbak.errors import BaseUnusable, EngineError, LineageConflict, LogRewritten
from sqlbak.jobs.differential_base import ahead_of, open_base
from sqlbak.jobs.log_base import find_log_start
from sqlbak.jobs.one_history import require_one_history
from sqlbak.jobs.taking import Detour, Run, take
from sqlbak.model import EngineName, LogPosition, Note, NoteCode, Point, PointType
from sqlbak.vault.lease import Lease

__all__ = [
    "TELLS_BY_LOG_BACKUP",
    "differential_or_full",
    "healed",
    "successor",
    "take_full",
    "untold",
]

TELLS_BY_LOG_BACKUP = frozenset({EngineName.SQLSERVER})
"""Engines that learn from a log backup itself what may be discarded, and whose log is never
shipped ahead."""


def take_full(run: Run, lease: Lease) -> Point:
    """A full under ``lease``; of a new item where the server is of another history now."""
    if points := run.vault.points(run.item.id):
        position = run.engine.inspect().items[0].position
        try:
            require_one_history(run.vault, run.item, run.engine, points, position)
        except LogRewritten as rewritten:
            return successor(run, PointType.FULL, rewritten)

    def stream(sink: PayloadSink, label: str) -> BackupResult:
        return run.engine.full(
            sink,
            label=label,
            progress=run.progress,
            stop=run.stop,
            is_copy_only=run.is_copy_only,
        )

    try:
        point, _ = take(run, lease, PointType.FULL, stream)
    except LineageConflict as conflict:
        return successor(run, PointType.FULL, conflict)
    if run.item.engine in TELLS_BY_LOG_BACKUP:
        return point
    # Where the log goes on from tells what the server may discard: after a first full everything
    # before its end, else nothing that the next log backup still has to fetch. Where no log
    # backups are taken, nothing else ever would let it discard anything.
    try:
        start: LogPosition | None = point.position
        if run.fleet.policy(run.item.instance).log is not None:
            oldest = run.engine.oldest_log()
            start = find_log_start(run.vault, run.item.id, oldest, point.lineage)
        if start is not None:
            run.engine.acknowledge(start)
    except EngineError as error:
        run.notes.append(untold(error))
    return point


def differential_or_full(
    run: Run, lease: Lease, points: tuple[Point, ...], found: DiscoveredItem
) -> Point:
    """A differential under ``lease``, or a full where none can be had. ``points``: those of the
    item; ``found``: the server as it was looked at before."""
    try:
        if ahead_of(points, found.position) is not None:
            # Points may have been committed since that look.
            found = run.engine.inspect().items[0]
        position = found.position
        # A standby that is behind comes yet; the engine waits for it, or gives up.
        if not found.may_lag and (ahead := ahead_of(points, position)) is not None:
            raise LogRewritten(
                f"the server's log ends before the end of {ahead.id}: it was set back to an "
                "older state"
            )
        require_one_history(run.vault, run.item, run.engine, points, position)
        base = open_base(
            run.vault,
            run.item,
            points,
            lineage=found.lineage if position is None else position.lineage,
            method=run.fleet.policy(run.item.instance).differential_method,
        )

        def stream(sink: PayloadSink, label: str) -> BackupResult:
            return run.engine.differential(
                base, sink, label=label, progress=run.progress, stop=run.stop
            )

        point, _ = take(run, lease, PointType.DIFFERENTIAL, stream, base_id=base.point.id)
    except (LogRewritten, LineageConflict) as other:
        return successor(run, PointType.DIFFERENTIAL, other)
    except BaseUnusable as unusable:
        run.detours.append(Detour(PointType.DIFFERENTIAL, unusable.message, unusable.findings))
        return take_full(run, lease)
    if run.item.engine in TELLS_BY_LOG_BACKUP:
        return point
    if run.fleet.policy(run.item.instance).log is None:
        # As after a full: nothing else ever lets the server discard log.
        try:
            run.engine.acknowledge(point.position)
        except EngineError as error:
            run.notes.append(untold(error))
    return point


def successor(run: Run, asked: PointType, other: LogRewritten | LineageConflict) -> Point:
    """The positions of the server's log mean another history from now on. Under the old item, a
    plan could join the two."""
    run.item = run.vault.create_successor(run.item, now=run.now())
    why = f"{other.message}. It goes on as a new item, {run.item.id}"
    return healed(run, Detour(asked, why, new_item=run.item.id))


def healed(run: Run, detour: Detour) -> Point:
    """A full under a lease of its own, and why."""
    run.detours.append(detour)
    with run.leases.acquire(
        f"{run.item.id}.data", purpose=f"healing full of {run.item.name}", stop=run.stop
    ) as lease:
        return take_full(run, lease)


def untold(error: EngineError) -> Note:
    """The point is in the vault; that the server keeps log a while longer is no failure."""
    return Note(
        NoteCode.SERVER_NOT_TOLD,
        f"the server could not be told that it may discard log: {error.message}; "
        "the next log backup tells it",
    )
