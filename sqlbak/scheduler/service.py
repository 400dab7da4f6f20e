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
from datetime import UTC, datetime, timedelta

from sqlbak.errors import SqlbakError
from sqlbak.fleet import Fleet, instance_of
from sqlbak.model import PointType
from sqlbak.monitor.events import NO_EVENTS, Event, EventKind, EventSeverity, EventSink
from sqlbak.policy.calendar import Slot
from sqlbak.policy.schema import Configuration
from sqlbak.scheduler.admission import Busy, Candidate, Waiting, admit
from sqlbak.scheduler.backoff import Backoff
from sqlbak.scheduler.candidates import candidate_of, room_of, turn_of
from sqlbak.scheduler.catalogs import Catalogs
from sqlbak.scheduler.configuration_watch import ConfigurationWatch, ReloadTrouble
from sqlbak.scheduler.due import DueJob, Protected, due, quiet_until
from sqlbak.scheduler.heap import give_freed_memory_back
from sqlbak.scheduler.in_force import record_in_force
from sqlbak.scheduler.logs import EventLog
from sqlbak.scheduler.queue_dispatch import QueueDispatch
from sqlbak.scheduler.shippers import Shippers
from sqlbak.scheduler.told_names import is_asked_for_names, told_names
from sqlbak.scheduler.working import Decide, Ended, Ending, Work
from sqlbak.stopping import StopSignal
from sqlbak.vault.retry import RetryPolicy
from sqlbak.vault.throttle import BandwidthCap

__all__ = ["Limits", "Service"]

_PAUSE_SECONDS = 900.0
"""How long an item of which nothing can be taken now is left alone, at most until the next slot."""

JobKey = tuple[str, PointType | None]
"""An item and what is taken of it; None: its catalog is read. An instance and None: it is asked for
its items."""

_DUE_AGAIN = timedelta(minutes=1)
"""What is due and waits is looked at again so often."""

_LOOK_SECONDS = 0.2
"""How soon a signal that asks to stop is noticed at the latest."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much runs at once and how patient the service is (seconds). ``bandwidth``: bytes a second
    to all vaults together; None: no limit. ``spread_seconds``: over how long the starts of many
    items for one slot are spread at most."""

    jobs_at_once: int = 4
    tick_seconds: float = 5.0
    catalog_age_seconds: float = 300.0
    grace_seconds: float = 20.0
    spread_seconds: float = 30.0
    bandwidth: int | None = None


