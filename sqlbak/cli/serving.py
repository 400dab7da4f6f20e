"""``sqlbak run``: the scheduler."""

from __future__ import annotations

import signal
from typing import Annotated

import typer

from sqlbak.cli.session import AsJson, Config, session
from sqlbak.cli.signals import stop_on_signals
from sqlbak.scheduler.configuration_watch import ConfigurationWatch
from sqlbak.scheduler.logs import event_log
from sqlbak.scheduler.service import Limits, Service

__all__ = ["run"]


def run(
    context: typer.Context,
    config: Config = None,
    as_json: AsJson = False,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Backups at once.")] = 4,
    tick: Annotated[
        float, typer.Option("--tick", min=0.1, help="Seconds between two looks at what is due.")
    ] = 5.0,
    grace: Annotated[
        float, typer.Option("--grace", min=0.0, help="Seconds for running backups to end.")
    ] = 20.0,
) -> None:
    """Serve the policies until told to stop. SIGHUP reads the policy files again."""
    here = session(context, config, as_json=as_json)
    watch = ConfigurationWatch(here.config)
    log = event_log(as_json=True if here.output.as_json else None)
    with stop_on_signals() as stop:
        before = signal.signal(signal.SIGHUP, lambda _number, _frame: watch.ask())
        try:
            limits = Limits(jobs_at_once=jobs, tick_seconds=tick, grace_seconds=grace)
            Service(watch, log, stop, limits=limits).run()
        finally:
            signal.signal(signal.SIGHUP, before)
