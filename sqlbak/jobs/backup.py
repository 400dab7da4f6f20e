"""Taking one backup: look at the server, take the item's lease, stream, commit, acknowledge.

The order is the promise: the running record before the first byte, the manifest after the last,
and the server is told that log may go only after the manifest is in the vault.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlbak.engines.port import (
    BackupResult,
    DiscoveredItem,
    Inspection,
    PayloadSink,
    Severity,
)
from sqlbak.errors import (
    BackupPaused,
    BaseUnusable,
    EngineError,
    LineageConflict,
    LogChainBroken,
    LogRewritten,
    ServerNotReady,
    VaultError,
)
from sqlbak.fleet import Fleet, instance_of
from sqlbak.jobs.differential_base import ahead_of, open_base
from sqlbak.jobs.left_logs import sweep_item, take_left_logs
from sqlbak.jobs.log_base import LogBase, find_log_base, find_log_start
from sqlbak.jobs.log_chain import is_set_back, why_no_log
from sqlbak.jobs.one_history import require_one_history
from sqlbak.jobs.sealing import require_same_log, seal
from sqlbak.jobs.taking import Run, take
from sqlbak.model import EngineName, Item, LogPosition, Point, PointType
from sqlbak.policy.calendar import Slot
from sqlbak.progress import NO_PROGRESS, Progress
from sqlbak.stopping import NEVER, StopSignal
from sqlbak.vault.lease import Lease
from sqlbak.vault.work_progress import CountedProgress

__all__ = ["BackupOutcome", "back_up"]

StillDue = Callable[[tuple[Point, ...]], bool]

_BRIDGED_BY_DIFFERENTIAL = frozenset({EngineName.SQLSERVER})
"""Engines whose log may go on from a differential's end, so that one closes a gap in the log."""

_TELLS_BY_LOG_BACKUP = frozenset({EngineName.SQLSERVER})
"""Engines that learn from a log backup itself what may be discarded, and whose log is never
shipped ahead."""


@dataclass(frozen=True, slots=True)
class BackupOutcome:
    """What one run made: no point when it was not due any more, two when the log crossed a fork.
    ``notes`` are sentences for people, such as why a full was taken instead of a log."""

    item: Item
    points: tuple[Point, ...]
    notes: tuple[str, ...] = ()


def back_up(
    fleet: Fleet,
    name: str,
    point_type: PointType,
    *,
    is_copy_only: bool = False,
    slot: Slot | None = None,
    still_due: StillDue | None = None,
    progress: Progress = NO_PROGRESS,
    stop: StopSignal = NEVER,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    wait_seconds: float = 0.0,
) -> BackupOutcome:
    """Take one backup of the item called ``name`` (see sqlbak/fleet.py) and commit it.

    A log backup that cannot continue the vault's log (none yet, log lost, another lineage) becomes
    a full, and so does a differential whose full cannot serve (none yet, of another lineage,
    damaged); the outcome's notes say why. ``slot`` is the scheduled instant that the run serves.
    ``still_due`` is asked under the lease, with the points as they are then. ``wait_seconds``: how
    long to wait for another process's lease.

    Raises ServerNotReady naming all that stands in the way; LeaseHeld; what engine and vault raise.
    Every run that got as far as the vault leaves a job record there.
    """
    engine = fleet.engine(name)
    inspection = engine.inspect()
    _require_readiness(name, inspection)
    vault = fleet.vault(name)
    found = inspection.items[0]
    if point_type in found.paused:
        raise BackupPaused(f"{name}: {found.paused[point_type]}")
    item = vault.find_or_create_item(
        inspection.engine,
        instance_of(name),
        found.database,
        found.identity,
        configured_names=fleet.configured_names(name),
        now=now(),
    )
    with stop.branch() as own_stop:
        run = Run(
            fleet,
            engine,
            vault,
            fleet.leases(name),
            item,
            slot,
            is_copy_only,
            CountedProgress(progress, now=now),
            own_stop,
            now,
        )
        return _backed_up(run, point_type, found, still_due, wait_seconds)


