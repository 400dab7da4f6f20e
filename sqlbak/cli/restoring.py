"""``sqlbak restore``: bring a database back to an instant."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from sqlbak.cli.database_restoring import DatabaseRequest, moves_of, restore_database
from sqlbak.cli.output import instant, size_text
from sqlbak.cli.progress import progress_for
from sqlbak.cli.session import (
    AsJson,
    Config,
    FromFolder,
    Item,
    LogSpace,
    PgBin,
    PlainPoints,
    Quiet,
    VaultKeys,
    session,
    size_option,
)
from sqlbak.cli.signals import stop_on_signals
from sqlbak.engines.port import DEFAULT_LOG_SPACE_BYTES, RestoreTarget, TailChoice
from sqlbak.engines.postgres.timelines import format_lsn
from sqlbak.errors import UsageError
from sqlbak.restore.executor import Stock, restore_item
from sqlbak.restore.record import leave_record, restored_document

__all__ = ["restore"]


def restore(
    context: typer.Context,
    item: Item = None,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="T",
            help="ISO 8601, with or without offset; 'latest'; a position in the log (0/3000148, "
            "39:1720:1); or a recovery point's id.",
        ),
    ] = ...,  # type: ignore[assignment]  # typer's way to say required
    into: Annotated[
        Path | None, typer.Option("--into", metavar="DIR", help="An empty or absent directory.")
    ] = None,
    in_place: Annotated[
        Path | None,
        typer.Option(
            "--in-place",
            metavar="DIR",
            help="Instead of --into: the stopped cluster itself. It is kept as DIR.before-<time>.",
        ),
    ] = None,
    reuse: Annotated[
        Path | None,
        typer.Option(
            "--reuse",
            metavar="DIR",
            help="Instead of --into: an older state of the cluster, stopped. It is given up; files "
            "and pages of it that are right are kept, and only the rest is fetched.",
        ),
    ] = None,
    source: FromFolder = None,
    vault_key: VaultKeys = None,
    plain_points: PlainPoints = False,
    start: Annotated[
        bool, typer.Option("--start", help="Run the server, prove the state, leave it running.")
    ] = False,
    port: Annotated[
        int | None, typer.Option("--port", min=1, max=65535, help="Port for --start.")
    ] = None,
    tablespace: Annotated[
        list[str] | None,
        typer.Option(
            "--tablespace",
            metavar="OLD=NEW",
            help="Put the tablespace that lay in OLD into NEW, an empty or absent directory. "
            "May be repeated; others go below DIR.",
        ),
    ] = None,
    lineage: Annotated[
        str | None, typer.Option("--lineage", help="Which history, where two hold the instant.")
    ] = None,
    log_space: LogSpace = None,
    pg_bin: PgBin = None,
    database: Annotated[
        str | None,
        typer.Option("--as", metavar="NAME", help="SQL Server: the name of the restored database."),
    ] = None,
    instance: Annotated[
        str | None,
        typer.Option(
            "--instance",
            metavar="I",
            help="SQL Server: the instance to restore on. Not said: where it was backed up.",
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="SQL Server: replace the database that is there."),
    ] = False,
    tail: Annotated[
        TailChoice | None,
        typer.Option(
            "--tail",
            help="With --overwrite: what becomes of log that is in no backup yet: into the vault "
            "first, or given up.",
        ),
    ] = None,
    disconnect: Annotated[
        bool, typer.Option("--disconnect", help="With --overwrite: end the database's sessions.")
    ] = False,
    move: Annotated[
        list[str] | None,
        typer.Option(
            "--move",
            metavar="LOGICAL=PATH",
            help="SQL Server: put a file of the database there, as the server sees it. May be "
            "repeated.",
        ),
    ] = None,
    norecovery: Annotated[
        bool,
        typer.Option("--norecovery", help="SQL Server: leave it RESTORING, ready for more log."),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="SQL Server: go on with an interrupted restore.")
    ] = False,
    files: Annotated[
        Path | None,
        typer.Option(
            "--files",
            metavar="DIR",
            help="SQL Server: instead of restoring, write .bak and .trn files and a script.",
        ),
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Restore an item as it was at T. Input without an offset is read in the policy's zone."""
    here = session(context, config, as_json=as_json, quiet=quiet)
    folder = here.folder(source, vault_key, plain_points=plain_points)
    if database is not None or overwrite or resume or files is not None:
        if any(place is not None for place in (into, in_place, reuse)):
            raise UsageError(
                "a database goes to a server (--as, --overwrite), not into a directory"
            )
        request = DatabaseRequest(
            to=to,
            database=database,
            instance=instance,
            overwrite=overwrite,
            tail=tail,
            disconnect=disconnect,
            moves=moves_of(move or ()),
            norecovery=norecovery,
            resume=resume,
            files=files,
            lineage=lineage,
            folder=folder,
        )
        restore_database(here, item, request)
        return
    places = [place for place in (into, in_place, reuse) if place is not None]
    if len(places) != 1:
        raise UsageError(
            "where to? one of --into DIR, --in-place DIR and --reuse DIR is needed, for SQL Server "
            "one of --as NAME, --overwrite and --files DIR",
            hint="--into takes an empty or absent directory, --in-place the stopped cluster, which "
            "is kept beside, --reuse an older state of it, which is given up; --as names a new "
            "database, --overwrite replaces the original",
        )
    target = RestoreTarget(
        directory=places[0],
        start=start,
        port=port,
        program_dir=pg_bin,
        tablespaces=_tablespaces(tablespace or ()),
        replaces=in_place is not None,
        reuses=reuse is not None,
        log_space_bytes=size_option("--log-space", log_space) or DEFAULT_LOG_SPACE_BYTES,
        feed_command=here.own_command("feed", folder),
    )
    with (
        stop_on_signals() as stop,
        contextlib.ExitStack() as opened,
        progress_for(quiet=here.quiet) as shown,
    ):
        stock: Stock = folder or opened.enter_context(here.fleet(stop))
        restored = restore_item(stock, item, to, target, lineage=lineage, progress=shown, stop=stop)
    outcome = restored.outcome
    record = leave_record(restored, asked=to, now=datetime.now(UTC))
    here.output.document(
        restored_document(restored) | {"record": None if record.path is None else str(record.path)}
    )
    if record.problem:
        here.output.note(f"note: {record.problem}")
    for note in restored.plan.notes:
        here.output.note(f"note: {note}")
    asked = instant(restored.plan.stop_at) or "the end of the chain"
    if restored.plan.stop_lsn is not None:
        asked = f"log position {format_lsn(restored.plan.stop_lsn)}"
    here.output.text(f"restored {restored.item.name} as of {asked} into {outcome.directory}")
    reused = outcome.facts.get("reused")
    if reused is not None:
        here.output.text(
            f"kept {size_text(reused['kept_bytes'])} of what was there, "
            f"fetched {size_text(reused['fetched_bytes'])}"
        )
    if outcome.proven and outcome.reached is not None:
        here.output.text(
            f"proven: last commit at {instant(outcome.last_commit_at) or 'none'}, "
            f"log position {format_lsn(outcome.reached.lsn)} on timeline {outcome.reached.lineage}"
        )
    if outcome.connection is not None:
        here.output.text(f"connect with: psql {shlex.quote(outcome.connection)}")
    for step in outcome.next_steps:
        here.output.text(f"next: {step}")


def _tablespaces(options: Sequence[str]) -> dict[str, Path]:
    r"""``OLD=NEW``, an equals sign in a path written as ``\=`` (as pg_basebackup has it)."""
    found: dict[str, Path] = {}
    for option in options:
        parts = [part.replace("\\=", "=") for part in re.split(r"(?<!\\)=", option)]
        if len(parts) != 2 or not all(part.startswith("/") for part in parts):
            raise UsageError(
                f"--tablespace {option}: not two absolute paths with an equals sign between them",
                hint=r"write --tablespace OLD=NEW, and \= for an equals sign in a path",
            )
        if parts[0] in found:
            raise UsageError(f"--tablespace names {parts[0]} twice")
        found[parts[0]] = Path(parts[1])
    return found
