"""Taking backups from the queue: ``sqlbak worker``.

Two procrastinate workers share one process: one takes whatever is most urgent, the other logs
only, so that fulls that take hours never hold up all of its places.

A queue whose server goes away ends neither the process nor a backup that runs: it is asked again
until it is back. A job whose backup goes on meanwhile may be handed out a second time; the item's
lease keeps that from becoming a second backup.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for_all
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlbak.errors import QueueUnreachable, SqlbakError
from sqlbak.fleet import Fleet, instance_of
from sqlbak.model import PointType
from sqlbak.monitor.events import NO_EVENTS, EventSink
from sqlbak.scheduler.admission import Room
from sqlbak.scheduler.backoff import FIRST_SECONDS, LONGEST_SECONDS
from sqlbak.scheduler.candidates import candidate_of
from sqlbak.scheduler.configuration_watch import ConfigurationWatch, ReloadTrouble
from sqlbak.scheduler.due import DueJob, Protected, due
from sqlbak.scheduler.heap import give_freed_memory_back
from sqlbak.scheduler.job_queue import (
    CONNECT_SECONDS,
    DATA_QUEUE,
    LOG_QUEUE,
    TASK,
    in_words,
    prepare,
    reaching,
    require_procrastinate,
    silence_library,
)
from sqlbak.scheduler.logs import EventLog
from sqlbak.scheduler.working import Decide, Ended, Ending, Work
from sqlbak.stopping import StopSignal
from sqlbak.stored_item import Served
from sqlbak.vault.throttle import BandwidthCap

if TYPE_CHECKING:
    import procrastinate

__all__ = ["QueueWorker"]

Take = Callable[[Fleet, DueJob, StopSignal], Ended]
Look = Callable[[Fleet, str], Served]

_LOOK_SECONDS = 0.2
_AWAY_SECONDS = 5.0
"""How soon a queue that went away is asked again."""
_KEPT_HOURS = 72


class _Again(Exception):
    """A job ended without a backup and is to be tried again."""

    def __init__(self, message: str, *, at_once: bool) -> None:
        super().__init__(message)
        self.at_once = at_once


class QueueWorker:
    """Runs until ``stop`` is requested; then lets running backups end for ``grace_seconds``.

    ``on_fleet`` is told of each set of policies that comes into force.
    ``heartbeat_seconds``: after three of them without one, another worker's jobs are taken over.
    ``take`` and ``look`` are there for simulations.
    """

    def __init__(
        self,
        dsn: str,
        watch: ConfigurationWatch,
        log: EventLog,
        stop: StopSignal,
        *,
        jobs: int = 4,
        grace_seconds: float = 20.0,
        heartbeat_seconds: float = 10.0,
        polling_seconds: float = 2.0,
        bandwidth: int | None = None,
        events: EventSink = NO_EVENTS,
        on_fleet: Callable[[Fleet], None] = lambda _fleet: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        decide: Decide = due,
        take: Take | None = None,
        look: Look = lambda fleet, name: fleet.served(name),
    ) -> None:
        self._procrastinate = require_procrastinate()
        self._dsn = dsn
        self._watch = watch
        self._log = log
        self._stop = stop
        self._abort = StopSignal()
        self._room = Room(jobs)
        self._grace_seconds = grace_seconds
        self._heartbeat_seconds = heartbeat_seconds
        self._polling_seconds = polling_seconds
        self._cap = None if bandwidth is None else BandwidthCap(bandwidth)
        self._events = events
        self._on_fleet = on_fleet
        self._now = now
        self._decide = decide
        self._take = self._taken if take is None else take
        self._look = look
        self._fleet: Fleet | None = None
        self._pool = ThreadPoolExecutor(jobs, thread_name_prefix="job")
        self._running: set[Future[Ended]] = set()
        self._waits: set[asyncio.Task[Any]] = set()
        """The jobs of the queue that wait for their backups."""
        self._left: set[asyncio.Task[Any]] = set()
        """Those of them whose queue went away."""
        self._trouble = ReloadTrouble(log)
        self._deadline: float | None = None
        self._is_away = False
        self._has_served = False

    def run(self) -> None:
        """Work. If it fails at the very start: QueueUnreachable, ConfigurationInvalid."""
        # What procrastinate says of its jobs is said here, with their items.
        silence_library()
        give_freed_memory_back()
        try:
            self._reload()
            while not self._stop.is_requested:
                try:
                    with reaching():
                        prepare(self._dsn)
                        asyncio.run(self._serve())
                except QueueUnreachable as error:
                    if not self._has_served:
                        raise
                    self._told_away(error)
                    self._stop.wait(_AWAY_SECONDS)
            # Backups of a queue that went away; the others have ended, or were asked to.
            wait_for_all(self._running.copy(), self._grace_left())
        finally:
            self._abort.request("the worker is stopping")
            self._pool.shutdown(wait=True, cancel_futures=True)
            if self._fleet is not None:
                self._fleet.close()
        self._log.info("stopped")

    async def _serve(self) -> None:
        """Until asked to stop, or QueueUnreachable."""
        jobs = self._room.jobs
        app = self._app(jobs)
        async with app.open_async():
            anything = self._room.for_data
            workers = [self._worker(app, [LOG_QUEUE, DATA_QUEUE], anything)]
            if jobs > anything:
                workers.append(self._worker(app, [LOG_QUEUE], jobs - anything))
            others = [asyncio.create_task(self._recover(app)), asyncio.create_task(self._follow())]
            self._told_back(jobs, anything)
            try:
                while not self._stop.is_requested:
                    done, _ = await asyncio.wait([*workers, *others], timeout=_LOOK_SECONDS)
                    for task in done:
                        task.result()
                    if done:
                        # A lost connection ends the library's workers, at times without an error.
                        raise QueueUnreachable(
                            "the queue cannot be used: its server closed the connection",
                            hint="look at the log of that server",
                        )
                self._log.info("stopping", grace_seconds=self._grace_seconds)
            finally:
                await self._end(workers, others)

    def _noted(self, job: asyncio.Task[Any]) -> None:
        """The library notes the end of a job; where the queue's server went away, or the job was
        given to another worker meanwhile, it cannot, and nothing is lost by that."""
        if not job.cancelled() and (error := job.exception()) is not None:
            self._log.info("queue not told of an end", error=in_words(error))

    async def _end(
        self, workers: list[asyncio.Task[None]], others: list[asyncio.Task[None]]
    ) -> None:
        """No new jobs. Those that run may end for a while, and are then asked to; where the queue
        went away they are left to go on without it."""
        if not self._stop.is_requested:
            self._left = self._waits.copy()
            for waiting in self._left:
                waiting.cancel()
        for task in (*workers, *others):
            task.cancel()
        if self._stop.is_requested:
            _, running = await asyncio.wait(workers, timeout=self._grace_left())
            if running:
                self._abort.request("the worker is stopping")
        await asyncio.gather(*workers, *others, return_exceptions=True)

    def _grace_left(self) -> float:
        """How long running backups may still go on, counted from the first call."""
        if self._abort.is_requested:
            return 0.0
        if self._deadline is None:
            self._deadline = time.monotonic() + self._grace_seconds
        return max(self._deadline - time.monotonic(), 0.0)

    def _told_away(self, error: QueueUnreachable) -> None:
        if not self._is_away:
            going_on = len(self._running)
            self._log.error(
                "queue away", error=error.message, hint=error.hint, backups_going_on=going_on
            )
        self._is_away = True

    def _told_back(self, jobs: int, for_data: int) -> None:
        if self._is_away:
            self._log.info("queue back")
        if not self._has_served:
            self._log.info("worker started", jobs=jobs, for_data=for_data)
        self._has_served, self._is_away = True, False

    def _app(self, jobs: int) -> procrastinate.App:
        connector = self._procrastinate.PsycopgConnector(
            conninfo=self._dsn, min_size=2, max_size=jobs + 6, timeout=CONNECT_SECONDS
        )
        app: procrastinate.App = self._procrastinate.App(connector=connector)
        app.task(name=TASK, pass_context=True, retry=_strategy(self._procrastinate))(self._job)
        return app

    def _worker(self, app: procrastinate.App, queues: list[str], places: int) -> asyncio.Task[None]:
        return asyncio.create_task(
            app.run_worker_async(
                queues=queues,
                concurrency=places,
                install_signal_handlers=False,
                fetch_job_polling_interval=self._polling_seconds,
                update_heartbeat_interval=self._heartbeat_seconds,
                stalled_worker_timeout=3 * self._heartbeat_seconds,
            )
        )

    async def _job(self, _context: Any, /, **arguments: str) -> str:
        """One job of the queue. Its slot and reason are for people."""
        item, kind = arguments["item"], PointType(arguments["type"])
        branch = ExitStack()
        own = branch.enter_context(self._abort.branch())
        future = self._pool.submit(self._take_or_tell, item, kind, own)
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        future.add_done_callback(lambda _future: branch.close())
        running = asyncio.wrap_future(future)
        waiting = asyncio.current_task()
        assert waiting is not None  # noqa: S101 - this is a coroutine
        waiting.add_done_callback(self._noted)
        self._waits.add(waiting)
        try:
            ended = await asyncio.shield(running)
        except asyncio.CancelledError:
            if waiting in self._left:
                # It goes on in its thread; one that had no thread yet is not begun.
                running.cancel()
            else:
                own.request("the job was aborted in the queue")
                await running
            raise
        finally:
            self._waits.discard(waiting)
        return self._settled(ended)

    def _settled(self, ended: Ended) -> str:
        error = ended.error
        if ended.ending in (Ending.CANCELLED, Ending.PAUSED):
            # The next slot is the next try.
            raise self._procrastinate.exceptions.JobAborted
        if ended.ending in (Ending.FAILED, Ending.LEFT, Ending.INTERRUPTED):
            message = ended.ending.value if error is None else error.message
            raise _Again(message, at_once=ended.ending is Ending.INTERRUPTED)
        return ended.ending.value

    def _take_or_tell(self, item: str, kind: PointType, stop: StopSignal) -> Ended:
        """Take it, and log what went wrong: nobody may be waiting for the answer any more."""
        try:
            ended = self._look_and_take(item, kind, stop)
        except Exception as defect:
            self._log.exception("backup failed by a defect", item=item, error=repr(defect))
            raise
        error = ended.error
        if ended.ending is Ending.FAILED and error is not None:
            self._log.error(
                "backup failed",
                item=item,
                type=kind.value,
                code=error.code,
                error=error.message,
                hint=error.hint,
            )
        return ended

    def _look_and_take(self, item: str, kind: PointType, stop: StopSignal) -> Ended:
        """Whether it is still due is known here better than where it was put in."""
        fleet = self._fleet
        assert fleet is not None  # noqa: S101 - run() has loaded it
        if instance_of(item) not in fleet.configuration.instances:
            return Ended(Ending.NOT_DUE)
        fleet.enter()
        try:
            served = self._look(fleet, item)
            protected = Protected(item, fleet.policy(item), served.points, served.cancelled)
            now = self._now()
            found = [job for job in self._decide([protected], now) if job.type is kind]
            if not found or _is_quiet(fleet, found[0], now):
                return Ended(Ending.NOT_DUE)
            return self._take(fleet, found[0], stop)
        except SqlbakError as error:
            return Ended(Ending.FAILED, error=error)
        finally:
            fleet.leave()

    def _taken(self, fleet: Fleet, job: DueJob, stop: StopSignal) -> Ended:
        return Work(self._log, stop, self._now, self._events, self._decide).take(fleet, job)

    async def _recover(self, app: procrastinate.App) -> None:
        """Give back the jobs of workers that are gone, and forget old ones."""
        while True:
            stalled = await app.job_manager.get_stalled_jobs(
                seconds_since_heartbeat=3 * self._heartbeat_seconds
            )
            for job in stalled:
                self._log.warning(
                    "job of a dead worker taken over", item=job.task_kwargs.get("item")
                )
                with suppress(self._procrastinate.exceptions.ConnectorException):
                    # Another worker may have been faster.
                    await app.job_manager.retry_job(job, retry_at=datetime.now(UTC))
            await app.job_manager.delete_old_jobs(
                nb_hours=_KEPT_HOURS,
                include_failed=True,
                include_cancelled=True,
                include_aborted=True,
            )
            await asyncio.sleep(self._heartbeat_seconds)

    async def _follow(self) -> None:
        """Read the policy files when they change."""
        while True:
            await asyncio.sleep(self._polling_seconds)
            try:
                self._reload()
            except SqlbakError as error:
                self._trouble.tell(error)

    def _reload(self) -> None:
        loaded = self._watch.poll()
        if loaded is None:
            return
        self._trouble.end()
        before = self._fleet
        self._fleet = Fleet(loaded.configuration, stop=self._abort, bandwidth=self._cap)
        if before is not None:
            before.close_when_idle()
        self._on_fleet(self._fleet)
        self._log.info("policies loaded", files=[str(file) for file in loaded.files])


def _is_quiet(fleet: Fleet, job: DueJob, now: datetime) -> bool:
    """Whether quiet hours began while it waited in the queue; it is put in again at their end."""
    is_held_up = candidate_of(fleet, job, now).quiet_until is not None
    return is_held_up and job.type is not PointType.LOG


def _strategy(library: Any) -> Any:
    class Waits(library.BaseRetryStrategy):  # type: ignore[misc]
        """As in the loop: waits that double, up to ten minutes, for ever."""

        def get_retry_decision(self, *, exception: BaseException, job: Any) -> Any:
            if isinstance(exception, library.exceptions.JobAborted):
                return None
            if isinstance(exception, _Again) and exception.at_once:
                return library.RetryDecision(retry_in={"seconds": 0})
            wait = min(FIRST_SECONDS * 2.0 ** min(job.attempts, 10), LONGEST_SECONDS)
            return library.RetryDecision(retry_in={"seconds": int(wait)})

    return Waits()
