"""One database: identity, state, files, log and what its backups have made of it."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from .clock import ServerClock, last_tick, on_datetime_grid
from .errors import SqlError
from .store import Commit, LogHead, LogRecord, Operation, TableColumn, TableKey, Tables, User

if TYPE_CHECKING:
    from .instance import Instance, Login

STATES = {
    "ONLINE": 0, "RESTORING": 1, "RECOVERING": 2, "RECOVERY_PENDING": 3, "SUSPECT": 4,
    "EMERGENCY": 5, "OFFLINE": 6,
}  # fmt: skip
MODELS = {"FULL": 1, "BULK_LOGGED": 2, "SIMPLE": 3}


@dataclass(slots=True)
class DatabaseFile:
    """``kind``: D data, L log, S filestream. Sizes in 8 KB pages."""

    file_id: int
    kind: str
    logical_name: str
    physical_name: str
    pages: int
    filegroup: str | None
    guid: UUID = field(default_factory=uuid.uuid4)
    create_lsn: int = 0
    max_pages: int = -1


@dataclass(frozen=True, slots=True)
class DifferentialBase:
    lsn: int
    guid: UUID
    time: datetime


@dataclass(slots=True)
class Redo:
    """How far a database that is being restored has been rolled forward."""

    lsn: int
    fork: UUID
    time: datetime | None
    stopped: bool = False
    full_only: bool = True
    base: DifferentialBase | None = None
    base_model: str = "FULL"
    chain: bool = True
    after_tail: bool = False
    after_error: bool = False
    interrupted: UUID | None = None


@dataclass(slots=True)
class Transaction:
    number: int
    name: str | None = None
    mark: str | None = None
    begun: int | None = None
    operations: list[Operation] = field(default_factory=list)
    bulk: bool = False


class Database:
    """State and log of one database. Every method expects the instance's lock to be held."""

    def __init__(
        self,
        name: str,
        database_id: int,
        clock: ServerClock,
        files: list[DatabaseFile],
        *,
        model: str = "FULL",
        collation: str = "SQL_Latin1_General_CP1_CI_AS",
        compatibility: int = 160,
    ) -> None:
        self.name = name
        self.database_id = database_id
        self.clock = clock
        self.files = files
        self.collation = collation
        self.compatibility = compatibility
        self.create_date = on_datetime_grid(clock.local())
        self.owner = "sa"
        self.state = "ONLINE"
        self.recovery_model = model
        self.user_access = "MULTI_USER"
        self.is_read_only = False
        self.standby_file: str | None = None
        self.tde_thumbprint: bytes | None = None
        self.is_damaged = False
        self.source_database_id: int | None = None
        self.group: str | None = None

        self.family_guid = uuid.uuid4()
        self.database_guid = uuid.uuid4()
        self.fork = uuid.uuid4()
        self.log_fork = self.fork
        self.fork_point: int | None = None

        self.head = LogHead()
        self.tables = Tables()
        self.log: list[LogRecord] = []
        self.log_from = self.head.lsn
        self.holds: list[int] = []
        self.transactions: dict[int, Transaction] = {}
        self.next_transaction = 1
        self.commits: list[Commit] = []

        self.last_log_backup_lsn: int | None = None
        self.chain_begins = False
        self.bulk_commits: list[int] = []
        self.differential_base: DifferentialBase | None = None
        self.database_backup_lsn: int | None = None
        self.redo: Redo | None = None
        self.filler_bytes = 0

        self.data_backup_on: tuple[Instance | None, int] = (None, 0)
        self.log_backup_on: tuple[Instance | None, int] = (None, 0)
        self.single_user_session: int | None = None

    @property
    def data_backup_by(self) -> int | None:
        """The session that takes a full or differential now."""
        instance, number = self.data_backup_on
        return None if instance is None else number

    @property
    def log_backup_by(self) -> int | None:
        """The session that backs up the log now."""
        instance, number = self.log_backup_on
        return None if instance is None else number

    def __repr__(self) -> str:
        return f"Database({self.name!r}, {self.state}, {self.recovery_model})"

    @property
    def users(self) -> dict[str, User]:
        """Users by name in small letters; part of what is backed up."""
        return self.tables.users

    @users.setter
    def users(self, users: dict[str, User]) -> None:
        self.tables.users = users

    @contextmanager
    def changed_users(self) -> Iterator[dict[str, User]]:
        """Users to change, in one logged transaction."""
        users = copy.deepcopy(self.users)
        yield users
        if users == self.users:
            return
        transaction = self.begin()
        self.change(transaction, Operation("users", ("", ""), values=(users,)))
        self.commit(transaction)

    def user_of(self, login: Login) -> User | None:
        """The user that a login is here."""
        for user in self.users.values():
            same_name = user.login.lower() == login.name.lower()
            if user.sid == login.sid or (user.sid is None and same_name):
                return user
        return None

    @property
    def is_encrypted(self) -> bool:
        """Whether TDE is on: with the thumbprint of its certificate."""
        return self.tde_thumbprint is not None

    @property
    def is_system(self) -> bool:
        return self.database_id <= 4

    # the log -----------------------------------------------------------------------------------
    def write(self, kind: str, transaction: int = 0, **parts: Any) -> LogRecord:
        """Append a record and keep the tables up to date."""
        record = LogRecord(self.head.take(), kind, transaction, **parts)
        self.log.append(record)
        self.tables.redo(record)
        return record

    def checkpoint(self) -> int:
        """Write a checkpoint and return its LSN; in SIMPLE (and in FULL without a first full) the
        log is truncated by it ([D] "The Transaction Log", Log truncation)."""
        self.head.flush()
        record = self.write("checkpoint", time=last_tick(self.clock.local()))
        self.head.flush()
        if self.last_log_backup_lsn is None:
            self.truncate(record.lsn)
        return record.lsn

    def truncate(self, before: int) -> None:
        """Forget records that nothing needs: not an open transaction, not a running backup."""
        oldest = self.tables.oldest_open()
        keep = min([before, *self.holds, *([oldest] if oldest is not None else [])])
        self.log = [record for record in self.log if record.lsn >= keep]
        self.log_from = max(self.log_from, keep)
        self.bulk_commits = [lsn for lsn in self.bulk_commits if lsn >= keep]

    def records(self, first: int, last: int) -> list[LogRecord]:
        """The records of ``[first, last)``."""
        if first < self.log_from:
            raise AssertionError(f"log of {self.name} before {self.log_from} is gone: {first}")
        return [record for record in self.log if first <= record.lsn < last]

    # transactions ------------------------------------------------------------------------------
    def begin(self, name: str | None = None, mark: str | None = None) -> Transaction:
        transaction = Transaction(self.next_transaction, name, mark)
        self.next_transaction += 1
        self.transactions[transaction.number] = transaction
        return transaction

    def change(self, transaction: Transaction, operation: Operation) -> None:
        if transaction.begun is None:
            begin = self.write("begin", transaction.number, time=last_tick(self.clock.local()))
            transaction.begun = begin.lsn
        self.write("change", transaction.number, operation=operation)
        transaction.operations.append(operation)

    def commit(self, transaction: Transaction) -> LogRecord | None:
        self.transactions.pop(transaction.number, None)
        if transaction.begun is None:
            return None
        mark = transaction.name if transaction.mark is not None else None
        time = last_tick(self.clock.local())
        record = self.write("commit", transaction.number, time=time, mark=mark)
        self.head.flush()
        self.commits.append(
            Commit(self.clock.utc(), time, record.lsn, tuple(transaction.operations))
        )
        if transaction.bulk and self.recovery_model == "BULK_LOGGED":
            self.bulk_commits.append(record.lsn)
        return record

    def rollback(self, transaction: Transaction) -> None:
        self.transactions.pop(transaction.number, None)
        if transaction.begun is not None:
            self.write("abort", transaction.number)
            self.head.flush()

    # recovery model and identity ---------------------------------------------------------------
    def set_recovery_model(self, model: str) -> None:
        """To SIMPLE the log chain ends; it begins again with the next data backup ([D] "View or
        Change the Recovery Model")."""
        if model == "SIMPLE" and self.recovery_model != "SIMPLE":
            self.last_log_backup_lsn = None
            self.chain_begins = False
        self.recovery_model = model
        self.write("other")
        self.head.flush()

    @property
    def is_chain_running(self) -> bool:
        return self.recovery_model != "SIMPLE" and self.last_log_backup_lsn is not None

    def allocated_pages(self) -> int:
        """Pages of a full backup; small databases have about this many in the captures."""
        return 320 + self.tables.row_count() + self.filler_bytes // 8192

    # convenience for tests ---------------------------------------------------------------------
    def create_table(self, name: str, columns: Sequence[TableColumn]) -> None:
        key: TableKey = ("dbo", name.lower())
        transaction = self.begin()
        self.change(
            transaction, Operation("create", key, columns=tuple(columns), name=f"dbo.{name}")
        )
        self.commit(transaction)

    def require_open(self) -> None:
        """SqlError 927, 942 or 926 unless rows can be read."""
        if self.state == "ONLINE" or self.state == "EMERGENCY" or self.standby_file:
            return
        if self.state == "RESTORING":
            raise SqlError(
                927,
                f"Database '{self.name}' cannot be opened. It is in the middle of a restore.",
                14,
                2,
            )
        if self.state == "OFFLINE":
            raise SqlError(
                942, f"Database '{self.name}' cannot be opened because it is offline.", 14, 4
            )
        if self.state == "SUSPECT":
            raise SqlError(
                926,
                f"Database '{self.name}' cannot be opened. It has been marked SUSPECT by recovery. "
                "See the SQL Server errorlog for more information.",
                14,
            )
        raise SqlError(
            922,
            f"Database '{self.name}' is being recovered. Waiting until recovery is finished.",
            14,
        )
