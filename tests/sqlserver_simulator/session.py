"""One session: current database, options, transaction, and the running of its batches."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from . import backup, headers, permissions, restoring, statements
from . import syntax as s
from .catalog import Catalog
from .clock import WINDOWS_ZONES
from .database import Database, Transaction
from .devices import Place, absolute
from .errors import Dropped, Message, SqlError
from .events import Cut, Done, Environment, Errors, Event, Events, Info, Request, ResultSet, Scope
from .expressions import Compiler, Frame
from .expressions import Scope as ColumnScope
from .functions import ScalarFunctions
from .parser import parse
from .query import QueryRunner
from .sqltypes import Rowset, SqlType
from .values import convert

if TYPE_CHECKING:
    from .instance import Instance, Login

_KILLED = SqlError(
    596, "Cannot continue the execution because the session is in the kill state.", 21, 1,
    ends_session=True,
)  # fmt: skip
_COMPILE = 253


class Session:
    """A logged-in connection. Everything is called with the instance's lock held."""

    def __init__(self, instance: Instance, login: Login, number: int, host: str = "") -> None:
        self.instance = instance
        self.login = login
        self.number = number
        self.host = host
        self.database: Database = instance.databases["master"]
        self.language = "us_english"
        self.lock_timeout: float | None = None
        self.implicit_transactions = False
        self.depth = 0
        self.transactions: dict[str, tuple[Database, Transaction]] = {}
        self.transaction_name: tuple[str | None, str | None] = (None, None)
        self.variables: dict[str, tuple[SqlType, Any]] = {}
        self.row_count = 0
        self.last_error = 0
        self.is_killed = False
        self.on_kill: Callable[[], None] | None = None
        self.request: Request | None = None
        self.batch = ""
        self.started = instance.clock.local()
        self.functions = ScalarFunctions(self)
        self.catalog = Catalog(self)
        self.compiler = Compiler(self)
        self.runner = QueryRunner(self.compiler, self.catalog)

    # life --------------------------------------------------------------------------------------
    @property
    def in_transaction(self) -> bool:
        return self.depth > 0

    def kill(self) -> None:
        """KILL: the running statement ends with 596, an idle connection is closed."""
        self.is_killed = True
        if self.on_kill is not None:
            self.on_kill()

    def require_alive(self) -> None:
        if self.is_killed:
            raise SqlError(596, _KILLED.messages[0].text, 21, 1, ends_session=True)

    def close(self) -> None:
        """The connection is gone: what it had open is rolled back."""
        self.roll_back()
        if self.database.single_user_session == self.number:
            self.database.single_user_session = None
        self.request = None
        self.instance.sessions.pop(self.number, None)

    def enter(self, name: str) -> Database:
        """Make a database current. Errors 911, 916, 927 and their like."""
        database = self.instance.database(name)
        permissions.require_open(self, database)
        database.require_open()
        if (
            database.user_access == "SINGLE_USER"
            and database is not self.database
            and self.instance.users_of(database, but=self)
        ):
            raise SqlError(
                924,
                f"Database '{database.name}' is already open and can only have one user at a time.",
                14,
            )
        self.database = database
        return database

    # transactions ------------------------------------------------------------------------------
    def begin(self, name: str | None = None, mark: str | None = None) -> None:
        if self.depth == 0:
            self.transaction_name = (name, mark)
        self.depth += 1

    def commit(self) -> None:
        if self.depth == 0:
            raise SqlError(
                3902, "The COMMIT TRANSACTION request has no corresponding BEGIN TRANSACTION."
            )
        self.depth -= 1
        if self.depth == 0:
            for database, transaction in self.transactions.values():
                database.commit(transaction)
            self.transactions = {}

    def roll_back(self) -> None:
        self.depth = 0
        for database, transaction in self.transactions.values():
            database.rollback(transaction)
        self.transactions = {}

    def transaction_in(self, database: Database) -> Transaction:
        """The session's transaction in a database; begun on first use."""
        key = self.instance.key(database.name)
        if key not in self.transactions:
            self.transactions[key] = (database, database.begin(*self.transaction_name))
        return self.transactions[key][1]

    # expressions -------------------------------------------------------------------------------
    def evaluate(self, expression: s.Expression) -> Any:
        """The value of an expression without columns."""
        return self.compiler.constant(expression)

    def query(self, query: s.Query, outer: ColumnScope, frame: Frame) -> Rowset:
        return self.runner.run(query, outer, frame)

    def call(self, name: str, arguments: list[Any]) -> Any:
        return self.functions.call(name, arguments)

    def type_of(self, name: str, arguments: list[SqlType]) -> SqlType:
        return self.functions.type_of(name, arguments)

    def variable(self, name: str) -> tuple[SqlType, Callable[[], Any]]:
        if name.startswith("@@"):
            return self.functions.global_variable(name)
        if name.lower() not in self.variables:
            raise SqlError(137, f'Must declare the scalar variable "{name}".', 15, 2)
        key = name.lower()
        return self.variables[key][0], lambda: self.variables[key][1]

    def in_zone(self, moment: Any, zone: str) -> Any:
        """AT TIME ZONE: shift an offset time, or read a local one."""
        if moment is None:
            return None
        names = {windows: iana for iana, windows in WINDOWS_ZONES.items()}
        found = ZoneInfo(names.get(zone, "UTC" if zone.upper() == "UTC" else zone))
        value: datetime = moment
        return value.astimezone(found) if value.tzinfo else value.replace(tzinfo=found)

    def set_variable(self, name: str, value: Any) -> None:
        if name.lower() not in self.variables:
            raise SqlError(137, f'Must declare the scalar variable "{name}".', 15, 1)
        kind = self.variables[name.lower()][0]
        self.variables[name.lower()] = (kind, convert(value, kind))

    def place(self, device: s.Device) -> Place:
        """A device of a statement, resolved."""
        name = self.evaluate(device.where)
        if device.kind == "LOGICAL":
            raise SqlError(
                3206, f"Backup device '{name}' does not exist. To view existing backup devices, "
                "use the sys.backup_devices catalog view. To create a new backup device use either "
                "sp_addumpdevice or SQL Server Management Studio."
            )  # fmt: skip
        if device.kind == "DISK":
            name = str(name)
            keeps = not name or name.upper() == "NUL"
            return Place("DISK", name if keeps else absolute(self.instance, name))
        return Place(device.kind, str(name))

    # batches -----------------------------------------------------------------------------------
    def run(self, sql: str, variables: dict[str, tuple[SqlType, Any]] | None = None) -> Events:
        """Run a batch; every event of its reply, in order."""
        self.instance.statements.append(sql)
        self.batch = sql
        self.variables = dict(variables or {})
        try:
            yield from self._batch(sql)
        except Dropped:
            yield Cut()

    def _batch(self, sql: str) -> Events:
        try:
            self.require_alive()
            found = parse(sql)
        except SqlError as error:
            yield Errors(error.messages)
            yield Done(_COMPILE, failed=True)
            if error.ends_session:
                yield Cut()
            return
        yield from self._statements(found)

    def _statements(self, found: list[s.Statement] | tuple[s.Statement, ...]) -> Events:
        for statement in found:
            if isinstance(statement, s.Return):
                return
            failed = None
            try:
                yield from self.statement(statement)
                self.last_error = 0
            except SqlError as error:
                failed = error
            if failed is not None:
                self.last_error = failed.number
                yield Errors(failed.messages)
                yield Done(statements.command_of(statement, failed), failed=True)
                if failed.ends_session:
                    yield Cut()
                    return
                if failed.ends_batch or failed.messages[0].severity == 15:
                    return

    def statement(self, statement: s.Statement) -> Events:
        """One statement with its DONE; SqlError where it fails."""
        if isinstance(statement, s.Backup):
            yield from backup.run(self, statement)
            yield Done(backup.COMMAND[statement.kind])
        elif isinstance(statement, s.Restore) and statement.kind in restoring.COMMAND:
            yield from restoring.run(self, statement)
            yield Done(restoring.COMMAND[statement.kind])
        elif isinstance(statement, s.Restore):
            yield from headers.run(self, statement)
            yield Done(headers.COMMAND[statement.kind])
        elif isinstance(statement, s.SelectStatement):
            yield from self._select(statement.query)
        elif isinstance(statement, s.If):
            chosen = (
                statement.then
                if self.evaluate(statement.condition) is True
                else statement.otherwise
            )
            if chosen is not None:
                yield from self.statement(chosen)
        elif isinstance(statement, s.While):
            while self.evaluate(statement.condition) is True:
                yield from self.statement(statement.body)
        elif isinstance(statement, s.Block):
            yield from self._statements(statement.statements)
        elif isinstance(statement, s.TryCatch):
            yield from self._try(statement)
        elif isinstance(statement, s.Execute) and statement.text is not None:
            text = str(self.evaluate(statement.text))
            yield from self._dynamic(text)
        elif isinstance(statement, s.Use):
            yield from self._use(statement)
        else:
            yield from statements.run(self, statement)

    def _try(self, statement: s.TryCatch) -> Events:
        try:
            for each in statement.body:
                yield from self.statement(each)
        except SqlError as error:
            if error.ends_session:
                raise
            self.functions.caught = error.messages[-1]
            for each in statement.handler:
                yield from self.statement(each)

    def _dynamic(self, text: str) -> Events:
        before, outer = self.database, self.variables
        self.variables = {}
        yield Scope(begins=True)
        try:
            yield from self._statements(parse(text))
        finally:
            self.database, self.variables = before, outer
        yield Scope(begins=False)

    def _select(self, query: s.Query) -> Events:
        select = query.parts[0]
        if select.assigns:
            rowset = self.runner.run(query)
            for row in rowset.rows[-1:]:
                for name, value in zip(select.assigns, row, strict=True):
                    self.set_variable(name, value)
            self.row_count = len(rowset.rows)
            yield Done(193, self.row_count)
            return
        if select.into:
            yield from statements.select_into(self, query, select.into)
            return
        rowset = self.runner.run(query)
        self.row_count = len(rowset.rows)
        yield ResultSet(rowset)
        yield Done(193, self.row_count)

    def _use(self, statement: s.Use) -> Events:
        old = self.database.name
        database = self.enter(statement.database)
        yield Environment(1, database.name, old)
        text = f"Changed database context to '{database.name}'."
        yield Info(Message(5701, text, 10, 2))
        yield Done(226)


__all__ = ["Event", "Session"]
