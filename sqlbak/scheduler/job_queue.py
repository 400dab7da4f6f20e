"""A queue of due backups on PostgreSQL (procrastinate): schedulers put them in, workers on any
machine take them.

The queue decides nothing. A job in it says "look at this item"; whether it is still due is asked
under the item's lease, and only the vault knows what was taken. A queue that is lost, or filled
twice, costs a look.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

import psycopg

from sqlbak.errors import FeatureUnsupported, QueueUnreachable
from sqlbak.model import PointType
from sqlbak.scheduler.due import DueJob

if TYPE_CHECKING:
    import procrastinate

__all__ = [
    "CONNECT_SECONDS",
    "DATA_QUEUE",
    "LOG_QUEUE",
    "TASK",
    "JobQueue",
    "QueuedJob",
    "in_words",
    "require_procrastinate",
    "silence_library",
]

TASK = "sqlbak.backup"
LOG_QUEUE, DATA_QUEUE = "sqlbak_log", "sqlbak_data"
PRIORITIES = {PointType.LOG: 20, PointType.FULL: 10, PointType.DIFFERENTIAL: 5}

_SCHEMA_LOCK = 0x73716C62  # "sqlb": schedulers and workers that start together make it once
CONNECT_SECONDS = 10
"""How long its server may take to answer before it counts as away."""
_AT_ONCE = 200

_LIST = f"""
SELECT id, status::text AS status, args, attempts, scheduled_at, worker_id
FROM procrastinate_jobs
WHERE task_name = '{TASK}' AND status::text = ANY(%(statuses)s)
ORDER BY id
"""  # noqa: S608 - only constants


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """One job of the queue. ``status`` is procrastinate's: ``todo``, ``doing``, ``succeeded``,
    ``failed``, ``cancelled`` or ``aborted``. ``slot``: the identity of the slot it was put in for.
    """

    id: int
    status: str
    item: str
    type: PointType
    slot: str
    attempts: int
    scheduled_at: datetime | None
    worker: int | None

    @property
    def is_active(self) -> bool:
        """Whether it waits or runs."""
        return self.status in ("todo", "doing")


def require_procrastinate() -> Any:
    """The library. FeatureUnsupported where it is not installed."""
    try:
        import procrastinate
    except ImportError as error:
        raise FeatureUnsupported(
            "this installation has no queue: procrastinate is missing",
            hint="install it with: pip install 'sqlbak[queue]'",
        ) from error
    return procrastinate


def silence_library() -> None:
    """What the libraries say of jobs and of lost connections is said by sqlbak, once and with the
    names of items: they would say it every second while the queue's server is away."""
    for name in ("procrastinate", "psycopg.pool"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def lock_of(item: str, kind: PointType) -> str:
    """At most one job with this lock runs: a log backup goes beside a full, nothing else does."""
    return f"{item}.{'log' if kind is PointType.LOG else 'data'}"


class JobQueue:
    """The queue as a scheduler sees it. Close it after use; used from one thread."""

    def __init__(self, dsn: str) -> None:
        self._procrastinate = require_procrastinate()
        self._dsn = dsn
        self._app: procrastinate.App | None = None
        self._is_open = False

    def open(self) -> Self:
        """Connect, and make the queue's tables if they are not there. QueueUnreachable."""
        silence_library()
        self._connect()
        self._is_open = True
        return self

    def close(self) -> None:
        """Disconnect."""
        self._is_open = False
        self._disconnect()

    def _connect(self) -> None:
        with reaching():
            prepare(self._dsn)
            connector = self._procrastinate.SyncPsycopgConnector(
                conninfo=self._dsn, min_size=1, max_size=2, timeout=CONNECT_SECONDS
            )
            self._app = self._procrastinate.App(connector=connector)
            self._app.open()

    def _disconnect(self) -> None:
        app, self._app = self._app, None
        if app is not None:
            app.close()

    @contextmanager
    def _reaching(self) -> Iterator[procrastinate.App]:
        """The queue. After an error it is connected anew: a pool that found its server away would
        ask again minutes later only, and the server may be an empty new one."""
        if not self._is_open:
            raise RuntimeError("the queue is not open")
        if self._app is None:
            self._connect()
        assert self._app is not None  # noqa: S101 - it was connected
        try:
            with reaching():
                yield self._app
        except QueueUnreachable:
            self._disconnect()
            raise

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, kind: object, value: object, traceback: object) -> None:
        self.close()

    def put(self, jobs: Sequence[DueJob]) -> list[DueJob]:
        """Put due backups in; those that were not waiting there already. QueueUnreachable."""
        put: list[DueJob] = []
        for some in batched(jobs, _AT_ONCE):
            if self._put(some):
                put += some
            else:
                # One of them waits there already, so none of them was put in.
                put += [job for job in some if self._put((job,))]
        return put

    def _put(self, jobs: Sequence[DueJob]) -> bool:
        queued = [
            self._procrastinate.jobs.Job(
                task_name=TASK,
                queue=LOG_QUEUE if job.type is PointType.LOG else DATA_QUEUE,
                lock=lock_of(job.item, job.type),
                queueing_lock=f"{job.item}.{job.type.value}",
                priority=PRIORITIES[job.type],
                task_kwargs={
                    "item": job.item,
                    "type": job.type.value,
                    "slot": "" if job.slot is None else job.slot.identity,
                    "reason": job.reason,
                },
            )
            for job in jobs
        ]
        try:
            with self._reaching() as app:
                app.job_manager.batch_defer_jobs(queued)
        except self._procrastinate.exceptions.AlreadyEnqueued:
            return False
        return True

    def jobs(self, *statuses: str) -> list[QueuedJob]:
        """The jobs in those states, oldest first. QueueUnreachable."""
        with self._reaching() as app:
            connector = app.connector.get_sync_connector()
            rows = connector.execute_query_all(_LIST, statuses=list(statuses))
        return [_job(row) for row in rows]


