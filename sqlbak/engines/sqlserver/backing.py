"""Taking one backup of one database: look, take, check what was written, ship.

What the server says before is only a first look: what decides is the header of the set that was
written, compared with what it has to continue. A set that does not is never a recovery point.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlbak.engines.port import BackupResult, PayloadSink
from sqlbak.engines.sqlserver.address import ServerAddress
from sqlbak.engines.sqlserver.connection import Session
from sqlbak.engines.sqlserver.databases import Database, read_databases
from sqlbak.engines.sqlserver.delivery import (
    BackupFiles,
    DiskFolder,
    SetFiles,
    database_key,
    stripe_count,
)
from sqlbak.engines.sqlserver.foreign import msdb_row, restore_marker, restore_named, restored_at
from sqlbak.engines.sqlserver.headers import BackupHeader
from sqlbak.engines.sqlserver.rows import document_of
from sqlbak.engines.sqlserver.server import Clock, Server, read_clock, read_server
from sqlbak.engines.sqlserver.statements import BackupStatement
from sqlbak.engines.sqlserver.taking import (
    TakenSet,
    execute_backup,
    is_backup_running,
    read_set,
)
from sqlbak.engines.sqlserver.url_checks import url_files
from sqlbak.engines.sqlserver.url_delivery import PART_BYTES, UrlPlace
from sqlbak.errors import (
    BackupFailed,
    BackupPaused,
    LogChainBroken,
    LogRewritten,
    ServerNotReady,
    SqlbakError,
)
from sqlbak.model import Fork, Note, NoteCode, PointType
from sqlbak.progress import Progress
from sqlbak.stopping import StopSignal

__all__ = ["CLOCK_GRAIN", "Backing", "Source", "WrittenSet", "new_token"]

CLOCK_GRAIN: Final = timedelta(milliseconds=20)
"""A transaction's commit time is from a coarser clock than SYSUTCDATETIME: on a grid of 3.33 ms,
and up to 16 ms late on older versions."""

_DESCRIPTION: Final = "sqlbak taken after "


@dataclass(frozen=True, slots=True)
class Source:
    """One database and how its backups are taken.

    Attributes:
        compression: auto, none, ms_xpress or zstd.
        folder: where its backups are written to: a folder that both sides see, or the vault itself.
        stripes: files for each full and differential; None: by size.
        family: the database that is meant; another one under its name is refused. None: whichever.
    """

    address: ServerAddress
    folder: DiskFolder | UrlPlace
    database: str
    compression: str = "auto"
    stripes: int | None = None
    family: str | None = None

    @property
    def where(self) -> str:
        """Server and database, for people."""
        return f"{self.address.where}/{self.database}"


@dataclass(frozen=True, slots=True)
class WrittenSet:
    """A whole backup set on its files. ``began`` is the server's clock before its statement;
    ``ended`` after it (None: not known, as it was an earlier run that took it)."""

    files: SetFiles
    taken: TakenSet
    began: Clock
    ended: Clock | None


def new_token(now: datetime) -> str:
    """Part of a backup set's name and of its files' names, unlike any other."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(5)}"


