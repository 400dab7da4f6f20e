"""How shipped log takes part in planning. Pure.

The recovery points alone come first: what they reach is planned without shipped log. Beyond them
each run of shipped log gives one more *view* of the catalog, in which its pieces stand as logs
behind the recovery points that it continues. Two runs never meet in one view, and neither do a run
and log that does not continue what it hangs on, so no plan joins what was never one history.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlbak.model import Catalog, Point, PointType, ShippedLog
from sqlbak.vault.tail_runs import joined, runs_of, trunk_of

__all__ = ["folded", "views"]


def views(catalog: Catalog, lineage: str) -> list[Catalog]:
    """The catalog once more for each run of shipped log on ``lineage`` that still hangs on a
    recovery point, with its pieces as logs."""
    found: list[Catalog] = []
    for _, pieces in sorted(runs_of(catalog.shipped, lineage).items()):
        trunk = trunk_of(catalog, pieces)
        if not trunk:
            continue
        end = trunk[-1].last_lsn
        row = joined(pieces, end)
        if not row:
            continue
        kept = [
            point
            for point in catalog.points
            if point.type is not PointType.LOG or point.lineage != lineage or point.last_lsn <= end
        ]
        found.append(replace(catalog, points=(*kept, *map(_as_log, row))))
    return found


def _as_log(piece: ShippedLog) -> Point:
    return Point(
        id=piece.name,
        type=PointType.LOG,
        lineage=piece.lineage,
        first_lsn=piece.first_lsn,
        last_lsn=piece.last_lsn,
        started_at=piece.covers_until or piece.finished_at,
        finished_at=piece.finished_at,
        covers_until=piece.covers_until,
        size_bytes=piece.size_bytes,
        is_tail=True,
    )


def folded(steps: Sequence[Point], proof: ShippedLog) -> tuple[Point, ...]:
    """The steps of a chain that ends in shipped log, with all its pieces as one last step that
    covers what ``proof`` covers. There is one even where nothing was written since."""
    points = [step for step in steps if not step.is_tail]
    pieces = [step for step in steps if step.is_tail]
    # The first piece may begin before what it continues: only what lies behind is applied.
    first = points[-1].last_lsn
    last = pieces[-1].last_lsn if pieces else first
    tail = Point(
        id=f"tail-{proof.lineage}-{first:x}-{last:x}",
        type=PointType.LOG,
        lineage=proof.lineage,
        first_lsn=first,
        last_lsn=last,
        started_at=pieces[0].started_at if pieces else proof.finished_at,
        finished_at=max([proof.finished_at, *(piece.finished_at for piece in pieces)]),
        covers_until=proof.covers_until,
        size_bytes=sum(piece.size_bytes for piece in pieces),
        is_tail=True,
    )
    return (*points, tail)
