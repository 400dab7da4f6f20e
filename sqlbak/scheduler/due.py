"""What is due now, decided from policies and recovery points alone. Pure.

Because the vault is the only state, a restart, a second scheduler or three days of downtime need
no special case: the newest slot of each type is either served or due, so there is one catch-up a
type and never three.

A day is a local day of the policy's zone, the zone that the policy has now. A day on which a full
claims to have been taken never gets a second one, whatever became of policy, zone and clock in
between; and no claim of a clock that was wrong keeps a later slot from being served.

A slot whose backup somebody cancelled is done with (docs/adr/0017). A cancelled full is not begun
again before its own next slot, for whatever reason of the calendar's; until then logs and
differentials go on with the full before. That a log or differential turns out to need a full is no
reason of the calendar's, and is decided when it is taken (jobs/backup.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from sqlbak.model import Point, PointType
from sqlbak.policy.calendar import Slot, next_slot, previous_slot, slots
from sqlbak.policy.schema import Policy
from sqlbak.scheduler.taken import CLOCKS_DIFFER, Taken
from sqlbak.vault.cancelled_slots import TypeSlot

__all__ = ["LONGEST_WITHOUT_FULL", "DueJob", "Protected", "due", "quiet_until"]

LONGEST_WITHOUT_FULL = timedelta(days=15)
"""A chain on an older full is not gone on with: Azure Backup for SQL Server turns the next
differential or log into a full, so that no restore has to read more."""

_A_DAY_AND_MORE = timedelta(hours=50)
"""Reaches over any local day from any instant of it, also one with 25 hours."""

_A_LITTLE_LATE = timedelta(minutes=15)
"""Who starts so late after a slot shortly before midnight still belongs to the slot's day; else a
nightly backup that had to wait for a minute would take the next night's place."""

_MOST_MISSED = timedelta(days=40)
"""Missed slots are counted so far back."""


@dataclass(frozen=True, slots=True)
class Protected:
    """One configured item: its name, its policy, the recovery points that it has, and the slots
    that somebody cancelled."""

    name: str
    policy: Policy
    points: Sequence[Point]
    cancelled: Sequence[TypeSlot] = ()


@dataclass(frozen=True, slots=True)
class DueJob:
    """One backup of an item to take now, for ``slot`` (None: a first full before any slot), and
    why. ``asked``: what the slot is for, where a full is taken instead. ``missed``: earlier slots
    of the same type that nothing served."""

    item: str
    type: PointType
    slot: Slot | None
    reason: str
    asked: PointType | None = None
    missed: tuple[Slot, ...] = ()


def due(protected: Iterable[Protected], now: datetime) -> list[DueJob]:
    """Every backup that should run now; ``now`` is aware."""
    now = now.astimezone(UTC)
    return [job for item in protected for job in _due(item, Taken.of(item.points), now)]


def quiet_until(policy: Policy, now: datetime) -> datetime:
    """Until when nothing becomes due of an item of which nothing is due at ``now``, as long as its
    recovery points stay as they are."""
    scheduled = {
        PointType.FULL: policy.full,
        PointType.DIFFERENTIAL: policy.differential,
        PointType.LOG: policy.log,
    }
    return min(next_slot(policy, kind, now).instant for kind, line in scheduled.items() if line)


def _due(item: Protected, taken: Taken, now: datetime) -> list[DueJob]:
    full = _full_due(item, taken, now)
    if not taken.fulls:
        return [] if full is None else [full]
    differential = None if full else _differential_due(item, taken, now)
    log = _log_due(item, taken, now)
    asked = differential or log
    if full is None and asked is not None and (why := _too_old(item, taken, asked, now)):
        full = DueJob(item.name, PointType.FULL, asked.slot, why, asked.type)
        differential = None
    return [job for job in (full, differential, log) if job is not None]


def _full_due(item: Protected, taken: Taken, now: datetime) -> DueJob | None:
    slot = previous_slot(item.policy, PointType.FULL, now)
    if _is_cancelled(item, PointType.FULL, slot, now):
        return None
    if not taken.fulls:
        return DueJob(item.name, PointType.FULL, slot, "it has no full backup yet")
    if slot is None:
        return None
    newest = taken.last_serving(PointType.FULL, now)
    if newest is not None and newest >= slot.instant:
        return None
    # One full a local day, whoever asked for it: a healing full serves the day's slot too.
    days = {
        _slot_day(item, PointType.FULL, at) for at in taken.claims((PointType.FULL,), slot, now)
    }
    if newest is not None:
        days.add(_slot_day(item, PointType.FULL, newest))
    if days & {slot.local_date, _slot_day(item, PointType.FULL, now)}:
        return None
    return _job(item, slot, newest)