@dataclass(slots=True)
class _State:
    """Shared between the loop and its workers; ``lock`` guards all of it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    running: dict[JobKey, Busy] = field(default_factory=dict)
    backoff: Backoff = field(default_factory=Backoff)
    given_up: dict[JobKey, str] = field(default_factory=dict)
    """Cancelled jobs, by the slot that they are not tried again for."""
    paused: dict[JobKey, tuple[Slot | None, float]] = field(default_factory=dict)


class Service:
    """Runs until ``stop`` is requested. ``decide`` and ``now`` are there for the demo and tests;
    ``on_fleet`` is told of each set of policies that comes into force. With ``queue``, due backups
    are put there for workers, and none is taken here."""

    def __init__(
        self,
        watch: ConfigurationWatch,
        log: EventLog,
        stop: StopSignal,
        *,
        limits: Limits = Limits(),
        decide: Decide = due,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        events: EventSink = NO_EVENTS,
        on_fleet: Callable[[Fleet], None] = lambda _fleet: None,
        queue: QueueDispatch | None = None,
    ) -> None:
        self._watch = watch
        self._log = log
        self._stop = stop
        self._limits = limits
        self._decide = decide
        self._now = now
        self._events = events
        self._on_fleet = on_fleet
        self._queue = queue
        self._state = _State()
        self._abort = StopSignal()
        self._wake = threading.Event()
        self._work = Work(log, self._abort, now, events, decide)
        self._fleet = Fleet(Configuration())
        self._shippers = Shippers(log)
        self._catalogs = Catalogs(
            age_seconds=limits.catalog_age_seconds,
            on_failure=lambda name, error: self._failed((name, None), "catalog not read", error),
            on_success=self._answered,
            on_news=self._wake.set,
        )
        self._bandwidth = None if limits.bandwidth is None else BandwidthCap(limits.bandwidth)
        self._trouble = ReloadTrouble(log)
        self._waiting: tuple[Waiting, ...] = ()
        self._looked_at = time.monotonic()
        self._silent: set[str] = set()
        """Instances that did not tell their items in this round."""

    @property
    def idle_seconds(self) -> float:
        """How long ago the loop last began to look at what is due."""
        return time.monotonic() - self._looked_at

    @property
    def waiting(self) -> tuple[Waiting, ...]:
        """What was due at the last look and did not start, and what it waits for."""
        return self._waiting

    def run(self) -> None:
        """Serve until asked to stop; then let running jobs finish for ``grace_seconds`` and abort
        what is left. Raises ConfigurationInvalid if the very first reading of the policies fails.
        """
        give_freed_memory_back()
        pool = ThreadPoolExecutor(self._limits.jobs_at_once, thread_name_prefix="job")
        try:
            self._reload()
            while not self._stop.is_requested:
                self._reload_if_changed()
                self._shippers.serve(self._fleet)
                self._tick(pool, self._fleet)
                self._rest()
            self._shippers.request_stop()
            self._drain()
        finally:
            self._abort.request("the service is stopping")
            self._shippers.close()
            pool.shutdown(wait=True, cancel_futures=True)
            self._catalogs.close()
            self._fleet.close()
        self._log.info("stopped")

    def _rest(self) -> None:
        """Until the next tick, or until a job ended or a catalog was read."""
        until = time.monotonic() + self._limits.tick_seconds
        while not self._stop.is_requested:
            left = until - time.monotonic()
            if left <= 0 or self._wake.wait(min(left, _LOOK_SECONDS)):
                self._wake.clear()
                return

    def _reload(self) -> None:
        loaded = self._watch.poll()
        if loaded is None:
            return
        fleet = Fleet(loaded.configuration, stop=self._abort, bandwidth=self._bandwidth)
        before, self._fleet = self._fleet, fleet
        # A look asks once, since the next tick asks again, so that one store that does not answer
        # holds up neither the other instances nor the stop.
        self._catalogs.use(
            Fleet(loaded.configuration, retries=RetryPolicy(attempts=1), stop=self._stop)
        )
        self._catalogs.beside(self._record)
        with self._state.lock:
            self._state.backoff.clear()
            self._state.given_up.clear()
            self._state.paused.clear()
        self._silent.clear()
        before.close_when_idle()
        self._on_fleet(fleet)
        self._log.info(
            "policies loaded",
            files=[str(file) for file in loaded.files],
            instances=sorted(loaded.configuration.instances),
            digest=loaded.digest[:12],
        )
        if self._trouble.end():
            self._events.emit(self._misconfigured("").over("policies are valid again", self._now()))

    def _record(self, view: Fleet) -> None:
        """For `sqlbak validate --against`: nothing rests on it."""
        try:
            record_in_force(view, self._now())
        except SqlbakError as error:
            self._log.warning("policies in force not recorded", error=error.message)

    def _reload_if_changed(self) -> None:
        try:
            self._reload()
        except SqlbakError as error:
            self._trouble.tell(error)
            self._events.emit(self._misconfigured(error.message))

    def _misconfigured(self, message: str) -> Event:
        return Event(
            EventKind.CONFIGURATION_INVALID,
            "policies",
            EventSeverity.WARNING,
            f"changed policies are not in force, the last good ones are: {message}",
            "mend the lines that it names; sqlbak validate tells whether they are right",
            self._now(),
        )

    def _tick(self, pool: ThreadPoolExecutor, fleet: Fleet) -> None:
        self._looked_at = time.monotonic()
        names = list(self._item_names(fleet))
        self._forget_gone(names)
        spread = min(self._limits.spread_seconds, 0.02 * len(names))
        now = self._now()
        candidates: list[Candidate] = []
        for name in names:
            if self._stop.is_requested:
                return
            candidates += [
                candidate_of(fleet, job, now, not_before=turn_of(job, spread))
                for job in self._due(fleet, name, now)
            ]
        if self._queue is not None:
            self._waiting = self._queue.hand_over(candidates, fleet, now, self._catalogs.forget)
            return
        with self._state.lock:
            busy = list(self._state.running.values())
        room = room_of(fleet, self._limits.jobs_at_once)
        admission = admit(candidates, busy, room, now)
        self._waiting = admission.waiting
        for job in admission.start:
            self._submit(pool, fleet, job)

    def _item_names(self, fleet: Fleet) -> Iterator[str]:
        """The items of all instances; an instance that cannot be asked for its own is told of and
        holds up no other."""
        moment = time.monotonic()
        with self._state.lock:
            waiting = self._state.backoff.is_waiting
            asked = [one for one in fleet.instances() if not waiting((one, None), moment)]
        self._silent = {*fleet.instances()}.difference(asked)
        for instance, told in told_names(fleet, asked):
            if isinstance(told, SqlbakError):
                self._silent.add(instance)
                self._failed((instance, None), "items not found", told)
                continue
            if is_asked_for_names(fleet, instance):
                self._answered(instance)
            yield from told

    def _answered(self, name: str) -> None:
        """An instance told its items, or a catalog was read: the next failure is a first one."""
        with self._state.lock:
            self._state.backoff.succeeded((name, None))

    def _forget_gone(self, names: Iterable[str]) -> None:
        """Databases come and go, and a service lives for years: nothing is kept of those that are
        gone. An instance that does not answer keeps all of its own."""
        there = {*names, *self._fleet.instances()}

        def is_there(name: str) -> bool:
            return name in there or instance_of(name) in self._silent

        with self._state.lock:
            state = self._state
            state.backoff.keep(lambda key: is_there(key[0]))
            for key in [key for key in state.given_up if not is_there(key[0])]:
                del state.given_up[key]
            for key in [key for key in state.paused if not is_there(key[0])]:
                del state.paused[key]
        self._catalogs.keep(is_there)

    def _due(self, fleet: Fleet, name: str, now: datetime) -> list[DueJob]:
        """What may start for one item now. Whether another scheduler has served the slot since the
        catalog was read is asked again under the lease."""
        moment = time.monotonic()
        with self._state.lock:
            if self._state.backoff.is_waiting((name, None), moment):
                return []
        known = self._catalogs.known(name)
        if known is None:
            return []
        jobs = known.due_at(now)
        if jobs is None:
            policy = fleet.policy(name)
            served = known.served
            protected = Protected(name, policy, served.points, served.cancelled)
            jobs = tuple(self._decide([protected], now))
            if self._decide is due:
                # Until the next slot nothing changes but, at midnight, which day it is.
                until = quiet_until(policy, now)
                known.due_until = min(until, now + _DUE_AGAIN) if jobs else until
                known.due, known.due_from = jobs, now
        with self._state.lock:
            return [
                job
                for job in jobs
                if (name, job.type) not in self._state.running
                and not self._state.backoff.is_waiting((name, job.type), moment)
                and self._state.given_up.get((name, job.type)) != _identity(job)
                and not self._is_paused(job, moment)
            ]

    def _is_paused(self, job: DueJob, moment: float) -> bool:
        """Whether the slot was looked at already and nothing could be taken as the item is; once
        in a while it is looked at again."""
        slot, at = self._state.paused.get((job.item, job.type), (None, -math.inf))
        return slot == job.slot and moment - at < _PAUSE_SECONDS

    def _submit(self, pool: ThreadPoolExecutor, fleet: Fleet, job: DueJob) -> None:
        one = candidate_of(fleet, job, self._now())
        with self._state.lock:
            self._state.running[job.item, job.type] = Busy(
                job.item, job.type, one.instance, one.vault
            )
        fleet.enter()
        pool.submit(self._run, fleet, job)

    def _run(self, fleet: Fleet, job: DueJob) -> None:
        key = (job.item, job.type)
        ended: Ended | None = None
        try:
            ended = self._work.take(fleet, job)
            self._settle(key, job, ended)
        except Exception as error:  # noqa: BLE001 - the loop must outlive a defect in a job
            with self._state.lock:
                self._state.backoff.failed(key, time.monotonic())
            self._log.exception("backup failed by a defect", item=job.item, error=repr(error))
        finally:
            fleet.leave()
            self._catalogs.forget(job.item, None if ended is None else ended.item_id)
            with self._state.lock:
                self._state.running.pop(key, None)
            self._wake.set()

    def _settle(self, key: JobKey, job: DueJob, ended: Ended) -> None:
        """What the end of a job means for its next try."""
        if ended.ending is Ending.FAILED and ended.error is not None:
            self._failed(key, "backup failed", ended.error)
            return
        with self._state.lock:
            if ended.ending is Ending.CANCELLED:
                self._state.given_up[key] = _identity(job)
            elif ended.ending is Ending.PAUSED:
                self._state.paused[key] = (job.slot, time.monotonic())
            elif ended.ending is Ending.LEFT:
                self._state.backoff.failed(key, time.monotonic())
            else:
                self._state.backoff.succeeded(key)

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


def _identity(job: DueJob) -> str:
    return "" if job.slot is None else job.slot.identity
