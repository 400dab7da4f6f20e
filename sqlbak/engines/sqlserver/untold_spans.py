"""Which spans of time STOPAT cannot be told of, in the history of one database. Pure, but for the
clocks that it asks for.

The counterpart of ``restoring_clock.stop_at_of`` for a whole history: it refuses nothing outside of
the spans that are found here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import pairwise

from sqlbak.engines.sqlserver.restoring_clock import (
    LONGEST_UNWATCHED,
    NEAR,
    ClockWitness,
    changes_of,
    zone_named,
)

__all__ = ["BackupTimes", "Span", "untold_spans"]

_STEP = timedelta(days=30)
"""Between two readings that close, a clock that is the same at both was not set in between (no zone
goes to another offset and back within a month), but for zones that are known by name."""
_EVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class BackupTimes:
    """One backup (UTC). ``covers_until``: the last instant to which a log proves to hold all;
    None for another backup."""

    finished_at: datetime
    covers_until: datetime | None


@dataclass(frozen=True, slots=True)
class Span:
    """From ``start``, included or not, to ``end``, excluded (UTC)."""

    start: datetime
    end: datetime
    has_start: bool = True


@dataclass(frozen=True, slots=True)
class _Reading:
    """``zone``: the one that the server named, if its clock was indeed where that one has it."""

    clock: ClockWitness
    zone: tzinfo | None

    @property
    def kind(self) -> tuple[object, ...]:
        """What stays the same as long as nobody sets the clock or the zone."""
        name = self.clock.zone_name
        return (name, None) if self.zone is not None else (name, self.clock.offset)


def untold_spans(
    backups: Sequence[BackupTimes], clock_of: Callable[[int], ClockWitness | None]
) -> list[Span]:
    """The spans within a row of backups, ordered by ``finished_at``. ``clock_of``: what the backup
    with that index saw of the server's clock; few are asked for. Those that saw nothing are judged
    by the ones before them."""
    readings = _readings(backups, clock_of)
    spans: list[Span] = []
    unseen = min(readings, default=len(backups))
    if unseen > 0:
        spans.append(Span(_EVER, backups[unseen - 1].finished_at))
    for index, reading in readings.items():
        if reading.zone is not None:
            spans += _in_zone(backups, index, index, reading.zone)
    for (one, before), (other, after) in pairwise(sorted(readings.items())):
        if before.kind != after.kind:
            spans.append(_unclear(backups, one, other, before.clock, after.clock))
        elif before.zone is not None:
            spans += _in_zone(backups, one, other, before.zone)
        elif after.clock.at - before.clock.at > LONGEST_UNWATCHED:
            start = _proven_by(backups, backups[one].finished_at)
            spans.append(Span(start, backups[other].finished_at))
    return [*dict.fromkeys(spans)]


def _readings(
    backups: Sequence[BackupTimes], clock_of: Callable[[int], ClockWitness | None]
) -> dict[int, _Reading]:
    """Enough readings that between two neighbours of the same kind there is no other one, and that
    two of different kinds are neighbours."""
    found: dict[int, _Reading] = {}

    def read(index: int) -> _Reading | None:
        if index not in found and (clock := clock_of(index)) is not None:
            zone = zone_named(clock.zone_name)
            if zone is not None and clock.at.astimezone(zone).utcoffset() != clock.offset:
                zone = None
            found[index] = _Reading(clock, zone)
        return found.get(index)

    def narrow(low: int, high: int) -> None:
        one, other = read(low), read(high)
        if high - low < 2:
            return
        is_close = backups[high].finished_at - backups[low].finished_at <= _STEP
        if one is not None and other is not None and one.kind == other.kind and is_close:
            return
        middle = (low + high) // 2
        narrow(low, middle)
        narrow(middle, high)

    if backups:
        narrow(0, len(backups) - 1)
    return found


def _unclear(
    backups: Sequence[BackupTimes], one: int, other: int, before: ClockWitness, after: ClockWitness
) -> Span:
    """Somewhere in the log between the two the clock was set; if back, it showed times again."""
    log = next((b for b in backups[other:] if b.covers_until is not None), backups[other])
    drop = max(before.offset - after.offset, timedelta(0))
    return Span(
        _proven_by(backups, backups[one].finished_at), log.finished_at + drop, has_start=False
    )


def _in_zone(backups: Sequence[BackupTimes], one: int, other: int, zone: tzinfo) -> Iterator[Span]:
    start, end = backups[one].finished_at, backups[other].finished_at
    changes = changes_of(zone, start - NEAR, end + NEAR)
    for change in changes:
        if not change.goes_back:
            continue
        # The first pass can be told as long as the log that holds it ends with it.
        told = _proven_by(backups, change.at)
        first = change.at - change.span
        yield Span(max(told, first), change.at + change.span, has_start=told < first)
    if sum(start < change.at <= end for change in changes) > 1:
        yield Span(_proven_by(backups, start), end + NEAR)


def _proven_by(backups: Sequence[BackupTimes], instant: datetime) -> datetime:
    """What logs that ended by then prove to hold; before all times without one."""
    proven = [b.covers_until for b in backups if b.covers_until and b.finished_at <= instant]
    return max(proven, default=_EVER)
