"""What is left of a restore for other programs: its answer as a document, in a file beside the
restored directory. Never inside: there pg_verifybackup would not know it."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlbak import __version__
from sqlbak.restore.executor import RestoredItem
from sqlbak.restore.planner import plan_document

__all__ = ["LeftRecord", "leave_record", "restored_document"]

_SUFFIX = ".sqlbak.json"


@dataclass(frozen=True, slots=True)
class LeftRecord:
    """Where the record is; or, with ``path`` None, why there is none."""

    path: Path | None
    problem: str = ""


def restored_document(restored: RestoredItem) -> dict[str, Any]:
    """The restore as JSON values: its plan, and what it reached."""
    outcome = restored.outcome
    reached = outcome.reached
    return {
        **plan_document(restored.plan),
        "item": restored.item.name,
        "directory": str(outcome.directory),
        "proven": outcome.proven,
        "reached": None if reached is None else {"lineage": reached.lineage, "lsn": reached.lsn},
        "last_commit_at": _text(outcome.last_commit_at),
        "connection": outcome.connection,
        "next_steps": list(outcome.next_steps),
        "facts": dict(outcome.facts),
    }


def leave_record(restored: RestoredItem, *, asked: str, now: datetime) -> LeftRecord:
    """Write ``<directory>.sqlbak.json``, in place of an older one. ``asked``: the end that was
    asked for, as it was written.

    That it cannot be written undoes no restore: the answer says so.
    """
    document = {
        "kind": "sqlbak restore",
        "format": 1,
        "sqlbak_version": __version__,
        "host": socket.gethostname(),
        "finished_at": _text(now),
        "asked": asked,
        "source": restored.source,
        "item_id": restored.item.id,
        **restored_document(restored),
    }
    directory = restored.outcome.directory
    path = directory.with_name(directory.name + _SUFFIX)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("x", encoding="utf-8") as out:
            json.dump(document, out, indent=2, ensure_ascii=True)
            out.write("\n")
            out.flush()
            os.fsync(out.fileno())
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        return LeftRecord(None, f"no record is beside it: {error.strerror} ({path})")
    return LeftRecord(path)


def _text(value: datetime | None) -> str | None:
    return None if value is None else value.astimezone(UTC).isoformat(timespec="microseconds")
