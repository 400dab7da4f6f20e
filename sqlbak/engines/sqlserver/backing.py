"""Taking one backup of one database: look, take, check what was written, ship.

What the server says before is only a first look: what decides is the header of the set that was
written, compared with what it has to continue. A set that does not is never a recovery point.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlbak.engines.port import BackupResult, PayloadSink
from sqlbak.engines.sqlserver.connection import Session
from sqlbak.engines.sqlserver.databases import Database
from sqlbak.engines.sqlserver.delivery import (
    BackupFiles,
    DiskFolder,
    SetFiles,
    database_key,
    stripe_count,
)
from sqlbak.engines.sqlserver.finding import find_database
from sqlbak.engines.sqlserver.foreign import msdb_row
from sqlbak.engines.sqlserver.headers import BackupHeader
from sqlbak.engines.sqlserver.logend import end_to_hold, holds_all
from sqlbak.engines.sqlserver.past import history_facts
from sqlbak.engines.sqlserver.rows import document_of, text
from sqlbak.engines.sqlserver.server import Clock, Server, read_clock, read_server
from sqlbak.engines.sqlserver.source import Source
from sqlbak.engines.sqlserver.statements import BackupStatement
from sqlbak.engines.sqlserver.taking import (
    TakenSet,
    execute_backup,
    read_set,
)
from sqlbak.engines.sqlserver.url_checks import url_files
from sqlbak.engines.sqlserver.url_delivery import PART_BYTES
from sqlbak.errors import (
    BackupFailed,
    BackupPaused,
    LogChainBroken,
    ServerNotReady,
    SqlbakError,
)
from sqlbak.model import Fork, Note, NoteCode, PointType
from sqlbak.progress import Progress
from sqlbak.stopping import StopSignal

__all__ = ["CLOCK_GRAIN", "Backing", "Writer", "WrittenSet", "new_token"]

CLOCK_GRAIN: Final = timedelta(milliseconds=20)
"""A transaction's commit time is from a coarser clock than SYSUTCDATETIME: on a grid of 3.33 ms,
and up to 16 ms late on older versions."""

_DESCRIPTION: Final = "sqlbak taken after "
_UNKNOWN_END: Final = 10**25
"""Behind every position in a log."""


@dataclass(frozen=True, slots=True)
class WrittenSet:
    """A whole backup set on its files. ``began`` is the clock of the server that writes the log
    before its statement; ``ended`` after it (None: not known, as it was an earlier run that took
    it). ``covers``: it holds all that was committed by ``began``."""

    files: SetFiles
    taken: TakenSet
    began: Clock
    ended: Clock | None
    covers: bool = True


def new_token(now: datetime) -> str:
    """Part of a backup set's name and of its files' names, unlike any other."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(5)}"


def _told(header: BackupHeader) -> tuple[Clock, int | None]:
    """What the description of a set of ours tells: the clock before it was taken, and where the
    log of the group's primary ended then (None: it is of no group). ValueError for another one."""
    instant, minutes, *ends = header.description.removeprefix(_DESCRIPTION).split(" ")
    clock = Clock(datetime.fromisoformat(instant), int(minutes), None)
    return clock, int(ends[0]) if ends else None


@dataclass(frozen=True, slots=True)
class Writer:
    """The primary, where the backup is taken on another replica: its clock is in the log."""

    session: Session
    server: Server
    database_id: int


