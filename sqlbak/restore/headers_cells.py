"""The cells of exported backup headers, whatever tool wrote them.

Column names differ by tool (RESTORE HEADERONLY, msdb.dbo.backupset, dbatools) and values by the
JSON writer: PowerShell wraps dates, sizes and big integers in objects. Reading never guesses: what
cannot be understood becomes a problem that names row, column and value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

__all__ = ["Cells", "parse_lsn"]

_WRAPPERS: Final = ("value", "datetime", "byte", "bytes", "guid")
_MICROSOFT_DATE: Final = re.compile(r"\\?/Date\((-?\d+)(?:[+-]\d{4})?\)\\?/")
_HEX_LSN: Final = re.compile(r"(?:0x)?([0-9a-f]{8}):([0-9a-f]{8}):([0-9a-f]{4})", re.IGNORECASE)
_PART_LSN: Final = re.compile(r"(\d{1,10}):(\d{1,10}):(\d{1,5})")
_GUID: Final = re.compile(r"\{?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\}?", re.IGNORECASE)
_NO_GUID: Final = "00000000-0000-0000-0000-000000000000"
_FLAGS: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Cells:
    """One row; ``problems`` collects what could not be read."""

    def __init__(self, number: int, row: Mapping[str, Any], problems: list[str]) -> None:
        self.number = number
        self._problems = problems
        self._values: dict[str, Any] = {}
        self._names: dict[str, str] = {}
        for name, value in row.items():
            plain = re.sub(r"[^a-z0-9]", "", name.lower())
            bare = _unwrap(value)
            if plain not in self._values or self._values[plain] is None:
                self._values[plain], self._names[plain] = bare, name

    def problem(self, text: str) -> None:
        """Note what is wrong with this row."""
        self._problems.append(f"row {self.number}: {text}")

    def _find(self, names: tuple[str, ...]) -> tuple[str, Any]:
        for name in names:
            if self._values.get(name) is not None:
                return self._names[name], self._values[name]
        return names[0], None

    def _wrong(self, column: str, value: object, why: str) -> None:
        shown = repr(value)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        self.problem(f"{column} is {shown}: {why}")

    def text(self, *names: str) -> str | None:
        """A string, as it stands."""
        _, value = self._find(names)
        return None if value is None else str(value).strip()

    def guid(self, *names: str) -> str | None:
        """A GUID, or other text in its place, in the row's own spelling; None for the nil GUID
        and for numbers (msdb's own ``backup_set_id``)."""
        for name in names:
            value = self._values.get(name)
            if not isinstance(value, str) or value.strip().isdecimal():
                continue
            found = _GUID.fullmatch(value.strip())
            text = found[1] if found else value.strip()
            if text != _NO_GUID:
                return text
        return None

    def lsn(self, *names: str, required: str | None = None) -> int | None:
        """A log sequence number. ``required``: the column to name when there is none."""
        column, value = self._find(names)
        if value is None:
            if required is not None:
                self.problem(f"{required} is missing")
            return None
        try:
            return parse_lsn(value)
        except ValueError as error:
            self._wrong(column, value, str(error))
            return None

    def instant(self, *names: str, required: str | None = None) -> datetime | None:
        """A date with time, naive or aware as the row has it."""
        column, value = self._find(names)
        if value is None:
            if required is not None:
                self.problem(f"{required} is missing")
            return None
        if isinstance(value, datetime):
            return value
        found = _MICROSOFT_DATE.fullmatch(value.strip()) if isinstance(value, str) else None
        try:
            if found:
                return _EPOCH + timedelta(milliseconds=int(found[1]))
            if isinstance(value, str):
                return datetime.fromisoformat(value.strip())
        except (ValueError, OverflowError):
            pass
        self._wrong(column, value, "not a date in ISO 8601")
        return None

    def flag(self, *names: str) -> bool:
        """A bit; a missing one is False."""
        column, value = self._find(names)
        if value is None:
            return False
        known = _FLAGS.get(str(value).strip().lower())
        if known is None:
            self._wrong(column, value, "neither true nor false")
        return bool(known)

    def number_of(self, *names: str) -> int | None:
        """A whole number."""
        column, value = self._find(names)
        if value is None:
            return None
        try:
            exact = Decimal(str(value).strip())
            if exact == exact.to_integral_value():
                return int(exact)
        except ArithmeticError:
            pass
        self._wrong(column, value, "not a whole number")
        return None


def _unwrap(value: Any) -> Any:
    """What PowerShell hides in an object; None for its rendering of a database NULL."""
    if isinstance(value, str) and not value.strip():
        return None
    if not isinstance(value, Mapping):
        return value
    inner = {str(name).lower(): each for name, each in value.items()}
    for name in _WRAPPERS:
        if name in inner:
            return _unwrap(inner[name])
    return value if inner else None


def parse_lsn(value: object) -> int:
    """An LSN from ``39000000172000001``, ``39:1720:1`` or ``00000027:000006b8:0001``.

    numeric(25,0) is virtual log file, block (10 digits) and slot (5 digits). Raises ValueError
    with the reason, also for numbers that a JSON writer has rounded.
    """
    lossy = "a rounded number, its last digits are lost; export LSNs as text"
    match value:
        case float():
            raise ValueError(lossy)
        case Mapping():
            raise ValueError("an object without the number; export LSNs as text (ToString())")
        case _:
            pass
    text = str(value).strip()
    if found := _HEX_LSN.fullmatch(text):
        return _lsn_of(*(int(part, 16) for part in found.groups()))
    if found := _PART_LSN.fullmatch(text):
        return _lsn_of(*(int(part) for part in found.groups()))
    if re.fullmatch(r"\d+(\.\d+)?[eE][+-]?\d+", text):
        raise ValueError(lossy)
    if not re.fullmatch(r"\d{1,25}(\.0*)?", text):
        raise ValueError("not an LSN")
    return int(text.partition(".")[0])


def _lsn_of(file: int, block: int, slot: int) -> int:
    if block >= 10**10 or slot >= 10**5 or file >= 10**10:
        raise ValueError("not an LSN")
    return file * 10**15 + block * 10**5 + slot
