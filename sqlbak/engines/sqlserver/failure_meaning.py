"""What one error number of SQL Server means: the value that the tables of failures.py hold."""

from __future__ import annotations

from dataclasses import dataclass

from sqlbak.errors import EngineError, Refused

__all__ = ["CHECKDB", "Meaning", "meaning"]

CHECKDB = "run DBCC CHECKDB on the database and keep every older recovery point until it is mended"


@dataclass(frozen=True, slots=True)
class Meaning:
    """``what`` continues the place where it happened, ``remedy`` is the hint. ``error`` None: the
    failure of whatever was being done."""

    what: str
    remedy: str
    error: type[EngineError | Refused] | None = None


def meaning(what: str, remedy: str, error: type[EngineError | Refused] | None = None) -> Meaning:
    """One entry of a table."""
    return Meaning(what, remedy, error)
