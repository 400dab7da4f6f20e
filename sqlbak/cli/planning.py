"""``sqlbak plan``: which recovery points a restore would use, and why not the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from sqlbak.cli.session import AsJson, Config, FromFolder, Item, PlainPoints, VaultKeys, session
from sqlbak.errors import InputUnreadable
from sqlbak.restore.databases import require_tellable
from sqlbak.restore.executor import plan_item
from sqlbak.restore.explanation import explain
from sqlbak.restore.headers import plan_headers
from sqlbak.restore.planner import plan_document

__all__ = ["plan_restore"]


def plan_restore(
    context: typer.Context,
    item: Item = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="T",
            help="ISO 8601, with or without offset; 'latest'; a position in the log (0/3000148); "
            "or a recovery point's id.",
        ),
    ] = None,
    headers: Annotated[
        Path | None,
        typer.Option(
            "--headers",
            metavar="FILE.json",
            help="Plan offline from RESTORE HEADERONLY rows (a JSON list), without a vault.",
        ),
    ] = None,
    source: FromFolder = None,
    vault_key: VaultKeys = None,
    plain_points: PlainPoints = False,
    lineage: Annotated[
        str | None, typer.Option("--lineage", help="Which history, where two hold the instant.")
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Plan a restore without doing it."""
    here = session(context, config, as_json=as_json)
    if headers is not None:
        plan = plan_headers(_rows(headers), to, item=item, lineage=lineage)
        here.output.document(plan_document(plan))
        here.output.text(explain(plan))
        return
    if (folder := here.folder(source, vault_key, plain_points=plain_points)) is not None:
        planned = plan_item(folder, item, to or "latest", lineage=lineage)
        require_tellable(planned)
    else:
        with here.fleet() as fleet:
            planned = plan_item(fleet, item, to or "latest", lineage=lineage)
            require_tellable(planned)
    here.output.document(plan_document(planned.plan))
    here.output.text(explain(planned.plan))


def _rows(path: Path) -> Any:
    """The JSON that somebody exported; SQL Server tools like to write UTF-16 or a BOM."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputUnreadable(
            f"{path}: {error.strerror}", hint="name a file with RESTORE HEADERONLY rows as JSON"
        ) from error
    encoding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return json.loads(raw.decode(encoding))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputUnreadable(
            f"{path}: not JSON: {error}",
            hint="export the rows of RESTORE HEADERONLY as a JSON list of objects",
        ) from error
