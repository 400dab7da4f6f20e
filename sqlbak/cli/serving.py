"""``sqlbak run``: the scheduler, or one round of it."""

from __future__ import annotations

import signal
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from sqlbak.cli.output import instant, point_document
from sqlbak.cli.queueing import Bandwidth, Grace, Jobs, Queue, bytes_per_second, queue_dsn
from sqlbak.cli.session import AsJson, Config, Session, session
from sqlbak.cli.signals import stop_on_signals
from sqlbak.errors import Interrupted, SqlbakError, UsageError
from sqlbak.fleet import Fleet
from sqlbak.monitor.attendant import Attendant
from sqlbak.monitor.metrics import Vitals
from sqlbak.monitor.notifier import Notifier
from sqlbak.monitor.watch import EVERY_SECONDS
from sqlbak.monitor.web import parse_address
from sqlbak.scheduler.configuration_watch import ConfigurationWatch
from sqlbak.scheduler.decisions import Decision, Decisions, decide_all
from sqlbak.scheduler.job_queue import JobQueue
from sqlbak.scheduler.logs import event_log
from sqlbak.scheduler.once import Done, do_all
from sqlbak.scheduler.queue_dispatch import QueueDispatch
from sqlbak.scheduler.service import Limits, Service
from sqlbak.scheduler.working import Ending, Work
from sqlbak.vault.job_records import note_document
from sqlbak.vault.throttle import BandwidthCap

__all__ = ["run"]

_WELL = (Ending.DONE, Ending.NOT_DUE, Ending.LEFT, Ending.PAUSED)


def run(
    context: typer.Context,
    config: Config = None,
    as_json: AsJson = False,
    jobs: Jobs = 4,
    bandwidth: Bandwidth = None,
    tick: Annotated[
        float, typer.Option("--tick", min=0.1, help="Seconds between two looks at what is due.")
    ] = 5.0,
    grace: Grace = 20.0,
    spread: Annotated[
        float,
        typer.Option("--spread", min=0.0, help="Seconds over which starts for a slot are spread."),
    ] = 30.0,
    listen: Annotated[
        str | None,
        typer.Option(
            "--listen", metavar="HOST:PORT", help="Serve /metrics, /healthz and /readyz there."
        ),
    ] = None,
    look: Annotated[
        float,
        typer.Option("--look", min=0.1, help="Seconds between two looks at the fleet's health."),
    ] = EVERY_SECONDS,
    once: Annotated[
        bool, typer.Option("--once", help="Do what is due now, wait for it, and end.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --once: tell what is due and why; do nothing.")
    ] = False,
    queue: Queue = None,
) -> int:
    """Serve the policies until told to stop. SIGHUP reads the policy files again."""
    here = session(context, config, as_json=as_json)
    if dry_run and not once:
        raise UsageError("--dry-run goes with --once", hint="write: sqlbak run --once --dry-run")
    limits = Limits(
        jobs_at_once=jobs,
        tick_seconds=tick,
        grace_seconds=grace,
        spread_seconds=spread,
        bandwidth=bytes_per_second(bandwidth),
    )
    if once:
        return _once(here, limits, is_dry=dry_run)
    with ExitStack() as opened:
        handed = None
        if queue is not None:
            handed = opened.enter_context(JobQueue(queue_dsn(queue)))
        _serve(here, limits, handed, listen, look)
    return 0


def _serve(
    here: Session, limits: Limits, queue: JobQueue | None, listen: str | None, look: float
) -> None:
    watch = ConfigurationWatch(here.config)
    log = event_log(as_json=True if here.output.as_json else None)
    address = None if listen is None else parse_address(listen)
    service: Service | None = None
    dispatch = None if queue is None else QueueDispatch(queue, log)

    def vitals() -> Vitals:
        if service is None:
            return Vitals((), 0.0)
        waiting = [one.job.type for one in service.waiting]
        return Vitals(waiting, service.idle_seconds, {} if dispatch is None else dispatch.counts)

    with (
        stop_on_signals() as stop,
        Attendant(log, vitals, address=address, every_seconds=look) as attendant,
    ):
        before = signal.signal(signal.SIGHUP, lambda _number, _frame: watch.ask())
        try:
            service = Service(
                watch,
                log,
                stop,
                limits=limits,
                events=attendant,
                on_fleet=lambda fleet: attendant.use(fleet.configuration),
                queue=dispatch,
            )
            service.run()
        finally:
            signal.signal(signal.SIGHUP, before)


