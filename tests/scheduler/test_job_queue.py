"""The queue on a real PostgreSQL, with several workers whose backups are a function of the test."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import psycopg
import pytest

from sqlbak.errors import QueueUnreachable, ServerUnreachable
from sqlbak.fleet import Fleet
from sqlbak.model import Point, PointType
from sqlbak.policy.loading import load_configuration
from sqlbak.scheduler import queue_worker
from sqlbak.scheduler.candidates import candidate_of
from sqlbak.scheduler.configuration_watch import ConfigurationWatch
from sqlbak.scheduler.due import DueJob, Protected, due
from sqlbak.scheduler.job_queue import JobQueue, QueuedJob
from sqlbak.scheduler.logs import event_log
from sqlbak.scheduler.queue_dispatch import QueueDispatch
from sqlbak.scheduler.queue_worker import QueueWorker
from sqlbak.scheduler.working import Ended, Ending
from sqlbak.stopping import StopSignal
from sqlbak.stored_item import Served
from sqlbak.vault.cancelled_slots import TypeSlot
from tests.engines.postgres.clusters import Cluster, available_majors, running_cluster

pytestmark = pytest.mark.postgres

ITEMS = [f"db{n:02}" for n in range(12)]
PATIENCE_SECONDS = 90.0
NOON = datetime(2026, 11, 22, 12, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def server() -> Iterator[Cluster]:
    with running_cluster(available_majors()[-1]) as running:
        yield running


@pytest.fixture
def dsn(server: Cluster) -> str:
    """An empty queue."""
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return server.dsn()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    lines = [
        "vaults:",
        f'  main: {{url: "file://{tmp_path}/vault", redundancy: local, limits: {{jobs: 9}}}}',
        "policies:",
        '  gold: {vault: main, full: "0 1 * * *", log: 15m}',
        "instances:",
        *(f'  {item}: {{engine: postgres, dsn: "host=a"}}' for item in ITEMS),
    ]
    file = tmp_path / "policies.yaml"
    file.write_text("\n".join(lines) + "\n")
    return file


Backup = Callable[[DueJob, StopSignal], Ended]


@dataclass
class World:
    """What was taken of each item, by whom, and what runs."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    points: dict[str, list[Point]] = field(default_factory=dict)
    cancelled: list[TypeSlot] = field(default_factory=list)
    taken: list[tuple[str, str, PointType]] = field(default_factory=list)
    running: Counter[tuple[str, bool]] = field(default_factory=Counter)
    overlaps: int = 0
    most: int = 0

    def __post_init__(self) -> None:
        for item in ITEMS:
            self.points[item] = [self.point(PointType.FULL, NOON - timedelta(hours=2), 1)]

    @staticmethod
    def point(kind: PointType, at: datetime, position: int) -> Point:
        return Point(f"{at:%Y%m%dT%H%M%SZ}-aaaaaaaaaa", kind, "1", 0, position, at, at)

    def done(self, worker: str, job: DueJob) -> Ended:
        with self.lock:
            self.taken.append((worker, job.item, job.type))
            made = self.points[job.item]
            made.append(self.point(job.type, NOON, len(made) + 1))
        return Ended(Ending.DONE, (made[-1],))

    @contextmanager
    def work(self, job: DueJob) -> Iterator[None]:
        key = (job.item, job.type is PointType.LOG)
        with self.lock:
            self.running[key] += 1
            self.overlaps += self.running[key] > 1
            self.most = max(self.most, sum(self.running.values()))
        try:
            yield
        finally:
            with self.lock:
                self.running[key] -= 1


@dataclass
class Running:
    """A worker in a thread."""

    stop: StopSignal
    thread: threading.Thread
    diary: StringIO
    errors: list[BaseException]

    def end(self) -> None:
        self.stop.request()
        self.thread.join(PATIENCE_SECONDS)
        assert not self.thread.is_alive()
        assert self.errors == []


