"""Taking one backup of one database: look, take, check what was written, ship.

What the server says before is only a first look: what decides is the header of the set that was
written, compared with what it has to continue. A set that does not is never a recovery point.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlbak.engines.port import BackupResult, PayloadSink
from sqlbak.engines.sqlserver.address import ServerAddress
from sqlbak.engines.sqlserver.connection import Session
from sqlbak.engines.sqlserver.databases import Database, read_databases
from sqlbak.engines.sqlserver.delivery import (
    BackupFiles,
    DiskFolder,
    database_key,
    stream_names,
    stripe_count,
)
from sqlbak.engines.sqlserver.foreign import msdb_row, restore_marker, restore_named, restored_at
from sqlbak.engines.sqlserver.groups import Member, View, gather
from sqlbak.engines.sqlserver.headers import BackupHeader
from sqlbak.engines.sqlserver.logend import await_log, end_of_log
from sqlbak.engines.sqlserver.routes import route_of
from sqlbak.engines.sqlserver.rows import document_of, text
from sqlbak.engines.sqlserver.server import Clock, Server, read_clock, read_server
from sqlbak.engines.sqlserver.statements import BackupStatement
from sqlbak.engines.sqlserver.taking import (
    TakenSet,
    execute_backup,
    is_backup_running,
    read_set,
)
from sqlbak.errors import (
    BackupFailed,
    BackupPaused,
    LogChainBroken,
    LogRewritten,
    ServerNotReady,
    ServerRefused,
    ServerUnreachable,
    SqlbakError,
)
from sqlbak.model import Fork, PointType
from sqlbak.progress import Progress
from sqlbak.stopping import StopSignal

__all__ = ["CLOCK_GRAIN", "Backing", "ReplicaPlace", "Source", "WrittenSet", "new_token"]

CLOCK_GRAIN: Final = timedelta(milliseconds=20)
"""A transaction's commit time is from a coarser clock than SYSUTCDATETIME: on a grid of 3.33 ms,
and up to 16 ms late on older versions."""

_DESCRIPTION: Final = "sqlbak taken after "
_UNKNOWN_END: Final = 10**25
"""Behind every position in a log."""


@dataclass(frozen=True, slots=True)
class ReplicaPlace:
    """One server of the instance's availability groups, under its own name, and the folder that
    its backups go through."""

    name: str
    address: ServerAddress
    folder: DiskFolder


@dataclass(frozen=True, slots=True)
class Source:
    """One database and how its backups are taken.

    Attributes:
        replicas: the servers of its availability group, where it may be in one.
        compression: auto, none, ms_xpress or zstd.
        stripes: files for each full and differential; None: by size.
        family: the database that is meant; another one under its name is refused. None: whichever.
    """

    address: ServerAddress
    folder: DiskFolder
    database: str
    compression: str = "auto"
    stripes: int | None = None
    family: str | None = None
    replicas: tuple[ReplicaPlace, ...] = ()

    @property
    def where(self) -> str:
        """Server and database, for people."""
        return f"{self.address.where}/{self.database}"

    @property
    def members(self) -> tuple[Member, ...]:
        """The servers to ask about groups."""
        return tuple(Member(one.name, one.address) for one in self.replicas)

    def on(self, view: View) -> Source:
        """The same as it is taken on that server: directly, not through a listener that may lead
        elsewhere the next time."""
        names = (view.server.name.lower(), view.member.name.lower())
        place = next((one for one in self.replicas if one.name.lower() in names), None)
        if place is None:
            return self
        return replace(self, address=place.address, folder=place.folder)


@dataclass(frozen=True, slots=True)
class WrittenSet:
    """A whole backup set on its files. ``began`` is the clock of the server that writes the log
    before its statement; ``ended`` after it (None: not known, as it was an earlier run that took
    it). ``covers``: it holds all that was committed by ``began``."""

    files: BackupFiles
    taken: TakenSet
    began: Clock
    ended: Clock | None
    covers: bool = True


def new_token(now: datetime) -> str:
    """Part of a backup set's name and of its files' names, unlike any other."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(5)}"


@dataclass(frozen=True, slots=True)
class _Writer:
    """The primary, where the backup is taken on another replica: its clock is in the log."""

    session: Session
    server: Server
    database_id: int


