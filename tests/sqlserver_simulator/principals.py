"""Credentials, logins, users, roles and what they are granted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import permissions
from . import syntax as s
from .errors import SqlError, not_modelled
from .events import Done, Events
from .instance import Login, StoredCredential
from .store import User

if TYPE_CHECKING:
    from .session import Session


_DATABASE_PERMISSIONS = frozenset(
    {"BACKUP DATABASE", "BACKUP LOG", "SELECT", "CONNECT", "VIEW DATABASE STATE"}
)


def credential(session: Session, statement: s.Credential) -> Events:
    instance = session.instance
    if not permissions.has_server(session, "ALTER ANY CREDENTIAL"):
        raise SqlError(15247, "User does not have permission to perform this action.")
    key = statement.name.lower()
    exists = key in instance.credentials
    if statement.action == "CREATE" and exists:
        raise SqlError(15530, f'The credential with name "{statement.name}" already exists.')
    if statement.action != "CREATE" and not exists:
        raise SqlError(
            15151,
            f"Cannot {statement.action.lower()} the credential '{statement.name}', because it does "
            "not exist or you do not have permission.",
        )
    if statement.action == "DROP":
        del instance.credentials[key]
    else:
        number = 65536 + len(instance.credentials)
        if exists:
            number = instance.credentials[key].credential_id
        instance.credentials[key] = StoredCredential(
            number, statement.name, statement.identity or "", statement.secret or "",
            instance.clock.local(),
        )  # fmt: skip
    yield Done(203)


def principal(session: Session, statement: s.Principal) -> Events:
    instance = session.instance
    action, name, values = statement.action, statement.name, statement.values
    if action.endswith("LOGIN") and not permissions.has_server(session, "ALTER ANY LOGIN"):
        raise SqlError(15247, "User does not have permission to perform this action.")
    if action == "CREATE LOGIN":
        if name.lower() in instance.logins:
            raise SqlError(15025, f"The server principal '{name}' already exists.")
        instance.logins[name.lower()] = Login(name, values.get("password", ""))
    elif action == "ALTER LOGIN":
        _login(session, name).password = values.get("password", _login(session, name).password)
    elif action == "DROP LOGIN":
        _login(session, name)
        del instance.logins[name.lower()]
    elif action.endswith("USER"):
        _change_user(session, action, name, values)
    elif action.endswith("MEMBER"):
        with session.database.changed_users() as users:
            roles = (
                _login(session, name).roles
                if values["level"] == "server"
                else _user(users, name).roles
            )
            (roles.add if action.startswith("ADD") else roles.discard)(values["role"].lower())
    else:
        raise not_modelled(action)
    yield Done(203)


def _login(session: Session, name: str) -> Login:
    found = session.instance.logins.get(name.lower())
    if found is None:
        raise SqlError(
            15151,
            f"Cannot alter the login '{name}', because it does not exist or you do not have "
            "permission.",
        )
    return found


def _change_user(session: Session, action: str, name: str, values: dict[str, Any]) -> None:
    with session.database.changed_users() as users:
        if action == "DROP USER":
            users.pop(_user(users, name).name.lower())
            return
        login = _login_for(session, values.get("login", name))
        if action == "CREATE USER":
            users[name.lower()] = User(name, login.name, login.sid)
        else:
            user = _user(users, name)
            user.login, user.sid = login.name, login.sid


def _login_for(session: Session, name: str) -> Login:
    found = session.instance.logins.get(name.lower())
    if found is None:
        raise SqlError(15007, f"'{name}' is not a valid login or you do not have permission.")
    return found


def _user(users: dict[str, User], name: str) -> User:
    found = users.get(name.lower())
    if found is None:
        raise SqlError(
            15151,
            f"Cannot find the user '{name}', because it does not exist or you do not have "
            "permission.",
        )
    return found


def permission(session: Session, statement: s.Permission) -> Events:
    if not permissions.is_sysadmin(session):
        raise SqlError(4613, "Grantor does not have GRANT permission.")
    with session.database.changed_users() as users:
        for name in statement.principals:
            for each in statement.permissions:
                if each in _DATABASE_PERMISSIONS:
                    held = _user(users, name).permissions
                    each = f"{each} ON {statement.on[-1].lower()}" if statement.on else each
                elif statement.on:
                    raise not_modelled(f"{statement.action} {each} ON {' '.join(statement.on)}")
                else:
                    held = _login(session, name).permissions
                _grant(held, statement.action, each)
    yield Done(203)


def _grant(held: set[str], action: str, permission: str) -> None:
    held.discard(f"DENY {permission}")
    held.discard(permission)
    if action == "GRANT":
        held.add(permission)
    elif action == "DENY":
        held.add(f"DENY {permission}")


def alter_authorization(session: Session, statement: s.AlterAuthorization) -> Events:
    database = session.instance.database(statement.database)
    if not permissions.is_sysadmin(session) and not permissions.is_owner(session, database):
        raise SqlError(
            15151,
            f"Cannot find the database '{statement.database}', because it does not exist or you do "
            "not have permission.",
        )
    database.owner = _login(session, statement.owner).name
    yield Done(215)
