"""STOPAT: from an instant to what SQL Server has to be told, or why that would not be safe. Pure.

The log of SQL Server holds local wall-clock times of the server that wrote it, on a grid of 1/300
second, and no zone. STOPAT compares with them, scanning forward: it stops before the first commit
whose time is later. Where the wall clock was set back in between (autumn), "later" means little, so
inside a repeated hour an instant is refused unless the log ends before the hour repeats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import pairwise
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sqlbak.engines.sqlserver.restoring_zones import WINDOWS_ZONES
from sqlbak.errors import InstantUnreachable

__all__ = [
    "LONGEST_UNWATCHED",
    "NEAR",
    "ClockWitness",
    "OffsetChange",
    "StopAt",
    "changes_of",
    "format_stop_at",
    "stop_at_of",
    "zone_named",
]

_TICKS_PER_SECOND = 300
NEAR = timedelta(hours=3)
"""No clock is set by more in a change of daylight saving time."""
LONGEST_UNWATCHED = timedelta(days=40)
"""Two offsets that far apart say nothing of what was between them, without a zone."""


@dataclass(frozen=True, slots=True)
class ClockWitness:
    """At ``at`` (UTC) the server's wall clock was ``offset`` ahead of UTC; it called its zone
    ``zone_name`` (None: it did not say)."""

    at: datetime
    offset: timedelta
    zone_name: str | None = None


@dataclass(frozen=True, slots=True)
class OffsetChange:
    """At ``at`` (UTC) the clock went from ``before`` to ``after`` ahead of UTC."""

    at: datetime
    before: timedelta
    after: timedelta

    @property
    def goes_back(self) -> bool:
        """Whether wall times repeat."""
        return self.after < self.before

    @property
    def span(self) -> timedelta:
        """How far the clock was set."""
        return abs(self.after - self.before)


@dataclass(frozen=True, slots=True)
class StopAt:
    """What STOPAT has to say: the source server's wall time, on its grid; and that as an instant
    (UTC), never later than the one asked for."""

    literal: str
    instant: datetime


def zone_named(name: str | None) -> tzinfo | None:
    """The zone that a server calls ``name``: an IANA name, or one of Windows; None: not known."""
    if not name:
        return None
    wanted = name.strip()
    wanted = WINDOWS_ZONES.get(wanted.lower(), wanted)
    try:
        return ZoneInfo(wanted)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def format_stop_at(wall: datetime) -> str:
    """A wall time as a datetime literal that no language setting changes, rounded down to the grid
    of 1/300 second: whatever the server logs as later stays out."""
    ticks = wall.microsecond * _TICKS_PER_SECOND // 1_000_000
    thousandths = (ticks * 1000 + _TICKS_PER_SECOND // 2) // _TICKS_PER_SECOND
    return f"{wall:%Y-%m-%dT%H:%M:%S}.{thousandths:03d}"


def stop_at_of(
    instant: datetime,
    *,
    before: ClockWitness | None,
    after: ClockWitness | None,
    log_ends_by: datetime,
    where: str,
    earlier: Sequence[ClockWitness] = (),
) -> StopAt:
    """STOPAT for ``instant`` (UTC) inside a log.

    ``before`` and ``after``: the clock at or before the log's beginning and at or after its end;
    ``earlier``: what is known of it before.
    ``log_ends_by``: no transaction that the log holds committed later. InstantUnreachable when the
    wall time cannot be told, or would mean another instant too.
    """
    change = _change_around(instant, before, after, earlier, where)
    if change is None:
        offset = (after or before or _nobody(instant, where)).offset
        return _stop(instant, offset)
    offset = change.before if instant < change.at else change.after
    if change.goes_back and change.at - change.span <= instant < change.at + change.span:
        if instant >= change.at:
            raise _repeated(instant, change, where, "in its second pass")
        if log_ends_by > change.at:
            # Nothing may have happened in the rest of the first pass: the server would go on
            # scanning into the second one, and take what it finds there for earlier.
            raise _repeated(instant, change, where, "and the log goes on into the second pass")
    return _stop(instant, offset)


def _nobody(instant: datetime, where: str) -> ClockWitness:
    raise InstantUnreachable(
        f"{where}: {_text(instant)} cannot be told to the server: no recovery point around it says "
        "how far its clock was from UTC",
        hint="restore to the end of a recovery point: --to ID",
    )


def _stop(instant: datetime, offset: timedelta) -> StopAt:
    wall = (instant.astimezone(UTC) + offset).replace(tzinfo=None)
    ticks = wall.microsecond * _TICKS_PER_SECOND // 1_000_000
    on_grid = wall.replace(microsecond=ticks * 1_000_000 // _TICKS_PER_SECOND)
    return StopAt(format_stop_at(wall), (on_grid - offset).replace(tzinfo=UTC))


def _change_around(
    instant: datetime,
    before: ClockWitness | None,
    after: ClockWitness | None,
    earlier: Sequence[ClockWitness],
    where: str,
) -> OffsetChange | None:
    """The one change of the clock that matters for the instant. None: there was none."""
    witnesses = [witness for witness in (before, after) if witness is not None]
    if not witnesses:
        _nobody(instant, where)
    start, end = witnesses[0].at, witnesses[-1].at
    zone = _agreeing_zone(witnesses)
    if zone is not None:
        # Also a change before the log, where the hour that it repeated is not over at the instant,
        # and one behind it: the instant may lie in an hour that will be repeated.
        changes = [
            change
            for change in changes_of(zone, min(start, instant) - NEAR, max(end, instant) + NEAR)
            if change.at - change.span <= max(end, instant)
            and (change.at > start or instant < change.at + change.span)
        ]
        if len(changes) > 1:
            raise _unclear(instant, where)
        return changes[0] if changes else None
    if len({witness.offset for witness in witnesses}) > 1 or end - start > LONGEST_UNWATCHED:
        raise _unclear(instant, where)
    if instant < _repeated_until(witnesses[0], earlier):
        raise _unclear(instant, where)
    return None


def _repeated_until(now: ClockWitness, earlier: Sequence[ClockWitness]) -> datetime:
    """When, at the latest, the wall clock ended to show times that it had shown before."""
    until = datetime.min.replace(tzinfo=UTC)
    ordered = sorted((*(each for each in earlier if each.at < now.at), now), key=lambda w: w.at)
    for before, after in pairwise(ordered):
        if after.offset < before.offset:
            until = max(until, after.at + (before.offset - after.offset))
    return until


def _agreeing_zone(witnesses: Sequence[ClockWitness]) -> tzinfo | None:
    """The zone that the server named, if its clock was indeed where that zone has it."""
    names = {witness.zone_name for witness in witnesses} - {None}
    zone = zone_named(next(iter(names))) if len(names) == 1 else None
    if zone is None:
        return None
    agree = all(witness.at.astimezone(zone).utcoffset() == witness.offset for witness in witnesses)
    return zone if agree else None


def changes_of(zone: tzinfo, start: datetime, end: datetime) -> list[OffsetChange]:
    """Every change of the zone's offset in ``(start, end]``, to the second."""
    found: list[OffsetChange] = []
    step = timedelta(days=1)
    low = start
    while low < end:
        high = min(low + step, end)
        one, other = _offset(zone, low), _offset(zone, high)
        if one != other:
            found.append(OffsetChange(_switch(zone, low, high), one, other))
        low = high
    return found


