"""``sqlbak ship``: one item's log, while it is written."""

from __future__ import annotations

from typing import Annotated

import typer

from sqlbak.cli.session import AsJson, Config, Item, session
from sqlbak.cli.signals import stop_on_signals
from sqlbak.policy.schema import DEFAULT_SHIPPING_SECONDS
from sqlbak.scheduler.logs import event_log
from sqlbak.scheduler.shippers import Shippers

__all__ = ["ship"]


def ship(
    context: typer.Context,
    item: Item = None,
    interval: Annotated[
        int | None,
        typer.Option(
            "--interval", min=1, max=60, help="Seconds; else the policy's, else 5.", metavar="S"
        ),
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Ship one item's log to the vault as it is written, until told to stop. `sqlbak run` does so
    by itself where the policy says log_shipping: continuous."""
    here = session(context, config, as_json=as_json)
    log = event_log(as_json=True if here.output.as_json else None)
    with stop_on_signals() as stop, here.fleet() as fleet:
        instance = fleet.instance_named(item)
        seconds = interval or fleet.policy(instance).shipping_interval_seconds
        Shippers(log).ship(fleet, instance, seconds or DEFAULT_SHIPPING_SECONDS, stop)
    log.info("stopped")
