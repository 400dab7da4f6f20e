"""When backups were taken, whatever clocks did meanwhile. Pure.

A backup claims the time of its id, which is the clock of the scheduler that took it. Such a clock
may have been wrong, so neither does a claim decide which backup is the last one (its position in
the log does), nor is one of the future believed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlbak.model import Point, PointType
from sqlbak.policy.calendar import Slot
from sqlbak.vault.names import point_id_instant

__all__ = ["CLOCKS_DIFFER", "Taken", "claimed_at", "telling"]

_SECOND = "%Y%m%dT%H%M%SZ"

_DAYS = timedelta(days=3)

CLOCKS_DIFFER = timedelta(minutes=1)
"""Clocks of two schedulers that are kept by NTP differ by less."""


_MOST_TIED = 64
"""Logs with one and the same end, of a server that writes nothing: so many of the last are kept."""


def telling(points: Iterable[Point]) -> tuple[Point, ...]:
    """Those of ``points`` that what is due depends on, in the same order: of the logs of each
    lineage only the last, copy-only ones apart. So a scheduler that lives for years keeps a few,
    not all of them."""
    logs: dict[str, list[Point]] = {}
    others: set[str] = set()
    ordered = tuple(points)
    for point in ordered:
        if point.type is not PointType.LOG or point.is_copy_only:
            others.add(point.id)
            continue
        row = logs.setdefault(point.lineage, [])
        if row and point.last_lsn > row[0].last_lsn:
            row.clear()
        if not row or point.last_lsn == row[0].last_lsn:
            row.append(point)
    last = {
        point.id
        for row in logs.values()
        for point in sorted(row, key=lambda one: one.id)[-_MOST_TIED:]
    }
    return tuple(point for point in ordered if point.id in others or point.id in last)


def claimed_at(point: Point) -> datetime:
    """When it began, on the clock of the scheduler that took it: slots are compared with it, since
    the database server's clock may go differently."""
    return point_id_instant(point.id) or point.started_at


@dataclass(frozen=True, slots=True)
class Taken:
    """An item's recovery points by what they are. Copy-only fulls stand outside the schedule and
    are left out."""

    fulls: tuple[Point, ...]
    differentials: tuple[Point, ...]
    logs: tuple[Point, ...]

    @classmethod
    def of(cls, points: Iterable[Point]) -> Taken:
        """Sort ``points`` out."""
        found: dict[PointType, list[Point]] = {kind: [] for kind in PointType}
        for point in points:
            if not point.is_copy_only:
                found[point.type].append(point)
        return cls(*(tuple(found[kind]) for kind in PointType))

    def last_serving(self, kind: PointType, now: datetime) -> datetime | None:
        """When what serves slots of ``kind`` was last taken; None: there is none, or nothing tells.
        A full serves a differential's slot too, and the log goes on from a full where there is no
        log yet."""
        if kind is PointType.LOG and self.logs:
            return _last(self.logs, now)
        points = self.fulls
        if kind is PointType.DIFFERENTIAL:
            points += self.differentials
        return _last(points, now)

    def claims(self, kinds: Iterable[PointType], slot: Slot, now: datetime) -> list[datetime]:
        """When fulls and differentials of those kinds claim to have been taken, as far as it is
        within days of ``slot`` or ``now``."""
        low = f"{min(slot.instant, now) - _DAYS:{_SECOND}}"
        high = f"{now + _DAYS:{_SECOND}}"
        points = {PointType.FULL: self.fulls, PointType.DIFFERENTIAL: self.differentials}
        return [
            claimed_at(point)
            for kind in kinds
            for point in points[kind]
            if low <= point.id <= high  # ids begin with their second
        ]


def _last(points: Sequence[Point], now: datetime) -> datetime | None:
    """On each lineage the last one is the one that reaches furthest."""
    lineages: dict[str, list[Point]] = {}
    for point in points:
        lineages.setdefault(point.lineage, []).append(point)
    known = [
        instant
        for one in lineages.values()
        if (instant := _believable(_furthest(one, now), now)) is not None
    ]
    return max(known, default=None)


def _furthest(points: Sequence[Point], now: datetime) -> Point:
    """The point with the greatest position; where several share it, the last of those that do not
    claim to be of the future."""
    end = max(point.last_lsn for point in points)
    tied = [point for point in points if point.last_lsn == end]
    # Ids begin with their second, so they are compared as times.
    latest = f"{now + CLOCKS_DIFFER:{_SECOND}}~"
    return max(tied, key=lambda point: (point.id < latest, point.id))


def _believable(point: Point, now: datetime) -> datetime | None:
    claim = claimed_at(point)
    if claim <= now + CLOCKS_DIFFER:
        return claim
    # The scheduler's clock was wrong, then or now: the database server's is another witness.
    return point.started_at if point.started_at <= now else None