def prepare(dsn: str) -> None:
    """Make procrastinate's tables where they are not, once whoever asks."""
    from procrastinate.schema import SchemaManager

    with psycopg.connect(dsn, connect_timeout=CONNECT_SECONDS) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_SCHEMA_LOCK,))
        row = connection.execute("SELECT to_regclass('procrastinate_jobs')").fetchone()
        if row == (None,):
            connection.execute(SchemaManager.get_schema().encode())


@contextmanager
def reaching() -> Iterator[None]:
    """Errors of the queue's server as QueueUnreachable; none of them shows the password."""
    procrastinate = require_procrastinate()
    pool_errors = _pool_errors()
    try:
        yield
    except (psycopg.Error, procrastinate.exceptions.ConnectorException, *pool_errors) as error:
        raise QueueUnreachable(
            f"the queue cannot be used: {in_words(error)}",
            hint="look at its PostgreSQL server; backups go on without it: sqlbak run",
        ) from error


def in_words(error: BaseException) -> str:
    """The cause: procrastinate's own error says "Database error" only."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__


def batched(jobs: Sequence[DueJob], size: int) -> Iterator[Sequence[DueJob]]:
    """``jobs`` in pieces."""
    for start in range(0, len(jobs), size):
        yield jobs[start : start + size]


def _pool_errors() -> tuple[type[Exception], ...]:
    import psycopg_pool

    return (psycopg_pool.PoolTimeout, psycopg_pool.PoolClosed)


def _job(row: dict[str, Any]) -> QueuedJob:
    args = row["args"]
    return QueuedJob(
        id=row["id"],
        status=row["status"],
        item=str(args.get("item", "")),
        type=PointType(args.get("type", "log")),
        slot=str(args.get("slot", "")),
        attempts=row["attempts"],
        scheduled_at=row["scheduled_at"],
        worker=row["worker_id"],
    )
