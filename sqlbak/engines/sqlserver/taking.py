"""One BACKUP statement from its text to a set that is known to be whole.

The set has a unique name. When the connection is lost in the middle nobody knows what the server
did: then it is waited for, and the files themselves are asked for the set of that name.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sqlbak.engines.sqlserver.address import ServerAddress
from sqlbak.engines.sqlserver.connection import ConnectionLost, Session, StatementFailed
from sqlbak.engines.sqlserver.databases import Database
from sqlbak.engines.sqlserver.delivery import ReadableFiles
from sqlbak.engines.sqlserver.failures import (
    has_terminated,
    is_good_all_the_same,
    remark_of,
)
from sqlbak.engines.sqlserver.headers import BackupHeader, read_header
from sqlbak.engines.sqlserver.percent import PercentWatch
from sqlbak.engines.sqlserver.rows import Row
from sqlbak.engines.sqlserver.statements import (
    BackupStatement,
    backup_statement,
    file_list_statement,
    header_statement,
    literal,
)
from sqlbak.errors import BackupFailed, ServerUnreachable, SqlbakError
from sqlbak.progress import Progress
from sqlbak.stopping import StopSignal

__all__ = ["TakenSet", "execute_backup", "is_backup_running", "read_set"]

_PERCENT: Final = re.compile(r"(\d+) percent processed\.")
_CANNOT_OPEN: Final = 3201
_NO_BACKUP: Final = frozenset({3241, 3242, 3243, 3254, 3287})
_SETTLE_SECONDS: Final = 120.0
_POLL_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class TakenSet:
    """A backup set on its files, as the server reads it from there."""

    header: BackupHeader
    header_row: Row
    file_list: tuple[Row, ...]


def execute_backup(
    session: Session,
    address: ServerAddress,
    database: Database,
    statement: BackupStatement,
    *,
    progress: Progress,
    stop: StopSignal,
    refused: Callable[[], None],
    remarked: Callable[[str], None],
) -> Session:
    """Run one BACKUP to its end; the session to go on with, a new one where the old one was lost.
    ``refused`` is called when the server says that it failed: then nothing came of it; ``remarked``
    with what is to be known of a backup that is good.

    After a lost connection it is not known whether the set is whole: ``read_set`` tells. Raises
    what the server's refusal means; Interrupted.
    """
    text = backup_statement(statement)
    progress.phase(_phase(statement), database.size_bytes or None)
    shown = PercentWatch(address, session.session_id, progress, database.size_bytes)

    def hear(said: str) -> None:
        match = _PERCENT.fullmatch(said)
        if match is not None:
            shown.at(float(match[1]))
        elif (remark := remark_of(said)) is not None:
            remarked(remark)

    try:
        with shown:
            session.run(text, doing=_phase(statement), stop=stop, hear=hear)
    except StatementFailed as failed:
        said = failed.error.texts
        if is_good_all_the_same(failed.number, said):
            return session  # remarked already; the header tells whether the set is whole
        error = failed.explained()
        if not has_terminated(said):
            raise error from None  # what it did is not certain: the next run looks
        try:
            refused()
        except SqlbakError as second:
            error.add_note(f"what was written could not be removed: {second}")
        raise error from None
    except ConnectionLost:
        session.close()
        return _settled(address, database, statement.name.rpartition(" ")[2], stop)
    return session


def _phase(statement: BackupStatement) -> str:
    kind = "log" if statement.is_log else "data"
    return f"backing up the {kind} of {statement.database}"


def _settled(address: ServerAddress, database: Database, token: str, stop: StopSignal) -> Session:
    """A new session, once the backup with that token does not run any more."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        try:
            session = Session.open(address, stop=stop)
        except ServerUnreachable:
            if time.monotonic() > deadline or stop.wait(_POLL_SECONDS):
                stop.check()
                raise
            continue
        try:
            while is_backup_running(session, token, stop=stop):
                if time.monotonic() > deadline:
                    raise BackupFailed(
                        f"{address.where}: the connection was lost, and the server still backs up "
                        f"{database.name}",
                        hint="the next run goes on when that has ended",
                    )
                if stop.wait(_POLL_SECONDS):
                    stop.check()
        except ConnectionLost:
            session.close()
            if time.monotonic() > deadline:
                raise
            continue
        except BaseException:
            session.close()
            raise
        return session


def is_backup_running(session: Session, token: str, *, stop: StopSignal) -> bool:
    """Whether some session runs the BACKUP that has ``token`` in the names of its files. False also
    where the login may not see the sessions of others (VIEW SERVER STATE)."""
    try:
        rows = session.rows(
            "SELECT r.session_id FROM sys.dm_exec_requests AS r"
            " CROSS APPLY sys.dm_exec_sql_text(r.sql_handle) AS t"
            " WHERE r.command IN (N'BACKUP DATABASE', N'BACKUP LOG')"
            f" AND CHARINDEX({literal(token)}, t.text) > 0",
            doing="looking for running backups",
            stop=stop,
        )
    except StatementFailed:
        return False
    return bool(rows)


def read_set(session: Session, files: ReadableFiles, *, stop: StopSignal) -> TakenSet | None:
    """The one backup set on these files; None when there is none that is whole (the backup was
    broken off). BackupFailed when the server does not get at the files at all."""
    found: list[Row] = []
    try:
        # Each stripe has a header of its own at its end; what was broken off has none, or one
        # without log positions.
        for device in files.devices:
            rows = session.rows(
                header_statement([device]),
                doing="reading the header of the backup",
                stop=stop,
                limit_seconds=None,
            )
            if len(rows) != 1:
                return None
            found += rows
        file_list = session.rows(
            file_list_statement(files.devices[:1]),
            doing="reading the backup's list of files",
            stop=stop,
            limit_seconds=None,
        )
    except StatementFailed as failed:
        # What cannot be read just now is not the same as what is no backup.
        may_be_whole = files.are_whole and failed.number not in _NO_BACKUP
        if (failed.number == _CANNOT_OPEN or may_be_whole) and files.are_there():
            raise failed.explained() from None
        return None
    try:
        headers = [read_header(row) for row in found]
    except BackupFailed:
        return None
    if len({header.set_guid for header in headers}) != 1:
        return None
    return TakenSet(headers[0], found[0], tuple(file_list))
