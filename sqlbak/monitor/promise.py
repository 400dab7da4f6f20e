"""What a policy promises, and from when on a promise counts as broken. Pure.

A backup is not late the second after its slot: it takes time, and other backups go before it. What
is allowed for that is fixed here, in one place, so that status, metrics and notices agree.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlbak.model import PointType
from sqlbak.monitor.holdings import Holdings, taken_at
from sqlbak.policy.calendar import Slot, next_slot, previous_slot
from sqlbak.policy.schema import Policy

__all__ = ["Promise", "allowance", "is_served", "promise_of", "scheduled"]

_LOG_ALLOWANCES = (timedelta(minutes=5), timedelta(hours=2))
"""A log may be late by half its interval, but by no less and no more than this."""

_DATA_ALLOWANCE = timedelta(hours=6)
"""A full of terabytes takes hours."""

_SHIPPING_ALLOWANCE = timedelta(minutes=5)
"""Longer than another scheduler needs to take over the shipping of one that died."""


@dataclass(frozen=True, slots=True)
class Promise:
    """How much work the loss of the server may cost. ``target``: what the policy says; ``limit``:
    beyond it the promise counts as broken."""

    target: timedelta
    limit: timedelta


def scheduled(policy: Policy, paused: Collection[PointType] = ()) -> tuple[PointType, ...]:
    """The types of backup that the policy schedules, without those that cannot be taken of the
    item as its owner keeps it."""
    types = [PointType.FULL]
    if policy.differential is not None:
        types.append(PointType.DIFFERENTIAL)
    if policy.log is not None:
        types.append(PointType.LOG)
    return tuple(kind for kind in types if kind not in paused)


def allowance(policy: Policy, kind: PointType) -> timedelta:
    """How late a backup of that type may be done."""
    interval = policy.log_interval
    if kind is not PointType.LOG or interval is None:
        return _DATA_ALLOWANCE
    least, most = _LOG_ALLOWANCES
    return min(max(interval / 2, least), most)


def promise_of(policy: Policy, now: datetime, paused: Collection[PointType] = ()) -> Promise:
    """The promise as it stands at ``now`` (aware). Where logs are paused it is that of fulls and
    differentials; where everything is, that of the policy as it is written."""
    if PointType.FULL in paused:
        paused = ()
    shipping = None if PointType.LOG in paused else policy.shipping_interval_seconds
    if shipping is not None:
        target = timedelta(seconds=shipping)
        return Promise(target, target + _SHIPPING_ALLOWANCE)
    if policy.log_interval is not None and PointType.LOG not in paused:
        target = policy.log_interval
        return Promise(target, target + allowance(policy, PointType.LOG))
    # Without logs only the ends of fulls and differentials can be restored.
    kinds = scheduled(policy, paused)
    befores = [previous_slot(policy, kind, now) for kind in kinds]
    before = max((slot.instant for slot in befores if slot is not None), default=now)
    after = min(next_slot(policy, kind, now).instant for kind in kinds)
    target = after - before
    return Promise(target, target + _DATA_ALLOWANCE)


def is_served(policy: Policy, slot: Slot, holdings: Holdings) -> bool:
    """Whether the backup of ``slot`` was taken: at it or later, or, for fulls and differentials, on
    its local day. What is worth more serves as well: a full for a differential, and for a log
    where none came after it."""
    serving = {
        PointType.FULL: (PointType.FULL,),
        PointType.DIFFERENTIAL: (PointType.FULL, PointType.DIFFERENTIAL),
        PointType.LOG: (PointType.FULL, PointType.LOG),
    }[slot.kind]
    newest = holdings.newest_of(*serving)
    if newest is not None and newest >= slot.instant:
        return True
    if slot.kind is PointType.LOG:
        return False
    return any(
        taken_at(point).astimezone(policy.zone).date() == slot.local_date
        for point in holdings.data
        if point.type in serving and not point.is_copy_only
    )
