"""Comparing and converting values as the server does."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

from .clock import on_datetime_grid
from .errors import SqlError, not_modelled
from .sqltypes import SqlType

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]


def fold(value: Any) -> Any:
    """A key under which equal values meet: text without case and trailing blanks (CI_AS)."""
    return value.rstrip(" ").casefold() if isinstance(value, str) else value


def compare(left: Any, right: Any) -> int:
    """-1, 0 or 1 for values that are not NULL, converting by type precedence ([D] "Data type
    precedence"): text gives way to anything else."""
    if isinstance(left, str) != isinstance(right, str):
        if isinstance(left, str):
            left = _like(left, right)
        else:
            right = _like(right, left)
    if isinstance(left, datetime) and isinstance(right, datetime):
        if (left.tzinfo is None) != (right.tzinfo is None):
            left = left if left.tzinfo else left.replace(tzinfo=UTC)
            right = right if right.tzinfo else right.replace(tzinfo=UTC)
    elif isinstance(left, date) and isinstance(right, datetime):
        left = datetime(left.year, left.month, left.day)  # noqa: DTZ001
    elif isinstance(right, date) and isinstance(left, datetime):
        right = datetime(right.year, right.month, right.day)  # noqa: DTZ001
    if isinstance(left, float) and isinstance(right, Decimal):
        right = float(right)
    if isinstance(right, float) and isinstance(left, Decimal):
        left = float(left)
    left, right = fold(left), fold(right)
    return (left > right) - (left < right)


def _like(text: str, other: Any) -> Any:
    if isinstance(other, UUID):
        return to_guid(text)
    if isinstance(other, datetime):
        return to_datetime(text)
    if isinstance(other, (bool, int)):
        return to_integer(text, "int")
    if isinstance(other, Decimal):
        return to_decimal(text)
    if isinstance(other, float):
        return float(text)
    raise not_modelled(f"comparing text with {type(other).__name__}")


def to_guid(text: str) -> UUID:
    try:
        return UUID(text[:38])
    except ValueError:
        raise SqlError(
            8169, "Conversion failed when converting from a character string to uniqueidentifier.",
            16, 2,
        ) from None  # fmt: skip


def to_integer(text: str, kind: str) -> int:
    try:
        return int(text.strip() or "0")
    except ValueError:
        raise SqlError(
            245,
            f"Conversion failed when converting the varchar value '{text}' to data type {kind}.",
        ) from None


def to_decimal(text: str) -> Decimal:
    try:
        return Decimal(text.strip())
    except InvalidOperation:
        raise SqlError(8114, "Error converting data type varchar to numeric.", 16, 5) from None


_FORMS = (
    re.compile(
        r"(?P<y>\d{4})-(?P<m>\d\d)-(?P<d>\d\d)"
        r"(?:T(?P<H>\d\d):(?P<M>\d\d):(?P<S>\d\d)(?:\.(?P<f>\d+))?)?"
        r"(?P<z>Z|[+-]\d\d:\d\d)?$"
    ),
    re.compile(
        r"(?P<y>\d{4})(?P<m>\d\d)(?P<d>\d\d)"
        r"(?: (?P<H>\d\d?):(?P<M>\d\d)(?::(?P<S>\d\d)(?:\.(?P<f>\d+))?)?)?$"
    ),
    re.compile(
        r"(?P<y>\d{4})-(?P<m>\d\d?)-(?P<d>\d\d?) (?P<H>\d\d?):(?P<M>\d\d)"
        r"(?::(?P<S>\d\d)(?:\.(?P<f>\d+))?)?(?: ?(?P<z>[+-]\d\d:\d\d))?$"
    ),
)
_NAMED = re.compile(
    r"(?P<b>[A-Za-z]{3})[a-z]* (?P<d>\d\d?),? (?P<y>\d{4})"
    r"(?: (?P<H>\d\d?):(?P<M>\d\d)(?::(?P<S>\d\d)(?:\.(?P<f>\d+))?)? ?(?P<p>[AaPp][Mm])?)?$"
)


def to_datetime(text: str, *, digits: int = 3, keep_zone: bool = False) -> datetime:
    """A date literal under SET DATEFORMAT mdy. Error 241 where the server would not read it; the
    type datetime takes at most three digits of a second ([D] datetime) and no offset."""
    stripped = text.strip()
    for form in _FORMS:
        if match := form.match(stripped):
            break
    else:
        match = _NAMED.match(stripped)
    failed = SqlError(
        241, "Conversion failed when converting date and/or time from character string."
    )
    if match is None:
        raise failed
    found = match.groupdict()
    fraction = found.get("f") or ""
    zone = found.get("z")
    if len(fraction) > digits or (zone and not keep_zone):
        raise failed
    hour = int(found["H"] or 0)
    if meridiem := (found.get("p") or "").lower():
        hour = hour % 12 + (12 if meridiem == "pm" else 0)
    try:
        month = _MONTHS.index(found["b"].lower()) + 1 if "b" in found else int(found["m"])
        moment = datetime(  # noqa: DTZ001
            int(found["y"]), month, int(found["d"]), hour, int(found["M"] or 0),
            int(found.get("S") or 0), int(fraction.ljust(6, "0")[:6] or 0),
        )  # fmt: skip
    except ValueError:
        raise SqlError(
            242,
            "The conversion of a varchar data type to a datetime data type resulted in an "
            "out-of-range value.",
            16,
            3,
        ) from None
    if zone and zone != "Z":
        sign = -1 if zone[0] == "-" else 1
        ahead = sign * timedelta(hours=int(zone[1:3]), minutes=int(zone[4:6]))
        from datetime import timezone

        return moment.replace(tzinfo=timezone(ahead))
    if zone:
        return moment.replace(tzinfo=UTC)
    return on_datetime_grid(moment) if digits == 3 else moment


def convert(value: Any, kind: SqlType, style: int | None = None) -> Any:
    """CAST and CONVERT. NULL stays NULL."""
    if value is None:
        return None
    name = kind.kind
    if kind.is_text:
        text = to_text(value, style)
        characters = kind.length // 2 if name in {"nvarchar", "nchar"} else kind.length
        return text if kind.length < 0 else text[:characters]
    if name == "bit":
        if isinstance(value, str) and value.strip().lower() in {"true", "false"}:
            return value.strip().lower() == "true"
        return bool(to_integer(value, "bit") if isinstance(value, str) else value)
    if kind.is_integer:
        number = to_integer(value, name) if isinstance(value, str) else int(value)
        low = 0 if name == "tinyint" else -(2 ** (8 * kind.length - 1))
        high = 255 if name == "tinyint" else 2 ** (8 * kind.length - 1) - 1
        if not low <= number <= high:
            raise SqlError(
                8115, f"Arithmetic overflow error converting expression to data type {name}.", 16, 2
            )
        return number
    if name == "decimal":
        number = to_decimal(value) if isinstance(value, str) else Decimal(value)
        return round(number, kind.scale)
    if name in {"real", "float"}:
        return float(value)
    if name == "uniqueidentifier":
        return value if isinstance(value, UUID) else to_guid(str(value))
    if name == "datetime":
        if isinstance(value, str):
            return to_datetime(value)
        return on_datetime_grid(_moment(value).replace(tzinfo=None))
    if name == "datetime2":
        found = to_datetime(value, digits=7, keep_zone=True) if isinstance(value, str) else value
        return _moment(found).replace(tzinfo=None)
    if name == "datetimeoffset":
        found = to_datetime(value, digits=7, keep_zone=True) if isinstance(value, str) else value
        found = _moment(found)
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    if name == "date":
        found = to_datetime(value, digits=7, keep_zone=True) if isinstance(value, str) else value
        return found.date() if isinstance(found, datetime) else found
    if name == "varbinary":
        return value if isinstance(value, bytes) else str(value).encode("utf-16-le")
    return value


def _moment(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value
    return datetime(value.year, value.month, value.day)  # noqa: DTZ001


def to_text(value: Any, style: int | None = None) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, UUID):
        return str(value).upper()
    if isinstance(value, bytes):
        return ("0x" if style in {None, 1} else "") + value.hex().upper()
    if isinstance(value, datetime):
        return _datetime_text(value, style)
    if isinstance(value, date):
        return value.isoformat()
    return str(value)


def _datetime_text(value: datetime, style: int | None) -> str:
    if style in {126, 127}:
        spec = "milliseconds" if value.microsecond % 1000 == 0 else "microseconds"
        return value.isoformat(timespec=spec if value.microsecond else "seconds")
    if style in {121, 25, 120, 20}:
        text = value.strftime("%Y-%m-%d %H:%M:%S")
        return text if style in {120, 20} else f"{text}.{value.microsecond // 1000:03d}"
    if style == 112:
        return value.strftime("%Y%m%d")
    if value.tzinfo is not None:
        offset = value.strftime("%z")
        return value.strftime("%Y-%m-%d %H:%M:%S.%f") + f"0 {offset[:3]}:{offset[3:]}"
    if style is None:
        return f"{value:%b} {value.day:2d} {value.year} {value:%I:%M%p}"
    raise not_modelled(f"CONVERT of a date with style {style}")