def _backed_up(
    run: Run,
    point_type: PointType,
    found: DiscoveredItem,
    still_due: StillDue | None,
    wait_seconds: float,
) -> BackupOutcome:
    """``found``: the item as it was when the server was looked at."""
    item = run.item
    # A full may take hours; logs go on meanwhile under a lease of their own.
    lease_name = f"{item.id}.{'log' if point_type is PointType.LOG else 'data'}"
    with run.leases.acquire(
        lease_name,
        purpose=f"{point_type.value} backup of {item.name}",
        wait_seconds=wait_seconds,
        stop=run.stop,
    ) as lease:
        left = take_left_logs(run, lease) if point_type is PointType.LOG else []
        if point_type is not PointType.LOG:
            sweep_item(run)
        points = tuple(run.vault.points(item.id))
        if not points:
            run.notes += _predecessors(run)
        if still_due is not None and not still_due(points):
            return BackupOutcome(item, tuple(left), tuple(run.notes) if left else ())
        if is_set_back(points, found.lineage, found.next_log_lsn):
            # Points may have been committed since that look.
            found = run.engine.inspect().items[0]
        if is_set_back(points, found.lineage, found.next_log_lsn):
            rewritten = LogRewritten(
                f"the log of {item.name} goes on from before the end of what is backed up: it was "
                "set back to an older state"
            )
            made: tuple[Point, ...] = (_successor(run, point_type, rewritten),)
        elif point_type is PointType.LOG:
            made = _log_or_full(run, lease, points, found)
        elif point_type is PointType.DIFFERENTIAL:
            made = (_differential_or_full(run, lease, points, found),)
        else:
            made = (_full(run, lease),)
    return BackupOutcome(run.item, (*left, *made), tuple(run.notes))


def _require_readiness(name: str, inspection: Inspection) -> None:
    blocking = [p for p in inspection.problems if p.severity is Severity.BLOCKING]
    if blocking:
        raise ServerNotReady(
            f"{name} is not ready for backups: " + "; ".join(p.what for p in blocking),
            hint="\n".join(p.remedy for p in blocking),
        )


def _predecessors(run: Run) -> list[str]:
    """What to say about a new item whose name was another's before."""
    if run.item.engine is EngineName.POSTGRES:
        what, why = "server", "a replacement or pg_upgrade"
    else:
        what, why = "database", "it was dropped and created again"
    return [
        f"{run.item.name} is another {what} now (identity {run.item.identity}) than the one backed"
        f" up so far ({other.identity}), as after {why}: it is a new item,"
        f" {run.item.id}, and {other.id} stays restorable"
        for other in run.vault.items()
        if (other.engine, other.name) == (run.item.engine, run.item.name)
        and other.identity != run.item.identity
    ]


def _full(run: Run, lease: Lease) -> Point:
    if points := run.vault.points(run.item.id):
        position = run.engine.inspect().items[0].position
        try:
            require_one_history(run.vault, run.item, run.engine, points, position)
        except LogRewritten as rewritten:
            return _successor(run, PointType.FULL, rewritten)

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
        return _successor(run, PointType.FULL, conflict)
    if run.item.engine in _TELLS_BY_LOG_BACKUP:
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
        run.notes.append(_untold(error))
    return point


def _differential_or_full(
    run: Run, lease: Lease, points: tuple[Point, ...], found: DiscoveredItem
) -> Point:
    """``found``: the server as it was looked at before."""
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
        return _successor(run, PointType.DIFFERENTIAL, other)
    except BaseUnusable as unusable:
        run.notes.append(f"a full was taken instead of a differential: {unusable.message}")
        return _full(run, lease)
    if run.item.engine in _TELLS_BY_LOG_BACKUP:
        return point
    if run.fleet.policy(run.item.instance).log is None:
        # As after a full: nothing else ever lets the server discard log.
        try:
            run.engine.acknowledge(point.position)
        except EngineError as error:
            run.notes.append(_untold(error))
    return point


