"""What a restore has to know of the server that it goes to, read without changing anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlbak.engines.sqlserver.connection import Session, StatementFailed
from sqlbak.engines.sqlserver.rows import Row, guid, instant, lsn, number, text
from sqlbak.engines.sqlserver.statements import identifier, literal

__all__ = [
    "Drive",
    "ExistingDatabase",
    "RestoredSet",
    "ServerFacts",
    "ServerFile",
    "UserSession",
    "read_database",
    "read_orphans",
    "read_restore_history",
    "read_server",
]


@dataclass(frozen=True, slots=True)
class ServerFile:
    """One file of a database as the server has it. ``redo_start``: RESTORING only: from where in
    the log the file has to be rolled forward next."""

    database_id: int
    logical_name: str
    type: str
    path: str
    size_bytes: int
    redo_start: int | None
    redo_fork: str | None


@dataclass(frozen=True, slots=True)
class Drive:
    """One place for files, by the path that it begins with, and what is free there."""

    path: str
    free_bytes: int


@dataclass(frozen=True, slots=True)
class UserSession:
    """Somebody who uses a database."""

    session_id: int
    login: str
    host: str
    program: str

    def __str__(self) -> str:
        return f"session {self.session_id} ({self.login} from {self.host or '?'}, {self.program})"


@dataclass(frozen=True, slots=True)
class ExistingDatabase:
    """A database that is on the server already."""

    database_id: int
    name: str
    state: str
    user_access: str
    recovery_model: str
    is_standby: bool
    is_snapshot: bool
    is_in_group: bool
    owner: str | None
    family: str | None
    fork: str | None
    last_log_backup: int | None
    files: tuple[ServerFile, ...]
    sessions: tuple[UserSession, ...]

    @property
    def redo_start(self) -> int | None:
        """Where the restore of a RESTORING database goes on; None: not every data file of it has
        been restored yet, or the server does not tell."""
        data = [file.redo_start for file in self.files if file.type == "ROWS"]
        starts = [start for start in data if start is not None]
        return min(starts) if starts and len(starts) == len(data) else None


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """The server itself. None or empty: this version or login does not tell it."""

    name: str
    version: str
    edition: str
    engine_edition: int
    data_path: str | None
    log_path: str | None
    files: tuple[ServerFile, ...]
    database_names: Mapping[int, str]
    drives: tuple[Drive, ...]
    certificates: frozenset[str] | None
    credentials: tuple[str, ...] | None

    @property
    def major(self) -> int:
        """15 is 2019, 16 is 2022, 17 is 2025."""
        return int(self.version.partition(".")[0] or 0)


@dataclass(frozen=True, slots=True)
class RestoredSet:
    """One line of the server's record of restores: which backup set, up to when."""

    set_guid: str | None
    type: str
    stop_at: datetime | None


_SERVER: Final = (
    "SELECT CONVERT(nvarchar(128), SERVERPROPERTY('ProductVersion')) AS product_version, "
    "CONVERT(nvarchar(128), SERVERPROPERTY('Edition')) AS edition, "
    "CONVERT(nvarchar(128), SERVERPROPERTY('ServerName')) AS server_name, "
    "CONVERT(int, SERVERPROPERTY('EngineEdition')) AS engine_edition, "
    "CONVERT(nvarchar(400), SERVERPROPERTY('InstanceDefaultDataPath')) AS data_path, "
    "CONVERT(nvarchar(400), SERVERPROPERTY('InstanceDefaultLogPath')) AS log_path"
)
_DATABASE: Final = (
    "SELECT database_id, name, state_desc, user_access_desc, is_in_standby, recovery_model_desc, "
    "source_database_id, group_database_id, SUSER_SNAME(owner_sid) AS owner_name "
    "FROM sys.databases WHERE name = "
)
_RECOVERY: Final = (
    "SELECT family_guid, recovery_fork_guid, last_log_backup_lsn "
    "FROM sys.database_recovery_status WHERE database_id = "
)
_FILES: Final = (
    "SELECT database_id, type_desc, name, physical_name, size, redo_start_lsn, "
    "redo_start_fork_guid FROM sys.master_files"
)
_SESSIONS: Final = (
    "SELECT session_id, login_name, host_name, program_name FROM sys.dm_exec_sessions "
    "WHERE session_id <> @@SPID AND database_id = "
)
_DRIVES: Final = (
    "SELECT fixed_drive_path, free_space_in_bytes FROM sys.dm_os_enumerate_fixed_drives"
)
_HISTORY: Final = (
    "SELECT r.restore_history_id, r.restore_type, r.stop_at, b.backup_set_uuid "
    "FROM msdb.dbo.restorehistory AS r "
    "JOIN msdb.dbo.backupset AS b ON b.backup_set_id = r.backup_set_id "
    "WHERE r.destination_database_name = {name} AND r.restore_type <> 'V' "
    "ORDER BY r.restore_history_id"
)
_ORPHANS: Final = (
    "SELECT dp.name FROM {database}.sys.database_principals AS dp "
    "LEFT JOIN sys.server_principals AS sp ON sp.sid = dp.sid "
    "WHERE dp.type = 'S' AND dp.authentication_type_desc = 'INSTANCE' AND dp.principal_id > 4 "
    "AND sp.sid IS NULL ORDER BY dp.name"
)
_PAGE_BYTES: Final = 8192