class Hall:
    """One queue, its dispatcher and workers."""

    def __init__(self, dsn: str, config: Path) -> None:
        self.dsn, self.config = dsn, config
        self.world = World()
        self.fleet = Fleet(load_configuration(config).configuration)
        self.queue = JobQueue(dsn).open()
        self.dispatch = QueueDispatch(self.queue, event_log(StringIO(), as_json=True))
        self.workers: list[Running] = []

    def due(self, now: datetime = NOON) -> list[DueJob]:
        with self.world.lock:
            items = [
                Protected(name, self.fleet.policy(name), tuple(points))
                for name, points in self.world.points.items()
            ]
        return due(items, now)

    def hand_over(self) -> list[str]:
        candidates = [candidate_of(self.fleet, job, NOON) for job in self.due()]
        waiting = self.dispatch.hand_over(candidates, self.fleet, NOON, lambda _item: None)
        return [one.why for one in waiting]

    def worker(self, name: str, backup: Backup | None = None, *, jobs: int = 4) -> Running:
        stop, diary = StopSignal(), StringIO()
        errors: list[BaseException] = []

        def take(_fleet: Fleet, job: DueJob, own: StopSignal) -> Ended:
            with self.world.work(job):
                if backup is not None:
                    ended = backup(job, own)
                    if ended.ending is not Ending.DONE:
                        return ended
                else:
                    own.wait(0.05)
            return self.world.done(name, job)

        def look(_fleet: Fleet, item: str) -> Served:
            with self.world.lock:
                return Served(tuple(self.world.points[item]), tuple(self.world.cancelled))

        one = QueueWorker(
            self.dsn,
            ConfigurationWatch(self.config),
            event_log(diary, as_json=True),
            stop,
            jobs=jobs,
            grace_seconds=2.0,
            heartbeat_seconds=0.5,
            polling_seconds=0.3,
            now=lambda: NOON,
            take=take,
            look=look,
        )

        def run() -> None:
            try:
                one.run()
            except BaseException as error:
                errors.append(error)

        running = Running(stop, threading.Thread(target=run, name=f"worker-{name}"), diary, errors)
        running.thread.start()
        self.workers.append(running)
        return running

    def until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not done():
            assert time.monotonic() < deadline, self.queue.jobs("todo", "doing", "failed")
            time.sleep(0.05)

    def status(self, *statuses: str) -> list[QueuedJob]:
        return self.queue.jobs(*statuses)


@pytest.fixture
def hall(dsn: str, config: Path) -> Iterator[Hall]:
    made = Hall(dsn, config)
    yield made
    for worker in made.workers:
        worker.stop.request()
    for worker in made.workers:
        worker.thread.join(PATIENCE_SECONDS)
    made.queue.close()
    made.fleet.close()
    assert not [one for one in threading.enumerate() if one.name.startswith(("worker-", "job"))]


def test_several_workers_take_each_backup_once_and_two_schedulers_put_it_in_once(
    hall: Hall,
) -> None:
    hall.world.points["db00"].clear()  # it needs its first full
    limited = hall.hand_over()
    assert len(limited) == 3  # nine at once into this vault, over all workers
    assert set(limited) == {"for another backup into main: limits.jobs is 9"}
    with JobQueue(hall.dsn) as other:
        again = QueueDispatch(other, event_log(StringIO(), as_json=True))
        candidates = [candidate_of(hall.fleet, job, NOON) for job in hall.due()]
        again.hand_over(candidates, hall.fleet, NOON, lambda _item: None)
    assert len(hall.status("todo")) == 9
    for name in "abc":
        hall.worker(name)

    def done() -> bool:
        hall.hand_over()
        return not hall.due() and not hall.status("todo", "doing")

    hall.until(done)
    assert Counter(item for _, item, _ in hall.world.taken) == Counter(ITEMS)
    assert hall.world.overlaps == 0
    assert {worker for worker, _, _ in hall.world.taken} > {"a"}
    assert not hall.status("failed")


