"""Rows as the driver gives them, read by column name, and as JSON for the manifest. Pure.

How many columns RESTORE HEADERONLY has depends on the version (56 up to 2019, 59 from 2022 on), so
a column is found by its name and may be missing.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlbak.errors import BackupFailed

__all__ = ["Row", "cell", "document_of", "guid", "instant", "lsn", "number", "text"]

Row = Mapping[str, Any]
"""One row by column name: from the driver, or from a manifest (where every value is JSON)."""

_NIL = "00000000-0000-0000-0000-000000000000"


def document_of(row: Row) -> dict[str, Any]:
    """The row as JSON: GUIDs in lower case, LSNs and other numerics as decimal text, binary as 0x
    and hex, dates in ISO 8601 as local as the server has them, bits as booleans."""
    return {name: _json(value) for name, value in row.items()}


def _json(value: Any) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case uuid.UUID():
            return str(value)
        case Decimal():
            return str(int(value)) if value == value.to_integral_value() else str(value)
        case datetime() | date():
            return value.isoformat()
        case bytes() | bytearray():
            return f"0x{bytes(value).hex()}"
        case float():
            return repr(value)
        case _:
            raise BackupFailed(
                f"the server gave a value of type {type(value).__name__}, which is not known",
                hint="report it with the server's version",
            )


def cell(row: Row, column: str) -> Any:
    """The value of a column whatever the case of its name; None when there is none."""
    if column in row:
        return row[column]
    wanted = column.lower()
    return next((value for name, value in row.items() if name.lower() == wanted), None)


def lsn(row: Row, column: str) -> int | None:
    """A log position; None for NULL."""
    value = cell(row, column)
    return None if value is None else int(value)


def number(row: Row, column: str) -> int | None:
    """A whole number; None for NULL."""
    value = cell(row, column)
    return None if value is None else int(value)


def guid(row: Row, column: str) -> str | None:
    """A GUID in lower case; None for NULL and for the nil GUID."""
    value = cell(row, column)
    if value is None:
        return None
    plain = str(value).strip("{}").lower()
    return None if plain == _NIL else plain


def text(row: Row, column: str) -> str | None:
    """Text as it stands."""
    value = cell(row, column)
    return None if value is None else str(value)


def instant(row: Row, column: str) -> datetime | None:
    """A date with time, as local as the server has it."""
    value = cell(row, column)
    return datetime.fromisoformat(value) if isinstance(value, str) else value