@dataclass(slots=True)
class Backing:
    """A session with the server for one backup; made by ``open``.

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
    writer: _Writer | None = None
    notes: list[str] = field(default_factory=list)

    @classmethod
    @contextmanager
    def open(
        cls,
        source: Source,
        progress: Progress,
        stop: StopSignal,
        *,
        kind: PointType = PointType.FULL,
    ) -> Iterator[Backing]:
        """Connect and look: to the server that backups of that kind are taken on. ServerNotReady
        when the database is not there, or not the one meant, or has no primary; BackupPaused when
        no server may take it."""
        if not source.replicas:
            with _at(source, stop) as (session, server):
                database = find_database(session, server, source, stop=stop)
                paused = database.paused()
                backing = cls(source, session, server, database, progress, stop, source, paused)
                with _closing(backing):
                    yield backing
            return
        gathered = gather(source.address, source.members, name=source.database, stop=stop)
        route = route_of(gathered, source.database)
        if route is None:
            raise _missing(source)
        if route.problem is not None:
            raise ServerNotReady(f"{source.where}: {route.problem.what}", hint=route.problem.remedy)
        view = route.log if kind is PointType.LOG else route.primary
        if view is None or route.primary is None:
            raise BackupPaused(f"{source.where}: {route.paused.get(kind) or 'no server takes it'}")
        here = source.on(view)
        with ExitStack() as stack:
            session, server = stack.enter_context(_at(here, stop))
            own = find_database(session, server, here, stop=stop)
            told = route.database
            _require_meant(source, told)
            writer = None
            if view is not route.primary:
                opened = stack.enter_context(_at(source.on(route.primary), stop))
                writer = _Writer(*opened, told.database_id)
            database = told if own.replica is None else replace(told, replica=own.replica)
            backing = cls(
                here, session, server, database, progress, stop, source, route.paused, writer
            )
            if kind is PointType.LOG:
                backing.notes += route.notes
            stack.enter_context(_closing(backing))
            yield backing

    @contextmanager
    def siblings(self) -> Iterator[tuple[list[Backing], list[str]]]:
        """The same at every other replica that answers, and the names of those that do not."""
        found: list[Backing] = []
        silent: list[str] = []
        with ExitStack() as stack:
            for place in self.home.replicas if self.database.replica is not None else ():
                if place.address == self.source.address:
                    continue
                there = replace(self.home, address=place.address, folder=place.folder)
                try:
                    session, server = stack.enter_context(_at(there, self.stop))
                except (ServerUnreachable, ServerRefused):
                    silent.append(place.name)
                    continue
                if server.name == self.server.name:
                    continue
                writer: _Writer | None = self.writer or _Writer(
                    self.session, self.server, self.database.database_id
                )
                if writer.server.name == server.name:
                    writer = None
                found.append(
                    replace(self, source=there, session=session, server=server, writer=writer)
                )
            yield found, silent

    @contextmanager
    def historians(self) -> Iterator[list[tuple[str, Session]]]:
        """Sessions with every replica that answers, by the server's name: each one's msdb tells
        what was done there only."""
        with self.siblings() as (others, _silent):
            yield [(one.server.name, one.session) for one in (self, *others)]

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

    def leftovers(self, kinds: Sequence[PointType]) -> list[BackupFiles]:
        """What earlier runs left of the database in this server's folder, oldest first."""
        folder = self.source.folder
        return [files for key in self.keys for files in folder.leftovers(key, kinds)]

    def has_leftovers(self, kinds: Sequence[PointType]) -> bool:
        """Whether there are any here, or in the folder of another replica."""
        folders = [self.source.folder]
        if self.database.replica is not None:
            folders += [one.folder for one in self.home.replicas]
        return any(folder.leftovers(key, kinds) for folder in folders for key in self.keys)

    def clear(self, *kinds: PointType) -> None:
        """Delete what crashed runs left of those kinds. BackupFailed while one of them still runs
        on a server."""
        if not self.has_leftovers(kinds):
            return
        with self.siblings() as (others, _silent):
            for place in (*others, self):
                leftovers = place.leftovers(kinds)
                self.require_quiet(leftovers, others)
                for files in leftovers:
                    files.remove()
                    self.notes.append(f"removed what an earlier run left: {files.local[0].name}")

    def require_quiet(
        self, leftovers: Sequence[BackupFiles], others: Sequence[Backing] = ()
    ) -> None:
        """BackupFailed while a backup of an earlier run that left files is still running."""
        for place in (self, *others):
            if any(
                is_backup_running(place.session, one.token, stop=self.stop) for one in leftovers
            ):
                raise BackupFailed(
                    f"{place.source.where}: an earlier backup still runs on the server",
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
        end = self._end_of_log()
        token = new_token(began.utc)
        count = stripe_count(self.database.size_bytes, source.stripes)
        files = source.folder.files(self.key, kind, token, 1 if kind is PointType.LOG else count)
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
            + ("" if self.writer is None else f" {end or _UNKNOWN_END}"),
            # TDE before 2019 compresses only with more than 64 KB a transfer.
            max_transfer_bytes=131072
            if self.database.is_encrypted and self.server.major < 15
            else None,
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
        covers = self.writer is None or (end is not None and taken.header.last_lsn > end)
        if kind is PointType.LOG and not covers:
            self.notes.append(
                f"{self.server.name} is behind the primary, or it cannot be told how far it is: "
                "this log proves no instant yet, the next one does"
            )
        return WrittenSet(files, taken, began, ended, covers)

    def _end_of_log(self) -> int | None:
        """Where the primary's log ends, once this replica has it too, if it comes in time."""
        if self.writer is None:
            return None
        end = end_of_log(self.writer.session, self.writer.database_id, stop=self.stop)
        if end is not None:
            await_log(self.session, self.source.database, end, stop=self.stop)
        return end

    def _require_same_server(self) -> None:
        """BackupFailed when the address leads to another server since the connection was lost."""
        now = read_server(self.session, stop=self.stop)
        if now.name != self.server.name:
            raise BackupFailed(
                f"{self.source.where}: {self.server.name} was lost while it took the backup, and "
                f"{now.name} answers there now",
                hint="the next run takes it there",
            )

    def written_before(self, files: BackupFiles) -> WrittenSet | None:
        """A log backup that an earlier run took and did not ship; None when it is not whole."""
        taken = read_set(self.session, files, stop=self.stop)
        if taken is None:
            return None
        header = taken.header
        if files.token not in header.name or not header.description.startswith(_DESCRIPTION):
            return None
        try:
            self._check(header, files.type, files.token)
            instant, minutes, *ends = header.description.removeprefix(_DESCRIPTION).split(" ")
            began = Clock(datetime.fromisoformat(instant), int(minutes), None)
            covers = not ends or header.last_lsn > int(ends[0])
        except (SqlbakError, ValueError):
            return None
        return WrittenSet(files, taken, began, None, covers)

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
                f"{written.files.local[0]}: {total} bytes were read, but the server wrote "
                f"{written.taken.header.stored_bytes}",
                hint="delivery.disk: server_path and local_path must be the same folder",
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
            after_commit=written.files.remove,
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
            "streams": list(stream_names(len(written.files.local))),
            "delivery": "disk",
            "server": self.server.document(own)
            | {"name": text(taken.header_row, "ServerName") or self.server.name},
            "recovery_model": self.database.recovery_model,
            "owner": self.database.owner,
        } | self._history_facts(clock)

    def _history_facts(self, clock: Clock) -> dict[str, Any]:
        """By what it is known later whose the log's times are, and whether the database was
        restored since."""
        found: dict[str, Any] = {}
        if self.database.replica is not None:
            found["availability_group"] = {
                "database": self.database.replica.database_id,
                "is_primary": self.writer is None,
            }
        if self.writer is not None:
            # Its own msdb tells of how it was made a replica, which changed nothing.
            found["log_clock"] = {
                "server": self.writer.server.name,
                "utc_offset_minutes": clock.utc_offset_minutes,
                "time_zone": clock.time_zone,
            }
            return found
        database = self.source.database
        return found | {
            "restore_history_id": restore_marker(self.session, database, stop=self.stop),
            "restored_at": restored_at(self.session, database, stop=self.stop),
        }

    def require_same_history(self, facts: Mapping[str, Any] | None, what: str) -> None:
        """LogRewritten when the whole database was restored since the recovery point with those
        facts, and goes on under the same recovery fork: positions mean another history now."""
        if facts is None or "restore_history_id" not in facts:
            return
        if facts.get("server", {}).get("name") != self.server.name:
            return  # msdb is another replica's
        replica = self.database.replica
        known = facts.get("availability_group", {}).get("database")
        if replica is not None and known == replica.database_id:
            return  # no database of a group is restored; its copies are made anew at times
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
        raise _missing(source)
    _require_meant(source, found[0])
    return found[0]


def _missing(source: Source) -> ServerNotReady:
    return ServerNotReady(
        f"{source.address.where}: there is no database {source.database!r} (any more), or the "
        "login may not see it",
        hint="if it is there: GRANT VIEW ANY DATABASE TO [login]",
    )


def _require_meant(source: Source, database: Database) -> None:
    if source.family is not None and database.family not in (None, source.family):
        raise ServerNotReady(
            f"{source.where}: another database took its place meanwhile",
            hint="run again: it is backed up as a new item",
        )


@contextmanager
def _at(source: Source, stop: StopSignal) -> Iterator[tuple[Session, Server]]:
    """A session with the server of ``source``, closed at the end."""
    with Session.open(source.address, stop=stop) as session:
        yield session, read_server(session, stop=stop)


@contextmanager
def _closing(backing: Backing) -> Iterator[None]:
    """Close the session that took the place of a lost one."""
    first = backing.session
    try:
        yield
    finally:
        if backing.session is not first:
            backing.session.close()
