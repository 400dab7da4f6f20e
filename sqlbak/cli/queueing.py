"""``sqlbak worker`` and ``sqlbak queue``: backups that a queue on PostgreSQL hands out."""

from __future__ import annotations

import signal
from collections import Counter
from contextlib import closing
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from sqlbak.cli.output import instant
from sqlbak.cli.session import AsJson, Config, session
from sqlbak.cli.signals import stop_on_signals
from sqlbak.errors import UsageError
from sqlbak.monitor.attendant import WorkersNews
from sqlbak.monitor.notifier import Notifier
from sqlbak.policy.rate import Rate
from sqlbak.policy.settings import Dsn
from sqlbak.scheduler.configuration_watch import ConfigurationWatch
from sqlbak.scheduler.job_queue import JobQueue, require_procrastinate
from sqlbak.scheduler.logs import event_log
from sqlbak.scheduler.queue_worker import QueueWorker

__all__ = [
    "Bandwidth",
    "Grace",
    "Jobs",
    "Queue",
    "bytes_per_second",
    "queue_dsn",
    "show_queue",
    "worker",
]

Jobs = Annotated[int, typer.Option("--jobs", min=1, help="Backups at once.")]
Bandwidth = Annotated[
    str | None,
    typer.Option("--bandwidth", metavar="RATE", help="What all may send, e.g. 50MiB/s."),
]
Grace = Annotated[
    float, typer.Option("--grace", min=0.0, help="Seconds for running backups to end.")
]
Queue = Annotated[
    str | None,
    typer.Option(
        "--queue",
        envvar="SQLBAK_QUEUE",
        metavar="DSN",
        help="PostgreSQL that holds the queue: env:NAME, file:PATH, or a DSN without a password.",
    ),
]


def queue_dsn(text: str) -> str:
    """The connection string meant by ``text``. UsageError; SecretUnavailable. A password on the
    command line would stand in the process list: it is refused."""
    try:
        read = TypeAdapter(Dsn).validate_python(text)
    except ValidationError as error:
        why = str(error.errors(include_url=False)[0]["ctx"]["error"])
        why = why.replace("dsn: env:NAME or dsn: file:PATH", "--queue env:NAME or file:PATH")
        raise UsageError(f"--queue {why}") from None
    dsn: str = read.resolve()
    return dsn


def bytes_per_second(text: str | None) -> int | None:
    """What ``--bandwidth`` says. UsageError."""
    if text is None:
        return None
    try:
        return Rate.parse(text).bytes_per_second
    except ValueError as error:
        raise UsageError(f"--bandwidth {error}") from None


def worker(
    context: typer.Context,
    queue: Queue = None,
    config: Config = None,
    as_json: AsJson = False,
    jobs: Jobs = 4,
    bandwidth: Bandwidth = None,
    grace: Grace = 20.0,
    heartbeat: Annotated[
        float,
        typer.Option("--heartbeat", min=0.5, help="Seconds between two signs of life; see docs."),
    ] = 10.0,
) -> None:
    """Take backups that `sqlbak run --queue` puts in, until told to stop. Run as many as needed."""
    here = session(context, config, as_json=as_json)
    dsn = queue_dsn(_needed(queue))
    watch = ConfigurationWatch(here.config)
    log = event_log(as_json=True if here.output.as_json else None)
    with stop_on_signals() as stop, closing(Notifier(log)) as notifier:
        before = signal.signal(signal.SIGHUP, lambda _number, _frame: watch.ask())
        try:
            QueueWorker(
                dsn,
                watch,
                log,
                stop,
                jobs=jobs,
                grace_seconds=grace,
                heartbeat_seconds=heartbeat,
                bandwidth=bytes_per_second(bandwidth),
                events=WorkersNews(notifier),
                on_fleet=lambda fleet: notifier.use(fleet.configuration.notifications),
            ).run()
        finally:
            signal.signal(signal.SIGHUP, before)


def show_queue(
    context: typer.Context,
    queue: Queue = None,
    ended: Annotated[
        bool, typer.Option("--ended", help="Also those that ended in the last three days.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the jobs in the queue, of all schedulers and workers."""
    here = session(context, as_json=as_json)
    require_procrastinate()
    wanted = ["todo", "doing"]
    if ended:
        wanted += ["succeeded", "failed", "cancelled", "aborted"]
    with JobQueue(queue_dsn(_needed(queue))) as opened:
        jobs = opened.jobs(*wanted)
    counts = Counter(job.status for job in jobs)
    here.output.document(
        {
            "counts": dict(counts),
            "jobs": [
                {
                    "id": job.id,
                    "status": job.status,
                    "item": job.item,
                    "type": job.type.value,
                    "slot": job.slot or None,
                    "attempts": job.attempts,
                    "next_try_at": instant(job.scheduled_at),
                    "worker": job.worker,
                }
                for job in jobs
            ],
        }
    )
    here.output.table(
        ("job", "status", "item", "type", "slot", "attempts", "worker"),
        [
            [
                str(job.id),
                job.status,
                job.item,
                job.type.value,
                job.slot or "-",
                str(job.attempts),
                "-" if job.worker is None else str(job.worker),
            ]
            for job in jobs
        ],
    )


def _needed(queue: str | None) -> str:
    if queue is None:
        raise UsageError(
            "which queue is meant?", hint="write --queue env:QUEUE_DSN, or set SQLBAK_QUEUE"
        )
    return queue
