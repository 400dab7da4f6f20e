"""What an item's recovery points amount to, in a few values: what can be restored, what was taken
last, how much it is. Pure, and small: a fleet's recovery points are millions, and are not kept.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlbak.errors import Refused, SqlbakError
from sqlbak.model import Catalog, Point, PointType
from sqlbak.restore.windows import windows
from sqlbak.vault.names import point_id_instant

__all__ = ["NO_HOLDINGS", "Holdings", "holdings_of", "taken_at"]

_GROWTH_OVER = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Holdings:
    """What is there. Copy-only fulls count for what can be restored and for sizes only.

    Attributes:
        oldest, newest: the first and the last instant that can be restored; None: none can.
        gaps: how many spans between them cannot.
        is_usable: the newest recovery point is part of a window. If not, backups are being taken
            that no restore can use.
        trouble: why nothing at all could be found out, such as contradictory lineages.
        last: the newest point of each type.
        data: its fulls and differentials.
        log_seconds: when each of its logs was taken, in seconds since 1970; compact, and only of
            those that somebody wants to know of, as they are many.
        size_bytes: everything.
        added_bytes_per_day: over the week before the newest point, or since the first one.
        restore_bytes: about what a restore to ``newest`` fetches.
    """

    oldest: datetime | None = None
    newest: datetime | None = None
    gaps: int = 0
    is_usable: bool = True
    trouble: SqlbakError | None = None
    last: Mapping[PointType, Point] = field(default_factory=dict)
    data: tuple[Point, ...] = ()
    log_seconds: Sequence[int] = ()
    size_bytes: int = 0
    added_bytes_per_day: float = 0.0
    restore_bytes: int | None = None

    def newest_of(self, *kinds: PointType) -> datetime | None:
        """When the newest point of any of these types was taken."""
        return max((taken_at(self.last[kind]) for kind in kinds if kind in self.last), default=None)


NO_HOLDINGS = Holdings()
"""Nothing is stored."""


def taken_at(point: Point) -> datetime:
    """When it was begun, on the clock of the scheduler that took it: slots are compared with it."""
    return point_id_instant(point.id) or point.started_at


def holdings_of(catalog: Catalog, *, logs_since: datetime | None = None) -> Holdings:
    """What one item's recovery points and shipped log amount to. ``logs_since``: of logs that were
    taken before, ``log_seconds`` tells nothing; None: it tells of all."""
    points = catalog.points
    logs = (taken_at(point) for point in points if point.type is PointType.LOG)
    scheduled = [point for point in points if not point.is_copy_only]
    last: dict[PointType, Point] = {}
    for point in scheduled:
        # Ids begin with the second in which they were made.
        if point.type not in last or point.id > last[point.type].id:
            last[point.type] = point
    trouble: SqlbakError | None = None
    spans: list[tuple[datetime, datetime]] = []
    gaps = 0
    try:
        found = windows(catalog)
        spans = [(window.start, window.end) for window in found]
        gaps = len(found) - len({window.lineage for window in found})
    except Refused as error:
        trouble = error
    newest = max((end for _, end in spans), default=None)
    return Holdings(
        oldest=min((start for start, _ in spans), default=None),
        newest=newest,
        gaps=gaps,
        is_usable=trouble is None and _is_usable(points, newest),
        trouble=trouble,
        last=last,
        data=tuple(point for point in points if point.type is not PointType.LOG),
        log_seconds=array(
            "I", (int(at.timestamp()) for at in logs if logs_since is None or at >= logs_since)
        ),
        size_bytes=sum(point.size_bytes for point in points),
        added_bytes_per_day=_added_a_day(points),
        restore_bytes=None if newest is None else _restore_bytes(catalog, newest),
    )


def _is_usable(points: tuple[Point, ...], newest: datetime | None) -> bool:
    proofs = [point.covers_until for point in points if point.covers_until is not None]
    if newest is None:
        # Logs without any full: there is nothing that they could be applied to.
        return not any(point.type is PointType.LOG for point in points)
    return not proofs or max(proofs) <= newest


def _added_a_day(points: tuple[Point, ...]) -> float:
    if not points:
        return 0.0
    newest = taken_at(max(points, key=lambda point: point.id))
    since = newest - _GROWTH_OVER
    recent = [(taken_at(point), point.size_bytes) for point in points]
    recent = [(at, size) for at, size in recent if at >= since]
    begun = min(at for at, _ in recent)
    # What a young item began with is no growth of a day.
    return sum(size for _, size in recent) / max((newest - begun) / timedelta(days=1), 1.0)


def _restore_bytes(catalog: Catalog, newest: datetime) -> int | None:
    """The newest base that ends before ``newest``, and the log behind it. The planner may find
    something cheaper; this is to tell minutes from hours."""
    by_id = {point.id: point for point in catalog.points}
    bases = [
        point
        for point in catalog.points
        if point.type is not PointType.LOG
        and point.reachable_from is not None
        and point.reachable_from <= newest
        and (point.base_id is None or point.base_id in by_id)
    ]
    if not bases:
        return None
    base = max(bases, key=lambda point: (point.last_lsn, point.id))
    below = 0 if base.base_id is None else by_id[base.base_id].size_bytes
    logs = sum(
        point.size_bytes
        for point in catalog.points
        if point.type is PointType.LOG and point.last_lsn > base.last_lsn
    )
    shipped = sum(piece.size_bytes for piece in catalog.shipped if piece.last_lsn > base.last_lsn)
    return base.size_bytes + below + logs + shipped
