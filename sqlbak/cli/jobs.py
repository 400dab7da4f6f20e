"""``sqlbak jobs``: what runs, what ran, and how to end what runs."""

from __future__ import annotations

import getpass
import json
import os
import socket
import sys
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from sqlbak.cli.output import Output, instant, size_text
from sqlbak.cli.session import AsJson, Config, Item, session
from sqlbak.cli.signals import stop_on_signals
from sqlbak.errors import UnknownName, UsageError
from sqlbak.fleet import Fleet, StoredItem
from sqlbak.monitor.job_history import (
    PastJob,
    is_failure,
    newest_runs,
    past_jobs,
    read_runs,
)
from sqlbak.monitor.running_jobs import JobState, RunningJob, running_jobs
from sqlbak.monitor.stock import named, stock_of
from sqlbak.stopping import StopSignal
from sqlbak.vault.job_records import note_document
from sqlbak.vault.running import Cancellation, ask_to_cancel

__all__ = ["jobs"]

_FOLLOWED = 1000
"""How many of the newest runs are listed while following: one page of a listing for each item."""


def jobs(
    context: typer.Context,
    item: Item = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="Only runs that failed, were interrupted or cancelled.")
    ] = False,
    limit: Annotated[
        int, typer.Option("--limit", min=0, max=1000, help="How many past runs to show.")
    ] = 20,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on and tell what begins, moves and ends.")
    ] = False,
    every: Annotated[
        float, typer.Option("--every", min=0.1, help="With --follow: seconds between two looks.")
    ] = 5.0,
    cancel: Annotated[
        str | None,
        typer.Option("--cancel", metavar="ID", help="Ask this running job to end, from anywhere."),
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show running and past jobs, of one item or of all; or end a running one."""
    here = session(context, config, as_json=as_json)
    if cancel is not None and (follow or failed):
        raise UsageError("--cancel goes with neither --follow nor --failed")
    with stop_on_signals() as stop, here.fleet(stop) as fleet:
        if cancel is not None:
            _cancel(fleet, item, cancel, here.output)
            return
        if follow:
            _follow(fleet, item, every, stop, here.output, is_failed_only=failed)
            return
        stored = _stored(fleet, item)
        past = past_jobs(stored, limit=limit, is_failed_only=failed)
        running = running_jobs(stored, datetime.now(UTC))
    here.output.document(
        {
            "running": [running_document(job) for job in running],
            "jobs": [past_document(job) for job in past],
        }
    )
    _show(running, past, here.output)


def _stored(fleet: Fleet, item: str | None) -> tuple[StoredItem, ...]:
    stock = stock_of(fleet)
    for _, error in stock.failures:
        raise error
    return named(fleet, stock, item)


def _cancel(fleet: Fleet, item: str | None, job_id: str, output: Output) -> None:
    running = running_jobs(_stored(fleet, item), datetime.now(UTC))
    job = next((job for job in running if job.record.job_id == job_id), None)
    wish = Cancellation(datetime.now(UTC), f"{_user()}@{socket.gethostname()}")
    if job is None or not ask_to_cancel(job.stored.vault.store, job.stored.item.id, job_id, wish):
        raise UnknownName("running job", job_id, [each.record.job_id for each in running])
    slots = [{"type": one.type.value, "slot": instant(one.instant)} for one in job.record.slots]
    output.document({"cancelled": running_document(job), "slots": slots})
    if job.state is JobState.DEAD:
        output.text(f"{job_id} is dead already; the next run of {job.stored.item.name} clears up")
    else:
        output.text(f"{job_id} was asked to end; it does so within seconds and leaves nothing")
    for slot in job.record.slots:
        output.text(f"no {slot.type.value} is begun again for {slot.instant:%Y-%m-%d %H:%M:%S}Z")


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return str(os.getuid())  # a container may run under a number that has no name


def running_document(job: RunningJob) -> dict[str, Any]:
    """One job under way, as JSON shows it."""
    progress = job.progress
    return {
        "id": job.record.job_id,
        "item": job.stored.item.name,
        "item_id": job.stored.item.id,
        "type": job.record.type,
        "state": job.state.value,
        "point": job.record.point_id,
        "started_at": instant(job.record.started_at),
        "host": job.record.host,
        "pid": job.record.pid,
        "progress": None
        if progress is None
        else {
            "phase": progress.phase,
            "done_bytes": progress.done_bytes,
            "total_bytes": progress.total_bytes,
            "told_at": instant(progress.told_at),
        },
    }


def past_document(job: PastJob) -> dict[str, Any]:
    """One run that ended, as JSON shows it."""
    record = job.record
    failed = record.error_code is not None
    return {
        "id": record.job_id,
        "item": job.stored.item.name,
        "item_id": job.stored.item.id,
        "type": record.type,
        "outcome": record.outcome.value,
        "started_at": instant(record.started_at),
        "finished_at": instant(record.finished_at),
        "seconds": round((record.finished_at - record.started_at).total_seconds(), 3),
        "slot": instant(record.slot),
        "point": record.point_id,
        "error": {"code": record.error_code, "message": record.error_message} if failed else None,
        "notes": [note_document(note) for note in record.notes],
    }


def _show(running: list[RunningJob], past: list[PastJob], output: Output) -> None:
    if running:
        output.table(
            ("job", "item", "type", "state", "since", "progress", "on"),
            [
                [
                    job.record.job_id,
                    job.stored.item.name,
                    job.record.type or "-",
                    job.state.value,
                    f"{job.record.started_at:%Y-%m-%d %H:%M:%S}Z",
                    _progress_text(job),
                    f"{job.record.host}:{job.record.pid}",
                ]
                for job in running
            ],
        )
        output.text()
    output.table(
        ("job", "item", "type", "outcome", "started", "seconds", "point or error"),
        [
            [
                job.record.job_id,
                job.stored.item.name,
                job.record.type,
                job.record.outcome.value,
                f"{job.record.started_at:%Y-%m-%d %H:%M:%S}Z",
                f"{(job.record.finished_at - job.record.started_at).total_seconds():.1f}",
                job.record.point_id or _one_line(job.record.error_message or "-"),
            ]
            for job in past
        ],
    )


def _progress_text(job: RunningJob) -> str:
    progress = job.progress
    if progress is None:
        return "-"
    done = f"{progress.phase or 'beginning'}: {size_text(progress.done_bytes)}"
    if not progress.total_bytes:
        return done
    share = min(100 * progress.done_bytes // progress.total_bytes, 100)
    return f"{done} of {size_text(progress.total_bytes)} ({share}%)"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _follow(
    fleet: Fleet,
    item: str | None,
    every: float,
    stop: StopSignal,
    output: Output,
    *,
    is_failed_only: bool,
) -> None:
    """A line for each change, until stopped: what was there before is not told."""
    told: dict[str, str] = {}
    seen = {name.job_id for _, name in newest_runs(_stored(fleet, item), _FOLLOWED)}
    while True:
        stored = _stored(fleet, item)
        for job in [] if is_failed_only else running_jobs(stored, datetime.now(UTC)):
            text = f"{job.state.value} {_progress_text(job)}"
            if told.get(job.record.job_id) != text:
                told[job.record.job_id] = text
                line = f"{job.record.job_id} {job.stored.item.name} {job.record.type or '-'} {text}"
                _tell("running", running_document(job), line, output)
        ended = [run for run in newest_runs(stored, _FOLLOWED) if run[1].job_id not in seen]
        seen.update(name.job_id for _, name in ended)
        for past in reversed(read_runs(ended)):
            if is_failure(past.record) or not is_failed_only:
                _tell("ended", past_document(past), _ended_text(past), output)
        if stop.wait(every):
            return


def _ended_text(job: PastJob) -> str:
    end = job.record.point_id or _one_line(job.record.error_message or "")
    return f"{job.record.job_id} {job.stored.item.name} {job.record.type} " + (
        f"{job.record.outcome.value} {end}".rstrip()
    )


def _tell(event: str, document: dict[str, Any], line: str, output: Output) -> None:
    if output.as_json:
        sys.stdout.write(json.dumps({"event": event, **document}, ensure_ascii=False) + "\n")
        sys.stdout.flush()
    else:
        output.text(line)
