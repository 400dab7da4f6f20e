"""What a command prints: one JSON document on stdout, or text for people.

With ``--json``, stdout carries exactly one document and everything else goes to stderr.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlbak.errors import ConfigurationInvalid, Refused, SqlbakError

__all__ = ["Output", "instant", "point_document", "size_text"]


def instant(value: datetime | None) -> str | None:
    """ISO 8601 in UTC with microseconds, as every JSON document shows times."""
    return None if value is None else value.astimezone(UTC).isoformat(timespec="microseconds")


def size_text(size_bytes: float) -> str:
    """A size for people, in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size_bytes) < 1024:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"


class Output:
    """Prints for one command run; knows whether ``--json`` was asked for."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def document(self, document: Mapping[str, Any]) -> None:
        """Print the command's one JSON document, if ``--json`` was asked for."""
        if self.as_json:
            sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
            sys.stdout.flush()

    def text(self, line: str = "") -> None:
        """A line of the answer for people."""
        stream = sys.stderr if self.as_json else sys.stdout
        stream.write(line + "\n")
        stream.flush()

    def note(self, line: str) -> None:
        """A line beside the answer: always on stderr."""
        sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Left-aligned columns for people."""
        if self.as_json:
            return
        widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
        for row in (header, *rows):
            line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self.text(line.rstrip())

    def error(self, error: SqlbakError) -> None:
        """The one place where an error is printed."""
        if self.as_json:
            described: dict[str, Any] = {
                "code": error.code,
                "message": error.message,
                "hint": error.hint,
            }
            if isinstance(error, Refused):
                described["nearest"] = [instant(moment) for moment in error.nearest]
            if isinstance(error, ConfigurationInvalid):
                described["problems"] = list(error.problems)
            self.document({"error": described})
        self.note(f"sqlbak: {error.message}")
        if error.hint:
            self.note(f"  hint: {error.hint}")
        if isinstance(error, Refused) and error.nearest:
            self.note("  nearest reachable: " + ", ".join(str(instant(m)) for m in error.nearest))


def point_document(item: str, point: Any) -> dict[str, Any]:
    """One recovery point as every command shows it. LSNs are integers."""
    return {
        "id": point.id,
        "item": item,
        "type": point.type.value,
        "copy_only": point.is_copy_only,
        "lineage": point.lineage,
        "first_lsn": point.first_lsn,
        "last_lsn": point.last_lsn,
        "started_at": instant(point.started_at),
        "finished_at": instant(point.finished_at),
        "reachable_from": instant(point.reachable_from),
        "covers_until": instant(point.covers_until),
        "base": point.base_id,
        "size_bytes": point.size_bytes,
    }
