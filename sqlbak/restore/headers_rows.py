"""Rows of RESTORE HEADERONLY, msdb.dbo.backupset or dbatools, each as one backup set.

Columns that a SQL Server version or a tool does not have are None. Sets that a chain can never use
are rejected here, before anything else of them is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlbak.errors import InputUnreadable
from sqlbak.model import PointType
from sqlbak.restore.headers_cells import Cells
from sqlbak.restore.restore_plan import Rejection

__all__ = ["BackupSet", "ReadRows", "read_rows", "rows_in"]

_MOST_PROBLEMS: Final = 20
_TYPES: Final = {
    **dict.fromkeys(("1", "d", "database", "full", "database full"), PointType.FULL),
    **dict.fromkeys(("2", "l", "transaction log", "log"), PointType.LOG),
    **dict.fromkeys(
        ("5", "i", "database differential", "differential database", "differential", "diff"),
        PointType.DIFFERENTIAL,
    ),
}
_OTHER_TYPES: Final = {
    **dict.fromkeys(("4", "f", "file", "file or filegroup"), "a file backup"),
    **dict.fromkeys(
        ("6", "g", "differential file", "file differential"), "a differential file backup"
    ),
    **dict.fromkeys(("7", "p", "partial", "partial full", "partial database"), "a partial backup"),
    **dict.fromkeys(
        ("8", "q", "partial differential", "differential partial"), "a differential partial backup"
    ),
}


@dataclass(frozen=True, slots=True)
class BackupSet:
    """One backup set. GUIDs in lower case but for ``id``, which is as the row has it (or made up
    from the set's type and LSNs); times naive or aware as the row has them."""

    row: int
    id: str
    guid: str | None
    type: PointType
    database: str | None
    family: str | None
    first_lsn: int
    last_lsn: int
    checkpoint_lsn: int | None
    full_checkpoint_lsn: int | None
    base_guid: str | None
    started: datetime | None
    finished: datetime
    last_commit: datetime | None
    utc_offset: timedelta | None
    first_fork: str | None
    fork: str | None
    fork_lsn: int | None
    is_copy_only: bool
    has_bulk_logged: bool
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class ReadRows:
    """The backup sets, one for all stripes and mirrors, and why other rows are none."""

    sets: tuple[BackupSet, ...]
    rejected: tuple[Rejection, ...]


def rows_in(document: object) -> list[Mapping[str, Any]]:
    """The rows in a JSON document: a list, one object, or an object that holds a list.

    Raises InputUnreadable when there are none.
    """
    if isinstance(document, Mapping):
        lists = [each for each in document.values() if _is_table(each)]
        document = lists[0] if len(lists) == 1 and not _is_row(document) else [document]
    if not isinstance(document, Sequence) or isinstance(document, str | bytes) or not document:
        raise _unreadable(["there are no rows: a JSON list of objects is expected"])
    problems = [
        f"row {number}: not an object with column names"
        for number, row in enumerate(document, 1)
        if not isinstance(row, Mapping)
    ]
    if problems:
        raise _unreadable(problems)
    return list(document)


def _is_table(value: object) -> bool:
    return isinstance(value, list) and any(isinstance(row, Mapping) for row in value)


def _is_row(document: Mapping[Any, Any]) -> bool:
    return any(str(name).replace("_", "").lower() in {"lastlsn", "firstlsn"} for name in document)


def read_rows(rows: Sequence[Mapping[str, Any]]) -> ReadRows:
    """Read every row. Raises InputUnreadable with all that is wrong, row by row."""
    problems: list[str] = []
    rejected: dict[str, str] = {}
    sets: dict[str, BackupSet] = {}
    for number, row in enumerate(rows, 1):
        cells = Cells(number, row, problems)
        reason = _unusable(cells)
        name = cells.guid("backupsetguid", "backupsetuuid", "backupsetid")
        if reason is not None:
            rejected.setdefault(name or f"row {number}", reason)
            continue
        found = _backup_set(cells, name)
        if found is None:
            continue
        known = sets.setdefault(found.guid or found.id, found)
        if _substance(known) != _substance(found):
            cells.problem(f"another backup than row {known.row}, but with the same id {found.id}")
        elif (found.size_bytes or 0) > (known.size_bytes or 0):
            sets[found.guid or found.id] = found
    if problems:
        raise _unreadable(problems)
    return ReadRows(
        tuple(found for found in sets.values() if found.id not in rejected),
        tuple(Rejection(point_id, reason) for point_id, reason in rejected.items()),
    )


def _substance(found: BackupSet) -> tuple[object, ...]:
    return (found.type, found.first_lsn, found.last_lsn, found.fork)


def _kind(cells: Cells) -> str | None:
    for name in ("backuptype", "type", "backuptypedescription"):
        kind = cells.text(name)
        if kind is not None and (kind.lower() in _TYPES or kind.lower() in _OTHER_TYPES):
            return kind.lower()
    return None


def _unusable(cells: Cells) -> str | None:
    """Why no chain can use this row; None if one may."""
    kind = _kind(cells)
    if kind in _OTHER_TYPES:
        return f"{_OTHER_TYPES[kind]}: only whole databases are planned"
    if cells.flag("isdamaged"):
        return "damaged: it was taken with CONTINUE_AFTER_ERROR"
    if cells.flag("issnapshot"):
        return "a snapshot backup: its data is not in the backup file"
    if cells.flag("hasincompletemetadata"):
        return "incomplete: the tail of a damaged database's log"
    return None


def _backup_set(cells: Cells, name: str | None) -> BackupSet | None:
    kind = _kind(cells)
    if kind is None:
        given = cells.text("backuptype", "type", "backuptypedescription")
        cells.problem(
            "BackupType is missing"
            if given is None
            else f"BackupType is {given!r}: not a type of backup"
        )
        return None
    point_type = _TYPES[kind]
    first = cells.lsn("firstlsn", required="FirstLSN")
    last = cells.lsn("lastlsn", required="LastLSN")
    finished = cells.instant("backupfinishdate", "end", required="BackupFinishDate")
    started = cells.instant("backupstartdate", "start")
    if first is not None and last is not None and last < first:
        cells.problem(f"LastLSN is {last}: less than FirstLSN {first}")
    first_fork = _lower(cells.guid("firstrecoveryforkid", "firstrecoveryforkguid"))
    fork = _lower(cells.guid("recoveryforkid", "lastrecoveryforkguid", "recoveryforkguid"))
    fork = fork or first_fork
    checkpoint, full_checkpoint = cells.lsn("checkpointlsn"), cells.lsn("databasebackuplsn")
    fork_lsn = cells.lsn("forkpointlsn")
    last_commit = cells.instant("lastvalidrestoretime")
    size = cells.number_of("compressedbackupsize") or cells.number_of("backupsize", "totalsize")
    is_copy_only = cells.flag("iscopyonly")
    has_bulk_logged = cells.flag("hasbulkloggeddata")
    if first is None or last is None or finished is None:
        return None
    made_up = f"{point_type.value}-{first}-{last}" + (f"-{fork}" if fork else "")
    return BackupSet(
        row=cells.number,
        id=name or made_up,
        guid=_lower(name),
        type=point_type,
        database=cells.text("databasename", "database"),
        family=_lower(cells.guid("familyguid")),
        first_lsn=first,
        last_lsn=last,
        checkpoint_lsn=checkpoint,
        full_checkpoint_lsn=full_checkpoint or None,
        base_guid=_lower(cells.guid("differentialbaseguid")),
        started=started,
        finished=finished,
        last_commit=last_commit,
        utc_offset=_offset(cells) if point_type is PointType.LOG else None,
        first_fork=first_fork or fork,
        fork=fork,
        fork_lsn=fork_lsn or None,
        is_copy_only=is_copy_only,
        has_bulk_logged=has_bulk_logged,
        size_bytes=size,
    )


def _offset(cells: Cells) -> timedelta | None:
    """A log's own offset from UTC; 127 is "unknown", and other rows hold garbage there."""
    quarters = cells.number_of("timezone")
    if quarters is None or not -48 <= quarters <= 56:
        return None
    return timedelta(minutes=15 * quarters)


def _lower(text: str | None) -> str | None:
    return None if text is None else text.lower()


def _unreadable(problems: Sequence[str]) -> InputUnreadable:
    listed = [f"  {problem}" for problem in problems[:_MOST_PROBLEMS]]
    if len(problems) > _MOST_PROBLEMS:
        listed.append(f"  … and {len(problems) - _MOST_PROBLEMS} more")
    return InputUnreadable(
        "the backup headers cannot be read:\n" + "\n".join(listed),
        hint="export the rows of RESTORE HEADERONLY as a JSON list of objects with its column "
        "names, LSNs as whole numbers or text, dates in ISO 8601",
    )
