"""What a backup that is due will turn out to be, told before it is taken. Pure.

The backup itself decides by looking at the server (sqlbak/jobs/backup.py); this says the same for
people who ask what would happen, from what the server answered just now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlbak.errors import BaseUnusable
from sqlbak.jobs.differential_base import ahead_of, newest_base
from sqlbak.jobs.log_chain import next_log_start
from sqlbak.model import LogPosition, Point, PointType

__all__ = ["ServerView", "why_full"]


@dataclass(frozen=True, slots=True)
class ServerView:
    """What a server says of its log. ``position``: where it ends; ``oldest``: from where it can
    still be had, None: from nowhere; ``refusal``: why the server keeps no log at all (its recovery
    model), None: it does."""

    position: LogPosition | None
    oldest: LogPosition | None
    refusal: str | None = None


def why_full(asked: PointType, points: Sequence[Point], view: ServerView) -> str | None:
    """Why a full will be taken where a differential or log was ``asked`` for; None: it will not,
    as far as can be known without trying."""
    if asked is PointType.FULL:
        return None
    if not any(point.type is PointType.FULL and not point.is_copy_only for point in points):
        return "there is no full backup yet"
    if (ahead := ahead_of(points, view.position)) is not None:
        return f"the server's log ends before the end of {ahead.id}: it was set back"
    if asked is PointType.DIFFERENTIAL:
        try:
            newest_base(points, None if view.position is None else view.position.lineage)
        except BaseUnusable as unusable:
            return unusable.message
        return None
    if view.refusal is not None:
        return view.refusal
    if next_log_start(points, view.oldest) is None:
        return "the server no longer holds the log since the last backup"
    return None
