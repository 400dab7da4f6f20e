"""Looking at an instance, or one database of it, without changing it: can it be backed up, and
what stands in the way."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from sqlbak.engines.port import DiscoveredItem, Inspection, Problem, Severity
from sqlbak.engines.sqlserver.address import ServerAddress, Wire
from sqlbak.engines.sqlserver.connection import Session, StatementFailed
from sqlbak.engines.sqlserver.databases import Database, selected
from sqlbak.engines.sqlserver.delivery import DiskFolder
from sqlbak.engines.sqlserver.groups import Gathered, Member, View, gather
from sqlbak.engines.sqlserver.routes import Route, route_of
from sqlbak.engines.sqlserver.rows import Row, number, text
from sqlbak.engines.sqlserver.server import Server
from sqlbak.engines.sqlserver.source import Source
from sqlbak.engines.sqlserver.statements import identifier, literal
from sqlbak.engines.sqlserver.url_checks import problems_of_url
from sqlbak.engines.sqlserver.url_delivery import UrlPlace
from sqlbak.errors import FeatureUnsupported
from sqlbak.model import EngineName, PointType
from sqlbak.stopping import NEVER, StopSignal

__all__ = ["discovered", "inspect_database", "inspect_instance", "look"]

_SYSTEM_DATABASES = ("master", "model", "msdb")
_DAMAGED = ("SUSPECT", "EMERGENCY", "RECOVERY_PENDING", "RECOVERING")


def discovered(database: Database, paused: Mapping[PointType, str] | None = None) -> DiscoveredItem:
    """A database as the engine port tells of it. ``paused``: what cannot be taken; None: by what
    this one server says. Its identity is its family GUID, which a rename
    and every restore leave alone, and which a database that was dropped and made again does not
    share; empty while the server does not tell it (offline)."""
    return DiscoveredItem(
        identity=database.family or "",
        database=database.name,
        position=None,
        lineage=database.fork,
        # A read-only database gives the same log out again and again.
        next_log_lsn=None if database.is_read_only else database.last_log_backup_lsn,
        paused=database.paused() if paused is None else paused,
        group_database=database.replica.database_id if database.replica is not None else None,
    )


def inspect_database(source: Source, *, stop: StopSignal = NEVER) -> Inspection:
    """One database; no item when it is not there."""
    gathered = gather(
        source.address,
        source.members,
        name=source.database,
        ask=lambda session, view: (
            _grants(session, view.databases, stop),
            _of_url(session, view, source, stop),
        ),
        stop=stop,
    )
    route = route_of(gathered, source.database)
    problems = [*_of_wire(source.address)]
    if route is None:
        user = source.address.user
        problems += _of_places(gathered, source, [])
        problems.append(
            Problem(
                "database_missing",
                Severity.BLOCKING,
                f"there is no database {source.database!r}, or {user} may not see it",
                f"GRANT VIEW ANY DATABASE TO {identifier(user)}",
            )
        )
        return _inspection(gathered.views[0], [], problems)
    problems += _of_places(gathered, source, [route])
    problems += _of_members(gathered, [route])
    problems += _of_route(source, route)
    for view in _takers([route]):
        problems += _of_compression(view.server, source.compression)
    return _inspection(route.primary or gathered.views[0], [route], problems)


def look(
    address: ServerAddress,
    members: Sequence[Member] = (),
    *,
    include: Sequence[str],
    exclude: Sequence[str],
    stop: StopSignal = NEVER,
) -> tuple[frozenset[str], tuple[DiscoveredItem, ...], bool]:
    """The names of all databases, the items that are meant to be protected, and whether these are
    all: where only replicas answered, but not ``address``, its own databases are not known. One
    connection, if none of them has replicas elsewhere."""
    gathered = gather(address, members, stop=stop)
    everything, routes = _meant(gathered, include, exclude)
    items = tuple(discovered(one.database, one.paused) for one in routes)
    return everything, items, gathered.views[0].is_home


def _meant(
    gathered: Gathered, include: Sequence[str], exclude: Sequence[str]
) -> tuple[frozenset[str], list[Route]]:
    """The names of all databases, and the ways for those that are meant: those of the server that
    was asked first, and of the others what is in a group."""
    known: dict[str, Database] = {}
    for view in gathered.views:
        for one in view.databases:
            if view.is_home or one.replica is not None:
                known.setdefault(one.name, one)
    wanted = selected(
        known.values(),
        include=include,
        exclude=exclude,
        is_case_sensitive=gathered.views[0].server.is_case_sensitive,
    )
    routes = [route for one in wanted if (route := route_of(gathered, one.name)) is not None]
    return frozenset(known), routes


def inspect_instance(
    source: Source,
    *,
    include: Sequence[str],
    exclude: Sequence[str],
    stop: StopSignal = NEVER,
) -> Inspection:
    """All databases that are meant, with what stands in the way of each. ``source``: of no
    database. One connection a server, and one more where grants are looked at."""

    def ask(session: Session, view: View) -> tuple[dict[str, Row], list[Problem]]:
        is_case_sensitive = view.server.is_case_sensitive
        wanted = selected(
            view.databases, include=include, exclude=exclude, is_case_sensitive=is_case_sensitive
        )
        return _grants(session, wanted, stop), _of_url(session, view, source, stop)

    gathered = gather(source.address, source.members, ask=ask, stop=stop)
    _, routes = _meant(gathered, include, exclude)
    problems = [
        *_of_wire(source.address),
        *_of_places(gathered, source, routes),
        *_of_members(gathered, routes),
        *(
            problem
            for view in _takers(routes) or gathered.views[:1]
            for problem in _of_compression(view.server, source.compression)
        ),
    ]
    for route in routes:
        problems += _of_route(source, route)
    _, everybody = _meant(gathered, ("*",), exclude)
    meant = {one.database.name for one in routes}
    left_out = [
        one.database.name
        for one in everybody
        if one.database.name not in meant and one.database.name.lower() not in _SYSTEM_DATABASES
    ]
    inspection = _inspection(gathered.views[0], routes, problems)
    return replace(inspection, facts={**inspection.facts, "left_out": left_out})


def _inspection(view: View, routes: Sequence[Route], problems: Sequence[Problem]) -> Inspection:
    return Inspection(
        engine=EngineName.SQLSERVER,
        version=f"{view.server.release} ({view.server.version})",
        server_clock=view.clock.utc,
        items=tuple(discovered(one.database, one.paused) for one in routes),
        problems=tuple(dict.fromkeys(problems)),
        facts={
            "server": view.server.document(view.clock),
            "databases": [
                {
                    "name": one.database.name,
                    "state": one.database.state,
                    "recovery_model": one.database.recovery_model,
                    "size_bytes": one.database.size_bytes,
                    "family": one.database.family,
                }
                for one in routes
            ],
        },
    )


def _takers(routes: Sequence[Route]) -> list[View]:
    """The servers that backups are taken on."""
    found: list[View] = []
    for view in (view for route in routes for view in (route.primary, route.log)):
        if view is not None and view not in found:
            found.append(view)
    return found


def _of_places(gathered: Gathered, source: Source, routes: Sequence[Route]) -> Iterator[Problem]:
    """The places that backups are written to."""
    takers = _takers(routes) or gathered.views[:1]
    for folder in dict.fromkeys(source.on(view).folder for view in takers):
        if isinstance(folder, DiskFolder):
            yield from _of_folder(folder)
    for view in takers:
        yield from view.problems


def _of_members(gathered: Gathered, routes: Sequence[Route]) -> Iterator[Problem]:
    """Servers of groups that did not answer, are others than they are called, or hide the group."""
    for name, why in gathered.silent.items():
        yield Problem(
            "replica_silent",
            Severity.WARNING,
            f"the replica {name} takes no part: {why}",
            "look whether it runs, and whether the login is there too, with the same SID",
        )
    for view in gathered.views:
        name = view.member.name
        if name and name.lower() != view.server.name.lower():
            yield Problem(
                "replica_misnamed",
                Severity.WARNING,
                f"{view.member.address.where}, which is called {name} under replicas, says that it "
                f"is {view.server.name}",
                f"write {view.server.name}, as @@SERVERNAME gives it, or mend its host and port",
            )
    members = {member.name.lower() for member in gathered.members}
    for route in routes:
        holders = [view for view in route.holders if route.database.replica is not None]
        if not holders or not members:
            continue
        if all(view.group_of(route.database) is None for view in holders):
            user = identifier(holders[0].member.address.user)
            yield Problem(
                "group_hidden",
                Severity.WARNING,
                f"{holders[0].server.name} does not show the availability group of "
                f"{route.database.name}: its backup preference is not known",
                f"GRANT VIEW ANY DEFINITION TO {user}",
            )
        if len({view.clock.utc_offset_minutes for view in holders}) > 1:
            yield Problem(
                "replicas_in_zones",
                Severity.WARNING,
                f"the clocks of {', '.join(view.server.name for view in holders)} are in different "
                "zones: instants right around a failover cannot be restored",
                "let all servers of a group run in UTC",
            )


def _of_route(source: Source, route: Route) -> Iterator[Problem]:
    """What stands in the way of one database on the servers that take it."""
    login = source.address.user
    if route.problem is not None:
        yield route.problem
    yield from _of_database(route.database, login)
    yield from _paused(route.database, route.paused)
    for view in _takers([route]):
        if (row := view.grants.get(route.database.name)) is not None:
            yield from _of_grants(row, route.database, login)


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


def _of_url(session: Session, view: View, source: Source, stop: StopSignal) -> list[Problem]:
    """What keeps a server from writing into the vault by itself, where it is to."""
    folder, login = source.on(view).folder, source.address.user
    if not isinstance(folder, UrlPlace):
        return []
    return [*problems_of_url(session, view.server, folder, login=login, stop=stop)]


def _of_folder(folder: DiskFolder) -> Iterator[Problem]:
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


def _paused(database: Database, paused: Mapping[PointType, str]) -> Iterator[Problem]:
    if PointType.FULL in paused and PointType.LOG in paused:
        yield Problem(
            "database_paused",
            Severity.WARNING,
            f"{paused[PointType.FULL]}: nothing is backed up",
            "bring it online, or leave it out: databases.exclude"
            if database.replica is None
            else "name the servers of its availability group under replicas:",
            database.name,
        )
    elif PointType.LOG in paused and database.name.lower() != "master":
        yield Problem(
            "log_paused",
            Severity.WARNING,
            paused[PointType.LOG],
            f"ALTER DATABASE {identifier(database.name)} SET RECOVERY FULL"
            if database.replica is None
            else "name the servers of its availability group under replicas:, or let it prefer the "
            "primary: ALTER AVAILABILITY GROUP … SET (AUTOMATED_BACKUP_PREFERENCE = PRIMARY)",
            database.name,
        )


def _grants(session: Session, databases: Sequence[Database], stop: StopSignal) -> dict[str, Row]:
    """What the login may do with each database that is online."""
    found: dict[str, Row] = {}
    for database in databases:
        if database.state != "ONLINE":
            continue
        name = identifier(database.name)
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
            continue
        found[database.name] = rows[0]
    return found


def _of_grants(row: Row, database: Database, login: str) -> Iterator[Problem]:
    name, user = identifier(database.name), identifier(login)
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
