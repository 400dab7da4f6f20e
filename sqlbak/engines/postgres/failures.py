"""What a server or libpq says when it says no, turned into one of our errors. Pure.

Messages of the connection phase carry no SQLSTATE, so they are known by their English text; one
that is not known (another language, a proxy) is shown as it is.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from sqlbak.errors import (
    BackupFailed,
    EngineError,
    LogChainBroken,
    ServerNotReady,
    ServerRefused,
    ServerUnreachable,
)

__all__ = [
    "ConnectionFailure",
    "ServerFileMissing",
    "ServerMessage",
    "explain_connection_failure",
    "explain_server_message",
    "quote_identifier",
]


class ServerFileMissing(BackupFailed):
    """The server says that a file of its own that we asked for does not exist."""


@dataclass(frozen=True, slots=True)
class ConnectionFailure:
    """Why a connection did not come about. ``code`` is the Problem's, ``remedy`` is ready to
    paste."""

    code: str
    what: str
    remedy: str
    error: type[EngineError]

    def as_error(self) -> EngineError:
        """The same as something to raise."""
        return self.error(self.what, hint=self.remedy)


@dataclass(frozen=True, slots=True)
class ServerMessage:
    """The fields of an ErrorResponse that matter."""

    sqlstate: str
    primary: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.primary} ({self.detail})" if self.detail else self.primary


def quote_identifier(name: str) -> str:
    """A role's name as SQL wants it."""
    return '"' + name.replace('"', '""') + '"'


_ENTRY_MISSING = re.compile(
    r"(?:no pg_hba\.conf entry for|pg_hba\.conf rejects) (?P<replication>replication )?"
    r'(?:connection (?:from|for) )?host "(?P<host>[^"]*)", user "(?P<user>[^"]*)"'
    r'(?:, database "(?P<database>[^"]*)")?(?:, (?P<encryption>[A-Za-z ]+))?'
)
_TOO_MANY_SENDERS = re.compile(r'exceeds "?max_wal_senders"? \(currently (?P<limit>\d+)\)')
_NO_REPLICATION_ROLE = re.compile(
    r"must be superuser or replication role to start walsender"
    r"|permission denied to start WAL sender"
)
_NO_CONNECT_PRIVILEGE = re.compile(r'permission denied for database "(?P<database>[^"]*)"')
_NO_DATABASE = re.compile(r'database "(?P<database>[^"]*)" does not exist')
_NO_ROLE = re.compile(r'role "(?P<role>[^"]*)" (?:does not exist|is not permitted to log in)')
_WRONG_CREDENTIALS = re.compile(
    r"(?:password|Peer|Ident|LDAP|PAM|GSSAPI|RADIUS|certificate|\"\w+\") authentication failed"
    r"|no password supplied|empty password returned"
)
_FORBIDDEN_FUNCTION = re.compile(r"permission denied for function (?P<function>\w+)")
_TOO_MANY_CLIENTS = re.compile(r"too many clients already|connection slots are reserved")
_NOT_NOW = re.compile(
    r"the database system is (?:starting up|shutting down|in recovery mode"
    r"|not (?:yet )?accepting connections)"
)