@dataclass(slots=True)
class Backing:
    """A session with the server for one backup; made by opening.py.

    Attributes:
        source: as it is taken there; ``home``: as it is configured.
        database: what is taken, its log's position and lineage as the primary tells them.
        paused: what cannot be taken now, and why.
        writer: the primary, where this is another server.
    """

    source: Source
    session: Session
    server: Server
    database: Database
    progress: Progress
    stop: StopSignal
    home: Source
    paused: Mapping[PointType, str]
    writer: Writer | None = None
    sink: PayloadSink | None = None
    notes: list[Note] = field(default_factory=list)

    def leftovers(self, kinds: Sequence[PointType]) -> list[BackupFiles]:
        """What earlier runs left of the database in this server's folder, oldest first. What they
        left in the vault is for its sweep."""
        folder = self.source.folder
        if not isinstance(folder, DiskFolder):
            return []
        return [files for key in self.keys for files in folder.leftovers(key, kinds)]

    @property
    def keys(self) -> tuple[str, ...]:
        """What the names of its files have of the database: on every replica of a group the same,
        and as it was before it was in one."""
        database = self.database
        own = database.binding or database.family or database.name
        group = database.replica.database_id if database.replica is not None else ""
        return tuple(dict.fromkeys(database_key(one) for one in (group, own) if one))

    @property
    def key(self) -> str:
        """What the names of new files have of the database."""
        return self.keys[0]

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
        """The clock, now, of the server that writes the log."""
        if self.writer is not None:
            return read_clock(self.writer.session, self.writer.server, stop=self.stop)
        return read_clock(self.session, self.server, stop=self.stop)

    def require(self, kind: PointType) -> None:
        """BackupPaused when that kind cannot be taken of the database as it is."""
        why = self.paused.get(kind)
        if why is not None:
            raise BackupPaused(f"{self.source.where}: {why}")

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
        end = end_to_hold(self)
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
            description=f"{_DESCRIPTION}{began.utc.isoformat()} {began.utc_offset_minutes}"
            + (f" {end or _UNKNOWN_END}" if self.database.replica is not None else ""),
            max_transfer_bytes=self._transfer_bytes(),
        )
        try:
            before = self.session
            self.session = execute_backup(
                self.session,
                source.address,
                self.database,
                statement,
                progress=self.progress,
                stop=self.stop,
                refused=files.refused,
                remarked=lambda said: self.notes.append(Note(NoteCode.OTHER, said)),
            )
            if self.session is not before:
                self._require_same_server()
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
        covers = kind is not PointType.LOG or holds_all(self, taken.header.last_lsn, end)
        if not covers:
            behind = (
                f"{self.server.name} is behind the primary, or it cannot be told how far it is: "
                "this log proves no instant yet, the next one does"
            )
            self.notes.append(Note(NoteCode.COVERAGE_UNPROVEN, behind))
        return WrittenSet(files, taken, began, ended, covers)

    def _require_same_server(self) -> None:
        """BackupFailed when the address leads to another server since the connection was lost."""
        now = read_server(self.session, stop=self.stop)
        if now.name != self.server.name:
            raise BackupFailed(
                f"{self.source.where}: {self.server.name} was lost while it took the backup, and "
                f"{now.name} answers there now",
                hint="the next run takes it there",
            )

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
        # TDE compresses only with more than 64 KB a transfer, which 2019 takes by itself from its
        # cumulative update 5 on.
        return 131072 if self.database.is_encrypted and self.server.major < 16 else None

    def written_before(self, files: SetFiles) -> WrittenSet | None:
        """A log backup that an earlier run took and did not ship; None when it is not whole."""
        taken = read_set(self.session, files, stop=self.stop)
        began = None if taken is None else self.began(taken, files.type, files.token)
        if taken is None or began is None:
            return None
        end = _told(taken.header)[1]
        covers = end is None or taken.header.last_lsn > end
        return WrittenSet(files, taken, began, None, covers)

    def began(self, taken: TakenSet, kind: PointType, token: str) -> Clock | None:
        """The server's clock before the statement that took the set, as the set itself tells; None
        when it is not a set of ours and of that kind, or not whole."""
        header = taken.header
        if token not in header.name or not header.description.startswith(_DESCRIPTION):
            return None
        try:
            self._check(header, kind, token or header.name.rpartition(" ")[2])
            return _told(header)[0]
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
            covers_until=before if is_log and written.covers else None,
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
        own = clock
        if self.writer is not None:
            own = read_clock(self.session, self.server, stop=self.stop)
        return {
            "header": document_of(taken.header_row),
            "file_list": [document_of(one) for one in taken.file_list],
            "msdb": None if row is None else document_of(row),
            "set_name": taken.header.name,
            "streams": list(written.files.streams),
            **written.files.facts,
            "server": self.server.document(own)
            | {"name": text(taken.header_row, "ServerName") or self.server.name},
            "recovery_model": self.database.recovery_model,
            "owner": self.database.owner,
        } | history_facts(self, clock)
