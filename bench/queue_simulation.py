"""Two thousand items with logs every 15 minutes and a full a day, on three workers: does anything
starve?

A real PostgreSQL holds the queue; schedulers' decisions, queue and workers are sqlbak's own.
Stubbed are the backups (they take time and nothing else) and the vault (a table of what was taken
when).
Time is compressed. Printed is how long after its slot each log began, in simulated minutes.

    python -m bench.queue_simulation --items 2000 --workers 3 --factor 10 --intervals 4
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import psycopg
from psycopg_pool import ConnectionPool

from sqlbak.fleet import Fleet
from sqlbak.model import Point, PointType
from sqlbak.policy.loading import load_configuration
from sqlbak.scheduler.candidates import candidate_of
from sqlbak.scheduler.configuration_watch import ConfigurationWatch
from sqlbak.scheduler.due import DueJob, Protected, due
from sqlbak.scheduler.job_queue import JobQueue
from sqlbak.scheduler.logs import event_log
from sqlbak.scheduler.queue_dispatch import QueueDispatch
from sqlbak.scheduler.queue_worker import QueueWorker
from sqlbak.scheduler.working import Ended, Ending
from sqlbak.stopping import StopSignal
from sqlbak.stored_item import Served
from tests.engines.postgres.clusters import available_majors, running_cluster

BEGIN = datetime(2026, 11, 23, 11, 58, tzinfo=UTC)
LOG_SECONDS, FULL_SECONDS = 4.0, 1200.0
"""Simulated."""


class Clock:
    """Simulated time, the same in all processes."""

    def __init__(self, started: float, factor: float) -> None:
        self.started, self.factor = started, factor

    def now(self) -> datetime:
        return BEGIN + timedelta(seconds=(time.time() - self.started) * self.factor)


def write_policies(folder: Path, items: int) -> Path:
    """Fulls are spread over the day by 96 policies, as they are where somebody takes care."""
    lines = ["vaults:", f'  main: {{url: "file://{folder}/vault", redundancy: local}}', "policies:"]
    for number in range(96):
        clock = f"{number % 4 * 15} {number // 4}"
        lines.append(f'  p{number}: {{vault: main, full: "{clock} * * *", log: 15m}}')
    lines.append("instances:")
    for number in range(items):
        policy = f"p{number % 96}"
        lines.append(f'  db{number:04}: {{engine: postgres, dsn: "host=a", policy: {policy}}}')
    file = folder / "policies.yaml"
    file.write_text("\n".join(lines) + "\n")
    return file


def point(kind: PointType, at: datetime, position: int) -> Point:
    return Point(f"{at:%Y%m%dT%H%M%SZ}-aaaaaaaaaa", kind, "1", 0, position, at, at)


class Taken:
    """The stand-in for the vault: what was taken of each item last."""

    def __init__(self, dsn: str) -> None:
        self.pool = ConnectionPool(dsn, min_size=1, max_size=4, open=True)

    def points(self, item: str) -> tuple[Point, ...]:
        return self.all(item)[item]

    def all(self, item: str | None = None) -> dict[str, tuple[Point, ...]]:
        found: dict[str, tuple[Point, ...]] = {}
        with self.pool.connection() as connection:
            rows = connection.execute(
                "SELECT item, full_at, log_at FROM taken WHERE item = coalesce(%s, item)", (item,)
            ).fetchall()
        for name, full_at, log_at in rows:
            full, log = full_at.astimezone(UTC), log_at.astimezone(UTC)
            found[name] = (point(PointType.FULL, full, 1), point(PointType.LOG, log, 2))
        return found

    def take(self, item: str, kind: PointType, at: datetime, slot: datetime, worker: int) -> None:
        column = "log_at" if kind is PointType.LOG else "full_at"
        with self.pool.connection() as connection:
            connection.execute(
                f"UPDATE taken SET {column} = %s WHERE item = %s",
                (at, item),
            )
            connection.execute(
                "INSERT INTO history VALUES (%s, %s, %s, %s, %s)",
                (item, kind.value, slot, at, worker),
            )


def work(number: int, dsn: str, config: str, clock: Clock, jobs: int, until: float) -> None:
    taken = Taken(dsn)
    stop = StopSignal()
    chance = random.Random(number)

    def take(_fleet: Fleet, job: DueJob, own: StopSignal) -> Ended:
        begun = clock.now()
        mean = LOG_SECONDS if job.type is PointType.LOG else FULL_SECONDS
        own.wait(chance.uniform(0.5, 1.5) * mean / clock.factor)
        assert job.slot is not None
        taken.take(job.item, job.type, begun, job.slot.instant, number)
        return Ended(Ending.DONE)

    worker = QueueWorker(
        dsn,
        ConfigurationWatch(Path(config)),
        event_log(StringIO(), as_json=True),
        stop,
        jobs=jobs,
        grace_seconds=1.0,
        now=clock.now,
        polling_seconds=1.0,
        take=take,
        look=lambda _fleet, item: Served(tuple(taken.points(item))),
    )
    import threading

    timer = threading.Timer(max(until - time.time(), 0), stop.request)
    timer.start()
    worker.run()
    timer.cancel()


def schedule(dsn: str, config: Path, clock: Clock, until: float) -> float:
    """The scheduler's side; how long its longest round took, in real seconds."""
    longest = 0.0
    taken = Taken(dsn)
    with Fleet(load_configuration(config).configuration) as fleet, JobQueue(dsn) as queue:
        dispatch = QueueDispatch(queue, event_log(StringIO(), as_json=True))
        policies = {name: fleet.policy(name) for name in fleet.instances()}
        while time.time() < until:
            begun = time.monotonic()
            now = clock.now()
            items = [Protected(n, policies[n], points) for n, points in taken.all().items()]
            candidates = [candidate_of(fleet, job, now) for job in due(items, now)]
            dispatch.hand_over(candidates, fleet, now, lambda _item: None)
            longest = max(longest, time.monotonic() - begun)
            time.sleep(max(0.5 - (time.monotonic() - begun), 0.05))
    return longest


