"""What a backup that is due will turn out to be, told before it is taken. Pure.

The backup itself decides by looking at the server (sqlbak/jobs/backup.py); this says the same for
people who ask what would happen, from what the server answered just now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlbak.engines.port import DiscoveredItem
from sqlbak.errors import BaseUnusable
from sqlbak.jobs.differential_base import ahead_of, newest_base
from sqlbak.jobs.log_chain import is_set_back, next_log_start, why_no_log
from sqlbak.model import EngineName, LogPosition, Point, PointType

__all__ = ["Foreseen", "ServerView", "foreseen"]


@dataclass(frozen=True, slots=True)
class ServerView:
    """What a server says of one item. ``oldest``: from where its log can still be had; None: from
    nowhere."""

    engine: EngineName
    found: DiscoveredItem
    oldest: LogPosition | None

    @property
    def lineage(self) -> str | None:
        """The lineage that the item is on."""
        return self.found.lineage if self.found.position is None else self.found.position.lineage


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What will be taken, and why it is not what was asked for (None: it is). ``paused``: why
    nothing can be taken."""

    takes: PointType
    why: str | None = None
    paused: str | None = None


def foreseen(asked: PointType, points: Sequence[Point], view: ServerView) -> Foreseen:
    """What becomes of a backup of the type ``asked`` for, as far as it can be known without
    trying."""
    found = view.found
    if asked in found.paused:
        return Foreseen(asked, paused=found.paused[asked])
    if asked is PointType.FULL:
        return Foreseen(asked)
    if not any(point.type is PointType.FULL and not point.is_copy_only for point in points):
        return Foreseen(PointType.FULL, "there is no full backup yet")
    if _is_set_back(points, found):
        return Foreseen(PointType.FULL, "the server was set back to an older state")
    if asked is PointType.DIFFERENTIAL:
        why = _unusable(points, view)
        return Foreseen(asked) if why is None else Foreseen(PointType.FULL, why)
    # SQL Server's log can go on from a differential.
    is_bridged = view.engine is EngineName.SQLSERVER
    if next_log_start(points, view.oldest, after_differentials=is_bridged) is not None:
        return Foreseen(asked)
    why = why_no_log(points, found)
    bridge = is_bridged and _unusable(points, view) is None
    return Foreseen(PointType.DIFFERENTIAL if bridge else PointType.FULL, why)


def _is_set_back(points: Sequence[Point], found: DiscoveredItem) -> bool:
    if is_set_back(points, found.lineage, found.next_log_lsn):
        return True
    return not found.may_lag and ahead_of(points, found.position) is not None


def _unusable(points: Sequence[Point], view: ServerView) -> str | None:
    """Why no full bears a differential; None: one does."""
    try:
        newest_base(points, view.lineage)
    except BaseUnusable as unusable:
        return unusable.message
    return None
