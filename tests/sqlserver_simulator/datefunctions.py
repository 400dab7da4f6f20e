"""DATEADD, DATEDIFF and DATEPART ([D]: the page of each)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from .errors import not_modelled
from .values import to_datetime

_UNITS = {
    "year": 31_536_000, "week": 604_800, "day": 86_400, "hour": 3_600, "minute": 60, "second": 1,
}  # fmt: skip
_SHORT = {
    "yy": "year", "yyyy": "year", "wk": "week", "ww": "week", "dd": "day", "d": "day",
    "hh": "hour", "mi": "minute", "n": "minute", "ss": "second", "s": "second",
    "ms": "millisecond", "mcs": "microsecond", "mm": "month", "m": "month", "tz": "tzoffset",
}  # fmt: skip


def dateadd(unit: str, amount: Any, moment: Any) -> Any:
    name = _SHORT.get(unit, unit)
    value = to_datetime(moment) if isinstance(moment, str) else moment
    if name in {"year", "month"}:
        months = value.year * 12 + value.month - 1 + int(amount) * (12 if name == "year" else 1)
        year, month = divmod(months, 12)
        day = value.day
        while True:
            try:
                return value.replace(year=year, month=month + 1, day=day)
            except ValueError:
                day -= 1
    if name in _UNITS:
        return value + timedelta(seconds=_UNITS[name] * int(amount))
    if name == "millisecond":
        return value + timedelta(milliseconds=int(amount))
    if name == "microsecond":
        return value + timedelta(microseconds=int(amount))
    raise not_modelled(f"DATEADD of {unit}")


def datediff(unit: str, one: Any, two: Any) -> int:
    """Boundaries crossed, not time elapsed ([D] DATEDIFF)."""
    name = _SHORT.get(unit, unit)
    a = to_datetime(one, digits=7, keep_zone=True) if isinstance(one, str) else one
    b = to_datetime(two, digits=7, keep_zone=True) if isinstance(two, str) else two
    a, b = a.replace(tzinfo=None), b.replace(tzinfo=None)
    if name == "year":
        return int(b.year - a.year)
    if name == "month":
        return int((b.year - a.year) * 12 + b.month - a.month)
    if name == "millisecond":
        return int((b - a) / timedelta(milliseconds=1))
    if name == "microsecond":
        return int((b - a) / timedelta(microseconds=1))
    cut = {"day": 0, "hour": 1, "minute": 2, "second": 3}
    if name not in cut:
        raise not_modelled(f"DATEDIFF of {unit}")
    zeroed = {
        "day": {"hour": 0, "minute": 0, "second": 0, "microsecond": 0},
        "hour": {"minute": 0, "second": 0, "microsecond": 0},
        "minute": {"second": 0, "microsecond": 0},
        "second": {"microsecond": 0},
    }[name]
    span = b.replace(**zeroed) - a.replace(**zeroed)
    return int(span.total_seconds() // _UNITS[name])


def datepart(unit: str, moment: Any) -> int:
    name = _SHORT.get(unit, unit)
    if name == "tzoffset":
        return int((moment.utcoffset() or timedelta()).total_seconds() // 60)
    if name == "millisecond":
        return int(moment.microsecond // 1000)
    if name == "weekday":
        return int(moment.isoweekday() % 7 + 1)
    return int(getattr(moment, name))
