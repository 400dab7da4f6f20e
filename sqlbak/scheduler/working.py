"""One due backup, from its start to what is told of its end. The loop, ``--once`` and the workers
of a queue all do it this way.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from sqlbak.errors import (
    BackupPaused,
    Cancelled,
    HookFailed,
    Interrupted,
    LeaseHeld,
    SqlbakError,
)
from sqlbak.fleet import Fleet, instance_of
from sqlbak.jobs.backup import BackupOutcome, StillDue, back_up
from sqlbak.jobs.hooks import around
from sqlbak.model import Note, NoteCode, Point, PointType
from sqlbak.monitor.concerns import FOREIGN_REMEDY
from sqlbak.monitor.events import NO_EVENTS, Event, EventKind, EventSeverity, EventSink
from sqlbak.policy.schema import Policy
from sqlbak.progress import NO_PROGRESS, Progress
from sqlbak.scheduler.due import DueJob, Protected, due
from sqlbak.scheduler.logs import EventLog
from sqlbak.stopping import StopSignal
from sqlbak.stored_item import Served
from sqlbak.vault.job_records import JobOutcome, JobRecord, write_job

__all__ = ["Decide", "Ended", "Ending", "Work", "backup_failure", "hook_failure", "rpo_breach"]

Decide = Callable[[Iterable[Protected], datetime], list[DueJob]]


class Ending(StrEnum):
    """How a due backup ended. NOT_DUE: another process had served the slot; LEFT: another one works
    on it now; PAUSED: nothing of that type can be taken of the item as it is; CANCELLED: somebody
    asked this very job to end, or another one for the same slot."""

    DONE = "done"
    NOT_DUE = "not_due"
    LEFT = "left"
    PAUSED = "paused"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class Ended:
    """How it ended, what was made, and the error that ended it."""

    ending: Ending
    points: tuple[Point, ...] = ()
    notes: tuple[Note, ...] = ()
    item_id: str | None = None
    error: SqlbakError | None = None


@dataclass(slots=True)
class _Asked:
    """Whether a job is still due, asked under the lease. ``is_cancelled``: it would be, but that
    somebody cancelled its slot."""

    decide: Decide
    job: DueJob
    policy: Policy
    now: Callable[[], datetime]
    is_cancelled: bool = False

    def is_still_due(self, served: Served) -> bool:
        """``served`` is of the very cluster that answers now. Where the server was replaced by
        another, it has no full yet: the log backup then becomes one."""
        protected = Protected(self.job.item, self.policy, served.points, served.cancelled)
        if self._is_due(protected):
            return True
        self.is_cancelled = self._is_due(replace(protected, cancelled=()))
        return False

    def _is_due(self, protected: Protected) -> bool:
        again = {one.type for one in self.decide([protected], self.now())}
        return self.job.type in again or (self.job.type is PointType.LOG and bool(again))


@dataclass(frozen=True, slots=True)
class Work:
    """Takes due backups and tells of them. Thread-safe."""

    log: EventLog
    stop: StopSignal
    now: Callable[[], datetime]
    events: EventSink = NO_EVENTS
    decide: Decide = due
    progress: Progress = NO_PROGRESS

    def take(self, fleet: Fleet, job: DueJob) -> Ended:
        """Take one backup. Errors of sqlbak's own tree become part of the answer; what a failure
        means for the next try is for the caller to say."""
        began = time.monotonic()
        self.log.info("backup started", item=job.item, type=job.type.value, why=job.reason)
        if job.type is PointType.LOG and job.missed:
            self.events.emit(rpo_breach(job, self.now()))
        asked = _Asked(self.decide, job, fleet.policy(job.item), self.now)
        try:
            outcome = self._back_up(fleet, job, asked.is_still_due)
        except LeaseHeld as error:
            self.log.info("backup left to another", item=job.item, why=error.message)
            return Ended(Ending.LEFT, error=error)
        except BackupPaused as error:
            self.log.warning("backup paused", item=job.item, type=job.type.value, why=error.message)
            return Ended(Ending.PAUSED, error=error)
        except Cancelled as error:
            self.log.warning("backup cancelled", item=job.item, type=job.type.value)
            return Ended(Ending.CANCELLED, error=error)
        except Interrupted as error:
            self.log.info("backup interrupted", item=job.item, type=job.type.value)
            return Ended(Ending.INTERRUPTED, error=error)
        except SqlbakError as error:
            self.events.emit(backup_failure(job, error, self.now()))
            return Ended(Ending.FAILED, error=error)
        if asked.is_cancelled and not outcome.points:
            self.log.info("backup cancelled before", item=job.item, type=job.type.value)
            return Ended(Ending.CANCELLED, item_id=outcome.item.id)
        self._tell(job, outcome, time.monotonic() - began)
        if not outcome.points:
            return Ended(Ending.NOT_DUE, item_id=outcome.item.id)
        what = f"the {job.type.value} backup of {job.item} succeeds again"
        self.events.emit(backup_failure(job, None, self.now()).over(what, self.now()))
        self._record_missed(fleet, job, outcome)
        return Ended(Ending.DONE, outcome.points, outcome.notes, outcome.item.id)

    def _back_up(self, fleet: Fleet, job: DueJob, still_due: StillDue) -> BackupOutcome:
        return back_up(
            fleet,
            job.item,
            job.type,
            slot=job.slot,
            still_due=still_due,
            progress=self.progress,
            stop=self.stop,
            now=self.now,
            around=lambda take: around(
                fleet.configuration.instances[instance_of(job.item)].hooks,
                job.item,
                job.type,
                job.slot,
                take,
                on_end=lambda name, error: self._hook_ended(job, name, error),
                stop=self.stop,
            ),
        )

    def _tell(self, job: DueJob, outcome: BackupOutcome, seconds: float) -> None:
        for note in outcome.notes:
            self.log.warning("backup note", item=job.item, code=note.code.value, note=note.text)
        for point in outcome.points:
            self.log.info(
                "backup done",
                item=job.item,
                type=point.type.value,
                point=point.id,
                size_bytes=point.size_bytes,
                seconds=round(seconds, 3),
                covers_until=None
                if point.covers_until is None
                else point.covers_until.isoformat(timespec="microseconds"),
            )
        self._foreign(job, outcome)
        if not outcome.points:
            self.log.info("backup not needed any more", item=job.item, type=job.type.value)
        elif job.type is PointType.LOG:
            if any(point.type is not PointType.LOG for point in outcome.points):
                self._chain_broken(job, outcome)
            if job.missed:
                what = f"the log of {job.item} is backed up again"
                self.events.emit(rpo_breach(job, self.now()).over(what, self.now()))

    def _chain_broken(self, job: DueJob, outcome: BackupOutcome) -> None:
        why = next(
            (
                note.text
                for note in outcome.notes
                if note.code is NoteCode.TAKEN_INSTEAD
                and note.facts.get("asked") == PointType.LOG.value
            ),
            "",
        )
        self.events.emit(
            Event(
                EventKind.CHAIN_BROKEN,
                job.item,
                EventSeverity.WARNING,
                f"the log of {job.item} could not be continued"
                + (f": {why}" if why else "; another backup was taken"),
                f"the time since the last log backup cannot be restored: sqlbak windows {job.item}",
                self.now(),
            )
        )

    def _foreign(self, job: DueJob, outcome: BackupOutcome) -> None:
        for note in outcome.notes:
            if note.code is NoteCode.FOREIGN_BACKUP:
                self.events.emit(
                    Event(
                        EventKind.FOREIGN_BACKUP,
                        job.item,
                        EventSeverity.WARNING,
                        f"{job.item}: {note.text}",
                        FOREIGN_REMEDY,
                        self.now(),
                        note.facts.get("kind", ""),
                    )
                )

    def _hook_ended(self, job: DueJob, name: str, error: HookFailed | None) -> None:
        if error is None:
            what = f"{job.item}: the {name} hook of {job.type.value} backups does its work again"
            self.events.emit(hook_failure(job, name, None, self.now()).over(what, self.now()))
            return
        self.log.error(
            "hook failed",
            item=job.item,
            type=job.type.value,
            hook=name,
            error=error.message,
            hint=error.hint,
        )
        self.events.emit(hook_failure(job, name, error, self.now()))

    def _record_missed(self, fleet: Fleet, job: DueJob, outcome: BackupOutcome) -> None:
        """One record for all slots of this type that nothing served, so that they are found among
        the runs (sqlbak jobs)."""
        if not job.missed:
            return
        first, last = job.missed[0], job.missed[-1]
        count = len(job.missed)
        slots = "1 slot was" if count == 1 else f"{count} slots were"
        told = (
            f"{slots} missed, from {first.instant:%Y-%m-%d %H:%M}Z to "
            f"{last.instant:%Y-%m-%d %H:%M}Z; one backup was taken for all"
        )
        self.log.warning("slots missed", item=job.item, type=job.type.value, count=count)
        moment = self.now()
        record = JobRecord(
            f"missed-{secrets.token_hex(8)}",
            job.type.value,
            moment,
            moment,
            JobOutcome.SKIPPED,
            error_code="slots_missed",
            error_message=told,
            slot=first.instant,
        )
        try:
            write_job(fleet.vault(job.item).store, outcome.item.id, record)
        except SqlbakError as error:
            # The backup is in the vault, which is what counts.
            self.log.warning("missed slots not recorded", item=job.item, error=error.message)


def backup_failure(job: DueJob, error: SqlbakError | None, now: datetime) -> Event:
    """That a backup failed; None stands for an error that is over."""
    return Event(
        EventKind.BACKUP_FAILED,
        job.item,
        EventSeverity.WARNING,
        f"the {job.type.value} backup of {job.item} failed: {error.message if error else ''}",
        (error.hint if error else "") or "it is tried again by itself",
        now,
        job.type.value,
    )


def hook_failure(job: DueJob, name: str, error: HookFailed | None, now: datetime) -> Event:
    """That the hook called ``name`` failed at a backup of that type; None stands for an error that
    is over."""
    return Event(
        EventKind.HOOK_FAILED,
        job.item,
        EventSeverity.WARNING,
        f"{job.item}: {error.message if error else ''}",
        error.hint if error else "",
        now,
        f"{name} {job.type.value}",
    )


def rpo_breach(job: DueJob, now: datetime) -> Event:
    """That losing the item now costs more than its policy says, since log slots were missed."""
    first = job.missed[0].instant
    return Event(
        EventKind.RPO_BREACHED,
        job.item,
        EventSeverity.CRITICAL,
        f"the log of {job.item} was not backed up at {first:%Y-%m-%d %H:%M}Z and since; it is now",
        f"see why: sqlbak jobs {job.item}",
        now,
    )