def _once(here: Session, limits: Limits, *, is_dry: bool) -> int:
    cap = None if limits.bandwidth is None else BandwidthCap(limits.bandwidth)
    now = datetime.now(UTC)
    with (
        stop_on_signals() as stop,
        Fleet(here.load().configuration, stop=stop, bandwidth=cap) as fleet,
    ):
        decisions = decide_all(fleet, now, jobs_at_once=limits.jobs_at_once)
        done: list[Done] = []
        if not is_dry:
            log = event_log(as_json=True if here.output.as_json else None)
            due = [decision.job for decision in decisions.due]
            with closing(Notifier(log)) as notifier:
                notifier.use(fleet.configuration.notifications)
                work = Work(log, stop, lambda: datetime.now(UTC), notifier)
                done = do_all(fleet, due, work, jobs_at_once=limits.jobs_at_once, now=work.now)
    here.output.document(_document(decisions, done, is_dry=is_dry))
    _show(here, decisions, done, is_dry=is_dry)
    if stop.is_requested:
        raise Interrupted
    is_well = not decisions.troubles and all(
        one.ended is None or one.ended.ending in _WELL for one in done
    )
    return 0 if is_well else SqlbakError.exit_code


def _document(decisions: Decisions, done: list[Done], *, is_dry: bool) -> dict[str, Any]:
    outcomes = {id(one.job): one for one in done}
    return {
        "at": instant(decisions.at),
        "dry_run": is_dry,
        "due": [_one(decision, outcomes.get(id(decision.job))) for decision in decisions.due],
        "idle": list(decisions.idle),
        "problems": [
            {
                "name": trouble.name,
                "code": trouble.error.code,
                "message": trouble.error.message,
                "hint": trouble.error.hint,
            }
            for trouble in decisions.troubles
        ],
    }


def _one(decision: Decision, done: Done | None) -> dict[str, Any]:
    job = decision.job
    waiting = decision.waiting if done is None else done.waiting
    document: dict[str, Any] = {
        "item": job.item,
        "type": decision.asked.value,
        "takes": decision.takes.value,
        "slot": None if job.slot is None else job.slot.identity,
        "slot_at": None if job.slot is None else instant(job.slot.instant),
        "reason": job.reason,
        "converted": decision.converted,
        "missed": len(job.missed),
        "waits": None if waiting is None else waiting.why,
        "waits_until": None if waiting is None else instant(waiting.until),
    }
    if done is not None:
        ended = done.ended
        error = None if ended is None else ended.error
        document |= {
            "outcome": "waiting" if ended is None else ended.ending.value,
            "points": []
            if ended is None
            else [point_document(job.item, point) for point in ended.points],
            "notes": [] if ended is None else [note.text for note in ended.notes],
            "coded_notes": [] if ended is None else [note_document(note) for note in ended.notes],
            "error": None
            if error is None
            else {"code": error.code, "message": error.message, "hint": error.hint},
        }
    return document


def _show(here: Session, decisions: Decisions, done: list[Done], *, is_dry: bool) -> None:
    output = here.output
    outcomes = {id(one.job): one for one in done}
    for decision in decisions.due:
        job = decision.job
        line = f"{job.item}: {decision.asked.value} is due: {job.reason}"
        if decision.takes is not decision.asked:
            line += f"; a full is taken instead: {decision.converted}"
        output.text(line)
        one = outcomes.get(id(job))
        waiting = decision.waiting if one is None else one.waiting
        if waiting is not None:
            until = "" if waiting.until is None else f", until {instant(waiting.until)}"
            output.text(f"  it waits {waiting.why}{until}")
        if one is not None and one.ended is not None:
            error = one.ended.error
            output.text(f"  {one.ended.ending.value}" + (f": {error.message}" if error else ""))
            if error is not None and error.hint:
                output.text(f"  hint: {error.hint}")
    for name in decisions.idle:
        output.text(f"{name}: nothing is due")
    for trouble in decisions.troubles:
        output.note(f"{trouble.name}: {trouble.error.message}")
        if trouble.error.hint:
            output.note(f"  hint: {trouble.error.hint}")
    if is_dry and decisions.due:
        output.text("nothing was done (--dry-run)")
