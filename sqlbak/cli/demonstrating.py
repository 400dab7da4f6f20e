"""``sqlbak demo``: the main job, live."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sqlbak.cli.session import AsJson, PgBin, session
from sqlbak.cli.signals import stop_on_signals

__all__ = ["demo"]


def demo(
    context: typer.Context,
    directory: Annotated[
        Path | None,
        typer.Option("--directory", metavar="DIR", help="Where the demo lives (default: ./demo)."),
    ] = None,
    pg_bin: PgBin = None,
    as_json: AsJson = False,
) -> None:
    """Protect a real PostgreSQL, drop a table, and bring it back to the second before."""
    from sqlbak.demo.story import tell  # every other command would load it for nothing

    here = session(context, as_json=as_json)
    with stop_on_signals() as stop:
        document = tell(directory, here.output.text, program_dir=pg_bin, stop=stop)
    here.output.document(document)
