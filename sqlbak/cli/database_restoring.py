"""``sqlbak restore`` for databases of SQL Server: on a server, or as files and a script."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlbak.cli.output import instant
from sqlbak.cli.progress import progress_for
from sqlbak.cli.session import Session
from sqlbak.cli.signals import stop_on_signals
from sqlbak.engines.port import DatabaseTarget, TailChoice
from sqlbak.errors import UsageError
from sqlbak.fleet import Fleet
from sqlbak.jobs.tail_log import take_tail
from sqlbak.model import Item
from sqlbak.progress import Progress
from sqlbak.restore.databases import (
    RestoredDatabase,
    WrittenDatabase,
    restore_database_item,
    write_database_files,
)
from sqlbak.restore.downloaded import DownloadedItem
from sqlbak.restore.executor import Stock
from sqlbak.restore.planner import plan_document
from sqlbak.stopping import StopSignal

__all__ = ["DatabaseRequest", "moves_of", "restore_database"]


@dataclass(frozen=True, slots=True)
class DatabaseRequest:
    """The options of one restore, as they were given."""

    to: str
    database: str | None
    instance: str | None
    overwrite: bool
    tail: TailChoice | None
    disconnect: bool
    moves: Mapping[str, str]
    norecovery: bool
    resume: bool
    files: Path | None
    lineage: str | None
    folder: DownloadedItem | None

    def check(self) -> None:
        """UsageError for options that contradict each other."""
        if self.database == "":
            raise UsageError("--as names no database", hint="give a name, or leave it out")
        if (self.tail is not None or self.disconnect) and not self.overwrite:
            raise UsageError("--tail and --disconnect belong to --overwrite")
        if self.resume and self.overwrite:
            raise UsageError(
                "--resume goes on with a restore, --overwrite begins again: name one of them"
            )
        if self.files is not None and (
            self.overwrite or self.resume or self.instance or self.moves
        ):
            raise UsageError(
                "--files writes files and a script and touches no server: only --as goes with it"
            )

    def instance_for(self, item: Item) -> str:
        """The instance to restore ``item`` on. UsageError where its tail cannot be taken there."""
        instance = self.instance or item.instance
        if self.tail is TailChoice.BACKUP and instance != item.instance:
            raise UsageError(
                f"--tail backup takes the tail of {item.name} itself, and a database of {instance} "
                "is replaced",
                hint="give it up with --tail discard, or back up that database first",
            )
        return instance

    def target(self, source: str) -> DatabaseTarget:
        """The database that is made of the one called ``source``."""
        return DatabaseTarget(
            name=self.database or source,
            replaces=self.overwrite,
            moves=self.moves,
            recovers=not self.norecovery,
            tail=self.tail,
            disconnects=self.disconnect,
            resumes=self.resume,
        )


def moves_of(options: Sequence[str]) -> dict[str, str]:
    """``LOGICAL=PATH`` each; a logical name may hold equals signs, a path begins behind the last
    one that a path can follow. UsageError."""
    found: dict[str, str] = {}
    for option in options:
        name, sign, path = option.rpartition("=")
        if not sign or not name or not path:
            raise UsageError(
                f"--move {option}: not LOGICAL=PATH",
                hint="name a file's logical name and its path on the server",
            )
        if name in found:
            raise UsageError(f"--move names {name} twice")
        found[name] = path
    return found


def restore_database(here: Session, name: str | None, request: DatabaseRequest) -> None:
    """Carry out the request and print what came of it."""
    request.check()
    with (
        stop_on_signals() as stop,
        contextlib.ExitStack() as opened,
        progress_for(quiet=here.quiet) as shown,
    ):
        if request.files is not None:
            stock: Stock = request.folder or opened.enter_context(here.fleet(stop))
            written = write_database_files(
                stock,
                name,
                request.to,
                request.files,
                database=request.database,
                lineage=request.lineage,
                progress=shown,
                stop=stop,
            )
            restored = None
        else:
            written = None
            fleet = opened.enter_context(here.fleet(stop))
            restored = restore_database_item(
                request.folder or fleet,
                name,
                request.to,
                target=request.target,
                server=lambda item: fleet.restore_server(request.instance_for(item)),
                take_tail=lambda item, name: _take_tail(fleet, item, name, request, shown, stop),
                lineage=request.lineage,
                progress=shown,
                stop=stop,
            )
    if written is not None:
        _show_files(here, written)
    if restored is not None:
        _show(here, restored)


def _take_tail(
    fleet: Fleet,
    item: Item,
    name: str,
    request: DatabaseRequest,
    progress: Progress,
    stop: StopSignal,
) -> None:
    take_tail(fleet, f"{request.instance_for(item)}/{name}", progress=progress, stop=stop)


def restored_document(restored: RestoredDatabase) -> dict[str, Any]:
    """The restore as JSON values: its plan, and what it reached."""
    outcome = restored.outcome
    reached = outcome.reached
    return {
        **plan_document(restored.plan),
        "item": restored.item.name,
        "instance": outcome.server,
        "database": outcome.database,
        "state": outcome.state,
        "proven": outcome.proven,
        "reached": None if reached is None else {"lineage": reached.lineage, "lsn": reached.lsn},
        "stop_at_on_server": outcome.stop_at,
        "files": dict(outcome.files),
        "resumed_after": outcome.resumed_after,
        "next_steps": list(outcome.next_steps),
        "facts": dict(outcome.facts),
    }


def _show(here: Session, restored: RestoredDatabase) -> None:
    outcome = restored.outcome
    here.output.document(restored_document(restored))
    for note in (*restored.plan.notes, *outcome.facts.get("notes", ())):
        here.output.note(f"note: {note}")
    asked = instant(restored.plan.stop_at) or "the end of the chain"
    if restored.plan.stop_lsn is not None:
        asked = f"log position {restored.plan.stop_lsn}"
    here.output.text(
        f"restored {restored.item.name} as of {asked} as {outcome.server}/{outcome.database}"
    )
    if outcome.stop_at is not None:
        here.output.text(f"stopped at {outcome.stop_at} on the wall clock of the source server")
    if outcome.resumed_after:
        here.output.text(f"went on after step {outcome.resumed_after} of an earlier run")
    here.output.text(f"it is {outcome.state}")
    for step in outcome.next_steps:
        here.output.text(f"next: {step}")


def _show_files(here: Session, written: WrittenDatabase) -> None:
    here.output.document(
        {
            **plan_document(written.plan),
            "item": written.item.name,
            "database": written.database,
            "directory": str(written.written.directory),
            "script": str(written.written.script),
            "written": [str(path) for path in written.written.files],
        }
    )
    for note in written.plan.notes:
        here.output.note(f"note: {note}")
    here.output.text(
        f"wrote {len(written.written.files)} backups and {written.written.script.name} into "
        f"{written.written.directory}"
    )
    here.output.text(
        "next: let the server see that folder, correct @folder in the script, and run it"
    )
