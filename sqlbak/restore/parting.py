"""When an instant may only be restored from the lineage that somebody named. Pure.

After a failover or a restore that went live, the old server may come back and write on. What it
writes then is no history of the item any more, even where nothing else holds the instant.
"""

from __future__ import annotations

from datetime import datetime

from sqlbak.errors import LineageAmbiguous
from sqlbak.model import Catalog
from sqlbak.restore.path import Path
from sqlbak.restore.restore_plan import Clock

__all__ = ["begun_by", "require_newest"]


def begun_by(catalog: Catalog, lineage: str) -> datetime:
    """The earliest instant at which the lineage is known to have been there. ValueError when no
    recovery point ends on it."""
    return min(
        instant
        for point in catalog.points
        if point.lineage == lineage
        for instant in (point.started_at, point.reachable_from, point.covers_until)
        if instant is not None
    )


def require_newest(catalog: Catalog, path: Path, to: datetime, clock: Clock) -> None:
    """LineageAmbiguous when a lineage that is not part of ``path`` was begun by ``to`` and after
    all that are: then ``path`` is an abandoned branch there."""
    on_path = {segment.lineage for segment in path.segments}
    begun = {
        lineage: at
        for lineage in {point.lineage for point in catalog.points}
        if (at := begun_by(catalog, lineage)) <= to
    }
    if not begun:
        return
    newest = max(begun, key=lambda lineage: (begun[lineage], lineage in on_path))
    if newest not in on_path:
        raise LineageAmbiguous(
            f"{catalog.item}: at {clock.text(to)} lineage {newest} had been begun, and only"
            f" {path.lineage}, which went on beside it, holds that instant",
            hint=f"if the abandoned branch is meant, say so with --lineage {path.lineage};"
            " sqlbak windows shows the times of each",
        )
