"""Local wall time and UTC: which instants a wall time stands for, and the time a user asks for.

Daylight saving time makes a wall time stand for one instant, two (the clocks go back) or none (the
clocks go forward). Nothing here picks one of two silently.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo

from sqlbak.errors import InstantAmbiguous, InstantNonexistent, UsageError

__all__ = ["end_of_gap", "instants", "parse_instant"]

_EXAMPLE = "write it as 2024-05-01T10:22:13, with an offset (+02:00 or Z) where it matters"
_FIRST_YEAR, _LAST_YEAR = 1970, 9998
_INSTANT = re.compile(
    r"""(?P<year>[0-9]{4})-(?P<month>[0-9]{2})-(?P<day>[0-9]{2})
        (?:[Tt\ ]\ *
           (?P<hour>[0-9]{2}):(?P<minute>[0-9]{2})
           (?: :(?P<second>[0-9]{2}) (?: [.,](?P<fraction>[0-9]+) )? )?
           \ ?(?P<offset>[Zz]|(?P<sign>[+-])(?P<hours>[0-9]{2}):?(?P<minutes>[0-9]{2})?)?
        )?""",
    re.ASCII | re.VERBOSE,
)
_OTHER_CALENDARS = re.compile(r"[0-9]{4}-?W[0-9]|[0-9]{4}-?[0-9]{3}(?![0-9-])", re.ASCII)
_ONE_SECOND = timedelta(seconds=1)


def instants(wall: datetime, zone: tzinfo) -> tuple[datetime, ...]:
    """The instants (UTC, ascending) at which clocks in ``zone`` show ``wall`` (naive): one, two
    when it is repeated, none when it is skipped."""
    found: list[datetime] = []
    for fold in (0, 1):
        instant = wall.replace(tzinfo=zone, fold=fold).astimezone(UTC)
        if instant.astimezone(zone).replace(tzinfo=None, fold=0) == wall and instant not in found:
            found.append(instant)
    return tuple(sorted(found))


def end_of_gap(wall: datetime, zone: tzinfo) -> datetime:
    """The first instant (UTC) after the gap in which ``wall`` (naive) is skipped in ``zone``."""
    # Read with the offset from before the gap a skipped time lies after the change, read with the
    # offset from behind it before the change (PEP 495).
    before, after = sorted(wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    old_offset = before.astimezone(zone).utcoffset()
    while after - before > timedelta(microseconds=1):
        middle = before + (after - before) // 2
        if middle.astimezone(zone).utcoffset() == old_offset:
            before = middle
        else:
            after = middle
    return after


def parse_instant(text: str, zone: tzinfo) -> datetime:
    """The instant (UTC) that a user means by ``text``: ISO 8601 date and time of day; without an
    offset it is read in ``zone``.

    Raises UsageError for anything else (a date alone too: neither its first nor its last second is
    surely meant), InstantAmbiguous and InstantNonexistent around clock changes.
    """
    parts = _INSTANT.fullmatch(text.strip())
    if not parts:
        raise UsageError(f"{_shown(text)} is not a time", hint=_hint_for(text.strip()))
    if parts["hour"] is None:
        raise UsageError(
            f"{_shown(text)} is a date without a time of day",
            hint=f"say when on that day, e.g. {text.strip()}T00:00:00",
        )
    wall = _wall(parts, text)
    if parts["offset"] is None:
        return _in_zone(wall, zone)
    return (wall - _offset(parts, text)).replace(tzinfo=UTC)


def _wall(parts: re.Match[str], text: str) -> datetime:
    year, second = int(parts["year"]), int(parts["second"] or 0)
    if not _FIRST_YEAR <= year <= _LAST_YEAR:
        raise UsageError(
            f"{_shown(text)} is out of range",
            hint=f"write a year from {_FIRST_YEAR} to {_LAST_YEAR}",
        )
    if second == 60:
        raise UsageError(
            f"{_shown(text)} is a leap second, which database clocks never show",
            hint="write second 59, or the next minute",
        )
    fraction = (parts["fraction"] or "").rstrip("0")
    if len(fraction) > 6:
        raise UsageError(
            f"{_shown(text)} is finer than a microsecond, which databases do not keep",
            hint="write at most six digits after the point",
        )
    try:
        return datetime(  # noqa: DTZ001 - a wall time; its zone is decided by the caller
            year,
            int(parts["month"]),
            int(parts["day"]),
            int(parts["hour"]),
            int(parts["minute"]),
            second,
            int(fraction.ljust(6, "0")),
        )
    except ValueError as error:
        hint = "write 00:00 of the next day" if parts["hour"] == "24" else _EXAMPLE
        raise UsageError(f"{_shown(text)} is not a time: {error}", hint=hint) from error


def _offset(parts: re.Match[str], text: str) -> timedelta:
    if parts["sign"] is None:
        return timedelta(0)
    hours, minutes = int(parts["hours"]), int(parts["minutes"] or 0)
    if hours > 15 or minutes > 59:
        raise UsageError(
            f"{_shown(text)} has an offset that no place on earth has",
            hint="offsets go from -15:59 to +15:59",
        )
    offset = timedelta(hours=hours, minutes=minutes)
    return -offset if parts["sign"] == "-" else offset


def _in_zone(wall: datetime, zone: tzinfo) -> datetime:
    found = instants(wall, zone)
    if len(found) == 1:
        return found[0]
    if found:
        readings = " or ".join(_typed(instant, zone) for instant in found)
        raise InstantAmbiguous(
            f"{wall.isoformat()} happens twice in {zone}: the clocks go back",
            hint=f"write the offset as well: {readings}",
            nearest=found,
        )
    after = end_of_gap(wall, zone)
    before = after - _ONE_SECOND
    raise InstantNonexistent(
        f"{wall.isoformat()} never happens in {zone}: the clocks go forward",
        hint=f"the nearest times are {_typed(before, zone)} and {_typed(after, zone)}",
        nearest=(before, after),
    )


def _typed(instant: datetime, zone: tzinfo) -> str:
    """``instant`` as a user can type it, with the offset of ``zone`` and in UTC."""
    local = instant.astimezone(zone)
    offset = local.utcoffset() or timedelta(0)
    # An offset with seconds (times before standard time) cannot be typed; whole minutes can.
    whole = timezone(timedelta(minutes=offset // timedelta(minutes=1)))
    utc = instant.replace(tzinfo=None).isoformat()
    return f"{instant.astimezone(whole).isoformat()} (= {utc}Z)"


def _hint_for(text: str) -> str:
    if _OTHER_CALENDARS.match(text):
        return f"week dates and day numbers are not read; {_EXAMPLE}"
    return _EXAMPLE


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 60 else text[:57] + "...")
