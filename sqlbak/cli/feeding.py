"""``sqlbak feed``: feed log to a restored server that was started by hand."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from sqlbak.cli.progress import progress_for
from sqlbak.cli.session import (
    AsJson,
    Config,
    FromFolder,
    LogSpace,
    PlainPoints,
    Quiet,
    VaultKeys,
    session,
    size_option,
)
from sqlbak.cli.signals import stop_on_signals
from sqlbak.restore.executor import Stock
from sqlbak.restore.feeding import feed_item

__all__ = ["feed"]


def feed(
    context: typer.Context,
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="What was restored without --start.")
    ],
    log_space: LogSpace = None,
    source: FromFolder = None,
    vault_key: VaultKeys = None,
    plain_points: PlainPoints = False,
    config: Config = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Feed log to the server on DIR until it is writable. Only needed where a restore without
    --start says so: its log was longer than --log-space."""
    here = session(context, config, as_json=as_json, quiet=quiet)
    folder = here.folder(source, vault_key, plain_points=plain_points)
    with (
        stop_on_signals() as stop,
        contextlib.ExitStack() as opened,
        progress_for(quiet=here.quiet) as shown,
    ):
        stock: Stock = folder or opened.enter_context(here.fleet(stop))
        fed = feed_item(
            stock,
            directory,
            feed_command=here.own_command("feed", folder),
            log_space_bytes=size_option("--log-space", log_space),
            progress=shown,
            stop=stop,
        )
    here.output.document(
        {
            "directory": str(directory.absolute()),
            "item": fed.name,
            "item_id": fed.item_id,
            "lineage": fed.lineage,
            "last_lsn": fed.last_lsn,
        }
    )
    here.output.text(f"the server on {directory} has left recovery and needs no more log")
