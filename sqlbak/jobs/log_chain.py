"""Where the next log backup of an item begins, or why there is none. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from sqlbak.engines.port import DiscoveredItem
from sqlbak.model import Fork, LogPosition, Point, PointType

__all__ = ["is_set_back", "next_log_start", "why_no_log"]


def is_set_back(points: Sequence[Point], lineage: str | None, next_log_lsn: int | None) -> bool:
    """Whether a server whose log backups follow each other exactly is about to give log out again
    that the item has: it was put back to an older state of the same lineage."""
    if lineage is None or next_log_lsn is None:
        return False
    return any(
        point.type is PointType.LOG
        and not point.is_copy_only
        and point.lineage == lineage
        and point.last_lsn > next_log_lsn
        for point in points
    )


def next_log_start(
    points: Sequence[Point],
    oldest: LogPosition | None,
    *,
    lineage: str | None = None,
    forks: Sequence[Fork] = (),
    after_differentials: bool = False,
) -> LogPosition | None:
    """The position that continues the item's log, or None when only a full can.

    ``oldest`` is the oldest position that the server can still send. On its lineage the end of
    the last log is preferred, so that the chain stays whole across fulls. When there is none, or
    the server no longer has the log from there, the first full's end from which it has begins a
    chain: the first, so that what lies between two fulls can be restored too. On a lineage that
    the vault does not know yet, the newest point of all is offered and the engine decides whether
    it is an ancestor.

    ``lineage`` is that of the server now, with all ``forks`` that the vault knows. What an ancestor
    wrote behind the point where that lineage left it is no start: the server never had it. Where
    nothing on the lineage of ``oldest`` can be continued, those that came from it may be.
    ``after_differentials``: log may begin a chain at a differential's end too, as SQL Server's
    does.
    """
    if oldest is None:
        return None
    # The log behind a copy-only log begins where that one began.
    kept = [
        point
        for point in points
        if (after_differentials or point.type is not PointType.DIFFERENTIAL)
        and not (point.type is PointType.LOG and point.is_copy_only)
    ]
    line = _line_of(lineage, forks)
    known = {point.lineage for point in kept}
    if lineage is not None and (lineage in known or len(line) > 1):
        kept = [
            point
            for point in kept
            if point.lineage in line
            and ((end := line[point.lineage]) is None or point.last_lsn <= end)
        ]
        known = {point.lineage for point in kept}
    descendants = list(line)[: list(line).index(oldest.lineage)] if oldest.lineage in line else []
    lineages = [one for one in (oldest.lineage, *reversed(descendants)) if one in known]
    if not lineages:
        newest = max(kept, key=lambda point: (point.finished_at, point.last_lsn), default=None)
        return None if newest is None else newest.position
    starts = (_start_on(one, kept, oldest.lsn) for one in lineages)
    return next((start for start in starts if start is not None), None)


def _line_of(lineage: str | None, forks: Sequence[Fork]) -> dict[str, int | None]:
    """The lineage (None: it goes on) and its ancestors, each with where it was left."""
    line: dict[str, int | None] = {}
    end: int | None = None
    while lineage is not None and lineage not in line:
        line[lineage] = end
        origin = next((fork for fork in forks if fork.lineage == lineage), None)
        lineage, end = (None, None) if origin is None else (origin.parent, origin.lsn)
    return line


def _start_on(lineage: str, points: Sequence[Point], oldest: int) -> LogPosition | None:
    here = [point for point in points if point.lineage == lineage]
    logs = [point.last_lsn for point in here if point.type is PointType.LOG]
    if logs and max(logs) >= oldest:
        return LogPosition(lineage, max(logs))
    bases = [point.last_lsn for point in here if point.type is not PointType.LOG]
    held = [end for end in bases if end >= oldest]
    return LogPosition(lineage, min(held)) if held else None


def why_no_log(points: Sequence[Point], found: DiscoveredItem) -> str:
    """Why the log of the item with these points cannot go on."""
    why = "the server no longer holds the log since the last backup"
    if found.why_no_log:
        why += f": {found.why_no_log}"
    newest = max(points, key=lambda point: (point.finished_at, point.last_lsn))
    if found.position is not None and found.position.lineage != newest.lineage:
        why += (
            f"; it is on lineage {found.position.lineage} now, and {newest.id} on lineage"
            f" {newest.lineage}"
        )
    return why