def test_logs_are_taken_before_fulls_and_fulls_never_fill_a_worker(hall: Hall) -> None:
    for item in ITEMS[:6]:
        hall.world.points[item].clear()
    release = threading.Event()

    def backup(job: DueJob, stop: StopSignal) -> Ended:
        if job.type is PointType.FULL:
            while not release.is_set() and not stop.wait(0.02):
                pass
        return Ended(Ending.DONE)

    hall.hand_over()
    hall.worker("a", backup, jobs=4)
    # Six fulls that never end hold three places; all logs pass through the rest.
    hall.until(lambda: sum(kind is PointType.LOG for _, _, kind in hall.world.taken) >= 3)
    for _ in range(2):
        hall.hand_over()
    hall.until(lambda: {i for _, i, k in hall.world.taken if k is PointType.LOG} == set(ITEMS[6:]))
    hall.hand_over()
    hall.until(lambda: [job.type for job in hall.status("doing")] == [PointType.FULL] * 3)
    assert len(hall.status("todo")) == 3
    release.set()
    hall.until(lambda: not hall.status("doing", "todo"))


def test_a_backup_that_fails_is_tried_again_and_its_item_holds_up_no_other(hall: Hall) -> None:
    tries: Counter[str] = Counter()

    def backup(job: DueJob, _stop: StopSignal) -> Ended:
        tries[job.item] += 1
        if job.item == "db03":
            return Ended(Ending.FAILED, error=ServerUnreachable("away", hint="look"))
        return Ended(Ending.DONE)

    hall.hand_over()
    worker = hall.worker("a", backup)
    hall.until(lambda: len(hall.status("todo")) == 1 and not hall.status("doing"))
    (waiting,) = hall.status("todo")
    assert (waiting.item, waiting.attempts) == ("db03", 1)
    assert waiting.scheduled_at is not None
    assert 5 < (waiting.scheduled_at - datetime.now(UTC)).total_seconds() <= 15
    assert '"code": "server_unreachable"' in worker.diary.getvalue()
    hall.hand_over()
    assert len([job for job in hall.status("todo") if job.item == "db03"]) == 1


def test_the_jobs_of_a_worker_that_is_gone_are_taken_over(hall: Hall) -> None:
    hall.hand_over()
    with psycopg.connect(hall.dsn, autocommit=True) as connection:
        # A worker that took one and died: no sign of life since.
        row = connection.execute(
            "INSERT INTO procrastinate_workers (last_heartbeat) VALUES (now() - interval '1 h') "
            "RETURNING id"
        ).fetchone()
        assert row is not None
        connection.execute(
            "UPDATE procrastinate_jobs SET status = 'doing', worker_id = %s "
            "WHERE id = (SELECT min(id) FROM procrastinate_jobs)",
            row,
        )
    (lost,) = hall.status("doing")
    hall.worker("a")
    hall.until(lambda: lost.item in {item for _, item, _ in hall.world.taken})
    hall.until(lambda: not hall.status("todo", "doing"))


def test_a_worker_that_is_told_to_stop_ends_what_it_can_and_gives_the_rest_back(
    hall: Hall,
) -> None:
    begun = threading.Event()

    def backup(_job: DueJob, stop: StopSignal) -> Ended:
        begun.set()
        stop.wait(PATIENCE_SECONDS)
        return Ended(Ending.INTERRUPTED)

    hall.hand_over()
    worker = hall.worker("a", backup, jobs=2)
    assert begun.wait(PATIENCE_SECONDS)
    worker.end()
    assert not hall.status("doing")
    assert len(hall.status("todo")) == 9
    hall.worker("b")
    hall.until(lambda: not hall.status("todo"))


