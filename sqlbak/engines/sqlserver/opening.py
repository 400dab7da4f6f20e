"""Sessions for one backup: with the server that takes it, with the primary whose log it is, and,
where something has to be looked up, with every other replica."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from sqlbak.engines.port import PayloadSink
from sqlbak.engines.sqlserver.backing import Backing, Writer
from sqlbak.engines.sqlserver.connection import Session
from sqlbak.engines.sqlserver.delivery import BackupFiles, DiskFolder
from sqlbak.engines.sqlserver.finding import find_database, missing, require_meant
from sqlbak.engines.sqlserver.groups import gather
from sqlbak.engines.sqlserver.routes import route_of
from sqlbak.engines.sqlserver.server import Server, read_server
from sqlbak.engines.sqlserver.source import Source
from sqlbak.engines.sqlserver.taking import is_backup_running
from sqlbak.errors import (
    BackupFailed,
    BackupPaused,
    ServerNotReady,
    ServerRefused,
    ServerUnreachable,
)
from sqlbak.model import Note, NoteCode, PointType
from sqlbak.progress import Progress
from sqlbak.stopping import StopSignal

__all__ = ["clear", "has_leftovers", "historians", "open_backing", "require_quiet", "siblings"]


@contextmanager
def open_backing(
    source: Source,
    progress: Progress,
    stop: StopSignal,
    sink: PayloadSink | None = None,
    *,
    kind: PointType = PointType.FULL,
) -> Iterator[Backing]:
    """Connect and look: to the server that backups of that kind are taken on. ServerNotReady when
    the database is not there, or not the one meant, or has no primary; BackupPaused when no server
    may take it. ``sink``: where what is written goes."""
    if not source.replicas:
        with _at(source, stop) as (session, server):
            database = find_database(session, server, source, stop=stop)
            paused = database.paused()
            backing = Backing(
                source, session, server, database, progress, stop, source, paused, sink=sink
            )
            with _closing(backing):
                yield backing
        return
    gathered = gather(source.address, source.members, name=source.database, stop=stop)
    route = route_of(gathered, source.database)
    if route is None:
        raise missing(source)
    if route.problem is not None:
        raise ServerNotReady(f"{source.where}: {route.problem.what}", hint=route.problem.remedy)
    view = route.log if kind is PointType.LOG else route.primary
    if view is None or route.primary is None:
        raise BackupPaused(f"{source.where}: {route.paused.get(kind) or 'no server takes it'}")
    here, told = source.on(view), route.database
    require_meant(source, told)
    with ExitStack() as stack:
        session, server = stack.enter_context(_at(here, stop))
        own = find_database(session, server, here, stop=stop)
        if own.replica is not None and own.replica.is_primary != (view is route.primary):
            raise ServerNotReady(
                f"{source.where}: the availability group failed over just now",
                hint="the next run asks again which server is the primary",
            )
        writer = None
        if view is not route.primary:
            opened = stack.enter_context(_at(source.on(route.primary), stop))
            writer = Writer(*opened, told.database_id)
        # What a secondary shows of the chain may be old, or nothing.
        database = told if own.replica is None else replace(told, replica=own.replica)
        backing = Backing(
            here, session, server, database, progress, stop, source, route.paused, writer, sink
        )
        if kind is PointType.LOG:
            backing.notes += (Note(NoteCode.TAKEN_ELSEWHERE, one) for one in route.notes)
        stack.enter_context(_closing(backing))
        yield backing


@contextmanager
def _at(source: Source, stop: StopSignal) -> Iterator[tuple[Session, Server]]:
    """A session with the server of ``source``, closed at the end."""
    with Session.open(source.address, stop=stop) as session:
        yield session, read_server(session, stop=stop)


@contextmanager
def _closing(backing: Backing) -> Iterator[None]:
    """Close the session that took the place of a lost one."""
    first = backing.session
    try:
        yield
    finally:
        if backing.session is not first:
            backing.session.close()


@contextmanager
def siblings(backing: Backing) -> Iterator[tuple[list[Backing], list[str]]]:
    """The same at every other replica that answers, and the names of those that do not."""
    found: list[Backing] = []
    silent: list[str] = []
    is_grouped = backing.database.replica is not None
    own = Writer(backing.session, backing.server, backing.database.database_id)
    primary = backing.writer or own
    with ExitStack() as stack:
        for place in backing.home.replicas if is_grouped else ():
            if place.address == backing.source.address:
                continue
            there = replace(backing.home, address=place.address, folder=place.folder)
            try:
                session, server = stack.enter_context(_at(there, backing.stop))
            except (ServerUnreachable, ServerRefused):
                silent.append(place.name)
                continue
            if server.name == backing.server.name:
                continue
            writer = None if server.name == primary.server.name else primary
            found.append(
                replace(backing, source=there, session=session, server=server, writer=writer)
            )
        yield found, silent


@contextmanager
def historians(backing: Backing) -> Iterator[list[tuple[str, Session]]]:
    """Sessions with every replica that answers, by the server's name: each one's msdb tells only
    what was done there."""
    with siblings(backing) as (others, _silent):
        yield [(one.server.name, one.session) for one in (backing, *others)]


def has_leftovers(backing: Backing, kinds: Sequence[PointType]) -> bool:
    """Whether earlier runs left anything, here or in the folder of another replica."""
    folders = [backing.source.folder]
    if backing.database.replica is not None:
        folders += [one.folder for one in backing.home.replicas]
    return any(
        folder.leftovers(key, kinds)
        for folder in folders
        if isinstance(folder, DiskFolder)
        for key in backing.keys
    )


def clear(backing: Backing, *kinds: PointType) -> None:
    """Delete what crashed runs left of those kinds in folders. BackupFailed while one of them
    still runs on a server."""
    if not has_leftovers(backing, kinds):
        return
    with siblings(backing) as (others, _silent):
        for place in (*others, backing):
            leftovers = place.leftovers(kinds)
            require_quiet((backing, *others), leftovers)
            for files in leftovers:
                files.remove()
                left = f"removed what an earlier run left: {files.local[0].name}"
                backing.notes.append(Note(NoteCode.LEFTOVERS, left))


def require_quiet(places: Sequence[Backing], leftovers: Sequence[BackupFiles]) -> None:
    """BackupFailed while a backup of an earlier run that left files is still running somewhere."""
    for place in places:
        if any(is_backup_running(place.session, one.token, stop=place.stop) for one in leftovers):
            raise BackupFailed(
                f"{place.source.where}: an earlier backup still runs on the server",
                hint="it is waited for: the next run looks again",
            )
