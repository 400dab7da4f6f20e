"""``sqlbak list`` and ``sqlbak windows``: what is in the vault and what it can bring back."""

from __future__ import annotations

import typer

from sqlbak.cli.output import instant, point_document, size_text
from sqlbak.cli.session import AsJson, Config, Item, session
from sqlbak.restore.item_windows import item_windows

__all__ = ["list_points", "list_windows"]


def list_points(
    context: typer.Context, item: Item = None, config: Config = None, as_json: AsJson = False
) -> None:
    """List recovery points, oldest first."""
    here = session(context, config, as_json=as_json)
    documents = []
    with here.fleet() as fleet:
        for stored in fleet.stored_items(item):
            documents += [
                point_document(stored.item.name, point) | {"item_id": stored.item.id}
                for point in sorted(stored.points(), key=lambda point: (point.started_at, point.id))
            ]
    here.output.document({"points": documents})
    here.output.table(
        ("point", "item", "type", "lineage", "covers until", "size"),
        [
            [
                document["id"],
                document["item"],
                f"copy-only {document['type']}" if document["copy_only"] else document["type"],
                document["lineage"],
                document["covers_until"] or "-",
                size_text(document["size_bytes"]),
            ]
            for document in documents
        ],
    )
    if not documents:
        here.output.note("no recovery point yet; take one with: sqlbak backup --type full")


def list_windows(
    context: typer.Context, item: Item = None, config: Config = None, as_json: AsJson = False
) -> None:
    """Show the spans of time in which every instant can be restored."""
    here = session(context, config, as_json=as_json)
    documents = []
    with here.fleet() as fleet:
        for stored in fleet.stored_items(item):
            documents += [
                {
                    "item": stored.item.name,
                    "item_id": stored.item.id,
                    "lineage": window.lineage,
                    "from": instant(window.start),
                    "to": instant(window.end),
                }
                for window in item_windows(stored)
            ]
    here.output.document({"windows": documents})
    here.output.table(
        ("item", "lineage", "from", "to"),
        [
            [
                str(document["item"]),
                str(document["lineage"]),
                str(document["from"]),
                str(document["to"]),
            ]
            for document in documents
        ],
    )
    if not documents:
        here.output.note("nothing can be restored yet: there is no full backup")