@dataclass(slots=True)
class Backing:
    """A session with the server for one backup; made by ``open``."""

    source: Source
    session: Session
    server: Server
    database: Database
    progress: Progress
    stop: StopSignal
    sink: PayloadSink | None = None
    notes: list[Note] = field(default_factory=list)

    @classmethod
    @contextmanager
    def open(
        cls,
        source: Source,
        progress: Progress,
        stop: StopSignal,
        sink: PayloadSink | None = None,
    ) -> Iterator[Backing]:
        """Connect and look. ServerNotReady when the database is not there, or not the one meant.
        ``sink``: where what is written goes."""
        session = Session.open(source.address, stop=stop)
        backing: Backing | None = None
        try:
            server = read_server(session, stop=stop)
            database = find_database(session, server, source, stop=stop)
            backing = cls(source, session, server, database, progress, stop, sink)
            yield backing
        finally:
            (session if backing is None else backing.session).close()

    @property
    def key(self) -> str:
        """What the names of its files have of the database."""
        return database_key(self.database.binding or self.database.family or self.database.name)

    @property
    def lineage(self) -> str:
        """The recovery fork that the database is on."""
        if self.database.fork is None:
            raise ServerNotReady(
                f"{self.source.where}: the server does not tell the recovery fork",
                hint="GRANT VIEW ANY DATABASE TO [login]",
            )
        return self.database.fork

    def look(self) -> Database:
        """The database as it is now."""
        return find_database(self.session, self.server, self.source, stop=self.stop)

    def clock(self) -> Clock:
        """The server's clock now."""
        return read_clock(self.session, self.server, stop=self.stop)

    def require(self, kind: PointType) -> None:
        """BackupPaused when that kind cannot be taken of the database as it is."""
        why = self.database.paused().get(kind)
        if why is not None:
            raise BackupPaused(f"{self.source.where}: {why}")

    def clear(self, *kinds: PointType) -> None:
        """Delete what crashed runs left of those kinds in the folder. BackupFailed while one of
        them still runs on the server. What they left in the vault is for its sweep."""
        folder = self.source.folder
        leftovers = folder.leftovers(self.key, kinds) if isinstance(folder, DiskFolder) else []
        self.require_quiet(leftovers)
        for files in leftovers:
            files.remove()
            left = f"removed what an earlier run left: {files.local[0].name}"
            self.notes.append(Note(NoteCode.LEFTOVERS, left))

    def require_quiet(self, leftovers: Sequence[BackupFiles]) -> None:
        """BackupFailed while a backup of an earlier run that left files is still running."""
        if any(is_backup_running(self.session, one.token, stop=self.stop) for one in leftovers):
            raise BackupFailed(
                f"{self.source.where}: an earlier backup still runs on the server",
                hint="it is waited for: the next run looks again",
            )

    def write(
        self,
        kind: PointType,
        *,
        label: str | None = None,
        is_copy_only: bool = False,
        leaves_restoring: bool = False,
    ) -> WrittenSet:
        """Take one backup set into files of its own, and prove that it is whole and of this
        database. On failure the files of a data backup are removed; those of a log backup are kept
        where they may hold log that exists nowhere else any more: the next run looks at them."""
        source = self.source
        began = self.clock()
        token = new_token(began.utc)
        files = self._files(kind, token)
        statement = BackupStatement(
            database=source.database,
            devices=files.devices,
            name=f"{label or 'sqlbak'} {token}"[:128],
            is_log=kind is PointType.LOG,
            is_differential=kind is PointType.DIFFERENTIAL,
            is_copy_only=is_copy_only,
            leaves_restoring=leaves_restoring,
            compression=self.server.compression(source.compression),
            description=f"{_DESCRIPTION}{began.utc.isoformat()} {began.utc_offset_minutes}",
            max_transfer_bytes=self._transfer_bytes(),
        )
        try:
            self.session = execute_backup(
                self.session,
                source.address,
                self.database,
                statement,
                progress=self.progress,
                stop=self.stop,
                refused=files.refused,
            )
            ended = self.clock()
            taken = read_set(self.session, files, stop=self.stop)
            if taken is None:
                if kind is PointType.LOG:
                    files.remove()
                raise BackupFailed(
                    f"{source.where}: the backup was broken off", hint="the next run tries again"
                )
            self._check(taken.header, kind, token)
        except BaseException:
            if kind is not PointType.LOG:
                with suppress(SqlbakError):
                    files.remove()
            raise
        return WrittenSet(files, taken, began, ended)

    def _files(self, kind: PointType, token: str) -> SetFiles:
        """Where one new backup set goes. Raises what keeps it from being written there."""
        source = self.source
        if isinstance(source.folder, DiskFolder):
            count = stripe_count(self.database.size_bytes, source.stripes)
            count = 1 if kind is PointType.LOG else count
            return source.folder.files(self.key, kind, token, count)
        return url_files(
            self.session,
            self.database,
            source.folder,
            self.sink,
            kind,
            token,
            wanted=source.stripes,
            where=source.where,
            stop=self.stop,
        )

    def _transfer_bytes(self) -> int | None:
        if not isinstance(self.source.folder, DiskFolder):
            return PART_BYTES
        # TDE before 2019 compresses only with more than 64 KB a transfer.
        return 131072 if self.database.is_encrypted and self.server.major < 15 else None

    def written_before(self, files: SetFiles) -> WrittenSet | None:
        """A log backup that an earlier run took and did not ship; None when it is not whole."""
        taken = read_set(self.session, files, stop=self.stop)
        began = None if taken is None else self.began(taken, files.type, files.token)
        return None if taken is None or began is None else WrittenSet(files, taken, began, None)

    def began(self, taken: TakenSet, kind: PointType, token: str) -> Clock | None:
        """The server's clock before the statement that took the set, as the set itself tells; None
        when it is not a set of ours and of that kind, or not whole."""
        header = taken.header
        if token not in header.name or not header.description.startswith(_DESCRIPTION):
            return None
        try:
            self._check(header, kind, token or header.name.rpartition(" ")[2])
            instant, minutes = header.description.removeprefix(_DESCRIPTION).rsplit(" ", 1)
            return Clock(datetime.fromisoformat(instant), int(minutes), None)
        except (SqlbakError, ValueError):
            return None

    def _check(self, header: BackupHeader, kind: PointType, token: str) -> None:
        """BackupFailed when the set is not what was asked for."""
        wrong = None
        if not header.name.endswith(token):
            wrong = f"it is named {header.name!r}"
        elif header.type is not kind:
            wrong = f"it is no {kind.value}"
        elif header.family != self.database.family:
            wrong = "it is of another database"
        elif header.is_damaged or header.is_snapshot:
            wrong = "it is damaged, or a snapshot without data"
        elif not header.has_checksums:
            wrong = "it has no checksums"
        elif header.position != 1:
            wrong = f"it is number {header.position} on its media"
        if wrong is not None:
            raise BackupFailed(
                f"{self.source.where}: the backup that was written is not the one asked for: "
                f"{wrong}",
                hint="look whether something else writes into the backup folder",
            )

    def ship(self, written: WrittenSet, sink: PayloadSink) -> None:
        """Send the set's files. BackupFailed when they are less than the server wrote."""
        total = written.files.ship(sink, progress=self.progress, stop=self.stop)
        if total < written.taken.header.stored_bytes:
            raise BackupFailed(
                f"{written.files.shown}: {total} bytes were found, but the server wrote "
                f"{written.taken.header.stored_bytes}",
                hint="look at delivery: sqlbak and the server must see the same place",
            )

    def result(self, written: WrittenSet) -> BackupResult:
        """What the set proves, for the manifest and the planner."""
        header = written.taken.header
        is_log = header.type is PointType.LOG
        before = written.began.utc - CLOCK_GRAIN
        after = self._after(written) + CLOCK_GRAIN
        crosses = header.first_fork != header.fork
        if crosses and header.fork_lsn is None:
            raise LogChainBroken(
                f"{self.source.where}: the log crosses a recovery fork at an unknown place",
                hint="take a full backup; it starts a new chain",
            )
        return BackupResult(
            type=header.type or PointType.FULL,
            lineage=header.fork,
            first_lineage=header.first_fork if is_log and crosses else None,
            first_lsn=header.first_lsn,
            last_lsn=header.last_lsn,
            started_at=written.began.utc,
            finished_at=max(after, written.began.utc),
            reachable_from=None if is_log else after,
            covers_until=before if is_log else None,
            has_bulk_logged=header.has_bulk_logged,
            forks=(Fork(header.fork, header.first_fork, header.fork_lsn),)
            if crosses and header.fork_lsn is not None
            else (),
            facts=self._facts(written),
            notes=tuple(self.notes),
            after_commit=written.files.after_commit,
        )

    def _after(self, written: WrittenSet) -> datetime:
        """No transaction in the set committed later."""
        if written.ended is not None:
            return written.ended.utc
        # The header's seconds are cut off, and on the wall clock of its own time.
        local = written.taken.header.finished + timedelta(seconds=1)
        offset = timedelta(minutes=written.began.utc_offset_minutes)
        by_header = (local - offset).replace(tzinfo=UTC)
        # Where the clocks were changed in between, only now is certain.
        is_plausible = written.began.utc <= by_header <= self.clock().utc + timedelta(seconds=1)
        return by_header if is_plausible else self.clock().utc

    def _facts(self, written: WrittenSet) -> dict[str, Any]:
        taken = written.taken
        row = msdb_row(self.session, taken.header.name, stop=self.stop)
        clock = written.ended or written.began
        return {
            "header": document_of(taken.header_row),
            "file_list": [document_of(one) for one in taken.file_list],
            "msdb": None if row is None else document_of(row),
            "set_name": taken.header.name,
            "streams": list(written.files.streams),
            **written.files.facts,
            "server": self.server.document(clock),
            "recovery_model": self.database.recovery_model,
            "owner": self.database.owner,
            "restore_history_id": restore_marker(
                self.session, self.source.database, stop=self.stop
            ),
            "restored_at": restored_at(self.session, self.source.database, stop=self.stop),
        }

    def require_same_history(self, facts: Mapping[str, Any] | None, what: str) -> None:
        """LogRewritten when the whole database was restored since the recovery point with those
        facts, and goes on under the same recovery fork: positions mean another history now."""
        if facts is None or "restore_history_id" not in facts:
            return
        if facts.get("server", {}).get("name") != self.server.name:
            return  # msdb is another replica's
        marker = restore_marker(self.session, self.source.database, stop=self.stop)
        if marker is not None and marker != facts["restore_history_id"]:
            raise LogRewritten(
                f"{self.source.where} was restored after {what}: "
                f"{restore_named(self.session, self.source.database, stop=self.stop)}",
                hint="take a full backup; it starts a new chain",
            )


def find_database(
    session: Session, server: Server, source: Source, *, stop: StopSignal
) -> Database:
    """The database of that name as it is now. ServerNotReady when it is not there, or when it is
    not the one that was looked at before."""
    found = read_databases(
        session, name=source.database, with_replicas=server.is_hadr_enabled, stop=stop
    )
    if not found:
        raise ServerNotReady(
            f"{source.address.where}: there is no database {source.database!r} (any more), or the "
            "login may not see it",
            hint="if it is there: GRANT VIEW ANY DATABASE TO [login]",
        )
    database = found[0]
    if source.family is not None and database.family not in (None, source.family):
        raise ServerNotReady(
            f"{source.where}: another database took its place meanwhile",
            hint="run again: it is backed up as a new item",
        )
    return database
