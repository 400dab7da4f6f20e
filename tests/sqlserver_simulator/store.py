"""The embedded store: tables with real rows, and the log records that rebuild them.

Pages and extents are not modelled. A row remembers the LSN of the commit that last changed it, a
removed row leaves a tombstone, and that is all that a differential needs to know.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from .sqltypes import SqlType

TableKey = tuple[str, str]


@dataclass(frozen=True, slots=True)
class TableColumn:
    name: str
    type: SqlType
    identity: bool = False
    nullable: bool = True


@dataclass(slots=True)
class User:
    """A user of one database. It belongs to the login whose ``sid`` it carries, on whatever server
    the database lies; where that is None, to the login of that name."""

    name: str
    login: str
    sid: UUID | None = None
    roles: set[str] = field(default_factory=set)
    permissions: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Operation:
    """A change: create, drop (the table), put or remove (one row), users (all of them, anew)."""

    verb: str
    table: TableKey
    row: int = 0
    values: tuple[Any, ...] = ()
    columns: tuple[TableColumn, ...] = ()
    name: str = ""


@dataclass(frozen=True, slots=True)
class LogRecord:
    """``kind``: begin, change, commit, abort, checkpoint or other. A commit carries the server's
    wall clock on the 1/300 s grid, which is all that STOPAT can see."""

    lsn: int
    kind: str
    transaction: int = 0
    operation: Operation | None = None
    time: datetime | None = None
    mark: str | None = None


@dataclass(frozen=True, slots=True)
class Commit:
    """What really happened, for tests to compare with: ``utc`` is true time of the server's clock,
    ``local`` what the log record says."""

    utc: datetime
    local: datetime
    lsn: int
    operations: tuple[Operation, ...]


@dataclass(slots=True)
class TableData:
    name: str
    columns: tuple[TableColumn, ...]
    created: int
    rows: dict[int, tuple[Any, ...]] = field(default_factory=dict)
    changed: dict[int, int] = field(default_factory=dict)
    removed: dict[int, int] = field(default_factory=dict)
    next_row: int = 1


@dataclass(slots=True)
class Tables:
    """All tables of one database, as committed, and the transactions still open."""

    data: dict[TableKey, TableData] = field(default_factory=dict)
    dropped: dict[TableKey, int] = field(default_factory=dict)
    open: dict[int, list[LogRecord]] = field(default_factory=dict)
    users: dict[str, User] = field(default_factory=dict)

    def redo(self, record: LogRecord) -> None:
        """Apply one record; changes appear with their commit."""
        if record.kind == "begin":
            self.open[record.transaction] = [record]
        elif record.kind == "change":
            self.open[record.transaction].append(record)
        elif record.kind == "abort":
            self.open.pop(record.transaction, None)
        elif record.kind == "commit":
            for change in self.open.pop(record.transaction):
                if change.operation is not None:
                    self.apply(change.operation, record.lsn)

    def undo_open(self) -> None:
        """What recovery does to transactions without a commit."""
        self.open.clear()

    def oldest_open(self) -> int | None:
        """LSN at which the oldest open transaction began."""
        return min((records[0].lsn for records in self.open.values()), default=None)

    def apply(self, operation: Operation, lsn: int) -> None:
        key = operation.table
        if operation.verb == "users":
            self.users = copy.deepcopy(operation.values[0])
            return
        if operation.verb == "create":
            self.data[key] = TableData(operation.name, operation.columns, lsn)
            self.dropped.pop(key, None)
            return
        if operation.verb == "drop":
            self.data.pop(key, None)
            self.dropped[key] = lsn
            return
        table = self.data.get(key)
        if table is None:
            return  # the table was dropped by a transaction that committed earlier
        if operation.verb == "put":
            table.rows[operation.row] = operation.values
            table.changed[operation.row] = lsn
            table.removed.pop(operation.row, None)
            table.next_row = max(table.next_row, operation.row + 1)
        else:
            table.rows.pop(operation.row, None)
            table.changed.pop(operation.row, None)
            table.removed[operation.row] = lsn

    def copy(self) -> Tables:
        return copy.deepcopy(self)

    def with_changes(self, operations: Iterable[Operation]) -> Tables:
        """What a session sees whose own transaction is still open."""
        seen = self.copy()
        for operation in operations:
            seen.apply(operation, 0)
        return seen

    def since(self, lsn: int) -> Tables:
        """Only what changed at or after ``lsn``: the content of a differential."""
        part = Tables(dropped={k: at for k, at in self.dropped.items() if at >= lsn})
        part.open = copy.deepcopy(self.open)
        part.users = copy.deepcopy(self.users)
        for key, table in self.data.items():
            rows = {row: at for row, at in table.changed.items() if at >= lsn}
            removed = {row: at for row, at in table.removed.items() if at >= lsn}
            if rows or removed or table.created >= lsn:
                part.data[key] = TableData(
                    table.name,
                    table.columns,
                    table.created,
                    {row: table.rows[row] for row in rows},
                    rows,
                    removed,
                    table.next_row,
                )
        return part

    def overlay(self, part: Tables) -> None:
        """Lay a differential over its base."""
        for key, at in part.dropped.items():
            self.data.pop(key, None)
            self.dropped[key] = at
        for key, new in part.data.items():
            table = self.data.get(key)
            if table is None or table.created != new.created:
                self.data[key] = copy.deepcopy(new)
                self.dropped.pop(key, None)
                continue
            for row in new.removed:
                table.rows.pop(row, None)
                table.changed.pop(row, None)
            table.removed.update(new.removed)
            table.rows.update(new.rows)
            table.changed.update(new.changed)
            table.next_row = max(table.next_row, new.next_row)
        self.open = copy.deepcopy(part.open)
        self.users = copy.deepcopy(part.users)

    def row_count(self) -> int:
        return sum(len(table.rows) for table in self.data.values())


@dataclass(slots=True)
class LogHead:
    """Where the next record goes: virtual log file, block, slot ([D] "SQL Server Transaction Log
    Architecture"; numeric(25,0) = file, 10 digits of block, 5 of slot)."""

    file: int = 34
    block: int = 160
    slot: int = 1

    @property
    def lsn(self) -> int:
        return self.file * 10**15 + self.block * 10**5 + self.slot

    def take(self) -> int:
        lsn = self.lsn
        self.slot += 1
        return lsn

    def flush(self) -> None:
        """End the block; nothing moves when nothing was written."""
        if self.slot == 1:
            return
        self.block += 8 * (1 + self.slot // 4)
        self.slot = 1
        if self.block > 200_000:
            self.file, self.block = self.file + 1, 16
