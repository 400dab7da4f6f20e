"""How copy-only logs take part in planning. Pure.

A copy-only log (also one taken WITH NO_TRUNCATE of a database that is damaged) leaves the server's
chain as it is: the next ordinary log begins where it began. So it carries a restore to its own end
and never further. The ordinary logs come first; what only a copy-only log holds is reached through
one more *view* of the catalog, in which it stands as the last log.
"""

from __future__ import annotations

from dataclasses import replace

from sqlbak.model import Catalog, Point, PointType

__all__ = ["copy_only_views", "view_with"]


def copy_only_views(catalog: Catalog, lineage: str) -> list[Catalog]:
    """The catalog once more for each copy-only log of ``lineage`` that holds log which no ordinary
    one holds whole; of several that begin together only for the longest."""
    logs = [
        point
        for point in catalog.points
        if point.type is PointType.LOG and point.lineage == lineage and not point.is_empty_log
    ]
    ordinary = [log for log in logs if not log.is_copy_only]
    longest: dict[int, Point] = {}
    for log in logs:
        if log.is_copy_only and not any(
            one.first_lsn <= log.first_lsn and log.last_lsn <= one.last_lsn for one in ordinary
        ):
            known = longest.get(log.first_lsn)
            if known is None or known.last_lsn < log.last_lsn:
                longest[log.first_lsn] = log
    return [view_with(catalog, longest[first]) for first in sorted(longest)]


def view_with(catalog: Catalog, log: Point) -> Catalog:
    """The catalog with the copy-only ``log`` as the last log of its lineage."""
    kept = [
        point
        for point in catalog.points
        if point.id != log.id
        and (
            point.type is not PointType.LOG
            or point.lineage != log.lineage
            or point.last_lsn <= log.first_lsn
        )
    ]
    return replace(catalog, points=(*kept, replace(log, is_copy_only=False)), shipped=())
