"""The long-running loop: every tick it asks what is due and hands it to a few worker threads.

It keeps no state of its own: policies come from files, everything else from the vault.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlbak.errors import BackupPaused, LeaseHeld, SqlbakError
from sqlbak.fleet import Fleet
from sqlbak.jobs.backup import BackupOutcome, back_up
from sqlbak.model import Point, PointType
from sqlbak.policy.calendar import Slot
from sqlbak.policy.schema import Configuration
from sqlbak.scheduler.backoff import Backoff
from sqlbak.scheduler.configuration_watch import ConfigurationWatch
from sqlbak.scheduler.due import DueJob, Protected, due
from sqlbak.scheduler.logs import EventLog
from sqlbak.scheduler.shippers import Shippers
from sqlbak.stopping import StopSignal
from sqlbak.vault.retry import RetryPolicy

__all__ = ["Limits", "Service"]

_PAUSE_SECONDS = 900.0
"""How long an item of which nothing can be taken now is left alone, at most until the next slot."""

Decide = Callable[[Iterable[Protected], datetime], list[DueJob]]
JobKey = tuple[str, PointType | None]
"""An item and what is taken of it; None: its catalog is read. An instance and None: it is asked for
its items."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much runs at once and how patient the service is (seconds)."""

    jobs_at_once: int = 4
    tick_seconds: float = 5.0
    catalog_age_seconds: float = 300.0
    grace_seconds: float = 20.0


@dataclass(slots=True)
class _Known:
    """What the service last read of one item's recovery points."""

    points: tuple[Point, ...]
    read_at: float