def _untold(error: EngineError) -> str:
    """The point is in the vault; that the server keeps log a while longer is no failure."""
    return (
        f"the server could not be told that it may discard log: {error.message}; "
        "the next log backup tells it"
    )


def _log_or_full(
    run: Run, lease: Lease, points: tuple[Point, ...], found: DiscoveredItem
) -> tuple[Point, ...]:
    if not any(point.type is PointType.FULL for point in points):
        return (_healed(run, PointType.LOG, "there is no full backup yet"),)
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
        why = run.engine.log_gap(newest.position)
        return (_bridged(run, found, why or why_no_log(points, found)),)
    if run.item.engine in _BRIDGED_BY_DIFFERENTIAL:
        _tell_gap(run, points, base)
    made: list[Point] = []
    try:
        require_same_log(run.vault, run.item, run.engine, base.point, run.notes)
        _logs(run, lease, base.position, base.facts, made)
    except (LogRewritten, LineageConflict) as broken:
        made.append(_successor(run, PointType.LOG, broken))
    except LogChainBroken as broken:
        made.append(_bridged(run, found, broken.message))
    return tuple(made)


def _tell_gap(run: Run, points: tuple[Point, ...], base: LogBase) -> None:
    """Where log goes on from a full or differential though there was log before it, some of that
    is missing: nobody shall think that it is there."""
    logs = [
        point
        for point in points
        if point.type is PointType.LOG and point.lineage == base.point.lineage
    ]
    newest = max(logs, key=lambda point: point.last_lsn, default=None)
    if base.point.type is not PointType.LOG and newest is not None:
        why = run.engine.log_gap(newest.position)
        run.notes.append(
            f"the log between {newest.id} and {base.point.id} is missing"
            + (f": {why}" if why else "")
        )


def _bridged(run: Run, found: DiscoveredItem, why: str) -> Point:
    """What the log can go on from, the cheapest that does: a differential where the engine's log
    may begin at one, and where one can be had; else a full."""
    if run.item.engine not in _BRIDGED_BY_DIFFERENTIAL:
        return _healed(run, PointType.LOG, why)
    with run.leases.acquire(
        f"{run.item.id}.data", purpose=f"healing backup of {run.item.name}", stop=run.stop
    ) as lease:
        made = _differential_or_full(run, lease, tuple(run.vault.points(run.item.id)), found)
    run.notes.append(f"a {made.type.value} was taken instead of a log: {why}")
    return made


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
        if run.item.engine in _TELLS_BY_LOG_BACKUP:
            continue
        try:
            run.engine.acknowledge(since or point.position)
        except LogChainBroken:
            raise
        except EngineError as error:
            run.notes.append(_untold(error))
        try:
            seal(run.vault, run.item, point, run.now())
        except VaultError as error:
            # The point is in the vault; planning prefers it, and the next log backup tries again.
            run.notes.append(f"shipped log that is sealed now was not removed: {error.message}")


def _successor(run: Run, asked: PointType, other: LogRewritten | LineageConflict) -> Point:
    """The positions of the server's log mean another history from now on. Under the old item, a
    plan could join the two."""
    run.item = run.vault.create_successor(run.item, now=run.now())
    return _healed(run, asked, f"{other.message}. It goes on as a new item, {run.item.id}")


def _healed(run: Run, asked: PointType, why: str) -> Point:
    instead = "" if asked is PointType.FULL else f"a full was taken instead of a {asked.value}: "
    run.notes.append(f"{instead}{why}")
    with run.leases.acquire(
        f"{run.item.id}.data", purpose=f"healing full of {run.item.name}", stop=run.stop
    ) as lease:
        return _full(run, lease)
