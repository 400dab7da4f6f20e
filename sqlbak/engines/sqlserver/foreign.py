"""What others did to a database: who took a backup or restored it, when, and onto which device.

msdb tells it. It can be purged and is kept by each replica alone, so it is asked only for names;
what is decided rests on GUIDs and log positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlbak.engines.sqlserver.connection import Session, StatementFailed
from sqlbak.engines.sqlserver.rows import Row, cell, guid, instant, number, text
from sqlbak.engines.sqlserver.statements import literal
from sqlbak.model import Note, NoteCode, PointType
from sqlbak.stopping import StopSignal

__all__ = [
    "ForeignBackups",
    "full_named",
    "logs_since",
    "msdb_row",
    "restore_marker",
    "restore_named",
    "restored_at",
]

_SETS: Final = (
    "SELECT TOP (3) s.backup_set_uuid, s.name, s.user_name, s.backup_start_date, s.type,"
    " s.is_snapshot, m.physical_device_name, m.device_type"
    " FROM msdb.dbo.backupset AS s"
    " LEFT JOIN msdb.dbo.backupmediafamily AS m ON m.media_set_id = s.media_set_id"
)
_TYPES: Final = {"D": PointType.FULL, "I": PointType.DIFFERENTIAL, "L": PointType.LOG}
_KINDS: Final = {
    PointType.FULL: "full backup",
    PointType.DIFFERENTIAL: "differential",
    PointType.LOG: "log backup",
}
_VIRTUAL_DEVICES: Final = (7, 107)


@dataclass(frozen=True, slots=True)
class ForeignBackups:
    """Backups of a database that were not ours, one at least: each in words, and with the facts
    that a note of FOREIGN_BACKUP has of it."""

    each: tuple[tuple[str, Mapping[str, str]], ...]

    @property
    def who(self) -> str:
        """All of them in words."""
        return "; ".join(words for words, _ in self.each)

    def notes(self, database: str) -> tuple[Note, ...]:
        """One for each."""
        text = f"another tool backs up the database {database!r} too"
        return tuple(
            Note(NoteCode.FOREIGN_BACKUP, f"{text}: {words}", facts) for words, facts in self.each
        )


def full_named(session: Session, set_guid: str, *, stop: StopSignal) -> ForeignBackups:
    """Who took the full with that GUID."""
    where = f"WHERE s.backup_set_uuid = {literal(set_guid)}"
    return _found(session, f"{_SETS} {where}", PointType.FULL, stop)


def logs_since(
    session: Session, database: str, position: int, *, stop: StopSignal, own: str | None = None
) -> ForeignBackups:
    """Who took the log behind ``position``; ``own`` is the name of a set that is ours."""
    return _found(
        session,
        f"{_SETS} WHERE s.database_name = {literal(database)} AND s.type = 'L'"
        f" AND s.is_copy_only = 0 AND s.last_lsn > {position:d} ORDER BY s.first_lsn",
        PointType.LOG,
        stop,
        own,
    )


def _found(
    session: Session, question: str, kind: PointType, stop: StopSignal, own: str | None = None
) -> ForeignBackups:
    unknown = {"kind": kind.value}
    try:
        rows = session.rows(question, doing="asking msdb", stop=stop)
    except StatementFailed:
        return ForeignBackups((("msdb cannot be read", unknown),))
    found = {_in_words(row): _facts(row) for row in rows if own is None or text(row, "name") != own}
    return ForeignBackups(tuple(found.items()) or (("msdb does not tell who it was", unknown),))


def _facts(row: Row) -> dict[str, str]:
    kind, started = _type(row), instant(row, "backup_start_date")
    known = {
        "kind": None if kind is None else kind.value,
        "set": guid(row, "backup_set_uuid"),
        "name": text(row, "name"),
        "login": text(row, "user_name"),
        "started": None if started is None else started.isoformat(),
        "device": text(row, "physical_device_name"),
        "device_kind": "virtual" if _is_virtual(row) else "file",
    }
    return {name: value for name, value in known.items() if value}


def _type(row: Row) -> PointType | None:
    return _TYPES.get((text(row, "type") or "").strip())


def _is_virtual(row: Row) -> bool:
    return number(row, "device_type") in _VIRTUAL_DEVICES


def _in_words(row: Row) -> str:
    taken = _type(row)
    kind = "backup" if taken is None else _KINDS[taken]
    if cell(row, "is_snapshot"):
        kind = f"{kind} by snapshot"
    device = text(row, "physical_device_name") or "an unknown device"
    started = instant(row, "backup_start_date")
    when = "at an unknown time" if started is None else f"at {started.isoformat(sep=' ')}"
    name = text(row, "name")
    return (
        f"{kind}{f' {name!r}' if name else ''} by {text(row, 'user_name') or 'an unknown login'}"
        f" {when} (server time) to {device}"
        + (" (a virtual device: VSS or another backup program)" if _is_virtual(row) else "")
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
