"""Hours in which no full and no differential starts: ``mon-fri 08:00-18:00``. Pure.

They are wall time in the policy's zone. A span whose end is not later than its beginning goes on
over midnight and belongs to the day on which it begins.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo

from sqlbak.policy.local_time import end_of_gap, instants

__all__ = ["QuietHours", "leaves_time", "quiet_until"]

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TEXT = re.compile(
    r"(?:(?P<days>[a-z,-]+) )?(?P<begin>[0-9]{2}:[0-9]{2})-(?P<end>[0-9]{2}:[0-9]{2})", re.ASCII
)
_WRITE = "write 08:00-18:00 or mon-fri 08:00-18:00"
_MINUTES_A_DAY = 24 * 60
_LONGEST = timedelta(days=8)


@dataclass(frozen=True, slots=True)
class QuietHours:
    """``days`` count from Monday = 0; ``begin`` is quiet, ``end`` is not any more."""

    text: str
    days: frozenset[int]
    begin: time
    end: time

    @classmethod
    def parse(cls, text: str) -> QuietHours:
        """Read ``mon-fri 08:00-18:00``; ValueError says what to write instead."""
        line = " ".join(text.lower().split())
        found = _TEXT.fullmatch(line)
        if not found:
            raise ValueError(f"is no span of quiet hours; {_WRITE}")
        try:
            begin, end = time.fromisoformat(found["begin"]), _end(found["end"])
        except ValueError:
            raise ValueError(f"has no such time of day; {_WRITE}") from None
        if begin == end and found["end"] != "24:00":
            raise ValueError("begins and ends at the same time; for a whole day write 00:00-24:00")
        return cls(line, _days(found["days"]), begin, end)

    def __str__(self) -> str:
        return self.text

    def holds(self, wall: datetime) -> bool:
        """Whether it is quiet at a wall time (naive)."""
        at, weekday = wall.time(), wall.weekday()
        if self.begin < self.end:
            return weekday in self.days and self.begin <= at < self.end
        yesterday = (weekday - 1) % 7
        return (weekday in self.days and at >= self.begin) or (
            yesterday in self.days and at < self.end
        )


def quiet_until(spans: Sequence[QuietHours], zone: tzinfo, instant: datetime) -> datetime | None:
    """When the quiet hours that hold at ``instant`` (aware) are over, UTC; None: none hold."""
    at = instant.astimezone(UTC)
    limit = at + _LONGEST
    while (holding := _holding(spans, zone, at)) and at < limit:
        at = max(_end_of(span, zone, at) for span in holding)
    return None if at == instant.astimezone(UTC) else at


def leaves_time(spans: Sequence[QuietHours]) -> bool:
    """Whether some minute of the week is not quiet."""
    monday = datetime(2026, 6, 1)  # noqa: DTZ001 - a wall time
    for minute in range(7 * _MINUTES_A_DAY):
        wall = monday + timedelta(minutes=minute)
        if not any(span.holds(wall) for span in spans):
            return True
    return False


def _holding(spans: Sequence[QuietHours], zone: tzinfo, at: datetime) -> list[QuietHours]:
    wall = at.astimezone(zone).replace(tzinfo=None, fold=0)
    return [span for span in spans if span.holds(wall)]


def _end_of(span: QuietHours, zone: tzinfo, at: datetime) -> datetime:
    """The next instant after ``at`` at which the clock shows, or has passed, the span's end."""
    day = at.astimezone(zone).date() - timedelta(days=1)
    while True:
        wall = datetime.combine(day, span.end)
        happens = instants(wall, zone) or (end_of_gap(wall, zone),)
        later = [instant for instant in happens if instant > at]
        if later:
            return later[0]
        day += timedelta(days=1)


def _end(text: str) -> time:
    return time(0) if text == "24:00" else time.fromisoformat(text)


def _days(text: str | None) -> frozenset[int]:
    if text is None:
        return frozenset(range(7))
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if first not in _DAYS or (dash and last not in _DAYS):
            raise ValueError(f"names no day; {_WRITE}")
        low, high = _DAYS.index(first), _DAYS.index(last if dash else first)
        found |= {(low + step) % 7 for step in range((high - low) % 7 + 1)}
    return frozenset(found)
