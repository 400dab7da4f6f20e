"""Looking at an instance, or one database of it, without changing it: can it be backed up, and
what stands in the way."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace

from sqlbak.engines.port import DiscoveredItem, Inspection, Problem, Severity
from sqlbak.engines.sqlserver.address import ServerAddress, Wire
from sqlbak.engines.sqlserver.backing import Source
from sqlbak.engines.sqlserver.connection import Session, StatementFailed
from sqlbak.engines.sqlserver.databases import Database, read_databases, selected
from sqlbak.engines.sqlserver.delivery import DiskFolder
from sqlbak.engines.sqlserver.rows import number, text
from sqlbak.engines.sqlserver.server import Server, read_clock, read_server
from sqlbak.engines.sqlserver.statements import identifier, literal
from sqlbak.engines.sqlserver.url_checks import problems_of_url
from sqlbak.engines.sqlserver.url_delivery import UrlPlace
from sqlbak.errors import FeatureUnsupported
from sqlbak.model import EngineName, PointType
from sqlbak.stopping import NEVER, StopSignal

__all__ = ["discovered", "inspect_database", "inspect_instance", "look"]

_SYSTEM_DATABASES = ("master", "model", "msdb")
_DAMAGED = ("SUSPECT", "EMERGENCY", "RECOVERY_PENDING", "RECOVERING")


def discovered(database: Database) -> DiscoveredItem:
    """A database as the engine port tells of it. Its identity is its family GUID, which a rename
    and every restore leave alone, and which a database that was dropped and made again does not
    share; empty while the server does not tell it (offline)."""
    return DiscoveredItem(
        identity=database.family or "",
        database=database.name,
        position=None,
        lineage=database.fork,
        # A read-only database gives the same log out again and again.
        next_log_lsn=None if database.is_read_only else database.last_log_backup_lsn,
        paused=database.paused(),
    )


def inspect_database(source: Source, *, stop: StopSignal = NEVER) -> Inspection:
    """One database; no item when it is not there."""
    with Session.open(source.address, stop=stop) as session:
        server = read_server(session, stop=stop)
        databases = read_databases(
            session, name=source.database, with_replicas=server.is_hadr_enabled, stop=stop
        )
        problems = [
            *_of_wire(source.address),
            *_of_delivery(session, server, source.folder, source.address.user, stop),
        ]
        if not databases:
            problems.append(
                Problem(
                    "database_missing",
                    Severity.BLOCKING,
                    f"there is no database {source.database!r}, or {source.address.user} may not "
                    "see it",
                    f"GRANT VIEW ANY DATABASE TO {identifier(source.address.user)}",
                )
            )
        for database in databases:
            problems += [
                *_of_database(database, source.address.user),
                *_paused(database),
                *_of_grants(session, database, source.address.user, stop),
                *_of_compression(server, source.compression),
            ]
        return _inspection(session, server, databases, problems, stop)


def look(
    address: ServerAddress,
    *,
    include: Sequence[str],
    exclude: Sequence[str],
    stop: StopSignal = NEVER,
) -> tuple[frozenset[str], tuple[DiscoveredItem, ...]]:
    """The names of all databases, and the items that are meant to be protected. One connection."""
    with Session.open(address, stop=stop) as session:
        server = read_server(session, stop=stop)
        everything = read_databases(session, with_replicas=server.is_hadr_enabled, stop=stop)
    databases = selected(
        everything, include=include, exclude=exclude, is_case_sensitive=server.is_case_sensitive
    )
    return frozenset(one.name for one in everything), tuple(map(discovered, databases))


def inspect_instance(
    address: ServerAddress,
    folder: DiskFolder | UrlPlace,
    *,
    include: Sequence[str],
    exclude: Sequence[str],
    compression: str = "auto",
    stop: StopSignal = NEVER,
) -> Inspection:
    """All databases that are meant, with what stands in the way of each. One connection."""
    with Session.open(address, stop=stop) as session:
        server = read_server(session, stop=stop)
        everything = read_databases(session, with_replicas=server.is_hadr_enabled, stop=stop)
        databases = selected(
            everything,
            include=include,
            exclude=exclude,
            is_case_sensitive=server.is_case_sensitive,
        )
        problems = [
            *_of_wire(address),
            *_of_delivery(session, server, folder, address.user, stop),
            *_of_compression(server, compression),
        ]
        for database in databases:
            problems += _of_database(database, address.user)
            problems += _of_grants(session, database, address.user, stop)
            problems += _paused(database)
        everybody = selected(
            everything, include=("*",), exclude=exclude, is_case_sensitive=server.is_case_sensitive
        )
        meant = {one.name for one in databases}
        left_out = [
            one.name
            for one in everybody
            if one.name not in meant and one.name.lower() not in _SYSTEM_DATABASES
        ]
        inspection = _inspection(session, server, databases, problems, stop)
        return replace(inspection, facts={**inspection.facts, "left_out": left_out})


def _inspection(
    session: Session,
    server: Server,
    databases: Sequence[Database],
    problems: Sequence[Problem],
    stop: StopSignal,
) -> Inspection:
    clock = read_clock(session, server, stop=stop)
    return Inspection(
        engine=EngineName.SQLSERVER,
        version=f"{server.release} ({server.version})",
        server_clock=clock.utc,
        items=tuple(discovered(one) for one in databases),
        problems=tuple(dict.fromkeys(problems)),
        facts={
            "server": server.document(clock),
            "databases": [
                {
                    "name": one.name,
                    "state": one.state,
                    "recovery_model": one.recovery_model,
                    "size_bytes": one.size_bytes,
                    "family": one.family,
                }
                for one in databases
            ],
        },
    )


def _of_wire(address: ServerAddress) -> Iterator[Problem]:
    if address.wire is Wire.CLEAR:
        yield Problem(
            "wire_in_clear",
            Severity.WARNING,
            f"nothing is encrypted between here and {address.where} (tls: clear)",
            "write tls: verified and ca_file: PATH",
        )
    elif address.wire is Wire.REQUIRED:
        yield Problem(
            "server_not_verified",
            Severity.WARNING,
            f"the wire to {address.where} is encrypted, but the server's certificate is not "
            "checked (tls: required)",
            "write tls: verified and ca_file: PATH",
        )


def _of_delivery(
    session: Session, server: Server, folder: DiskFolder | UrlPlace, login: str, stop: StopSignal
) -> Iterator[Problem]:
    if isinstance(folder, UrlPlace):
        yield from problems_of_url(session, server, folder, login=login, stop=stop)
        return
    path = folder.local_path
    if not path.is_dir():
        yield Problem(
            "folder_missing",
            Severity.BLOCKING,
            f"there is no folder {path}, through which backups are delivered",
            f"mount the server's {folder.server_path} there, or mend delivery.disk.local_path",
        )
    elif not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        yield Problem(
            "folder_not_writable",
            Severity.BLOCKING,
            f"the folder {path} cannot be read and written: backups are read from it and removed",
            f"let the user that sqlbak runs as read and write {path}",
        )


def _of_database(database: Database, login: str) -> Iterator[Problem]:
    if database.state in _DAMAGED:
        yield Problem(
            "database_not_online",
            Severity.BLOCKING,
            f"{database.name} is {database.state}",
            "look into the server's error log; keep all recovery points until it is mended",
            database.name,
        )
    elif database.state == "ONLINE" and (database.family is None or database.fork is None):
        yield Problem(
            "identity_hidden",
            Severity.BLOCKING,
            f"the server does not tell {login} which database {database.name} is",
            f"GRANT VIEW ANY DATABASE TO {identifier(login)}",
            database.name,
        )
    if database.is_encrypted:
        yield Problem(
            "certificate_needed",
            Severity.WARNING,
            f"{database.name} is encrypted (TDE): its backups can be restored only where its "
            "certificate is",
            "BACKUP CERTIFICATE [name] TO FILE = N'path' WITH PRIVATE KEY (...), and keep it apart",
            database.name,
        )


def _paused(database: Database) -> Iterator[Problem]:
    paused = database.paused()
    if PointType.FULL in paused and PointType.LOG in paused:
        yield Problem(
            "database_paused",
            Severity.WARNING,
            f"{paused[PointType.FULL]}: nothing is backed up",
            "bring it online, or leave it out: databases.exclude",
            database.name,
        )
    elif PointType.LOG in paused and database.name.lower() != "master":
        yield Problem(
            "log_paused",
            Severity.WARNING,
            paused[PointType.LOG],
            f"ALTER DATABASE {identifier(database.name)} SET RECOVERY FULL"
            if database.replica is None
            else "look at the backup preference of the availability group",
            database.name,
        )


def _of_grants(
    session: Session, database: Database, login: str, stop: StopSignal
) -> Iterator[Problem]:
    if database.state != "ONLINE":
        return
    name, user = identifier(database.name), identifier(login)
    try:
        rows = session.rows(
            f"SELECT HAS_PERMS_BY_NAME({literal(name)}, 'DATABASE', 'BACKUP DATABASE') AS data,"
            f" HAS_PERMS_BY_NAME({literal(name)}, 'DATABASE', 'BACKUP LOG') AS log,"
            " HAS_PERMS_BY_NAME(NULL, NULL, 'CREATE ANY DATABASE') AS headers,"
            " HAS_PERMS_BY_NAME(N'master', 'DATABASE', 'CREATE DATABASE') AS headers_in_master,"
            " HAS_PERMS_BY_NAME(NULL, NULL, 'VIEW SERVER STATE') AS state,"
            " SUSER_SNAME() AS login",
            doing="looking at grants",
            stop=stop,
        )
    except StatementFailed:
        return
    row = rows[0]
    if 0 in (number(row, "data"), number(row, "log")):
        yield Problem(
            "backup_not_granted",
            Severity.BLOCKING,
            f"{text(row, 'login') or login} may not back up {database.name}",
            f"USE {name}; CREATE USER {user} FOR LOGIN {user}; "
            f"ALTER ROLE db_backupoperator ADD MEMBER {user}",
            database.name,
        )
    if number(row, "headers") == 0 and not number(row, "headers_in_master"):
        yield Problem(
            "headers_not_granted",
            Severity.BLOCKING,
            f"{text(row, 'login') or login} may not read the headers of backups, by which each "
            "backup is proven (CREATE ANY DATABASE)",
            f"GRANT CREATE ANY DATABASE TO {user}",
        )
    if number(row, "state") == 0:
        yield Problem(
            "sessions_hidden",
            Severity.WARNING,
            f"{text(row, 'login') or login} does not see whether a broken backup still runs "
            "(VIEW SERVER STATE)",
            f"GRANT VIEW SERVER STATE TO {user}",
        )


def _of_compression(server: Server, wanted: str) -> Iterator[Problem]:
    try:
        server.compression(wanted)
    except FeatureUnsupported as error:
        yield Problem("compression", Severity.BLOCKING, error.message, error.hint)
