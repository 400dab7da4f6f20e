"""The clock of backup headers: a SQL Server's local wall clock, in whole seconds.

STOPAT is compared with that wall clock, so planning happens on it: the wall time is carried as if
it were UTC, and only what people ask for and are shown is translated. When the clocks go back in
autumn the wall clock simply is set back once more, and the first occurrence of an instant is where
SQL Server stops too. Headers whose dates carry an offset are read in UTC, or in the zone given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from itertools import pairwise

from sqlbak.errors import (
    InputUnreadable,
    InstantAmbiguous,
    InstantNonexistent,
    InstantUnreachable,
    UsageError,
)
from sqlbak.restore.headers_rows import BackupSet

__all__ = ["HeaderClock", "clock_of", "read_target"]


@dataclass(frozen=True, slots=True)
class HeaderClock:
    """Between the headers' wall clock (carried as UTC) and what people see.

    ``zone``: where the wall clock hangs; None: unknown, instants are shown without an offset.
    """

    zone: tzinfo | None

    def wall(self, instant: datetime) -> datetime:
        """A date of a header on the wall clock, carried as UTC."""
        if instant.tzinfo is not None:
            instant = instant.astimezone(self.zone or UTC)
        return instant.replace(tzinfo=UTC, fold=0)

    def text(self, instant: datetime) -> str:
        """ISO 8601 on the wall clock, with the zone's offset where it is known."""
        return instant.replace(tzinfo=self.zone).isoformat()

    def real(self, instant: datetime) -> datetime:
        """The UTC instant of a wall time; the wall time itself where the zone is unknown."""
        return instant if self.zone is None else instant.replace(tzinfo=self.zone).astimezone(UTC)


def clock_of(sets: Sequence[BackupSet], zone: tzinfo | None) -> HeaderClock:
    """The clock that all dates of these headers share. Raises InputUnreadable when they do not:
    some with an offset and some without cannot be compared unless the zone is known."""
    dates = [
        date for each in sets for date in (each.started, each.finished, each.last_commit) if date
    ]
    aware = sum(date.tzinfo is not None for date in dates)
    if zone is None and 0 < aware < len(dates):
        raise InputUnreadable(
            "some dates of the backup headers carry an offset from UTC and some do not",
            hint="export them alike",
        )
    return HeaderClock(UTC if zone is None and aware else zone)


def read_target(
    text: str, clock: HeaderClock, sets: Sequence[BackupSet]
) -> tuple[datetime, HeaderClock, tuple[str, ...]]:
    """The instant asked for on the wall clock, how to show it, and what was assumed.

    Raises:
        UsageError: not ISO 8601.
        InstantAmbiguous, InstantNonexistent: a wall time that the zone has twice or never.
        InstantUnreachable: an hour that the wall clock had before: STOPAT finds the first one.
    """
    try:
        target = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise UsageError(
            f"{text!r} is not an instant",
            hint='write it as ISO 8601, such as "2024-05-01T10:22:13", or: latest',
        ) from error
    if target.tzinfo is None:
        if clock.zone is not None:
            _check_wall_time(target, clock.zone)
        return target.replace(tzinfo=UTC), clock, ()
    if clock.zone is not None:
        local = target.astimezone(clock.zone)
        if local.fold:
            raise _second_pass(text)
        return local.replace(tzinfo=UTC), clock, ()
    return _by_log_offsets(text, target, clock, sets)


def _by_log_offsets(
    text: str, target: datetime, clock: HeaderClock, sets: Sequence[BackupSet]
) -> tuple[datetime, HeaderClock, tuple[str, ...]]:
    """An instant with an offset, against dates without: the logs may name theirs."""
    logs = sorted(
        (each.last_lsn, clock.wall(each.started), each.utc_offset)
        for each in sets
        if each.utc_offset is not None and each.started is not None
    )
    if not logs:
        note = "the headers do not say their zone: their dates were read as UTC"
        return target.astimezone(UTC), HeaderClock(UTC), (note,)
    index = next(
        (number for number, (_, start, offset) in enumerate(logs) if start - offset >= target),
        len(logs) - 1,
    )
    offset = logs[index][2]
    wall = target.astimezone(UTC) + offset
    for (_, _, old), (_, start, new) in pairwise(logs[: index + 1]):
        # The clocks changed somewhere before this log began.
        if old > new and wall - old < start - new:
            raise _second_pass(text)
    if index and logs[index - 1][2] != offset:
        raise InstantUnreachable(
            f"{text} lies between two logs whose offsets from UTC differ, so its wall time on the "
            "server is not known",
            hint="give the instant on the server's wall clock, without an offset",
        )
    return wall, HeaderClock(timezone(offset)), ()


def _check_wall_time(target: datetime, zone: tzinfo) -> None:
    first, second = (target.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
    if first.utcoffset() == second.utcoffset():
        return
    readings = sorted(reading.astimezone(UTC) for reading in (first, second))
    shown = f"{target.isoformat()} in {zone}"
    if first.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != target:
        raise InstantNonexistent(
            f"{shown} never was: the clocks went forward over it",
            hint="give the instant with its offset from UTC",
            nearest=readings,
        )
    raise InstantAmbiguous(
        f"{shown} was twice: the clocks went back",
        hint="give the instant with its offset from UTC",
        nearest=readings,
    )


def _second_pass(text: str) -> InstantUnreachable:
    return InstantUnreachable(
        f"{text} lies in an hour that the server's wall clock showed twice, in its second pass: "
        "STOPAT would stop in the first",
        hint="choose an instant before or after the repeated hour",
    )


ONE_SECOND = timedelta(seconds=1)
"""Header dates are cut to whole seconds; what is said to end at 10:00:00 may end just before
10:00:01."""
