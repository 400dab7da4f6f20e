"""``sqlbak adopt``: backups that other tools took become recovery points."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import typer

from sqlbak.cli.output import point_document
from sqlbak.cli.progress import progress_for
from sqlbak.cli.session import AsJson, Config, Quiet, session
from sqlbak.cli.signals import stop_on_signals
from sqlbak.errors import UsageError
from sqlbak.fleet import instance_of
from sqlbak.jobs.adopt import AdoptedSet, adopt
from sqlbak.jobs.adoptable_files import BackupPlace, BucketPlace, FolderPlace

__all__ = ["adopt_backups"]


def adopt_backups(
    context: typer.Context,
    item: Annotated[
        str,
        typer.Argument(
            metavar="INSTANCE[/DATABASE]", help="Whose backups they are; its server reads them."
        ),
    ],
    source: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER|s3://BUCKET/PREFIX", help="Where the .bak and .trn files are."
        ),
    ],
    timezone: Annotated[
        str | None,
        typer.Option(
            "--timezone",
            metavar="ZONE",
            help="Zone of the clock of the server that took them (IANA). Not said: the policy's.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be adopted, and do nothing.")
    ] = False,
    config: Config = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Copy backups of SQL Server that other tools took into the vault."""
    here = session(context, config, as_json=as_json, quiet=quiet)
    instance = instance_of(item)
    database = item.removeprefix(f"{instance}/") if "/" in item else None
    with (
        stop_on_signals() as stop,
        here.fleet(stop) as fleet,
        contextlib.ExitStack() as opened,
        progress_for(quiet=here.quiet) as shown,
    ):
        zone = _zone(timezone) if timezone else fleet.policy(fleet.instance_named(instance)).zone
        place: BackupPlace = FolderPlace(Path(source))
        if source.startswith("s3://"):
            store = fleet.store_beside(fleet.policy(instance).vault, source)
            place = BucketPlace(opened.enter_context(contextlib.closing(store)))
        found = adopt(
            fleet,
            instance,
            place,
            zone=zone,
            database=database,
            is_dry=dry_run,
            progress=shown,
            stop=stop,
        )
    here.output.document(
        {
            "adopted": [
                point_document(each.item, each.point)
                for each in found.sets
                if each.point is not None
            ],
            "sets": [_document(each) for each in found.sets],
            "unreadable": dict(found.unreadable),
            "dry_run": dry_run,
        }
    )
    here.output.table(
        ("database", "type", "from LSN", "to LSN", "begun (its own clock)", "files", "outcome"),
        [_row(each, dry_run=dry_run) for each in found.sets],
    )
    for name, why in sorted(found.unreadable.items()):
        here.output.note(f"note: {name} is left out: {why}")
    if not found.sets and not found.unreadable:
        here.output.note("nothing there looks like a backup (.bak, .trn, .dif)")


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UsageError(
            f"there is no time zone {name!r}", hint="an IANA name, such as Europe/Berlin"
        ) from error


def _document(each: AdoptedSet) -> dict[str, object]:
    return {
        "item": each.item,
        "files": list(each.files),
        "type": None if each.type is None else each.type.value,
        "first_lsn": each.first_lsn,
        "last_lsn": each.last_lsn,
        "started": each.started.isoformat(),
        "point": None if each.point is None else each.point.id,
        "reason": each.reason,
    }


def _row(each: AdoptedSet, *, dry_run: bool) -> list[str]:
    outcome = each.reason or (each.point.id if each.point else "")
    return [
        each.item,
        "?" if each.type is None else each.type.value,
        str(each.first_lsn),
        str(each.last_lsn),
        each.started.isoformat(sep=" "),
        ", ".join(each.files),
        outcome or ("would be adopted" if dry_run else ""),
    ]
