"""What is due now, decided from policies and recovery points alone. Pure.

Because the vault is the only state, a restart, a second scheduler or three days of downtime need
no special case: the newest slot of each type is either served or due, so there is one catch-up a
type and never three.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlbak.model import Point, PointType
from sqlbak.policy.calendar import Slot, previous_slot, slots
from sqlbak.policy.schema import Policy
from sqlbak.vault.names import point_id_instant

__all__ = ["DueJob", "Protected", "due"]

_A_DAY_AND_MORE = timedelta(hours=50)
"""Reaches over any local day from any instant of it, also one with 25 hours."""


@dataclass(frozen=True, slots=True)
class Protected:
    """One configured item: its name, its policy and the recovery points that it has."""

    name: str
    policy: Policy
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class DueJob:
    """One backup of an item to take now, for ``slot`` (None: a first full before any slot), and
    why."""

    item: str
    type: PointType
    slot: Slot | None
    reason: str


def due(protected: Iterable[Protected], now: datetime) -> list[DueJob]:
    """Every backup that should run now; ``now`` is aware."""
    jobs: list[DueJob] = []
    for item in protected:
        full = _full_due(item, now)
        differential = None if full else _differential_due(item, now)
        log = None if full and not _has_full(item) else _log_due(item, now)
        jobs += [job for job in (full, differential, log) if job is not None]
    return jobs


def _has_full(item: Protected) -> bool:
    return any(point.type is PointType.FULL and not point.is_copy_only for point in item.points)


def _full_due(item: Protected, now: datetime) -> DueJob | None:
    slot = previous_slot(item.policy, PointType.FULL, now)
    if not _has_full(item):
        return DueJob(item.name, PointType.FULL, slot, "it has no full backup yet")
    if slot is None:
        return None
    newest = max(
        _taken_at(point)
        for point in item.points
        if point.type is PointType.FULL and not point.is_copy_only
    )
    # One full a local day, whoever asked for it: a healing full serves the day's slot too.
    on_its_day = newest.astimezone(item.policy.zone).date() == slot.local_date
    if newest >= slot.instant or on_its_day:
        return None
    return DueJob(item.name, PointType.FULL, slot, f"slot {slot.identity}")


def _differential_due(item: Protected, now: datetime) -> DueJob | None:
    """None on a local day that has, had or will have a full, scheduled or not: the full is worth
    more. One differential a local day, whoever asked for it."""
    slot = previous_slot(item.policy, PointType.DIFFERENTIAL, now)
    if slot is None:
        return None
    zone = item.policy.zone
    days = {slot.local_date, now.astimezone(zone).date()}
    for point in item.points:
        if point.type is PointType.LOG or point.is_copy_only:
            continue
        taken_at = _taken_at(point)
        if taken_at >= slot.instant or taken_at.astimezone(zone).date() in days:
            return None
    around = slots(item.policy, PointType.FULL, now - _A_DAY_AND_MORE, now + _A_DAY_AND_MORE)
    if any(full.local_date in days for full in around):
        return None
    return DueJob(item.name, PointType.DIFFERENTIAL, slot, f"slot {slot.identity}")


def _log_due(item: Protected, now: datetime) -> DueJob | None:
    if item.policy.log is None:
        return None
    slot = previous_slot(item.policy, PointType.LOG, now)
    if slot is None:
        return None
    logs = [_taken_at(point) for point in item.points if point.type is PointType.LOG]
    fulls = [_taken_at(point) for point in item.points if point.type is PointType.FULL]
    newest = max(logs) if logs else max(fulls, default=None)
    if newest is not None and newest >= slot.instant:
        return None
    return DueJob(item.name, PointType.LOG, slot, f"slot {slot.identity}")


def _taken_at(point: Point) -> datetime:
    """When the scheduler that took it began, on that scheduler's clock: slots are compared with
    it, since the database server's clock may go differently.
    """
    return point_id_instant(point.id) or point.started_at
