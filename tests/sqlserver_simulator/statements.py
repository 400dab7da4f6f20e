"""Every statement that is neither a query, a backup nor a restore."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import administration as admin
from . import principals, procedures
from . import syntax as s
from .database import Database
from .errors import Message, SqlError, not_modelled
from .events import Done, Events, Info, Pause
from .expressions import Scope
from .store import Operation, TableColumn, TableData, TableKey
from .values import convert, to_text

if TYPE_CHECKING:
    from .session import Session

_COMMANDS: dict[type, int] = {
    s.SelectStatement: 193, s.Insert: 195, s.Delete: 196, s.Update: 197, s.CreateTable: 198,
    s.DropTable: 199, s.CreateDatabase: 203, s.AlterDatabase: 215, s.Use: 226, s.Dbcc: 230,
    s.Kill: 243, s.SetOption: 249, s.Execute: 224, s.Checkpoint: 237,
}  # fmt: skip
_TRANSACTION = {"BEGIN": 212, "COMMIT": 213, "ROLLBACK": 210, "SAVE": 211}


def command_of(statement: s.Statement, error: SqlError | None = None) -> int:
    """CurCmd of a DONE. Names that cannot be resolved fail at compile time (253, captured for
    DROP DATABASE of a system database)."""
    if error is not None and error.number in {207, 208, 209, 3708, 4104}:
        return 253
    if isinstance(statement, s.Backup):
        return 228 if statement.kind == "DATABASE" else 235
    if isinstance(statement, s.Restore):
        return {
            "DATABASE": 229, "LOG": 236, "HEADERONLY": 250, "FILELISTONLY": 376, "LABELONLY": 375,
            "VERIFYONLY": 377,
        }[statement.kind]  # fmt: skip
    if isinstance(statement, s.Transaction):
        return _TRANSACTION[statement.action]
    return _COMMANDS.get(type(statement), 193)


def run(session: Session, statement: s.Statement) -> Events:
    """One statement and its DONE, where it has one."""
    handler = _HANDLERS.get(type(statement))
    if handler is None:
        raise not_modelled(type(statement).__name__)
    yield from handler(session, statement)


def _transaction(session: Session, statement: s.Transaction) -> Events:
    if statement.action == "BEGIN":
        session.begin(statement.name, statement.mark)
    elif statement.action == "COMMIT":
        session.commit()
    elif statement.action == "ROLLBACK":
        if not session.in_transaction:
            raise SqlError(
                3903, "The ROLLBACK TRANSACTION request has no corresponding BEGIN TRANSACTION."
            )
        session.roll_back()
    yield Done(_TRANSACTION[statement.action])


def _set_option(session: Session, statement: s.SetOption) -> Events:
    first = statement.words[0].upper()
    value = statement.words[-1]
    if first == "LOCK_TIMEOUT":
        session.lock_timeout = None if int(value) < 0 else int(value) / 1000
    elif first == "LANGUAGE":
        if value.lower() not in {"us_english", "english"}:
            raise not_modelled(f"SET LANGUAGE {value}")
    elif first == "DATEFORMAT":
        if value.lower() != "mdy":
            raise not_modelled(f"SET DATEFORMAT {value}")
    elif first == "IMPLICIT_TRANSACTIONS":
        session.implicit_transactions = value.upper() == "ON"
    yield Done(249)


def _declare(session: Session, statement: s.Declare) -> Events:
    for name, kind, value in statement.variables:
        if name.lower() in session.variables:
            raise SqlError(
                134,
                f"The variable name '{name}' has already been declared. Variable names must be "
                "unique within a query batch or stored procedure.",
                15,
                2,
            )
        session.variables[name.lower()] = (kind, None)
        if value is not None:
            session.set_variable(name, session.evaluate(value))
    yield from ()


def _set_variable(session: Session, statement: s.SetVariable) -> Events:
    session.set_variable(statement.name, session.evaluate(statement.value))
    yield from ()


def _print(session: Session, statement: s.Print) -> Events:
    text = session.evaluate(statement.text)
    yield Info(Message(0, to_text(text) if text is not None else " ", 0))
    yield Done(247)


def _raise(session: Session, statement: s.Raise) -> Events:
    text = to_text(session.evaluate(statement.text))
    severity = int(session.evaluate(statement.severity))
    state = int(session.evaluate(statement.state))
    if severity > 10:
        raise SqlError(50000, text, severity, state)
    yield Info(Message(50000, text, severity, state))
    yield Done(246)


def _wait(session: Session, statement: s.WaitFor) -> Events:
    waited = 0.0
    while waited < statement.seconds:
        step = min(0.02, statement.seconds - waited)
        waited += step
        yield Pause(step)
        session.require_alive()
    yield Done(248)


def _checkpoint(session: Session, statement: s.Checkpoint) -> Events:
    session.database.checkpoint()
    yield Done(237)


# rows ------------------------------------------------------------------------------------------
def target_of(session: Session, parts: tuple[str, ...]) -> tuple[Database, TableKey]:
    """The database and table that a name means; the database must be writable."""
    database = session.database
    if len(parts) > 2 and parts[-3]:
        database = session.instance.database(parts[-3])
    from .permissions import require_open

    require_open(session, database)
    database.require_open()
    schema = parts[-2] if len(parts) > 1 and parts[-2] else "dbo"
    return database, (schema.lower(), parts[-1].lower())


def _require_writable(session: Session, database: Database) -> None:
    group = session.instance.group_of(database)
    secondary = group is not None and not group.is_primary(session.instance)
    if database.is_read_only or database.standby_file or secondary:
        raise SqlError(
            3906, f'Failed to update database "{database.name}" because the database is read-only.'
        )


def table_in(session: Session, database: Database, key: TableKey, parts: Any) -> TableData:
    """A table as the session sees it: committed rows and its own."""
    tables = database.tables
    own = session.transactions.get(session.instance.key(database.name))
    if own is not None and own[1].operations:
        tables = tables.with_changes(own[1].operations)
    found = tables.data.get(key)
    if found is None:
        raise SqlError(208, f"Invalid object name '{'.'.join(parts)}'.")
    return found


def _write(
    session: Session, database: Database, operations: list[Operation], *, bulk: bool
) -> None:
    """In the session's transaction, or in one of its own."""
    if session.implicit_transactions and not session.in_transaction:
        session.begin()
    if session.in_transaction:
        transaction = session.transaction_in(database)
        for operation in operations:
            database.change(transaction, operation)
        transaction.bulk = transaction.bulk or bulk
        return
    transaction = database.begin()
    for operation in operations:
        database.change(transaction, operation)
    transaction.bulk = bulk
    database.commit(transaction)


