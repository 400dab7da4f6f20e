"""Cron lines of five fields, read strictly.

croniter decides what a line means; on top of it, whatever cron programs disagree on is refused
(``59/15``, ``sun-sun``, ``*/2`` in one day field beside the other), and so are seconds, ``H`` and
``W``. A line is expanded once into sets of minutes, hours and days: a calendar of such sets can be
walked day by day for decades in milliseconds, and has no opinion on daylight saving time, which
sqlbak.policy.calendar decides alone.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, time, timedelta

from croniter import CroniterError, croniter

from sqlbak.policy.problem import quoted

__all__ = ["CronLine"]

_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_ALIASES = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")
_LAST = 0
"""In ``_Field`` terms: the last one of the month."""


@dataclass(frozen=True, slots=True)
class _Field:
    """What one of the five fields may hold; ``names`` stand for values from ``low`` upwards."""

    label: str
    low: int
    high: int
    names: tuple[str, ...] = ()

    def value(self, text: str) -> int | None:
        """The number that ``text`` stands for; None when it stands for nothing here."""
        if text in self.names:
            return self.low + self.names.index(text)
        if not re.fullmatch(r"[0-9]{1,2}", text, re.ASCII):
            return None
        number = int(text)
        return number if self.low <= number <= self.high else None

    @property
    def choices(self) -> str:
        """What to write, for messages."""
        named = f" or {self.names[0]}-{self.names[-1]}" if self.names else ""
        return f"{self.low}-{self.high}{named}"


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of week", 0, 7, _WEEKDAYS),
)
_MONTH_DAY, _WEEK_DAY = _FIELDS[2], _FIELDS[4]


@dataclass(frozen=True, slots=True)
class CronLine:
    """A cron line: ``text`` as written, and what it expands to.

    ``month_days`` and ``week_days`` are None for "any"; 0 in ``month_days`` is the last day of the
    month; week days count from Sunday = 0. ``nth_week_days`` holds (week day, which one of the
    month; 0 for the last). When both day fields are given, either of them suffices (cron's rule).
    """

    text: str
    times: tuple[time, ...] = field(compare=False, repr=False)
    months: frozenset[int] = field(compare=False, repr=False)
    month_days: frozenset[int] | None = field(compare=False, repr=False)
    week_days: frozenset[int] | None = field(compare=False, repr=False)
    nth_week_days: frozenset[tuple[int, int]] = field(compare=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> CronLine:
        """Read a cron line; ValueError says what is wrong with it and what to write instead."""
        line = re.sub(r"[ \t]+", " ", text.strip().lower())
        if line.startswith("@"):
            if line not in _ALIASES:
                raise ValueError(
                    f"cron line {quoted(text)}: there is no such alias; write five fields, "
                    "e.g. '0 1 * * sun', or @daily, @weekly, @monthly"
                )
        else:
            problem = _grammar_problem(line)
            if problem:
                raise ValueError(f"cron line {quoted(text)}: {problem}")
        try:
            expanded, nth = croniter.expand(line, strict=True)
        except CroniterError as error:
            raise ValueError(
                f"cron line {quoted(text)} is not possible: no date or time fits it; "
                "write five fields, e.g. '0 1 * * sun'"
            ) from error
        minutes, hours, month_days, months, week_days = (_values(part) for part in expanded)
        return cls(
            text=text.strip(),
            times=tuple(
                time(hour, minute)
                for hour in sorted(hours if hours is not None else range(24))
                for minute in sorted(minutes if minutes is not None else range(60))
            ),
            months=months if months is not None else frozenset(range(1, 13)),
            month_days=month_days,
            week_days=None if nth else week_days,
            nth_week_days=frozenset(
                (int(day), _LAST if str(which) == "l" else int(which))
                for day, all_of_it in nth.items()
                for which in all_of_it
            ),
        )

    def __str__(self) -> str:
        return self.text

    def days_of_month(self, year: int, month: int) -> list[int]:
        """The days of one month on which it fires, ascending."""
        if month not in self.months:
            return []
        first_weekday, length = monthrange(year, month)
        first = (first_weekday + 1) % 7  # of the 1st, Sunday = 0
        return [day for day in range(1, length + 1) if self._fires_on(day, first, length)]

    def _fires_on(self, day: int, first: int, length: int) -> bool:
        week_day = (first + day - 1) % 7
        if self.nth_week_days:
            which = (day - 1) // 7 + 1
            return (week_day, which) in self.nth_week_days or (
                day + 7 > length and (week_day, _LAST) in self.nth_week_days
            )
        in_month = self.month_days is not None and (
            day in self.month_days or (_LAST in self.month_days and day == length)
        )
        in_week = self.week_days is not None and week_day in self.week_days
        return in_month or in_week or (self.month_days is None and self.week_days is None)

    def dates(self, first: date, last: date) -> Iterator[date]:
        """Every date from ``first`` to ``last``, both included, on which it fires; ascending."""
        month = first.replace(day=1)
        while month <= last:
            for day in self.days_of_month(month.year, month.month):
                fires = month.replace(day=day)
                if first <= fires <= last:
                    yield fires
            month = (month + timedelta(days=31)).replace(day=1)


def _values(expanded: Sequence[int | str]) -> frozenset[int] | None:
    """One expanded field of croniter as numbers; None for any."""
    if expanded == ["*"]:
        return None
    return frozenset(_LAST if value == "l" else int(value) for value in expanded)


def _grammar_problem(line: str) -> str | None:
    """What is wrong with the five fields; None when nothing is."""
    parts = line.split(" ") if line else []
    if len(parts) != len(_FIELDS):
        more = "; sqlbak has no seconds and no years" if len(parts) in (6, 7) else ""
        return (
            f"it has {len(parts)} field(s), not five{more}; write "
            "'minute hour day-of-month month day-of-week', e.g. '0 1 * * sun'"
        )
    for part, at in zip(parts, _FIELDS, strict=True):
        elements = part.split(",")
        for element in elements:
            problem = _element_problem(element, at, is_alone=len(elements) == 1)
            if problem:
                return f"{at.label} {quoted(element)} {problem}"
    return _day_fields_problem(parts[2], parts[4])


def _element_problem(element: str, at: _Field, *, is_alone: bool) -> str | None:
    base, slash, step = element.partition("/")
    if slash and not (re.fullmatch(r"[0-9]{1,2}", step, re.ASCII) and 1 <= int(step) <= at.high):
        return f"has no step between 1 and {at.high} after the '/'"
    if base == "*":
        return None if is_alone else "makes the rest of the list pointless; write '*' alone"
    if at is _MONTH_DAY and base == "l" and not slash:
        return None
    if at is _WEEK_DAY and not slash and _is_nth(base):
        return None
    low_text, dash, high_text = base.partition("-")
    low = at.value(low_text)
    high = at.value(high_text) if dash else low
    if low is None or high is None:
        return _unknown_value(element, at)
    if not dash:
        # Some programs read 59/15 as 59 alone, others as 59, 14, 29, 44; 1/7 is as unclear.
        return (
            f"is read differently by cron programs; write '{low}-{at.high}/{step}'"
            if slash
            else None
        )
    return _range_problem(low, high, at, has_step=bool(slash))


def _range_problem(low: int, high: int, at: _Field, *, has_step: bool) -> str | None:
    if at is _WEEK_DAY:
        low, high = low % 7, high % 7
    if low == high:
        # croniter reads sun-sun as every day, others as Sunday.
        return f"begins and ends with the same value; write '{low}' alone, or '*' for all"
    if low > high and (has_step or at not in (_FIELDS[3], _WEEK_DAY)):
        return f"runs backwards; write the two parts: '{low}-{at.high},{at.low}-{high}'"
    return None


def _is_nth(base: str) -> bool:
    """``sun#2`` (the second Sunday) or ``l5`` (the last Friday)."""
    day, hash_sign, which = base.partition("#")
    if hash_sign:
        return _WEEK_DAY.value(day) is not None and which in ("1", "2", "3", "4", "5")
    return bool(re.fullmatch(r"l[0-7]", base, re.ASCII))


def _unknown_value(element: str, at: _Field) -> str:
    if re.fullmatch(r"[hr](\(.*\))?(/.*)?", element):
        return f"(a time chosen by hash or chance) is not known here; write {at.choices}"
    if at is _MONTH_DAY and "w" in element:
        return "(the nearest weekday) is not known here; write the day, or use the day of week"
    if element == "?":
        return "is not known here; write '*'"
    return f"is not possible; write {at.choices}, or '*'"


def _day_fields_problem(month_day: str, week_day: str) -> str | None:
    """Lines on which cron programs do not agree how the two day fields combine."""
    if month_day == "*" or week_day == "*":
        return None
    if "#" in week_day or "l" in re.sub("[a-z]{2,}", "", week_day):
        return (
            "the day of month cannot stand beside '#' or a last week day; write '*' in one of them"
        )
    if month_day.startswith("*") or week_day.startswith("*"):
        return (
            "cron programs disagree how '*/n' in one day field combines with the other; "
            "write the days out, e.g. '1,15', or '*' in one of them"
        )
    return None
