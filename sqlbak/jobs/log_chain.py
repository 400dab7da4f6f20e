"""Where the next log backup of an item begins. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from sqlbak.model import LogPosition, Point, PointType

__all__ = ["is_set_back", "next_log_start"]


def is_set_back(points: Sequence[Point], lineage: str | None, next_log_lsn: int | None) -> bool:
    """Whether a server whose log backups follow each other exactly is about to give log out again
    that the item has: it was put back to an older state of the same lineage."""
    if lineage is None or next_log_lsn is None:
        return False
    return any(
        point.type is PointType.LOG and point.lineage == lineage and point.last_lsn > next_log_lsn
        for point in points
    )


def next_log_start(
    points: Sequence[Point], oldest: LogPosition | None, *, after_differentials: bool = False
) -> LogPosition | None:
    """The position that continues the item's log, or None when only a full can.

    ``oldest`` is the oldest position that the server can still send. On its lineage the end of
    the last log is preferred, so that the chain stays whole across fulls. When there is none, or
    the server no longer has the log from there, the first full's end from which it has begins a
    chain: the first, so that what lies between two fulls can be restored too. On a lineage that
    the vault does not know yet, the newest point of all is offered and the engine decides whether
    it is an ancestor. ``after_differentials``: log may begin a chain at a differential's end too,
    as SQL Server's does.
    """
    if oldest is None:
        return None
    kept = [
        point for point in points if after_differentials or point.type is not PointType.DIFFERENTIAL
    ]
    here = [point for point in kept if point.lineage == oldest.lineage]
    if not here:
        newest = max(kept, key=lambda point: (point.finished_at, point.last_lsn), default=None)
        return None if newest is None else newest.position
    logs = [point.last_lsn for point in here if point.type is PointType.LOG]
    if logs and max(logs) >= oldest.lsn:
        return LogPosition(oldest.lineage, max(logs))
    bases = [point.last_lsn for point in here if point.type is not PointType.LOG]
    held = [end for end in bases if end >= oldest.lsn]
    return LogPosition(oldest.lineage, min(held)) if held else None
