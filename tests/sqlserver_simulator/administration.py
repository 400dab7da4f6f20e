"""Databases, KILL and DBCC."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from . import permissions
from . import syntax as s
from .database import Database, DatabaseFile
from .errors import Message, SqlError, not_modelled
from .events import Done, Events, Info, Pause

if TYPE_CHECKING:
    from .session import Session


def create_database(session: Session, statement: s.CreateDatabase) -> Events:
    instance = session.instance
    if not permissions.has_server(session, "CREATE ANY DATABASE"):
        raise SqlError(262, "CREATE DATABASE permission denied in database 'master'.", 14)
    if statement.snapshot_of is not None:
        source = instance.database(statement.snapshot_of)
        snapshot = Database(
            statement.name, instance.new_database_id(), instance.clock, [],
            model=source.recovery_model, collation=source.collation,
        )  # fmt: skip
        snapshot.source_database_id = source.database_id
        snapshot.is_read_only = True
        snapshot.tables = source.tables.copy()
        instance.databases[instance.key(statement.name)] = snapshot
    else:
        created = instance.create_database(statement.name, collation=statement.collation)
        created.owner = session.login.name
        with created.changed_users() as users:
            users.update(copy.deepcopy(instance.databases["model"].users))
    yield Done(203)


def alter_database(session: Session, statement: s.AlterDatabase) -> Events:
    instance = session.instance
    name = session.database.name if statement.name.upper() == "CURRENT" else statement.name
    database = instance.find(name)
    if database is None or not permissions.can_alter_database(session, database):
        raise SqlError(
            5011,
            f"User does not have permission to alter database '{name}', the database does not "
            "exist, or the database is not in a state that allows access checks.",
            14,
            5,
        ).followed_by(Message(5069, "ALTER DATABASE statement failed."))
    if statement.action == "MODIFY NAME":
        new = statement.values["name"]
        if instance.find(new) is not None:
            raise SqlError(
                1801, f"Database '{new}' already exists. Choose a different database name.", 16, 3
            )
        if instance.users_of(database, but=session):
            raise SqlError(
                5030,
                "The database could not be exclusively locked to perform the operation.",
                16,
                2,
            )
        del instance.databases[instance.key(database.name)]
        database.name = new
        instance.databases[instance.key(new)] = database
        yield Info(Message(5021, f"The database name '{new}' has been set.", 10))
    elif statement.action in {"ADD FILE", "ADD LOG FILE"}:
        _add_file(session, database, statement)
    elif statement.action == "SET":
        yield from _set(session, database, list(statement.words))
    else:
        raise not_modelled(f"ALTER DATABASE {statement.action}")
    yield Done(215)


def _add_file(session: Session, database: Database, statement: s.AlterDatabase) -> None:
    if database.data_backup_by is not None:
        raise SqlError(
            3023,
            "Backup, file manipulation operations (such as ALTER DATABASE ADD FILE) and encryption "
            "changes on a database must be serialized. Reissue the statement after the current "
            "backup or file manipulation operation is completed.",
            16,
            2,
        )
    values = statement.values
    session.instance.require_free_path(values["filename"])
    log = statement.action == "ADD LOG FILE"
    record = database.write("other")
    database.files.append(
        DatabaseFile(
            max(file.file_id for file in database.files) + 1,
            "L" if log else "D",
            values["name"],
            values["filename"],
            1024,
            None if log else values.get("filegroup", "PRIMARY"),
            create_lsn=record.lsn,
        )
    )
    database.head.flush()


def _set(session: Session, database: Database, words: list[str]) -> Events:
    first = words[0]
    if first == "RECOVERY":
        if words[1] not in {"FULL", "SIMPLE", "BULK_LOGGED"}:
            raise SqlError(102, f"Incorrect syntax near '{words[1]}'.", 15)
        if database.name == "tempdb":
            raise SqlError(5058, "Option 'RECOVERY' cannot be set in database 'tempdb'.", 16, 4)
        database.require_open()
        database.set_recovery_model(words[1])
        return
    if first in {"SINGLE_USER", "RESTRICTED_USER", "MULTI_USER", "OFFLINE", "READ_ONLY", "ONLINE",
                 "READ_WRITE", "EMERGENCY"}:  # fmt: skip
        if database.is_system and first in {"OFFLINE", "SINGLE_USER", "READ_ONLY"}:
            raise SqlError(
                5058, f"Option '{first}' cannot be set in database '{database.name}'.", 16, 2
            )
        yield from _throw_out(session, database, first, words[1:])
    if first in {"SINGLE_USER", "RESTRICTED_USER", "MULTI_USER"}:
        if database.state == "RESTORING":
            raise SqlError(
                5052,
                "ALTER DATABASE is not permitted while a database is in the Restoring state.",
            ).followed_by(Message(5069, "ALTER DATABASE statement failed."))
        database.user_access = first
        database.single_user_session = session.number if first == "SINGLE_USER" else None
    elif first == "OFFLINE":
        if database.state == "RESTORING":
            raise SqlError(
                5052,
                "ALTER DATABASE is not permitted while a database is in the Restoring state.",
            ).followed_by(Message(5069, "ALTER DATABASE statement failed."))
        database.state = "OFFLINE"
    elif first == "EMERGENCY":
        database.state = "EMERGENCY"
    elif first == "ONLINE":
        if database.state == "RESTORING":
            raise SqlError(
                5052,
                "ALTER DATABASE is not permitted while a database is in the Restoring state.",
            ).followed_by(Message(5069, "ALTER DATABASE statement failed."))
        database.state = "SUSPECT" if database.is_damaged else "ONLINE"
    elif first in {"READ_ONLY", "READ_WRITE"}:
        database.is_read_only = first == "READ_ONLY"
    elif first == "COMPATIBILITY_LEVEL":
        database.compatibility = int(words[1])
    elif first in {"SUSPEND_FOR_SNAPSHOT_BACKUP", "HADR"} or first not in _HARMLESS:
        raise not_modelled(f"ALTER DATABASE SET {first}")


_HARMLESS = frozenset(
    [
        "AUTO_CLOSE",
        "AUTO_SHRINK",
        "AUTO_CREATE_STATISTICS",
        "AUTO_UPDATE_STATISTICS",
        "PAGE_VERIFY",
        "TRUSTWORTHY",
        "DB_CHAINING",
        "ENABLE_BROKER",
        "DISABLE_BROKER",
        "NEW_BROKER",
        "ALLOW_SNAPSHOT_ISOLATION",
        "READ_COMMITTED_SNAPSHOT",
        "QUERY_STORE",
        "TARGET_RECOVERY_TIME",
        "DELAYED_DURABILITY",
        "ACCELERATED_DATABASE_RECOVERY",
    ]
)


def _throw_out(session: Session, database: Database, option: str, words: list[str]) -> Events:
    """WITH ROLLBACK IMMEDIATE ends the other sessions; NO_WAIT refuses; without either it waits."""
    others = session.instance.users_of(database, but=session)
    if option in {"MULTI_USER", "ONLINE", "READ_WRITE", "EMERGENCY"} or not others:
        if database.single_user_session not in {None, session.number} and others:
            raise SqlError(
                5064,
                f"Changes to the state or options of database '{database.name}' cannot be made at "
                "this time. The database is in single-user mode, and a user is currently connected "
                "to it.",
            ).followed_by(Message(5069, "ALTER DATABASE statement failed."))
        return
    if "ROLLBACK" in words:
        for other in others:
            other.kill()
            other.database = session.instance.databases["master"]
        return
    if "NO_WAIT" in words:
        raise SqlError(
            5070,
            "Database state cannot be changed while other users are using the database "
            f"'{database.name}'",
            16,
            2,
        ).followed_by(Message(5069, "ALTER DATABASE statement failed."))
    while session.instance.users_of(database, but=session):
        session.require_alive()
        yield Pause(0.02)


def drop_database(session: Session, statement: s.DropDatabase) -> Events:
    instance = session.instance
    for name in statement.names:
        database = instance.find(name)
        if database is None:
            if statement.if_exists:
                continue
            raise SqlError(
                3701,
                f"Cannot drop the database '{name}', because it does not exist or you do not have "
                "permission.",
                11,
            )
        if database.is_system:
            raise SqlError(
                3708,
                f"Cannot drop the database '{database.name}' because it is a system database.",
                16,
                4,
            )
        allowed = permissions.has_server(session, "ALTER ANY DATABASE") or (
            "db_owner" in permissions.database_roles(session, database)
        )
        if not allowed:
            raise SqlError(
                3701,
                f"Cannot drop the database '{name}', because it does not exist or you do not have "
                "permission.",
                11,
            )
        busy = database.data_backup_by is not None or database.log_backup_by is not None
        if instance.users_of(database) or busy:
            raise SqlError(
                3702,
                f'Cannot drop database "{database.name}" because it is currently in use.',
                16,
                3,
            )
        del instance.databases[instance.key(database.name)]
    yield Done(204)


def kill(session: Session, statement: s.Kill) -> Events:
    instance = session.instance
    if not permissions.has_server(session, "ALTER ANY CONNECTION"):
        raise SqlError(6102, "User does not have permission to use the KILL statement.", 14)
    if statement.session == session.number:
        raise SqlError(6104, "Cannot use KILL to kill your own process.")
    if statement.status_only:
        raise SqlError(
            6120,
            f"Status report cannot be obtained. Rollback operation for Process ID "
            f"{statement.session} is not in progress.",
        )
    if not instance.kill(statement.session):
        raise SqlError(6106, f"Process ID {statement.session} is not an active process ID.", 16, 2)
    yield Done(243)


def dbcc(session: Session, statement: s.Dbcc) -> Events:
    if statement.command == "TRACEON" or statement.command == "TRACEOFF":
        yield Info(_dbcc_done())
        yield Done(230)
        return
    if statement.command == "DBINFO":
        raise not_modelled("DBCC DBINFO")
    if statement.command != "CHECKDB":
        raise not_modelled(f"DBCC {statement.command}")
    name = statement.arguments[0] if statement.arguments else session.database.name
    database = (
        session.instance.by_id(int(name)) if name.isdigit() else session.instance.database(name)
    )
    assert database is not None
    roles = permissions.database_roles(session, database)
    if not roles & {"db_owner"}:
        raise SqlError(7983, f"User '{session.login.name}' does not have permission to run DBCC "
                       f"checkdb for database '{database.name}'.", 14, 35)  # fmt: skip
    database.require_open()
    if database.is_damaged:
        file = database.files[0].physical_name
        raise SqlError(
            8939,
            "Table error: Object ID 245575913, index ID 1, partition ID 72057594043236352, alloc "
            "unit ID 72057594050117632 (type In-row data), page (1:153). Test (IS_OFF (BUF_IOERR, "
            "pBUF->bstat)) failed. Values are 2057 and -4.",
            16,
            98,
        ).followed_by(
            Message(
                8990,
                f"CHECKDB found 0 allocation errors and 1 consistency errors in database "
                f"'{database.name}'.",
                10,
            ),
            Message(
                8958,
                f"repair_allow_data_loss is the minimum repair level for the errors found by DBCC "
                f"CHECKDB ({database.name}). {file}",
                10,
            ),
        )
    if "NO_INFOMSGS" not in statement.options:
        yield Info(
            Message(
                8989,
                "CHECKDB found 0 allocation errors and 0 consistency errors in database "
                f"'{database.name}'.",
                10,
            )
        )
        yield Info(_dbcc_done())
    yield Done(230)


def _dbcc_done() -> Message:
    return Message(
        2528,
        "DBCC execution completed. If DBCC printed error messages, contact your system "
        "administrator.",
        10,
    )