def read_server(session: Session) -> ServerFacts:
    """The server's version, paths, files, free space and keys."""
    row = session.rows(_SERVER, doing="looking at the server")[0]
    names = session.rows("SELECT database_id, name FROM sys.databases", doing="listing databases")
    return ServerFacts(
        name=text(row, "server_name") or "",
        version=text(row, "product_version") or "",
        edition=text(row, "edition") or "",
        engine_edition=number(row, "engine_edition") or 0,
        data_path=text(row, "data_path"),
        log_path=text(row, "log_path"),
        files=_files(session),
        database_names={int(each["database_id"]): str(each["name"]) for each in names},
        drives=tuple(
            Drive(str(each["fixed_drive_path"]), int(each["free_space_in_bytes"]))
            for each in _optional(session, _DRIVES) or ()
            if each["fixed_drive_path"] is not None and each["free_space_in_bytes"] is not None
        ),
        certificates=_certificates(session),
        credentials=_credentials(session),
    )


def read_database(session: Session, name: str) -> ExistingDatabase | None:
    """The database called ``name``, as the server compares names; None: there is none."""
    found = session.rows(_DATABASE + literal(name), doing=f"looking at the database {name}")
    if not found:
        return None
    row = found[0]
    number_of = int(row["database_id"])
    recovery = _optional(session, f"{_RECOVERY}{number_of:d}") or [{}]
    status: Row = recovery[0] if recovery else {}
    return ExistingDatabase(
        database_id=number_of,
        name=str(row["name"]),
        state=text(row, "state_desc") or "",
        user_access=text(row, "user_access_desc") or "MULTI_USER",
        recovery_model=text(row, "recovery_model_desc") or "",
        is_standby=bool(row["is_in_standby"]),
        is_snapshot=row["source_database_id"] is not None,
        is_in_group=row["group_database_id"] is not None,
        owner=text(row, "owner_name"),
        family=guid(status, "family_guid"),
        fork=guid(status, "recovery_fork_guid"),
        last_log_backup=lsn(status, "last_log_backup_lsn"),
        files=tuple(file for file in _files(session) if file.database_id == number_of),
        sessions=tuple(
            UserSession(
                int(each["session_id"]),
                text(each, "login_name") or "?",
                text(each, "host_name") or "",
                text(each, "program_name") or "",
            )
            for each in _optional(session, f"{_SESSIONS}{number_of:d}") or ()
        ),
    )


def read_restore_history(session: Session, name: str) -> tuple[RestoredSet, ...]:
    """What was restored into the database since its last full, oldest first."""
    rows = session.rows(
        _HISTORY.format(name=literal(name)), doing="reading what was restored before"
    )
    sets = [
        RestoredSet(
            guid(row, "backup_set_uuid"), text(row, "restore_type") or "", instant(row, "stop_at")
        )
        for row in rows
    ]
    begins = [index for index, each in enumerate(sets) if each.type == "D"]
    return tuple(sets[begins[-1] :]) if begins else ()


def read_orphans(session: Session, name: str) -> tuple[str, ...]:
    """Users of the database whose login the server does not have, by name. Such a query needs
    rights in the database, which the restoring login has as its owner."""
    rows = session.rows(
        _ORPHANS.format(database=identifier(name)), doing="looking for users without a login"
    )
    return tuple(str(row["name"]) for row in rows)


def _files(session: Session) -> tuple[ServerFile, ...]:
    return tuple(
        ServerFile(
            database_id=int(row["database_id"]),
            logical_name=str(row["name"]),
            type=text(row, "type_desc") or "",
            path=str(row["physical_name"]),
            size_bytes=(number(row, "size") or 0) * _PAGE_BYTES,
            redo_start=lsn(row, "redo_start_lsn") or None,
            redo_fork=guid(row, "redo_start_fork_guid"),
        )
        for row in session.rows(_FILES, doing="listing files")
    )


def _certificates(session: Session) -> frozenset[str] | None:
    """Thumbprints, as ``0x`` and hexadecimal digits in lower case. None: the login sees no
    certificates, whether there are any or not."""
    if not _may(session, "VIEW ANY DEFINITION"):
        return None
    rows = _optional(
        session, "SELECT CONVERT(varchar(100), thumbprint, 1) AS thumbprint FROM sys.certificates"
    )
    if rows is None:
        return None
    return frozenset(str(row["thumbprint"]).lower() for row in rows if row["thumbprint"])


def _credentials(session: Session) -> tuple[str, ...] | None:
    if not _may(session, "ALTER ANY CREDENTIAL"):
        return None
    rows = _optional(session, "SELECT name FROM sys.credentials")
    return None if rows is None else tuple(str(row["name"]) for row in rows)


def _may(session: Session, permission: str) -> bool:
    """Whether the login has a permission of the whole server."""
    rows = _optional(
        session, f"SELECT HAS_PERMS_BY_NAME(NULL, NULL, {literal(permission)}) AS granted"
    )
    return bool(rows) and rows is not None and rows[0]["granted"] == 1


def _optional(session: Session, statement: str) -> Sequence[Mapping[str, Any]] | None:
    """Rows that some versions or logins do not give: then the server itself checks later."""
    try:
        return session.rows(statement, doing="looking at the server")
    except StatementFailed:
        return None
