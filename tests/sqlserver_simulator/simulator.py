"""The simulator as tests hold it: an instance, its endpoint in a thread, and shortcuts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from .availability import AvailabilityGroup
from .clock import on_datetime_grid
from .database import Database
from .endpoint import Endpoint
from .events import Errors, Pause, ResultSet
from .instance import Instance, Login, Unknowns
from .session import Session
from .store import Commit, Tables


class SimulatorError(Exception):
    """A statement of ``Simulator.execute`` failed; ``numbers`` of all its messages."""

    def __init__(self, numbers: list[int], texts: list[str]) -> None:
        self.numbers = numbers
        self.texts = texts
        super().__init__(f"{numbers}: {texts}")


class Simulator:
    """A SQL Server that is not one, on a local port.

    ``folders`` maps folders as the server names them to real ones, such as
    ``{"/var/opt/mssql/backup": tmp_path}``. Use as a context manager, or ``start`` and ``stop``.
    """

    def __init__(
        self,
        folders: Mapping[str, Path] | None = None,
        *,
        year: int = 2022,
        server_name: str = "SIMULATOR",
        edition: str = "Developer Edition (64-bit)",
        platform: str = "Linux",
        zone: str = "UTC",
        sa_password: str = "Str0ng!Passw0rd",
        s3_endpoints: Mapping[str, str] | None = None,
        unknowns: Unknowns | None = None,
        collation: str = "SQL_Latin1_General_CP1_CI_AS",
        tls: str = "off",
        port: int = 0,
    ) -> None:
        self.instance = Instance(
            year=year, server_name=server_name, edition=edition, platform=platform, zone=zone,
            folders=folders, sa_password=sa_password, s3_endpoints=s3_endpoints, unknowns=unknowns,
            collation=collation,
        )  # fmt: skip
        self.host = "127.0.0.1"
        self.port = port
        self.sa_password = sa_password
        self._tls = tls
        self.certificate: bytes | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: asyncio.Server | None = None
        self.endpoint: Endpoint | None = None

    # running -----------------------------------------------------------------------------------
    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Simulator:
        """Listen; returns once connections are accepted."""
        ready = threading.Event()
        failure: list[BaseException] = []
        context = None
        if self._tls != "off":
            from .certificates import server_context

            context, self.certificate = server_context(self.host)
        self.endpoint = Endpoint(self.instance, tls=self._tls, context=context)

        async def serve() -> None:
            assert self.endpoint is not None
            self._loop = asyncio.get_running_loop()
            self._server = await asyncio.start_server(self.endpoint.serve, self.host, self.port)
            self.port = self._server.sockets[0].getsockname()[1]
            self._stopping = asyncio.Event()
            ready.set()
            await self._stopping.wait()
            self._server.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        def body() -> None:
            try:
                asyncio.run(serve())
            except BaseException as error:
                failure.append(error)
                ready.set()

        self._thread = threading.Thread(target=body, name="sqlserver-simulator", daemon=True)
        self._thread.start()
        ready.wait()
        if failure:
            raise failure[0]
        return self

    def stop(self) -> None:
        """Stop listening, cut all connections, join the thread."""
        if self._thread is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()
        self._thread = None

    # shortcuts ---------------------------------------------------------------------------------
    @property
    def clock(self) -> Any:
        return self.instance.clock

    @property
    def faults(self) -> Any:
        return self.instance.faults

    @property
    def lock(self) -> threading.RLock:
        return self.instance.lock  # type: ignore[return-value]

    def database(self, name: str) -> Database:
        return self.instance.database(name)

    def create_database(
        self,
        name: str,
        *,
        model: str = "FULL",
        rows: Sequence[str] = (),
        filler_bytes: int = 0,
    ) -> Database:
        """A database with a table dbo.t (id identity, v nvarchar(100)) holding ``rows``.
        ``filler_bytes`` of incompressible data make its backups that large."""
        with self.lock:
            database = self.instance.create_database(name, model=model, filler_bytes=filler_bytes)
            self.execute(
                f"CREATE TABLE {quoted(name)}.dbo.t (id int IDENTITY PRIMARY KEY, v nvarchar(100))"
            )
            if rows:
                self.insert(name, *rows)
            return database

    def insert(self, database: str, *values: str) -> None:
        """One committed transaction that adds rows to dbo.t, at the server's clock."""
        with self.lock:
            rows = ", ".join("(N'" + value.replace("'", "''") + "')" for value in values)
            self.execute(f"INSERT INTO {quoted(database)}.dbo.t (v) VALUES {rows}")

    def rows(self, database: str, table: str = "t") -> list[str]:
        """The values of dbo.t (or of the last column of another table), in order of insertion."""
        result = self.execute(f"SELECT * FROM {quoted(database)}.dbo.{quoted(table)} ORDER BY 1")
        return [row[-1] for row in result]

    def create_login(
        self,
        name: str,
        password: str,
        *,
        roles: Iterable[str] = (),
        permissions: Iterable[str] = (),
    ) -> Login:
        """A SQL login with server roles and server permissions."""
        with self.lock:
            login = Login(name, password, set(roles), set(permissions))
            self.instance.logins[name.lower()] = login
            return login

    def execute(self, sql: str, *, login: str = "sa", database: str = "master") -> list[Any]:
        """Run a batch without the wire; rows of its last result. SimulatorError where it fails."""
        with self.lock:
            instance = self.instance
            session = Session(instance, instance.logins[login], 0)
            session.database = instance.database(database)
            rows: list[Any] = []
            numbers: list[int] = []
            texts: list[str] = []
            for event in session.run(sql):
                if isinstance(event, ResultSet):
                    rows = list(event.rowset.rows)
                elif isinstance(event, Errors):
                    numbers += [message.number for message in event.messages]
                    texts += [message.text for message in event.messages]
                elif isinstance(event, Pause):
                    raise AssertionError(f"{sql!r} would wait; run it over a connection")
            session.roll_back()
            if numbers:
                raise SimulatorError(numbers, texts)
            return rows

    def bulk_insert(self, database: str, *values: str) -> None:
        """A minimally logged load into dbo.t (only under BULK_LOGGED does it mark the log)."""
        from .statements import insert_rows

        with self.lock:
            target = self.instance.database(database)
            session = Session(self.instance, self.instance.logins["sa"], 0)
            table = target.tables.data["dbo", "t"]
            rows = [(value,) for value in values]
            insert_rows(session, target, ("dbo", "t"), table, ("v",), rows, bulk=True)

    def commits(self, database: str) -> list[Commit]:
        """Every transaction committed in a database since it was made, in order."""
        with self.lock:
            return list(self.instance.database(database).commits)

    def rows_at(self, database: str, moment: datetime) -> list[str]:
        """What dbo.t held at an aware instant, by the true history and without any backup."""
        tables = Tables()
        for commit in self.commits(database):
            if commit.utc <= moment:
                for operation in commit.operations:
                    tables.apply(operation, commit.lsn)
        table = tables.data.get(("dbo", "t"))
        return [table.rows[number][-1] for number in sorted(table.rows)] if table else []

    def snapshot_backup(self, database: str, *, copy_only: bool = False) -> None:
        """A full backup by another tool through VSS: it moves the differential base unless it is
        copy-only, and msdb shows a virtual device with a GUID for a name."""
        with self.lock:
            self.execute(
                f"BACKUP DATABASE {quoted(database)} TO DISK = N'NUL'"
                + (" WITH COPY_ONLY" if copy_only else "")
            )
            self.instance.history.mark_last_as_snapshot()

    def group(
        self, name: str, databases: Sequence[str], others: Sequence[Simulator] = (), **parts: Any
    ) -> AvailabilityGroup:
        """Put databases into an availability group of which this instance is the primary; the
        others get the same databases as secondaries. ``preference`` as in the group's option. One
        lock guards all of them from now on: do this before anything is running."""
        replicas = [self.instance, *(other.instance for other in others)]
        group = AvailabilityGroup(name, replicas, self.instance, **parts)
        for replica in replicas:
            replica.groups[name] = group
            replica.lock = self.instance.lock
            for each in databases:
                shared = self.instance.database(each)
                shared.group = name
                replica.databases[replica.key(each)] = shared
                if replica is not self.instance:
                    # A secondary is made by a restore.
                    replica.history.record_restore(
                        date=on_datetime_grid(replica.clock.local()),
                        database=shared.name,
                        user="sa",
                        set_number=0,
                        kind="D",
                    )
        return group

    def sessions(self) -> list[int]:
        """Numbers of the sessions that are connected."""
        with self.lock:
            return sorted(self.instance.sessions)

    def kill(self, session: int) -> bool:
        with self.lock:
            return self.instance.kill(session)


def quoted(name: str) -> str:
    """A name in brackets."""
    return "[" + name.replace("]", "]]") + "]"
