"""Taking one backup: look at the server, take the item's lease, stream, commit, acknowledge.

The order is the promise: the running record before the first byte, the manifest after the last,
and the server is told that log may go only after the manifest is in the vault.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlbak.engines.port import (
    DiscoveredItem,
    Inspection,
    Severity,
)
from sqlbak.errors import (
    BackupPaused,
    LogRewritten,
    ServerNotReady,
)
from sqlbak.fleet import Fleet, instance_of
from sqlbak.jobs.data_backup import differential_or_full, successor, take_full
from sqlbak.jobs.left_logs import sweep_item, take_left_logs
from sqlbak.jobs.log_backup import log_or_full
from sqlbak.jobs.log_chain import is_set_back
from sqlbak.jobs.taking import Run
from sqlbak.model import EngineName, Item, Note, NoteCode, Point, PointType
from sqlbak.policy.calendar import Slot
from sqlbak.progress import NO_PROGRESS, Progress
from sqlbak.stopping import NEVER, StopSignal
from sqlbak.stored_item import Served
from sqlbak.vault.cancelled_slots import list_cancelled_slots
from sqlbak.vault.lease import Lease
from sqlbak.vault.work_progress import CountedProgress

__all__ = ["Around", "BackupOutcome", "StillDue", "back_up"]

StillDue = Callable[[Served], bool]


@dataclass(frozen=True, slots=True)
class BackupOutcome:
    """What one run made: no point when it was not due any more, two when the log crossed a fork.
    ``notes``: what is worth knowing, such as why a full was taken instead of a log."""

    item: Item
    points: tuple[Point, ...]
    notes: tuple[Note, ...] = ()


Around = Callable[[Callable[[], BackupOutcome]], BackupOutcome]
"""Does the work that it is given, and something before and after it (jobs/hooks.py)."""


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
    around: Around = lambda take: take(),
) -> BackupOutcome:
    """Take one backup of the item called ``name`` (see sqlbak/fleet.py) and commit it.

    A log backup that cannot continue the vault's log (none yet, log lost, another lineage) becomes
    a full, and so does a differential whose full cannot serve (none yet, of another lineage,
    damaged); the outcome's notes say why. ``slot`` is the scheduled instant that the run serves.
    ``still_due`` is a scheduler's: it is asked under the lease, with what is there then, and who
    cancels the run cancels its slot. ``wait_seconds``: how long to wait for another's lease.
    ``around`` is called under the lease, and only where a backup is to be taken: what it does for
    one backup never falls into another one's time.

    Raises ServerNotReady naming all that stands in the way; LeaseHeld; what engine and vault raise.
    Every run that got as far as the vault leaves a job record there.
    """
    engine = fleet.engine(name)
    inspection = fleet.with_twins(name, engine.inspect())
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
            None if still_due is None else point_type,
        )
        return _backed_up(run, point_type, found, still_due, wait_seconds, around)


def _backed_up(
    run: Run,
    point_type: PointType,
    found: DiscoveredItem,
    still_due: StillDue | None,
    wait_seconds: float,
    around: Around,
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
        if still_due is not None:
            cancelled = list_cancelled_slots(run.vault.store, item.id)
            if not still_due(Served(points, cancelled)):
                return BackupOutcome(item, tuple(left), tuple(run.notes) if left else ())

        def take() -> BackupOutcome:
            made = _taken(run, lease, point_type, points, found)
            return BackupOutcome(run.item, (*left, *made), tuple(run.notes))

        return around(take)


def _taken(
    run: Run,
    lease: Lease,
    point_type: PointType,
    points: tuple[Point, ...],
    found: DiscoveredItem,
) -> tuple[Point, ...]:
    if is_set_back(points, found.lineage, found.next_log_lsn):
        # Points may have been committed since that look.
        found = run.engine.inspect().items[0]
    if is_set_back(points, found.lineage, found.next_log_lsn):
        rewritten = LogRewritten(
            f"the log of {run.item.name} goes on from before the end of what is backed up: it was "
            "set back to an older state"
        )
        return (successor(run, point_type, rewritten),)
    if point_type is PointType.LOG:
        return log_or_full(run, lease, points, found)
    if point_type is PointType.DIFFERENTIAL:
        return (differential_or_full(run, lease, points, found),)
    return (take_full(run, lease),)


def _require_readiness(name: str, inspection: Inspection) -> None:
    blocking = [p for p in inspection.problems if p.severity is Severity.BLOCKING]
    if blocking:
        raise ServerNotReady(
            f"{name} is not ready for backups: " + "; ".join(p.what for p in blocking),
            hint="\n".join(p.remedy for p in blocking),
        )


def _predecessors(run: Run) -> list[Note]:
    """What to say about a new item whose name was another's before."""
    if run.item.engine is EngineName.POSTGRES:
        what, why = "server", "a replacement or pg_upgrade"
    else:
        what, why = "database", "it was dropped and created again"
    return [
        Note(
            NoteCode.NEW_ITEM,
            f"{run.item.name} is another {what} now (identity {run.item.identity}) than the one "
            f"backed up so far ({other.identity}), as after {why}: it is a new item,"
            f" {run.item.id}, and {other.id} stays restorable",
        )
        for other in run.vault.items()
        if (other.engine, other.name) == (run.item.engine, run.item.name)
        and other.identity != run.item.identity
    ]
