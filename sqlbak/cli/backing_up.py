"""``sqlbak backup``: one backup, now."""

from __future__ import annotations

from typing import Annotated

import typer

from sqlbak.cli.output import instant, point_document, size_text
from sqlbak.cli.progress import progress_for
from sqlbak.cli.session import AsJson, Config, Item, Quiet, session
from sqlbak.cli.signals import stop_on_signals
from sqlbak.fleet import instance_of
from sqlbak.jobs.backup import back_up
from sqlbak.jobs.hooks import around
from sqlbak.model import PointType
from sqlbak.vault.job_records import note_document

__all__ = ["backup"]


def backup(
    context: typer.Context,
    item: Item = None,
    point_type: Annotated[PointType, typer.Option("--type", help="What to take.")] = PointType.FULL,
    copy_only: Annotated[
        bool, typer.Option("--copy-only", help="Outside the schedule and its chains.")
    ] = False,
    config: Config = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Take one backup now, whatever the schedule says."""
    here = session(context, config, as_json=as_json, quiet=quiet)
    with (
        stop_on_signals() as stop,
        here.fleet(stop) as fleet,
        progress_for(quiet=here.quiet) as shown,
    ):
        name = fleet.item_named(item)
        outcome = back_up(
            fleet,
            name,
            point_type,
            is_copy_only=copy_only,
            progress=shown,
            stop=stop,
            around=lambda take: around(
                fleet.configuration.instances[instance_of(name)].hooks,
                name,
                point_type,
                None,
                take,
                on_end=lambda _which, error: (
                    None if error is None else here.output.note(f"note: {error.message}")
                ),
                stop=stop,
            ),
        )
    points = [point_document(outcome.item.name, point) for point in outcome.points]
    # The last one is the newest: a log backup that crossed a fork makes two.
    here.output.document(
        {
            "point": points[-1],
            "points": points,
            "asked": point_type.value,
            "notes": [note.text for note in outcome.notes],
            "coded_notes": [note_document(note) for note in outcome.notes],
        }
    )
    for note in outcome.notes:
        here.output.note(f"note: {note}")
    for point in outcome.points:
        here.output.text(
            f"{point.type.value} {point.id} of {outcome.item.name}: {size_text(point.size_bytes)}"
            + (f", covers until {instant(point.covers_until)}" if point.covers_until else "")
        )
