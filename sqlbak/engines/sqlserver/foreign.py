"""What others did to a database: who took a backup or restored it, when, and onto which device.

msdb tells it. It can be purged and is kept by each replica alone, so it is asked only for names,
at every replica; what is decided rests on GUIDs and log positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlbak.engines.sqlserver.connection import Session, StatementFailed
from sqlbak.engines.sqlserver.rows import Row, cell, instant, number, text
from sqlbak.engines.sqlserver.statements import literal
from sqlbak.stopping import StopSignal

__all__ = [
    "Historians",
    "full_named",
    "logs_since",
    "msdb_row",
    "restore_marker",
    "restore_named",
    "restored_at",
]

_SETS: Final = (
    "SELECT TOP (3) s.name, s.user_name, s.backup_start_date, s.type, s.is_snapshot,"
    " m.physical_device_name, m.device_type"
    " FROM msdb.dbo.backupset AS s"
    " LEFT JOIN msdb.dbo.backupmediafamily AS m ON m.media_set_id = s.media_set_id"
)
_KINDS: Final = {"D": "full backup", "I": "differential", "L": "log backup"}
_UNKNOWN: Final = "msdb does not tell who it was"


Historians = Sequence[tuple[str, Session]]
"""Servers that may know something, by name."""


def full_named(historians: Historians, set_guid: str | None, *, stop: StopSignal) -> str:
    """Who took the full with that GUID, in words."""
    if set_guid is None:
        return _UNKNOWN
    return _told(historians, f"{_SETS} WHERE s.backup_set_uuid = {literal(set_guid)}", stop)


def logs_since(historians: Historians, database: str, position: int, *, stop: StopSignal) -> str:
    """Who took the log behind ``position``, in words."""
    return _told(
        historians,
        f"{_SETS} WHERE s.database_name = {literal(database)} AND s.type = 'L'"
        f" AND s.is_copy_only = 0 AND s.last_lsn > {position:d} ORDER BY s.first_lsn",
        stop,
    )


def _told(historians: Historians, question: str, stop: StopSignal) -> str:
    told: list[str] = []
    is_hidden = False
    for server, session in historians:
        where = f" on {server}" if len(historians) > 1 else ""
        try:
            rows = session.rows(question, doing="asking msdb", stop=stop)
        except StatementFailed:
            is_hidden = True
            continue
        told += [_in_words(row) + where for row in rows]
    if not told and is_hidden:
        return "msdb cannot be read"
    return "; ".join(dict.fromkeys(told)) or _UNKNOWN


def _in_words(row: Row) -> str:
    kind = _KINDS.get((text(row, "type") or "").strip(), "backup")
    if cell(row, "is_snapshot"):
        kind = f"{kind} by snapshot"
    device = text(row, "physical_device_name") or "an unknown device"
    is_virtual = number(row, "device_type") in (7, 107)
    started = instant(row, "backup_start_date")
    when = "at an unknown time" if started is None else f"at {started.isoformat(sep=' ')}"
    name = text(row, "name")
    return (
        f"{kind}{f' {name!r}' if name else ''} by {text(row, 'user_name') or 'an unknown login'}"
        f" {when} (server time) to {device}"
        + (" (a virtual device: VSS or another backup program)" if is_virtual else "")
    )


def msdb_row(session: Session, name: str, *, stop: StopSignal) -> Row | None:
    """The row that msdb has of the backup set called ``name``; None: none, or not for us."""
    try:
        rows = session.rows(
            f"SELECT TOP (1) * FROM msdb.dbo.backupset WHERE name = {literal(name)}"
            " ORDER BY backup_set_id DESC",
            doing="asking msdb",
            stop=stop,
        )
    except StatementFailed:
        return None
    return rows[0] if rows else None


_RESTORES: Final = (
    "SELECT TOP (1) restore_history_id, restore_date, user_name, restore_type"
    " FROM msdb.dbo.restorehistory"
)


def _last_restore(session: Session, database: str, stop: StopSignal) -> Row | None:
    try:
        rows = session.rows(
            f"{_RESTORES} WHERE destination_database_name = {literal(database)}"
            " AND restore_type IN ('D', 'R') ORDER BY restore_history_id DESC",
            doing="asking msdb",
            stop=stop,
        )
    except StatementFailed:
        return None
    return rows[0] if rows else None


def restore_marker(session: Session, database: str, *, stop: StopSignal) -> int | None:
    """The number of the last time that the whole database was restored or reverted; None: never,
    or not known."""
    row = _last_restore(session, database, stop)
    return None if row is None else number(row, "restore_history_id")


def restored_at(session: Session, database: str, *, stop: StopSignal) -> str | None:
    """When the whole database was restored or reverted last, on the server's wall clock; None:
    never, or not known."""
    row = _last_restore(session, database, stop)
    when = None if row is None else instant(row, "restore_date")
    return None if when is None else when.isoformat()


def restore_named(session: Session, database: str, *, stop: StopSignal) -> str:
    """Who restored the database last, in words."""
    row = _last_restore(session, database, stop)
    if row is None:
        return "msdb does not tell by whom"
    when = instant(row, "restore_date")
    return f"by {text(row, 'user_name') or 'an unknown login'}" + (
        f" at {when.isoformat(sep=' ')} (server time)" if when else ""
    )