@dataclass(slots=True)
class _State:
    """Shared between the loop and its workers; ``lock`` guards all of it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    running: set[JobKey] = field(default_factory=set)
    known: dict[str, _Known] = field(default_factory=dict)
    backoff: Backoff = field(default_factory=Backoff)
    paused: dict[JobKey, tuple[Slot | None, float]] = field(default_factory=dict)


class Service:
    """Runs until ``stop`` is requested. ``decide`` and ``now`` are there for the demo and tests."""

    def __init__(
        self,
        watch: ConfigurationWatch,
        log: EventLog,
        stop: StopSignal,
        *,
        limits: Limits = Limits(),
        decide: Decide = due,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._watch = watch
        self._log = log
        self._stop = stop
        self._limits = limits
        self._decide = decide
        self._now = now
        self._state = _State()
        self._abort = StopSignal()
        self._fleet = Fleet(Configuration())
        self._shippers = Shippers(log)
        self._view = Fleet(Configuration())

    def run(self) -> None:
        """Serve until asked to stop; then let running jobs finish for ``grace_seconds`` and abort
        what is left. Raises ConfigurationInvalid if the very first reading of the policies fails.
        """
        self._reload()
        pool = ThreadPoolExecutor(self._limits.jobs_at_once, thread_name_prefix="job")
        try:
            while not self._stop.is_requested:
                self._reload_if_changed()
                self._shippers.serve(self._fleet)
                self._tick(pool, self._fleet)
                self._stop.wait(self._limits.tick_seconds)
            self._shippers.request_stop()
            self._drain()
        finally:
            self._abort.request("the service is stopping")
            self._shippers.close()
            pool.shutdown(wait=True, cancel_futures=True)
            self._fleet.close()
            self._view.close()
        self._log.info("stopped")

    def _reload(self) -> None:
        loaded = self._watch.poll()
        if loaded is None:
            return
        fleet = Fleet(loaded.configuration, stop=self._abort)
        before, self._fleet = self._fleet, fleet
        self._view.close()
        # The loop only looks: it asks once, since the next tick asks again, so that one store
        # that does not answer holds up neither the other instances nor the stop.
        self._view = Fleet(loaded.configuration, retries=RetryPolicy(attempts=1), stop=self._stop)
        with self._state.lock:
            self._state.known.clear()
            self._state.backoff.clear()
            self._state.paused.clear()
        before.close_when_idle()
        self._log.info(
            "policies loaded",
            files=[str(file) for file in loaded.files],
            instances=sorted(loaded.configuration.instances),
        )

    def _reload_if_changed(self) -> None:
        try:
            self._reload()
        except SqlbakError as error:
            self._log.error(
                "policies not reloaded; the last good ones stay in force",
                code=error.code,
                error=error.message,
                hint=error.hint,
            )

    def _tick(self, pool: ThreadPoolExecutor, fleet: Fleet) -> None:
        for name in self._item_names(fleet):
            if self._stop.is_requested:
                return
            try:
                jobs = self._due(fleet, name)
            except SqlbakError as error:
                self._failed((name, None), "catalog not read", error)
                continue
            for job in jobs:
                self._submit(pool, fleet, job)

    def _item_names(self, fleet: Fleet) -> Iterator[str]:
        """The items of all instances; an instance that cannot be asked for its own is told of and
        holds up no other."""
        for instance in fleet.instances():
            with self._state.lock:
                if self._state.backoff.is_waiting((instance, None), time.monotonic()):
                    continue
            try:
                yield from fleet.item_names(instance)
            except SqlbakError as error:
                self._failed((instance, None), "items not found", error)

    def _due(self, fleet: Fleet, name: str) -> list[DueJob]:
        """What to start for one item now. The catalog is read again before anything starts,
        since another scheduler may have served the slot.
        """
        moment = time.monotonic()
        with self._state.lock:
            if self._state.backoff.is_waiting((name, None), moment):
                return []
            known = self._state.known.get(name)
        fresh = known is not None and moment - known.read_at < self._limits.catalog_age_seconds
        if known is None or not fresh:
            known = self._read(name)
            fresh = False
        jobs = self._startable(fleet, name, known)
        if jobs and fresh:
            jobs = self._startable(fleet, name, self._read(name))
        return jobs

    def _startable(self, fleet: Fleet, name: str, known: _Known) -> list[DueJob]:
        protected = Protected(name, fleet.policy(name), known.points)
        moment = time.monotonic()
        with self._state.lock:
            return [
                job
                for job in self._decide([protected], self._now())
                if (name, job.type) not in self._state.running
                and not self._state.backoff.is_waiting((name, job.type), moment)
                and not self._is_paused(job, moment)
            ]

    def _is_paused(self, job: DueJob, moment: float) -> bool:
        """Whether the slot was looked at already and nothing could be taken as the item is; once
        in a while it is looked at again."""
        slot, at = self._state.paused.get((job.item, job.type), (None, -math.inf))
        return slot == job.slot and moment - at < _PAUSE_SECONDS

    def _read(self, name: str) -> _Known:
        known = _Known(self._view.points(name), time.monotonic())
        with self._state.lock:
            self._state.known[name] = known
        return known

    def _submit(self, pool: ThreadPoolExecutor, fleet: Fleet, job: DueJob) -> None:
        with self._state.lock:
            self._state.running.add((job.item, job.type))
        fleet.enter()
        pool.submit(self._work, fleet, job)

    def _work(self, fleet: Fleet, job: DueJob) -> None:
        key = (job.item, job.type)
        began = time.monotonic()
        self._log.info("backup started", item=job.item, type=job.type.value, why=job.reason)
        try:
            outcome = back_up(
                fleet,
                job.item,
                job.type,
                slot=job.slot,
                still_due=lambda points: self._is_still_due(fleet, job, points),
                stop=self._abort,
                now=self._now,
            )
            self._done(job, outcome, time.monotonic() - began)
        except LeaseHeld as error:
            with self._state.lock:
                self._state.backoff.failed(key, time.monotonic())
            self._log.info("backup left to another", item=job.item, why=error.message)
        except BackupPaused as error:
            with self._state.lock:
                self._state.paused[key] = (job.slot, time.monotonic())
            self._log.warning(
                "backup paused", item=job.item, type=job.type.value, why=error.message
            )
        except SqlbakError as error:
            self._failed(key, "backup failed", error)
        except Exception as error:  # noqa: BLE001 - the loop must outlive a defect in a job
            with self._state.lock:
                self._state.backoff.failed(key, time.monotonic())
            self._log.exception("backup failed by a defect", item=job.item, error=repr(error))
        finally:
            fleet.leave()
            with self._state.lock:
                self._state.running.discard(key)
                self._state.known.pop(job.item, None)

    def _is_still_due(self, fleet: Fleet, job: DueJob, points: tuple[Point, ...]) -> bool:
        """Asked under the lease, with the points of the very cluster that answers now. Where the
        server was replaced by another, it has no full yet: the log backup then becomes one.
        """
        protected = Protected(job.item, fleet.policy(job.item), points)
        again = {one.type for one in self._decide([protected], self._now())}
        return job.type in again or (job.type is PointType.LOG and bool(again))

    def _done(self, job: DueJob, outcome: BackupOutcome, seconds: float) -> None:
        with self._state.lock:
            self._state.backoff.succeeded((job.item, job.type))
        for note in outcome.notes:
            self._log.warning("backup note", item=job.item, note=note)
        for point in outcome.points:
            self._log.info(
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
        if not outcome.points:
            self._log.info("backup not needed any more", item=job.item, type=job.type.value)

    def _failed(self, key: JobKey, event: str, error: SqlbakError) -> None:
        with self._state.lock:
            wait = self._state.backoff.failed(key, time.monotonic())
        self._log.error(
            event,
            item=key[0],
            type=None if key[1] is None else key[1].value,
            code=error.code,
            error=error.message,
            hint=error.hint,
            next_try_seconds=round(wait),
        )

    def _drain(self) -> None:
        deadline = time.monotonic() + self._limits.grace_seconds
        with self._state.lock:
            running = sorted(f"{name} {kind}" for name, kind in self._state.running)
        self._log.info("stopping", running=running, grace_seconds=self._limits.grace_seconds)
        while time.monotonic() < deadline:
            with self._state.lock:
                if not self._state.running:
                    return
            time.sleep(0.05)