def explain_connection_failure(text: str, *, where: str, user: str) -> ConnectionFailure:
    """Turn libpq's words for a connection that failed into what is wrong and what mends it.

    ``where`` names the server, ``user`` the role that we meant to be (may be empty).
    """
    said = text.strip().removeprefix("connection failed: ").removeprefix("connection is bad: ")

    def failure(code: str, error: type[EngineError], what: str, remedy: str) -> ConnectionFailure:
        return ConnectionFailure(code, f"{where}: {what}: {said}", remedy, error)

    if match := _ENTRY_MISSING.search(said):
        kind = "replication connections" if match["replication"] else "connections"
        return failure(
            "hba_replication_missing" if match["replication"] else "hba_missing",
            ServerRefused,
            f"pg_hba.conf lets no {kind} of this role in from here",
            f"add to pg_hba.conf: {_hba_line(match)}\nthen run: SELECT pg_reload_conf();",
        )
    if _NO_REPLICATION_ROLE.search(said):
        return failure(
            "role_lacks_replication",
            ServerRefused,
            "the role may not take backups",
            f"ALTER ROLE {quote_identifier(user)} WITH REPLICATION;",
        )
    if match := _TOO_MANY_SENDERS.search(said):
        return failure(
            "no_free_wal_sender",
            ServerNotReady,
            "no WAL sender is free",
            f"ALTER SYSTEM SET max_wal_senders = {int(match['limit']) + 10};"
            "  -- then restart the server",
        )
    if match := _NO_CONNECT_PRIVILEGE.search(said):
        return failure(
            "no_connect_privilege",
            ServerRefused,
            "the role may not connect to the database",
            f"GRANT CONNECT ON DATABASE {quote_identifier(match['database'])}"
            f" TO {quote_identifier(user)};",
        )
    if match := _NO_DATABASE.search(said):
        return failure(
            "no_such_database",
            ServerRefused,
            "the connection string names a database that does not exist",
            "name one that exists in the connection string, for example dbname=postgres",
        )
    if match := _NO_ROLE.search(said):
        return failure(
            "no_such_role",
            ServerRefused,
            "the role does not exist or may not log in",
            f"CREATE ROLE {quote_identifier(match['role'])} WITH LOGIN REPLICATION;"
            "  -- or, if it exists: ALTER ROLE … WITH LOGIN;",
        )
    if _WRONG_CREDENTIALS.search(said):
        return failure(
            "login_refused",
            ServerRefused,
            "the login was refused",
            "check the user and the password that the connection string refers to; to set one: "
            f"\\password {user}".rstrip(),
        )
    if _TOO_MANY_CLIENTS.search(said):
        return failure(
            "no_free_connection",
            ServerNotReady,
            "no connection is free",
            "close idle sessions, or raise max_connections and restart the server",
        )
    if _NOT_NOW.search(said):
        return failure(
            "server_not_accepting",
            ServerUnreachable,
            "the server takes no connections now",
            "wait until it is up; its log says what it does",
        )
    return failure(
        "server_unreachable",
        ServerUnreachable,
        "no connection",
        "check that the server runs and listens there (pg_isready says so), that name, port and "
        "network are right, and that its TLS settings fit the connection string",
    )


def _hba_line(match: re.Match[str]) -> str:
    """The entry that would have let this connection in."""
    user = (
        match["user"]
        if re.fullmatch(r"[a-z_][a-z0-9_]*", match["user"])
        else (quote_identifier(match["user"]))
    )
    database = "replication" if match["replication"] else (match["database"] or "all")
    if match["host"] == "[local]":
        return f"local  {database}  {user}  scram-sha-256"
    encryption = match["encryption"] or ""
    kind = "hostssl" if encryption.startswith(("SSL encryption", "SSL on")) else "host"
    if encryption.startswith("GSS"):
        kind = "hostgssenc"
    try:
        address = str(ipaddress.ip_network(match["host"].split("%")[0]))
    except ValueError:
        address = match["host"]
    return f"{kind}  {database}  {user}  {address}  scram-sha-256"


def explain_server_message(
    message: ServerMessage, *, where: str, doing: str, user: str
) -> EngineError:
    """Turn an error of a command into one of ours. ``doing`` continues "while"."""
    what = f"{where}: while {doing}: {message}"
    if match := _FORBIDDEN_FUNCTION.search(message.primary):
        return ServerRefused(
            what,
            hint=f"GRANT EXECUTE ON FUNCTION pg_catalog.{match['function']}"
            f" TO {quote_identifier(user)};",
        )
    if message.sqlstate == "42501":
        return ServerRefused(what, hint=f"ALTER ROLE {quote_identifier(user)} WITH REPLICATION;")
    if message.sqlstate in ("53400", "55000") and "replication slots" in message.primary:
        return ServerNotReady(
            what, hint="drop slots that nobody uses, or raise max_replication_slots and restart"
        )
    if "promoted during online backup" in message.primary:
        return BackupFailed(
            what, hint="the standby became a primary meanwhile: take the backup again"
        )
    if "full_page_writes=off" in message.primary:
        return BackupFailed(
            what,
            hint="on the primary: ALTER SYSTEM SET full_page_writes = on; SELECT pg_reload_conf();"
            " CHECKPOINT; then, when the standby has replayed that, take the backup again",
        )
    if message.sqlstate == "58P01" and "WAL segment" in message.primary:
        return LogChainBroken(what, hint="take a full backup; it starts a new chain")
    if message.sqlstate == "58P01":
        return ServerFileMissing(what, hint="the server's log says more")
    if message.sqlstate == "XX001":
        return BackupFailed(
            what,
            hint="pages on the server's disk are damaged: find them with pg_amcheck, or with "
            "pg_checksums --check while the server is stopped; older recovery points hold them "
            "as they were",
        )
    if message.sqlstate.startswith("57P0"):
        return BackupFailed(what, hint="somebody ended the session or the server; try again")
    return BackupFailed(what, hint="the server's log says more")
