"""One recovery point of a job: running record, payload, manifest, and a record of how it went."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from sqlbak.engines.port import BackupResult, Engine, PayloadSink
from sqlbak.errors import Cancelled, EngineError, Interrupted, SqlbakError
from sqlbak.fleet import Fleet
from sqlbak.jobs.pulse import Pulse
from sqlbak.model import Item, LogPosition, Note, NoteCode, Point, PointType
from sqlbak.policy.calendar import Slot
from sqlbak.stopping import StopSignal
from sqlbak.vault.cancelled_slots import TypeSlot, cancel_slots
from sqlbak.vault.job_records import JobOutcome, JobRecord, write_job
from sqlbak.vault.lease import Lease, Leases
from sqlbak.vault.names import new_point_id
from sqlbak.vault.point_writer import PointWriter
from sqlbak.vault.running import RunningRecord
from sqlbak.vault.throttle import ended_by
from sqlbak.vault.vault import Vault
from sqlbak.vault.work_progress import CountedProgress

__all__ = ["Detour", "Run", "take"]


@dataclass(frozen=True, slots=True)
class Detour:
    """Why another backup than ``asked`` is taken, decided before it is known which one.
    ``new_item``: the id of the item that it is the first one of."""

    asked: PointType
    why: str
    findings: tuple[Note, ...] = ()
    new_item: str | None = None

    def notes(self, taken: PointType) -> tuple[Note, ...]:
        """What to say once a backup of the type ``taken`` is there."""
        facts = {"asked": self.asked.value, "taken": taken.value}
        if self.new_item is not None:
            facts["new_item"] = self.new_item
        if taken is self.asked:
            return (Note(NoteCode.NEW_ITEM, self.why, facts), *self.findings)
        text = f"a {taken.value} was taken instead of a {self.asked.value}: {self.why}"
        return (Note(NoteCode.TAKEN_INSTEAD, text, facts), *self.findings)


@dataclass(slots=True)
class Run:
    """The parts of one run, put together once. ``scheduled``: what it was begun for by a
    schedule; None: somebody asked for it. ``notes``: what is told with what it made; ``detours``:
    the same, as far as it waits for the next backup to be made."""

    fleet: Fleet
    engine: Engine
    vault: Vault
    leases: Leases
    item: Item
    slot: Slot | None
    is_copy_only: bool
    progress: CountedProgress
    stop: StopSignal
    now: Callable[[], datetime]
    scheduled: PointType | None = None
    notes: list[Note] = field(default_factory=list)
    detours: list[Detour] = field(default_factory=list)
    notes_recorded: int = 0


def take(
    run: Run,
    lease: Lease,
    point_type: PointType,
    stream: Callable[[PayloadSink, str], BackupResult],
    *,
    base_id: str | None = None,
) -> tuple[Point, LogPosition | None]:
    """Stream one backup and commit it; also where the log continues when it stopped at a fork."""
    started_at = run.now()
    job_id = secrets.token_hex(8)
    record = RunningRecord(
        job_id=job_id,
        point_id=new_point_id(started_at),
        started_at=started_at,
        host=socket.gethostname(),
        pid=os.getpid(),
        lease=lease.name,
        grant=lease.grant,
        type=point_type.value,
        slots=_served(run, point_type, started_at),
    )
    slot = None if run.slot is None else run.slot.instant

    def record_end(
        outcome: JobOutcome, point_id: str | None = None, error: SqlbakError | None = None
    ) -> None:
        write_job(
            run.vault.store,
            run.item.id,
            JobRecord(
                job_id,
                point_type.value,
                started_at,
                run.now(),
                outcome,
                point_id,
                None if error is None else error.code,
                None if error is None else error.message,
                slot,
                tuple(run.notes[run.notes_recorded :]),
            ),
        )
        run.notes_recorded = len(run.notes)

    label = f"sqlbak {record.point_id}"
    pulse = Pulse(run.vault.store, run.item.id, record, lease, run.progress, run.stop)
    try:
        store = ended_by(run.vault.store, run.stop)
        with pulse, PointWriter(store, run.item, record, run.vault.keys, stop=run.stop) as writer:
            result = stream(writer.sink, label)
            run.stop.check()
            point = writer.commit(
                result,
                base_id=base_id,
                is_copy_only=run.is_copy_only and point_type is PointType.FULL,
                slot=slot,
                label=label,
                fence=lease.check,
            )
    except SqlbakError as failure:
        error = pulse.told(failure)
        try:
            if pulse.cancelled is not None:
                wish = pulse.cancelled
                cancel_slots(
                    run.vault.store,
                    run.item.id,
                    record.slots,
                    asked_at=wish.asked_at,
                    asked_by=wish.asked_by,
                )
            record_end(_outcome(error), error=error)
        except SqlbakError as second:
            error.add_note(f"the job record could not be written: {second}")
        raise error from failure.__cause__
    run.notes += [note for detour in run.detours for note in detour.notes(point_type)]
    run.detours.clear()
    run.notes += result.notes
    if result.after_commit is not None:
        try:
            result.after_commit()
        except EngineError as late:
            kept = f"{late.message}; the next run tries again"
            run.notes.append(Note(NoteCode.CLEANUP_FAILED, kept))
    record_end(JobOutcome.SUCCEEDED, point.id)
    return point, result.continues_on


def _outcome(error: SqlbakError) -> JobOutcome:
    if isinstance(error, Cancelled):
        return JobOutcome.CANCELLED
    return JobOutcome.INTERRUPTED if isinstance(error, Interrupted) else JobOutcome.FAILED


def _served(run: Run, point_type: PointType, started_at: datetime) -> tuple[TypeSlot, ...]:
    """What is done with when the job is cancelled: the slot that it was begun for, and, where
    another type is taken instead, that type too until its own next slot."""
    if run.scheduled is None:
        return ()
    instant = started_at if run.slot is None else run.slot.instant
    return tuple(TypeSlot(kind, instant) for kind in dict.fromkeys((run.scheduled, point_type)))
