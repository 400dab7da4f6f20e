"""Where the next log backup of an item begins. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from sqlbak.model import LogPosition, Point, PointType

__all__ = ["next_log_start"]


def next_log_start(points: Sequence[Point], oldest: LogPosition | None) -> LogPosition | None:
    """The position that continues the item's log, or None when only a full can.

    ``oldest`` is the oldest position that the server can still send. On its lineage the end of
    the last log is preferred, so that the chain stays whole across fulls. When there is none, or
    the server no longer has the log from there, the first full's end from which it has begins a
    chain: the first, so that what lies between two fulls can be restored too. On a lineage that
    the vault does not know yet, the newest point of all is offered and the engine decides whether
    it is an ancestor.
    """
    if oldest is None:
        return None
    kept = [point for point in points if point.type is not PointType.DIFFERENTIAL]
    here = [point for point in kept if point.lineage == oldest.lineage]
    if not here:
        newest = max(kept, key=lambda point: (point.finished_at, point.last_lsn), default=None)
        return None if newest is None else newest.position
    logs = [point.last_lsn for point in here if point.type is PointType.LOG]
    if logs and max(logs) >= oldest.lsn:
        return LogPosition(oldest.lineage, max(logs))
    fulls = [point.last_lsn for point in here if point.type is PointType.FULL]
    held = [end for end in fulls if end >= oldest.lsn]
    return LogPosition(oldest.lineage, min(held)) if held else None
