"""When a policy's backups are due. Pure: policy and instants in, slots out.

Full and differential follow cron lines in the policy's zone, the log follows UTC. A slot is named
by the wall time on its cron line without regard to which of two repeated hours it is, so an hour
that happens twice holds it once (at the first occurrence). A slot in an hour that is skipped runs
at the first instant after the gap and keeps the date of its line.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from sqlbak.model import PointType
from sqlbak.policy.cron import CronLine
from sqlbak.policy.local_time import end_of_gap, instants
from sqlbak.policy.schema import Policy

__all__ = ["Slot", "next_slot", "previous_slot", "slots"]

_DAY = timedelta(days=1)
_CRON_SPANS = tuple(timedelta(days=days) for days in (2, 40, 400, 9 * 366))
"""How far to look for one slot, in turn. The last holds a 29 February even around 2100."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A scheduled instant of a policy.

    ``instant`` is UTC. ``local_date`` is the day it belongs to in the policy's zone. ``identity``
    is its kind and its wall time in that zone (UTC with a Z for logs): one identity, one run.
    """

    kind: PointType
    instant: datetime
    local_date: date
    identity: str


def slots(policy: Policy, kind: PointType, after: datetime, until: datetime) -> list[Slot]:
    """The slots of one kind with ``after < instant <= until`` (aware), ascending; none when the
    policy does not schedule that kind."""
    after, until = _in_utc(after), _in_utc(until)
    if after >= until:
        return []
    if kind is PointType.LOG:
        return list(_log_slots(policy, after, until))
    line = policy.full if kind is PointType.FULL else policy.differential
    if line is None:
        return []
    return _cron_slots(line, policy.zone, kind, after, until)


def previous_slot(policy: Policy, kind: PointType, at: datetime) -> Slot | None:
    """The newest slot with ``instant <= at``; None when that kind is not scheduled."""
    for span in _spans(policy, kind):
        found = slots(policy, kind, at - span, at)
        if found:
            return found[-1]
    return None


def next_slot(policy: Policy, kind: PointType, after: datetime) -> Slot:
    """The first slot with ``instant > after``. ValueError when that kind is not scheduled."""
    for span in _spans(policy, kind):
        found = slots(policy, kind, after, after + span)
        if found:
            return found[0]
    raise ValueError(f"the policy schedules no {kind} backup")


def _spans(policy: Policy, kind: PointType) -> tuple[timedelta, ...]:
    if kind is not PointType.LOG:
        return _CRON_SPANS
    return () if policy.log_interval is None else (policy.log_interval,)


def _log_slots(policy: Policy, after: datetime, until: datetime) -> Iterator[Slot]:
    """Every interval since midnight UTC. All legal intervals divide a day, so counting from the
    epoch is the same. UTC has no 75-minute hole when the clocks go back."""
    interval = policy.log_interval
    if interval is None:
        return
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    instant = epoch + ((after - epoch) // interval + 1) * interval
    while instant <= until:
        wall = instant.replace(tzinfo=None).isoformat(timespec="minutes")
        local_date = instant.astimezone(policy.zone).date()
        yield Slot(PointType.LOG, instant, local_date, f"{PointType.LOG}@{wall}Z")
        instant += interval


def _cron_slots(
    line: CronLine, zone: ZoneInfo, kind: PointType, after: datetime, until: datetime
) -> list[Slot]:
    # A day around: clocks that go back over midnight (Newfoundland, until 2011) show two dates by
    # turns.
    first = after.astimezone(zone).date() - _DAY
    last = until.astimezone(zone).date() + _DAY
    found: dict[datetime, Slot] = {}
    month = first.replace(day=1)
    while month <= last:
        # Skipped times and a real one that fall together make one slot: the last, real one.
        found.update((s.instant, s) for s in _slots_of_month(line, zone, kind, month))
        month = (month + 31 * _DAY).replace(day=1)
    return [found[instant] for instant in sorted(found) if after < instant <= until]


@lru_cache(maxsize=4096)
def _slots_of_month(
    line: CronLine, zone: ZoneInfo, kind: PointType, month: date
) -> tuple[Slot, ...]:
    """The slots of the days of one local month; of two that fall together the later stands last.
    Kept, since a scheduler asks for the same ones every few seconds."""
    found = []
    for day in line.dates(month, (month + 31 * _DAY).replace(day=1) - _DAY):
        for at in line.times:
            wall = datetime.combine(day, at)
            happens = instants(wall, zone)
            instant = happens[0] if happens else end_of_gap(wall, zone)
            identity = f"{kind}@{wall.isoformat(timespec='minutes')}"
            found.append(Slot(kind, instant, day, identity))
    return tuple(found)


def _in_utc(instant: datetime) -> datetime:
    if instant.tzinfo is None:
        raise ValueError("an instant needs a zone: give an aware datetime")
    return instant.astimezone(UTC)