def test_a_queue_that_goes_away_ends_neither_a_worker_nor_a_backup_that_runs(
    hall: Hall, server: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_worker, "CONNECT_SECONDS", 0.5)
    monkeypatch.setattr(queue_worker, "_AWAY_SECONDS", 0.5)
    begun, may_end = threading.Event(), threading.Event()
    interrupted: list[str] = []

    def backup(job: DueJob, stop: StopSignal) -> Ended:
        if job.item == "db03":
            if begun.is_set():
                return Ended(Ending.LEFT)  # handed out again, as the lease would tell
            begun.set()
            may_end.wait(PATIENCE_SECONDS)
        if stop.is_requested:
            interrupted.append(job.item)
        return Ended(Ending.DONE)

    def taken() -> set[str]:
        return {item for _, item, _ in hall.world.taken}

    due_jobs = hall.due()
    hall.queue.put([job for job in due_jobs if job.item == "db03"])
    worker = hall.worker("a", backup)
    assert begun.wait(PATIENCE_SECONDS)
    server.stop()
    try:
        hall.until(lambda: '"queue away"' in worker.diary.getvalue())
    finally:
        server.start()
    with JobQueue(hall.dsn) as others:
        others.put([job for job in due_jobs if job.item != "db03"])
        # While the first one still runs, the worker serves the queue again.
        hall.until(lambda: taken() == {*ITEMS} - {"db03"})
        may_end.set()
        hall.until(lambda: taken() == {*ITEMS})
    worker.end()
    assert interrupted == []
    assert '"queue back"' in worker.diary.getvalue()


def test_what_somebody_cancels_is_not_put_in_again_before_its_next_slot(hall: Hall) -> None:
    hall.hand_over()
    hall.worker("a", lambda _job, _stop: Ended(Ending.CANCELLED))
    hall.until(lambda: len(hall.status("aborted")) == 9)
    hall.hand_over()
    hall.hand_over()
    hall.until(lambda: len(hall.status("aborted")) == len(ITEMS))
    hall.hand_over()
    assert not hall.status("todo", "doing")


def test_what_somebody_cancelled_while_it_waited_in_the_queue_is_not_taken(hall: Hall) -> None:
    hall.hand_over()
    waiting = [job for job in hall.due() if job.slot is not None]
    hall.world.cancelled = [TypeSlot(job.type, job.slot.instant) for job in waiting if job.slot]
    hall.worker("a")
    hall.until(lambda: not hall.status("todo", "doing"))
    assert hall.world.taken == []
    assert not hall.status("failed")


def test_quiet_hours_that_began_while_a_full_waited_hold_it_up_and_no_log(hall: Hall) -> None:
    hall.world.points["db03"] = []
    due_jobs = hall.due()
    hall.config.write_text(
        hall.config.read_text().replace("log: 15m", 'log: 15m, quiet_hours: ["12:00-13:00"]')
    )
    hall.queue.put(due_jobs)
    hall.worker("a")
    hall.until(lambda: not hall.status("todo", "doing"))
    assert {item for _, item, _ in hall.world.taken} == {*ITEMS} - {"db03"}
    assert not hall.status("failed")


def test_what_is_not_due_any_more_or_not_configured_is_no_failure(hall: Hall) -> None:
    hall.hand_over()
    gone = hall.due()[0]
    hall.queue.put([DueJob("not-there", PointType.LOG, gone.slot, "it was")])
    for points in hall.world.points.values():
        points.append(World.point(PointType.LOG, NOON, 99))
    hall.worker("a")
    hall.until(lambda: not hall.status("todo", "doing"))
    assert hall.world.taken == []
    assert not hall.status("failed")


def test_a_queue_that_does_not_answer_is_named_without_its_password(tmp_path: Path) -> None:
    dsn = "host=127.0.0.1 port=1 user=x password=hidden-word connect_timeout=2"
    with pytest.raises(QueueUnreachable) as caught:
        JobQueue(dsn).open()
    assert "hidden-word" not in str(caught.value)