def _create_table(session: Session, statement: s.CreateTable) -> Events:
    database, key = target_of(session, statement.parts)
    _require_writable(session, database)
    if key in database.tables.data:
        raise SqlError(
            2714,
            f"There is already an object named '{statement.parts[-1]}' in the database.",
            16,
            6,
        )
    columns = tuple(TableColumn(*each) for each in statement.columns)
    name = f"{key[0]}.{statement.parts[-1]}"
    _write(session, database, [Operation("create", key, columns=columns, name=name)], bulk=False)
    yield Done(198)


def _drop_table(session: Session, statement: s.DropTable) -> Events:
    database, key = target_of(session, statement.parts)
    _require_writable(session, database)
    if key not in database.tables.data and not statement.if_exists:
        raise SqlError(
            3701,
            f"Cannot drop the table '{'.'.join(statement.parts)}', because it does not exist or "
            "you do not have permission.",
            11,
            5,
        )
    if key in database.tables.data:
        _write(session, database, [Operation("drop", key)], bulk=False)
    yield Done(199)


def _insert(session: Session, statement: s.Insert) -> Events:
    database, key = target_of(session, statement.parts)
    _require_writable(session, database)
    table = table_in(session, database, key, statement.parts)
    if statement.query is not None:
        rows = list(session.runner.run(statement.query).rows)
    else:
        rows = [tuple(session.evaluate(each) for each in row) for row in statement.rows]
    count = insert_rows(session, database, key, table, statement.columns, rows)
    session.row_count = count
    yield Done(195, count)