def _switch(zone: tzinfo, low: datetime, high: datetime) -> datetime:
    """The first whole second at which the offset is that of ``high``."""
    low, goal = low.replace(microsecond=0), _offset(zone, high)
    while high - low > timedelta(seconds=1):
        middle = (low + (high - low) / 2).replace(microsecond=0)
        if middle <= low:
            break
        if _offset(zone, middle) == goal:
            high = middle
        else:
            low = middle
    return high


def _offset(zone: tzinfo, instant: datetime) -> timedelta:
    return instant.astimezone(zone).utcoffset() or timedelta(0)


def _repeated(instant: datetime, change: OffsetChange, where: str, why: str) -> InstantUnreachable:
    first = change.at - change.span
    last = change.at + change.span
    return InstantUnreachable(
        f"{where}: {_text(instant)} lies in an hour that the server's wall clock showed twice, "
        f"{why}: SQL Server's log cannot tell the two apart",
        hint="choose an instant outside of the repeated hour, or the end of a recovery point in it "
        "(--to ID; sqlbak list shows them)",
        nearest=(first - timedelta(seconds=1), last),
    )


def _unclear(instant: datetime, where: str) -> InstantUnreachable:
    return InstantUnreachable(
        f"{where}: the server's clock was set to another offset from UTC somewhere around "
        f"{_text(instant)}, and it is not known when: the wall time of the instant is not known",
        hint="restore to the end of a recovery point (--to ID; sqlbak list shows them)",
    )


def _text(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat()
