"""One recovery point of a job: running record, payload, manifest, and a record of how it went."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from sqlbak.engines.port import BackupResult, Engine, PayloadSink
from sqlbak.errors import EngineError, Interrupted, SqlbakError
from sqlbak.fleet import Fleet
from sqlbak.model import Item, LogPosition, Point, PointType
from sqlbak.policy.calendar import Slot
from sqlbak.progress import Progress
from sqlbak.stopping import StopSignal
from sqlbak.vault.job_records import JobOutcome, JobRecord, write_job
from sqlbak.vault.lease import Lease, Leases
from sqlbak.vault.names import new_point_id
from sqlbak.vault.point_writer import PointWriter
from sqlbak.vault.running import RunningRecord
from sqlbak.vault.vault import Vault

__all__ = ["Run", "take"]


@dataclass(slots=True)
class Run:
    """The parts of one run, put together once."""

    fleet: Fleet
    engine: Engine
    vault: Vault
    leases: Leases
    item: Item
    slot: Slot | None
    is_copy_only: bool
    progress: Progress
    stop: StopSignal
    now: Callable[[], datetime]
    notes: list[str] = field(default_factory=list)


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
    )
    slot = None if run.slot is None else run.slot.instant

    def note(
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
            ),
        )

    label = f"sqlbak {record.point_id}"
    try:
        with PointWriter(run.vault.store, run.item, record, stop=run.stop) as writer:
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
    except SqlbakError as error:
        stopped = isinstance(error, Interrupted)
        try:
            note(JobOutcome.INTERRUPTED if stopped else JobOutcome.FAILED, error=error)
        except SqlbakError as second:
            error.add_note(f"the job record could not be written: {second}")
        raise
    run.notes.extend(result.notes)
    if result.after_commit is not None:
        try:
            result.after_commit()
        except EngineError as error:
            run.notes.append(f"{error.message}; the next run tries again")
    note(JobOutcome.SUCCEEDED, point.id)
    return point, result.continues_on
