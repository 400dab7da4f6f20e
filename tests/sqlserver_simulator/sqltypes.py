"""SQL types as the simulator knows them, and the columns and rowsets made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

NULLABLE = 1
UPDATABLE_UNKNOWN = 8
IDENTITY = 16
COMPUTED = 32


@dataclass(frozen=True, slots=True)
class SqlType:
    """``kind`` is one of the names used below; ``length`` is in bytes (nvarchar: 2 a character;
    -1 means max); precision and scale count for decimal, datetime2 and datetimeoffset."""

    kind: str
    length: int = 0
    precision: int = 0
    scale: int = 0

    @property
    def is_text(self) -> bool:
        return self.kind in {"nvarchar", "nchar", "varchar", "char"}

    @property
    def is_integer(self) -> bool:
        return self.kind in {"tinyint", "smallint", "int", "bigint", "bit"}


TINYINT = SqlType("tinyint", 1)
SMALLINT = SqlType("smallint", 2)
INT = SqlType("int", 4)
BIGINT = SqlType("bigint", 8)
BIT = SqlType("bit", 1)
REAL = SqlType("real", 4)
FLOAT = SqlType("float", 8)
GUID = SqlType("uniqueidentifier", 16)
DATETIME = SqlType("datetime", 8)
DATE = SqlType("date", 3)
DATETIME2 = SqlType("datetime2", 8, 27, 7)
DATETIMEOFFSET = SqlType("datetimeoffset", 10, 34, 7)
LSN = SqlType("decimal", 17, 25, 0)
SQL_VARIANT = SqlType("sql_variant", 8016)
NVARCHAR_MAX = SqlType("nvarchar", -1)
SYSNAME = SqlType("nvarchar", 256)


def nvarchar(characters: int) -> SqlType:
    return SqlType("nvarchar", characters * 2)


def nchar(characters: int) -> SqlType:
    return SqlType("nchar", characters * 2)


def char(characters: int) -> SqlType:
    return SqlType("char", characters)


def varbinary(length: int) -> SqlType:
    return SqlType("varbinary", length)


def decimal(precision: int, scale: int = 0) -> SqlType:
    return SqlType("decimal", 17, precision, scale)


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a result: ``flags`` as in COLMETADATA (MS-TDS 2.2.7.4)."""

    name: str
    type: SqlType
    flags: int = NULLABLE | UPDATABLE_UNKNOWN


@dataclass(slots=True)
class Rowset:
    """Columns and rows, in order."""

    columns: Sequence[Column]
    rows: list[tuple[Any, ...]]
