"""The server instance: settings, databases, logins, msdb history, sessions."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from .availability import AvailabilityGroup
from .clock import ServerClock
from .database import Database, DatabaseFile
from .errors import SqlError
from .faults import Faults
from .history import History
from .versions import VERSIONS, Version

if TYPE_CHECKING:
    from .session import Session


@dataclass(slots=True)
class Login:
    """A SQL login. ``roles``: server roles; ``permissions``: server permissions granted."""

    name: str
    password: str
    roles: set[str] = field(default_factory=set)
    permissions: set[str] = field(default_factory=set)
    is_disabled: bool = False
    sid: uuid.UUID = field(default_factory=uuid.uuid4)


@dataclass(slots=True)
class StoredCredential:
    credential_id: int
    name: str
    identity: str
    secret: str
    create_date: datetime


@dataclass(frozen=True, slots=True)
class Unknowns:
    """What nobody has measured on a real server; tests run the engine against both answers.

    done_per_message: DONE(MORE) after every message, as captured (False: one DONE at the end).
    empty_log_restores: a log with last_lsn equal to the restored position is applied (False: 4326).
    commit_at_stop_is_kept: a commit at exactly the STOPAT instant is applied.
    warning_4322_comes_last: 4322 after 3014 (False: before the first 4035).
    first_log_after_differential_begins_chain: begins_log_chain after SIMPLE, FULL, differential.
    plain_recovery_forks: RESTORE ... WITH RECOVERY of a data backup alone begins a new fork.
    recovery_after_tail_forks: RESTORE ... WITH RECOVERY straight after BACKUP LOG WITH NORECOVERY
    begins a new fork ([D] "Recovery Paths": no new path where nothing was left out).
    status_of_restoring_is_null: sys.database_recovery_status shows NULLs for a database that is
    restoring ([D]: NULL where the database will not start).
    status_of_secondary: what sys.database_recovery_status shows for a secondary database: the
    same as on the primary ("live"), where the last log backup on this very server ended ("old"), or
    NULLs ("null").
    zone_of_data_backups: what HEADERONLY shows as TimeZone of full and differential sets (garbage
    such as 0, 64 and 120 was seen).
    """

    done_per_message: bool = True
    empty_log_restores: bool = True
    commit_at_stop_is_kept: bool = True
    warning_4322_comes_last: bool = False
    first_log_after_differential_begins_chain: bool = True
    plain_recovery_forks: bool = True
    recovery_after_tail_forks: bool = False
    status_of_restoring_is_null: bool = False
    status_of_secondary: str = "live"
    zone_of_data_backups: int = 64


class Instance:
    """All state of one simulated server. ``lock`` guards it; the endpoint takes it for every step
    of a statement, the Python API for every call."""

    def __init__(
        self,
        *,
        year: int = 2022,
        server_name: str = "SIMULATOR",
        edition: str = "Developer Edition (64-bit)",
        platform: str = "Linux",
        zone: str = "UTC",
        folders: Mapping[str, Path] | None = None,
        sa_password: str = "Str0ng!Passw0rd",
        s3_endpoints: Mapping[str, str] | None = None,
        unknowns: Unknowns | None = None,
        collation: str = "SQL_Latin1_General_CP1_CI_AS",
    ) -> None:
        self.collation = collation
        self.lock = threading.RLock()
        self.version: Version = VERSIONS[year]
        self.server_name = server_name
        self.machine_name = server_name.split("\\")[0]
        self.edition = edition
        self.platform = platform
        self.clock = ServerClock(zone)
        self.unknowns = unknowns or Unknowns()
        windows = platform == "Windows"
        root = (
            f"C:\\Program Files\\Microsoft SQL Server\\MSSQL{self.version.major}.MSSQLSERVER\\MSSQL"
        )
        self.data_path = f"{root}\\DATA\\" if windows else "/var/opt/mssql/data/"
        self.backup_path = f"{root}\\Backup" if windows else "/var/opt/mssql/data"
        self.folders: dict[str, Path] = dict(folders or {})
        self.data_folders: set[str] = set()
        self.s3_endpoints: dict[str, str] = dict(s3_endpoints or {})
        self.faults = Faults()
        self.history = History(self)
        self.configuration: dict[str, int] = {
            "backup compression default": 0,
            "backup checksum default": 0,
            "backup compression algorithm": 0,
            "show advanced options": 0,
            "max server memory (MB)": 2147483647,
        }
        self.logins: dict[str, Login] = {"sa": Login("sa", sa_password, {"sysadmin"})}
        self.credentials: dict[str, StoredCredential] = {}
        self.certificates: dict[str, bytes] = {}
        self.sessions: dict[int, Session] = {}
        self.groups: dict[str, AvailabilityGroup] = {}
        self.next_session = 51
        self.error_log: list[str] = []
        self.statements: list[str] = []
        self.databases: dict[str, Database] = {}
        self._next_database = 5
        self._create_system_databases()

    def __repr__(self) -> str:
        return (
            f"Instance({self.server_name!r}, {self.version.year}, {len(self.databases)} databases)"
        )

    def _create_system_databases(self) -> None:
        system = (
            (1, "master", "master", "mastlog", "SIMPLE"),
            (2, "tempdb", "tempdev", "templog", "SIMPLE"),
            (3, "model", "modeldev", "modellog", "FULL"),
            (4, "msdb", "MSDBData", "MSDBLog", "SIMPLE"),
        )
        for number, name, data, log, model in system:
            stem = {"model": "model", "msdb": "MSDBData"}.get(name, data)
            limit = 268435456 if name == "msdb" else -1
            files = [
                DatabaseFile(1, "D", data, f"{self.data_path}{stem}.mdf", 1024, "PRIMARY"),
                DatabaseFile(2, "L", log, f"{self.data_path}{log}.ldf", 256, None, max_pages=limit),
            ]
            self.databases[name] = Database(
                name, number, self.clock, files, model=model,
                compatibility=self.version.compatibility,
            )  # fmt: skip

    # databases ---------------------------------------------------------------------------------
    def key(self, name: str) -> str:
        """A database's name as the server's collation tells it apart from others."""
        return name if "_CS" in self.collation else name.lower()

    def find(self, name: str) -> Database | None:
        return self.databases.get(self.key(name))

    def database(self, name: str) -> Database:
        """SqlError 911 where there is none."""
        found = self.find(name)
        if found is None:
            raise SqlError(
                911,
                f"Database '{name}' does not exist. Make sure that the name is entered correctly.",
                16,
                11,
            )
        return found

    def by_id(self, number: int) -> Database | None:
        for database in self.databases.values():
            if database.database_id == number:
                return database
        return None

    def new_database_id(self) -> int:
        used = {database.database_id for database in self.databases.values()}
        number = 5
        while number in used:
            number += 1
        return number

    def create_database(
        self, name: str, *, model: str | None = None, collation: str | None = None,
        filler_bytes: int = 0,
    ) -> Database:  # fmt: skip
        """CREATE DATABASE with the default files; the recovery model comes from model."""
        if self.key(name) in self.databases:
            raise SqlError(
                1801, f"Database '{name}' already exists. Choose a different database name.", 16, 3
            )
        files = [
            DatabaseFile(1, "D", name, f"{self.data_path}{name}.mdf", 1024, "PRIMARY"),
            DatabaseFile(
                2, "L", f"{name}_log", f"{self.data_path}{name}_log.ldf", 1024, None,
                max_pages=268435456,
            ),
        ]  # fmt: skip
        for file in files:
            self.require_free_path(file.physical_name)
        database = Database(
            name, self.new_database_id(), self.clock, files,
            model=model or self.databases["model"].recovery_model,
            collation=collation or self.collation,
            compatibility=self.version.compatibility,
        )  # fmt: skip
        database.filler_bytes = filler_bytes
        database.checkpoint()
        self.databases[self.key(name)] = database
        return database

    def is_same_path(self, one: str, other: str) -> bool:
        """Linux tells paths apart by case."""
        return one == other or (self.platform == "Windows" and one.lower() == other.lower())

    def file_owner(self, path: str, *, but: Database | None = None) -> Database | None:
        """The database that uses a physical file."""
        for database in self.databases.values():
            if database is not but and any(
                self.is_same_path(file.physical_name, path) for file in database.files
            ):
                return database
        return None

    def require_free_path(self, path: str) -> None:
        if self.file_owner(path) is not None:
            raise SqlError(
                5170,
                f"Cannot create file '{path}' because it already exists. Change the file path or "
                "the file name, and retry the operation.",
            )

    def database_guid(self, database: Database) -> uuid.UUID:
        """What identifies the files of a database here."""
        group = self.group_of(database)
        return database.database_guid if group is None else group.database_guid(self, database)

    def group_of(self, database: Database) -> AvailabilityGroup | None:
        return self.groups.get(database.group) if database.group else None

    # sessions ----------------------------------------------------------------------------------
    def users_of(self, database: Database, *, but: Session | None = None) -> list[Session]:
        return [
            session
            for session in self.sessions.values()
            if session is not but and session.database is database
        ]

    def kill(self, number: int) -> bool:
        """End a session; False where there is none."""
        session = self.sessions.get(number)
        if session is None:
            return False
        session.kill()
        return True