def prepare(dsn: str, items: int) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE taken (item text PRIMARY KEY, full_at timestamptz, log_at timestamptz)"
        )
        connection.execute(
            "CREATE TABLE history (item text, kind text, slot timestamptz, at timestamptz, "
            "worker int)"
        )
        midnight = BEGIN.replace(hour=0, minute=0)
        for number in range(items):
            # Everything is served when it begins.
            full_at = midnight + timedelta(minutes=15 * (number % 96))
            if full_at > BEGIN:
                full_at -= timedelta(days=1)
            connection.execute(
                "INSERT INTO taken VALUES (%s, %s, %s)",
                (f"db{number:04}", full_at, BEGIN - timedelta(minutes=1)),
            )


def report(dsn: str, items: int, intervals: int) -> dict[str, object]:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT slot, extract(epoch FROM at - slot) / 60 FROM history WHERE kind = 'log'"
        ).fetchall()
        fulls = connection.execute(
            "SELECT count(*), max(extract(epoch FROM at - slot) / 60) FROM history "
            "WHERE kind = 'full'"
        ).fetchone()
        gaps = connection.execute(
            "SELECT max(extract(epoch FROM gap) / 60) FROM (SELECT at - lag(at) OVER "
            "(PARTITION BY item ORDER BY at) AS gap FROM history WHERE kind = 'log') AS all_gaps"
        ).fetchone()
        workers = connection.execute(
            "SELECT worker, count(*) FROM history GROUP BY worker ORDER BY worker"
        ).fetchall()
        failed = connection.execute(
            "SELECT count(*) FROM procrastinate_jobs WHERE status = 'failed'"
        ).fetchone()
    by_slot: dict[str, list[float]] = {}
    for slot, late in rows:
        by_slot.setdefault(f"{slot.astimezone(UTC):%H:%M}", []).append(float(late))
    assert fulls is not None
    assert gaps is not None
    assert failed is not None
    return {
        "items": items,
        "intervals": intervals,
        "logs": len(rows),
        "late_minutes_by_slot": {
            slot: {
                "logs": len(late),
                "median": round(statistics.median(late), 2),
                "p99": round(sorted(late)[int(len(late) * 0.99) - 1], 2),
                "longest": round(max(late), 2),
            }
            for slot, late in sorted(by_slot.items())
        },
        "longest_time_between_two_logs_of_an_item_minutes": round(float(gaps[0] or 0), 2),
        "fulls": fulls[0],
        "longest_wait_of_a_full_minutes": round(float(fulls[1] or 0), 2),
        "backups_by_worker": dict(workers),
        "failed_jobs": failed[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=16, help="places of each worker")
    parser.add_argument("--factor", type=float, default=10.0, help="simulated seconds a second")
    parser.add_argument("--intervals", type=int, default=4)
    asked = parser.parse_args()
    seconds = (asked.intervals * 15 + 2 + 7) * 60 / asked.factor
    with (
        tempfile.TemporaryDirectory() as folder,
        running_cluster(available_majors()[-1], settings={"max_connections": "200"}) as cluster,
    ):
        dsn = cluster.dsn()
        config = write_policies(Path(folder), asked.items)
        prepare(dsn, asked.items)
        context = multiprocessing.get_context("spawn")
        clock = Clock(time.time() + 15, asked.factor)  # the processes need a while to start
        until = clock.started + seconds
        workers = [
            context.Process(target=work, args=(n, dsn, str(config), clock, asked.jobs, until))
            for n in range(asked.workers)
        ]
        with JobQueue(dsn):
            pass  # its tables
        for worker in workers:
            worker.start()
        time.sleep(max(clock.started - time.time(), 0))
        longest = schedule(dsn, config, clock, until)
        for worker in workers:
            worker.join()
        found = report(dsn, asked.items, asked.intervals)
        found["longest_round_of_the_scheduler_seconds"] = round(longest, 2)
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
