"""Which recovery points a retention keeps, and why. Pure.

A full is kept for its own span, and the first of each week, month and year (in the policy's zone)
for theirs. What a kept point needs is kept with it: the full of a differential, and the full and
logs that lead to the first kept log.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta, tzinfo

from sqlbak.model import Point, PointType
from sqlbak.policy.duration import Duration
from sqlbak.policy.schema import Retention

__all__ = ["kept_until", "reasons_to_keep"]

_LONGEST_DIFFERENTIAL = Duration(180, "d")

Period = Callable[[date], object]
_PERIODS: Mapping[str, Period] = {
    "weekly": lambda day: day.isocalendar()[:2],
    "monthly": lambda day: (day.year, day.month),
    "yearly": lambda day: day.year,
}


def kept_until(taken_at: datetime, span: Duration) -> datetime:
    """When a span that begins at ``taken_at`` (aware) is over; the last day of a shorter month
    stands for a day that it has not."""
    if span.days is not None:
        return taken_at + timedelta(days=span.days)
    months = taken_at.year * 12 + taken_at.month - 1 + (span.months or 0)
    year, month = divmod(months, 12)
    if year > 9998:
        return datetime.max.replace(tzinfo=taken_at.tzinfo)
    day = min(taken_at.day, monthrange(year, month + 1)[1])
    return taken_at.replace(year=year, month=month + 1, day=day)


def reasons_to_keep(
    points: Sequence[Point], retention: Retention, zone: tzinfo, now: datetime
) -> dict[str, tuple[str, ...]]:
    """The points that are kept at ``now`` (aware), by id, each with its reasons. What is not in
    it, the retention lets go."""
    reasons: dict[str, list[str]] = {}

    def keep(point: Point, why: str) -> None:
        reasons.setdefault(point.id, []).append(why)

    ordered = sorted(points, key=lambda point: (point.finished_at, point.last_lsn))
    for point in ordered:
        span = _span(point, retention)
        if now < kept_until(point.finished_at, span):
            keep(point, f"{point.type.value}: {span}")
    fulls = [p for p in ordered if p.type is PointType.FULL and not p.is_copy_only]
    for tier, period in _PERIODS.items():
        span_of_tier: Duration | None = getattr(retention, tier)
        if span_of_tier is None:
            continue
        for full in _firsts(fulls, period, zone):
            if now < kept_until(full.finished_at, span_of_tier):
                keep(full, f"{tier}: {span_of_tier}")
    for point, why in _needed(ordered, reasons):
        keep(point, why)
    return {key: tuple(found) for key, found in reasons.items()}


def _span(point: Point, retention: Retention) -> Duration:
    if point.type is PointType.LOG:
        return retention.log
    if point.type is PointType.FULL:
        return retention.full
    if retention.differential is not None:
        return retention.differential
    is_short = retention.full.is_never_longer_than(_LONGEST_DIFFERENTIAL)
    return retention.full if is_short else _LONGEST_DIFFERENTIAL


def _firsts(fulls: Sequence[Point], period: Period, zone: tzinfo) -> list[Point]:
    """The first full of each period, by its local day."""
    seen: dict[object, Point] = {}
    for full in fulls:
        seen.setdefault(period(full.finished_at.astimezone(zone).date()), full)
    return list(seen.values())


def _needed(ordered: Sequence[Point], reasons: Mapping[str, object]) -> list[tuple[Point, str]]:
    """What kept points cannot do without."""
    by_id = {point.id: point for point in ordered}
    needed = [
        (by_id[point.base_id], f"base of {point.id}")
        for point in ordered
        if point.id in reasons and point.base_id is not None and point.base_id in by_id
    ]
    for lineage in {point.lineage for point in ordered}:
        here = [point for point in ordered if point.lineage == lineage]
        kept = [point for point in here if point.type is PointType.LOG and point.id in reasons]
        if not kept:
            continue
        first = min(kept, key=lambda point: point.first_lsn)
        bases = [p for p in here if p.type is PointType.FULL and p.last_lsn <= first.first_lsn]
        if not bases:
            continue
        base = max(bases, key=lambda point: point.last_lsn)
        needed.append((base, f"carries the logs from {first.id} on"))
        needed += [
            (point, f"leads from {base.id} to {first.id}")
            for point in here
            if point.type is PointType.LOG
            and point.last_lsn > base.last_lsn
            and point.last_lsn <= first.first_lsn
            and point.id not in reasons
        ]
    return needed
