"""Jobs under way, as any machine that reaches the vault sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlbak.fleet import StoredItem
from sqlbak.monitor.at_once import at_once
from sqlbak.vault.holder import is_known_dead
from sqlbak.vault.lease import Leases
from sqlbak.vault.lease_record import LeaseRecord
from sqlbak.vault.running import RunningRecord, list_running, read_cancellation
from sqlbak.vault.work_progress import WorkProgress

__all__ = ["JobState", "RunningJob", "running_jobs", "state_of"]

_SILENT_AFTER = 1.5
"""In times to live of the lease: as long as another process would wait before it takes over."""


class JobState(StrEnum):
    """What can be said of a job that has a running record.

    CANCELLING: somebody asked it to end. SILENT: no heartbeat for so long that it may be dead, by
    comparing two machines' clocks, so this is for showing only. DEAD: it holds its lease no more;
    the next run of the item clears away what it left.
    """

    RUNNING = "running"
    CANCELLING = "cancelling"
    SILENT = "silent"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class RunningJob:
    """One job under way. ``progress`` is as old as a heartbeat at most; None: none was told yet."""

    stored: StoredItem
    record: RunningRecord
    state: JobState
    progress: WorkProgress | None


def running_jobs(stored: Iterable[StoredItem], now: datetime) -> list[RunningJob]:
    """Every job under way of these items, oldest first; ``now`` is aware."""
    found = at_once(lambda each: _running_jobs(each, now), stored)
    return sorted(
        (job for jobs in found for job in jobs),
        key=lambda job: (job.record.started_at, job.record.job_id),
    )


def _running_jobs(stored: StoredItem, now: datetime) -> list[RunningJob]:
    store = stored.vault.store
    leases = Leases(store, holder="")
    jobs: list[RunningJob] = []
    for record in list_running(store, stored.item.id)[0]:
        lease = leases.read(record.lease)
        is_asked = read_cancellation(store, stored.item.id, record.job_id) is not None
        progress = None if lease is None else lease.progress
        jobs.append(
            RunningJob(
                stored,
                record,
                state_of(record, lease, now, is_asked_to_end=is_asked),
                # One lease may serve several jobs, one after another.
                progress if progress is not None and progress.job_id == record.job_id else None,
            )
        )
    return jobs


def state_of(
    record: RunningRecord,
    lease: LeaseRecord | None,
    now: datetime,
    *,
    is_asked_to_end: bool,
    is_dead: Callable[[str], bool] = is_known_dead,
) -> JobState:
    """What the lease says of the job. ``is_dead``: whether a holder is known to be gone."""
    if lease is None or lease.is_free or lease.grant != record.grant or is_dead(lease.holder):
        return JobState.DEAD
    told_at = lease.acquired_at if lease.progress is None else lease.progress.told_at
    if now - told_at > timedelta(seconds=_SILENT_AFTER * lease.ttl_seconds):
        return JobState.SILENT
    return JobState.CANCELLING if is_asked_to_end else JobState.RUNNING
