"""``sqlbak restore``: bring a database back to an instant."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from sqlbak.cli.output import instant, lsn_text
from sqlbak.cli.progress import progress_for
from sqlbak.cli.session import AsJson, Config, Item, PgBin, Quiet, session
from sqlbak.cli.signals import stop_on_signals
from sqlbak.engines.port import RestoreTarget
from sqlbak.restore.executor import restore_item
from sqlbak.restore.planner import plan_document

__all__ = ["restore"]


def restore(
    context: typer.Context,
    item: Item = None,
    to: Annotated[
        str,
        typer.Option("--to", metavar="T", help="ISO 8601, with or without offset, or 'latest'."),
    ] = ...,  # type: ignore[assignment]  # typer's way to say required
    into: Annotated[
        Path, typer.Option("--into", metavar="DIR", help="An empty or absent directory.")
    ] = ...,  # type: ignore[assignment]
    start: Annotated[
        bool, typer.Option("--start", help="Run the server, prove the state, leave it running.")
    ] = False,
    port: Annotated[
        int | None, typer.Option("--port", min=1, max=65535, help="Port for --start.")
    ] = None,
    lineage: Annotated[
        str | None, typer.Option("--lineage", help="Which history, where two hold the instant.")
    ] = None,
    pg_bin: PgBin = None,
    config: Config = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Restore an item as it was at T. Input without an offset is read in the policy's zone."""
    here = session(context, config, as_json=as_json, quiet=quiet)
    with (
        stop_on_signals() as stop,
        here.fleet(stop) as fleet,
        progress_for(quiet=here.quiet) as shown,
    ):
        target = RestoreTarget(directory=into, start=start, port=port, program_dir=pg_bin)
        restored = restore_item(fleet, item, to, target, lineage=lineage, progress=shown, stop=stop)
    outcome = restored.outcome
    document: dict[str, Any] = {
        **plan_document(restored.plan),
        "item": restored.item.name,
        "directory": str(outcome.directory),
        "proven": outcome.proven,
        "reached": None
        if outcome.reached is None
        else {"lineage": outcome.reached.lineage, "lsn": outcome.reached.lsn},
        "last_commit_at": instant(outcome.last_commit_at),
        "connection": outcome.connection,
        "next_steps": list(outcome.next_steps),
        "facts": dict(outcome.facts),
    }
    here.output.document(document)
    for note in restored.plan.notes:
        here.output.note(f"note: {note}")
    asked = instant(restored.plan.stop_at) or "the end of the chain"
    here.output.text(f"restored {restored.item.name} as of {asked} into {outcome.directory}")
    if outcome.proven and outcome.reached is not None:
        here.output.text(
            f"proven: last commit at {instant(outcome.last_commit_at) or 'none'}, "
            f"log position {lsn_text(outcome.reached.lsn)} on timeline {outcome.reached.lineage}"
        )
    if outcome.connection is not None:
        here.output.text(f"connect with: psql {shlex.quote(outcome.connection)}")
    for step in outcome.next_steps:
        here.output.text(f"next: {step}")