def _differential_due(item: Protected, taken: Taken, now: datetime) -> DueJob | None:
    """None on a local day that has, had or will have a full, scheduled or not: the full is worth
    more. One differential a local day, whoever asked for it."""
    kind = PointType.DIFFERENTIAL
    slot = previous_slot(item.policy, kind, now)
    if slot is None or _is_cancelled(item, kind, slot, now):
        return None
    newest = taken.last_serving(kind, now)
    if newest is not None and newest >= slot.instant:
        return None
    days = {_slot_day(item, kind, at) for at in taken.claims((kind,), slot, now)}
    days |= {_day(item, at) for at in taken.claims((PointType.FULL,), slot, now)}
    if newest is not None:
        days.add(_day(item, newest))
    if (days | _full_days(item, now)) & {slot.local_date, _slot_day(item, kind, now)}:
        return None
    return _job(item, slot, newest)


def _log_due(item: Protected, taken: Taken, now: datetime) -> DueJob | None:
    slot = previous_slot(item.policy, PointType.LOG, now)
    if slot is None or _is_cancelled(item, PointType.LOG, slot, now):
        return None
    newest = taken.last_serving(PointType.LOG, now)
    if newest is not None and newest >= slot.instant:
        return None
    return _job(item, slot, newest)


def _too_old(item: Protected, taken: Taken, asked: DueJob, now: datetime) -> str | None:
    """Why the full no longer bears what is due; None: it does. Not on a day that has or gets a
    full anyway, nor on one that has a differential, nor until the next full's slot where somebody
    cancelled a full."""
    newest = taken.last_serving(PointType.FULL, now)
    if newest is None or asked.slot is None or now - newest <= LONGEST_WITHOUT_FULL:
        return None
    if _is_cancelled(item, PointType.FULL, previous_slot(item.policy, PointType.FULL, now), now):
        return None
    kinds = (PointType.FULL, PointType.DIFFERENTIAL)
    days = {_day(item, at) for at in taken.claims(kinds, asked.slot, now)}
    if _day(item, now) in days | _full_days(item, now):
        return None
    return f"the full of {newest:%Y-%m-%d %H:%M}Z is older than {LONGEST_WITHOUT_FULL.days} days"


def _is_cancelled(item: Protected, kind: PointType, slot: Slot | None, now: datetime) -> bool:
    """Whether somebody ended a backup of that type that was for ``slot``, or for something later
    that is not after ``now`` (a full that was taken instead of a log). None: for whatever."""
    return any(
        one.type is kind
        and (slot is None or one.instant >= slot.instant)
        and one.instant <= now + CLOCKS_DIFFER
        for one in item.cancelled
    )


def _job(item: Protected, slot: Slot, newest: datetime | None) -> DueJob:
    missed = _missed(item, slot, newest)
    late = f", after {len(missed)} missed" if missed else ""
    return DueJob(item.name, slot.kind, slot, f"slot {slot.identity}{late}", missed=missed)


def _missed(item: Protected, slot: Slot, newest: datetime | None) -> tuple[Slot, ...]:
    """The slots before ``slot`` that nothing served since ``newest`` and nobody cancelled,
    ascending."""
    if newest is None:
        return ()
    after = max(newest, slot.instant - _MOST_MISSED)
    cancelled = {one.instant for one in item.cancelled if one.type is slot.kind}
    found = [
        one
        for one in slots(item.policy, slot.kind, after, slot.instant - timedelta(microseconds=1))
        if one.instant not in cancelled
    ]
    if slot.kind is PointType.LOG:
        return tuple(found)
    return tuple(one for one in found if one.local_date != _day(item, newest))


def _day(item: Protected, instant: datetime) -> date:
    return instant.astimezone(item.policy.zone).date()


def _slot_day(item: Protected, kind: PointType, at: datetime) -> date:
    """The local day to which a backup that starts at ``at`` belongs."""
    slot = previous_slot(item.policy, kind, at)
    if slot is not None and at - slot.instant <= _A_LITTLE_LATE:
        return slot.local_date
    return _day(item, at)


def _full_days(item: Protected, now: datetime) -> set[date]:
    """The local days around ``now`` for which a full is scheduled."""
    around = slots(item.policy, PointType.FULL, now - _A_DAY_AND_MORE, now + _A_DAY_AND_MORE)
    return {slot.local_date for slot in around}
