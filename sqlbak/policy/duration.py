"""Spans of retention: ``30d``, ``12w``, ``12m``, ``7y``.

Months and years are calendar units (Jan 31 + 1m is the last day of February), so spans of
different units are compared over every date of the calendar, never by an average month.
"""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass
from functools import lru_cache

__all__ = ["Duration"]

_TEXT = re.compile(r"([1-9][0-9]{0,4})([dwmy])", re.ASCII)
_DAYS = {"d": 1, "w": 7}
_MONTHS = {"m": 1, "y": 12}
_GREGORIAN_CYCLE_MONTHS = 400 * 12


@dataclass(frozen=True, slots=True)
class Duration:
    """``count`` days, weeks, months or years; ``unit`` is ``d``, ``w``, ``m`` or ``y``."""

    count: int
    unit: str

    @classmethod
    def parse(cls, text: str) -> Duration:
        """Read ``30d``; ValueError says what to write instead."""
        found = _TEXT.fullmatch(text)
        if not found:
            raise ValueError(
                "must be a whole number and a unit; write 30d (days), 12w (weeks), "
                "12m (months) or 7y (years)"
            )
        return cls(int(found[1]), found[2])

    def __str__(self) -> str:
        return f"{self.count}{self.unit}"

    @property
    def days(self) -> int | None:
        """Its length in days; None when it is counted in months or years."""
        return self.count * _DAYS[self.unit] if self.unit in _DAYS else None

    @property
    def months(self) -> int | None:
        """Its length in months; None when it is counted in days or weeks."""
        return self.count * _MONTHS[self.unit] if self.unit in _MONTHS else None

    @property
    def shortest_days(self) -> int:
        """The fewest days that it can span, over all dates to begin with."""
        return self.days if self.days is not None else _day_span(self.months or 0)[0]

    @property
    def longest_days(self) -> int:
        """The most days that it can span, over all dates to begin with."""
        return self.days if self.days is not None else _day_span(self.months or 0)[1]

    def is_never_longer_than(self, other: Duration) -> bool:
        """Whether it ends no later than ``other``, whatever date both begin on."""
        if self.months is not None and other.months is not None:
            return self.months <= other.months
        return self.longest_days <= other.shortest_days


@lru_cache(maxsize=256)
def _day_span(months: int) -> tuple[int, int]:
    """Fewest and most days of ``months`` calendar months.

    Spans from the first of a month are all that matter: a clamped one, from a month's last day to
    another's, is as long as the one from the next day.
    """
    firsts = _firsts_of_months()
    spans = []
    for start in range(_GREGORIAN_CYCLE_MONTHS):
        cycles, end = divmod(start + months, _GREGORIAN_CYCLE_MONTHS)
        spans.append(firsts[end] + cycles * firsts[-1] - firsts[start])
    return min(spans), max(spans)


@lru_cache(maxsize=1)
def _firsts_of_months() -> list[int]:
    """Days from the beginning of 400 years to the first of each month, and to their end."""
    firsts = [0]
    for month in range(_GREGORIAN_CYCLE_MONTHS):
        firsts.append(firsts[-1] + monthrange(2000 + month // 12, month % 12 + 1)[1])
    return firsts
