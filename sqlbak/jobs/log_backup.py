"""The log of one run: on from where the vault's log ends, or what it can go on from instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlbak.engines.port import BackupResult, DiscoveredItem, LogGap, PayloadSink
from sqlbak.errors import EngineError, LineageConflict, LogChainBroken, LogRewritten, VaultError
from sqlbak.jobs.data_backup import (
    TELLS_BY_LOG_BACKUP,
    differential_or_full,
    healed,
    successor,
    untold,
)
from sqlbak.jobs.log_base import LogBase, find_log_base
from sqlbak.jobs.log_chain import why_no_log
from sqlbak.jobs.sealing import require_same_log, seal
from sqlbak.jobs.taking import Detour, Run, take
from sqlbak.model import EngineName, LogPosition, Note, NoteCode, Point, PointType
from sqlbak.vault.lease import Lease

__all__ = ["log_or_full"]

_BRIDGED_BY_DIFFERENTIAL = frozenset({EngineName.SQLSERVER})
"""Engines whose log may go on from a differential's end, so that one closes a gap in the log."""


def log_or_full(
    run: Run, lease: Lease, points: tuple[Point, ...], found: DiscoveredItem
) -> tuple[Point, ...]:
    """The log under ``lease``, one point for each lineage, or what bridges the gap. ``points``:
    those of the item; ``found``: the server as it was looked at before."""
    if not any(point.type is PointType.FULL for point in points):
        return (healed(run, Detour(PointType.LOG, "there is no full backup yet")),)
    base = find_log_base(
        run.vault,
        run.item.id,
        run.engine.oldest_log(),
        run.notes,
        lineage=None if found.position is None else found.position.lineage,
        after_differentials=run.item.engine in _BRIDGED_BY_DIFFERENTIAL,
    )
    if base is None:
        newest = max(points, key=lambda point: (point.finished_at, point.last_lsn))
        gap = run.engine.log_gap(newest.position) or LogGap(why_no_log(points, found))
        return (_bridged(run, found, Detour(PointType.LOG, gap.why, gap.findings)),)
    if run.item.engine in _BRIDGED_BY_DIFFERENTIAL:
        _tell_gap(run, points, base)
    made: list[Point] = []
    try:
        require_same_log(run.vault, run.item, run.engine, base.point, run.notes)
        _logs(run, lease, base.position, base.facts, made)
    except (LogRewritten, LineageConflict) as broken:
        made.append(successor(run, PointType.LOG, broken))
    except LogChainBroken as broken:
        made.append(_bridged(run, found, Detour(PointType.LOG, broken.message, broken.findings)))
    return tuple(made)


def _tell_gap(run: Run, points: tuple[Point, ...], base: LogBase) -> None:
    """Where log goes on from a full or differential though there was log before it, some of that
    is missing: nobody shall think that it is there."""
    logs = [
        point
        for point in points
        if point.type is PointType.LOG
        and not point.is_copy_only
        and point.lineage == base.point.lineage
    ]
    newest = max(logs, key=lambda point: point.last_lsn, default=None)
    if base.point.type is not PointType.LOG and newest is not None:
        gap = run.engine.log_gap(newest.position)
        missing = f"the log between {newest.id} and {base.point.id} is missing"
        run.notes.append(
            Note(NoteCode.LOG_MISSING, missing if gap is None else f"{missing}: {gap.why}")
        )
        run.notes += () if gap is None else gap.findings


def _bridged(run: Run, found: DiscoveredItem, detour: Detour) -> Point:
    """What the log can go on from, the cheapest that does: a differential where the engine's log
    may begin at one, and where one can be had; else a full."""
    if run.item.engine not in _BRIDGED_BY_DIFFERENTIAL:
        return healed(run, detour)
    run.detours.append(detour)
    with run.leases.acquire(
        f"{run.item.id}.data", purpose=f"healing backup of {run.item.name}", stop=run.stop
    ) as lease:
        return differential_or_full(run, lease, tuple(run.vault.points(run.item.id)), found)


def _logs(
    run: Run,
    lease: Lease,
    start: LogPosition,
    facts: Mapping[str, Any] | None,
    made: list[Point],
) -> None:
    """Log from ``start`` to now into ``made``: one point for each lineage that it crosses."""
    since: LogPosition | None = start
    while since is not None:
        begin, known = since, facts if since == start else None

        def stream(
            sink: PayloadSink,
            _label: str,
            begin: LogPosition = begin,
            known: Mapping[str, Any] | None = known,
        ) -> BackupResult:
            return run.engine.log(
                begin, sink, since_facts=known, progress=run.progress, stop=run.stop
            )

        point, since = take(run, lease, PointType.LOG, stream)
        made.append(point)
        if run.item.engine in TELLS_BY_LOG_BACKUP:
            continue
        try:
            run.engine.acknowledge(since or point.position)
        except LogChainBroken:
            raise
        except EngineError as error:
            run.notes.append(untold(error))
        try:
            seal(run.vault, run.item, point)
        except VaultError as error:
            # The point is in the vault; planning prefers it, and the next log backup tries again.
            kept = f"shipped log that is sealed now was not removed: {error.message}"
            run.notes.append(Note(NoteCode.SHIPPED_LOG, kept))