def insert_rows(
    session: Session,
    database: Database,
    key: TableKey,
    table: TableData,
    names: tuple[str, ...],
    rows: list[tuple[Any, ...]],
    *,
    bulk: bool = False,
) -> int:
    """Put rows into a table; identity columns count by themselves."""
    order = [each.name.lower() for each in table.columns]
    given = [name.lower() for name in names] or [
        each.name.lower() for each in table.columns if not each.identity
    ]
    for name in given:
        if name not in order:
            raise SqlError(207, f"Invalid column name '{name}'.")
    operations = []
    for offset, row in enumerate(rows):
        if len(row) != len(given):
            raise SqlError(
                213, "Column name or number of supplied values does not match table definition."
            )
        number = table.next_row + offset
        values = []
        for column in table.columns:
            if column.name.lower() in given:
                value = row[given.index(column.name.lower())]
                values.append(convert(value, column.type))
            else:
                values.append(number if column.identity else None)
            if values[-1] is None and not column.nullable:
                raise SqlError(
                    515,
                    f"Cannot insert the value NULL into column '{column.name}', table "
                    f"'{database.name}.{table.name}'; column does not allow nulls. INSERT fails.",
                    16,
                    2,
                )
        operations.append(Operation("put", key, number, tuple(values)))
    _write(session, database, operations, bulk=bulk)
    return len(operations)


def _rows_where(
    session: Session, table: TableData, where: s.Expression | None, alias: str
) -> list[int]:
    from .sqltypes import Column

    scope = Scope([(alias, Column(each.name, each.type)) for each in table.columns], None)
    test = session.compiler.compile(where, scope).value if where is not None else None
    return [
        number
        for number, row in table.rows.items()
        if test is None or test((row, None, None)) is True
    ]


def _update(session: Session, statement: s.Update) -> Events:
    from .sqltypes import Column

    database, key = target_of(session, statement.parts)
    _require_writable(session, database)
    table = table_in(session, database, key, statement.parts)
    scope = Scope(
        [(statement.parts[-1], Column(each.name, each.type)) for each in table.columns], None
    )
    order = [each.name.lower() for each in table.columns]
    changes = []
    for name, expression in statement.assignments:
        if name.lower() not in order:
            raise SqlError(207, f"Invalid column name '{name}'.")
        changes.append((order.index(name.lower()), session.compiler.compile(expression, scope)))
    operations = []
    for number in _rows_where(session, table, statement.where, statement.parts[-1]):
        row = table.rows[number]
        values = list(row)
        for index, compiled in changes:
            values[index] = convert(compiled.value((row, None, None)), table.columns[index].type)
        operations.append(Operation("put", key, number, tuple(values)))
    _write(session, database, operations, bulk=False)
    session.row_count = len(operations)
    yield Done(197, len(operations))


def _delete(session: Session, statement: s.Delete) -> Events:
    if [part.lower() for part in statement.parts[:-1]] in ([], ["dbo"], ["msdb", "dbo"]) and (
        statement.parts[-1].lower() in {"backupset", "backupfile", "restorehistory"}
    ):
        raise not_modelled("DELETE from msdb's history (use sp_delete_backuphistory)")
    database, key = target_of(session, statement.parts)
    _require_writable(session, database)
    table = table_in(session, database, key, statement.parts)
    found = _rows_where(session, table, statement.where, statement.parts[-1])
    _write(session, database, [Operation("remove", key, number) for number in found], bulk=False)
    session.row_count = len(found)
    yield Done(196, len(found))


def select_into(session: Session, query: s.Query, into: tuple[str, ...]) -> Events:
    """SELECT INTO: minimally logged under BULK_LOGGED ([D] "The Transaction Log", minimally logged
    operations)."""
    database, key = target_of(session, into)
    _require_writable(session, database)
    rowset = session.runner.run(query)
    columns = tuple(TableColumn(each.name, each.type) for each in rowset.columns)
    name = f"{key[0]}.{into[-1]}"
    operations = [Operation("create", key, columns=columns, name=name)]
    operations += [
        Operation("put", key, number, row) for number, row in enumerate(rowset.rows, start=1)
    ]
    _write(session, database, operations, bulk=True)
    yield Done(193, len(rowset.rows))


_HANDLERS: dict[type, Any] = {
    s.Transaction: _transaction, s.SetOption: _set_option, s.Declare: _declare,
    s.SetVariable: _set_variable, s.Print: _print, s.Raise: _raise, s.WaitFor: _wait,
    s.Checkpoint: _checkpoint, s.CreateTable: _create_table, s.DropTable: _drop_table,
    s.Insert: _insert, s.Update: _update, s.Delete: _delete,
    s.CreateDatabase: admin.create_database, s.AlterDatabase: admin.alter_database,
    s.DropDatabase: admin.drop_database, s.Kill: admin.kill, s.Dbcc: admin.dbcc,
    s.Credential: principals.credential, s.Principal: principals.principal,
    s.Permission: principals.permission,
    s.AlterAuthorization: principals.alter_authorization, s.Execute: procedures.procedure,
}  # fmt: skip
