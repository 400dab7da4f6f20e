"""Who may do what ([D]: the Permissions section of each statement's page)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .database import Database
from .errors import Message, SqlError

if TYPE_CHECKING:
    from .session import Session

_IMPLIED = {
    "VIEW SERVER PERFORMANCE STATE": {"VIEW SERVER STATE"},
    "VIEW ANY DATABASE": {"VIEW ANY DEFINITION", "ALTER ANY DATABASE"},
    "CREATE ANY DATABASE": {"ALTER ANY DATABASE"},
}


def is_sysadmin(session: Session) -> bool:
    return "sysadmin" in session.login.roles


def has_server(session: Session, permission: str) -> bool:
    """A server permission, held through sysadmin, CONTROL SERVER, a role or another one."""
    login = session.login
    if "sysadmin" in login.roles or "CONTROL SERVER" in login.permissions:
        return True
    if permission in login.permissions:
        return True
    if any(has_server(session, wider) for wider in _IMPLIED.get(permission, ())):
        return True
    if "dbcreator" in login.roles and permission in {"CREATE ANY DATABASE", "ALTER ANY DATABASE"}:
        return True
    if "processadmin" in login.roles and permission in {
        "ALTER ANY CONNECTION", "VIEW SERVER STATE",
    }:  # fmt: skip
        return True
    if "securityadmin" in login.roles and permission == "ALTER ANY LOGIN":
        return True
    return permission == "VIEW ANY DATABASE" and "DENY VIEW ANY DATABASE" not in login.permissions


def is_owner(session: Session, database: Database) -> bool:
    return database.owner.lower() == session.login.name.lower()


def database_roles(session: Session, database: Database) -> set[str]:
    """Roles in a database; sysadmin and the owner are dbo."""
    if is_sysadmin(session) or is_owner(session, database):
        return {"db_owner"}
    user = database.user_of(session.login)
    return set(user.roles) if user else set()


def can_open(session: Session, database: Database) -> bool:
    """Whether the login has a user there (guest has in master, tempdb and msdb)."""
    if is_sysadmin(session) or is_owner(session, database):
        return True
    if database.user_of(session.login) is not None:
        return True
    return database.name in {"master", "tempdb", "msdb"}


def require_open(session: Session, database: Database) -> None:
    if not can_open(session, database):
        raise SqlError(
            916,
            f'The server principal "{session.login.name}" is not able to access the database '
            f'"{database.name}" under the current security context.',
            14,
        )


def require_backup(session: Session, database: Database, kind: str) -> None:
    """sysadmin, db_owner and db_backupoperator, or the permission granted in the database ([D]
    BACKUP, Permissions); 916 without a user, else 262."""
    require_open(session, database)
    if database_roles(session, database) & {"db_owner", "db_backupoperator"}:
        return
    user = database.user_of(session.login)
    if user and f"BACKUP {kind}" in user.permissions:
        return
    raise SqlError(262, f"BACKUP {kind} permission denied in database '{database.name}'.", 14)


def require_restore(session: Session, database: Database | None, name: str) -> None:
    """A database that is absent needs CREATE DATABASE; one that exists sysadmin, dbcreator or its
    owner, not db_owner members ([D] RESTORE, Permissions)."""
    if database is None:
        if not has_server(session, "CREATE ANY DATABASE"):
            raise SqlError(262, "CREATE DATABASE permission denied in database 'master'.", 14)
        return
    allowed = (
        is_sysadmin(session) or "dbcreator" in session.login.roles or is_owner(session, database)
    )
    if not allowed:
        raise SqlError(3110, f"User does not have permission to RESTORE database '{name}'.", 14)


def require_headers(session: Session) -> None:
    """HEADERONLY and its kin need CREATE DATABASE ([D], Permissions of each)."""
    if not has_server(session, "CREATE ANY DATABASE"):
        raise SqlError(262, "CREATE DATABASE permission denied in database 'master'.", 14)


def require_server(session: Session, permission: str) -> None:
    if not has_server(session, permission):
        raise SqlError(
            300, f"{permission} permission was denied on object 'server', database 'master'.", 14
        ).followed_by(Message(297, "The user does not have permission to perform this action."))


def require_msdb(session: Session, table: str) -> None:
    """Selecting from msdb's history needs a user there with SELECT or db_datareader."""
    if is_sysadmin(session):
        return
    msdb = session.instance.databases["msdb"]
    user = msdb.user_of(session.login)
    granted = user is not None and (
        user.roles & {"db_owner", "db_datareader"}
        or "SELECT" in user.permissions
        or f"SELECT ON {table}" in user.permissions
    )
    if not granted:
        raise SqlError(
            229,
            f"The SELECT permission was denied on the object '{table}', database 'msdb', schema "
            "'dbo'.",
            14,
            5,
        )


def can_alter_database(session: Session, database: Database) -> bool:
    return has_server(session, "ALTER ANY DATABASE") or "db_owner" in database_roles(
        session, database
    )
