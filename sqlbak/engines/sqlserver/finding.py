"""Finding the one database that is meant on a server, or saying that it is not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlbak.engines.sqlserver.connection import Session
from sqlbak.engines.sqlserver.databases import Database, read_databases
from sqlbak.engines.sqlserver.server import Server
from sqlbak.errors import ServerNotReady
from sqlbak.stopping import StopSignal

if TYPE_CHECKING:
    from sqlbak.engines.sqlserver.source import Source

__all__ = ["find_database", "missing", "require_meant"]


def find_database(
    session: Session, server: Server, source: Source, *, stop: StopSignal
) -> Database:
    """The database of that name as it is now. ServerNotReady when it is not there, or when it is
    not the one that was looked at before."""
    found = read_databases(
        session, name=source.database, with_replicas=server.is_hadr_enabled, stop=stop
    )
    if not found:
        raise missing(source)
    require_meant(source, found[0])
    return found[0]


def missing(source: Source) -> ServerNotReady:
    """No server that was asked has it."""
    return ServerNotReady(
        f"{source.address.where}: there is no database {source.database!r} (any more), or the "
        "login may not see it",
        hint="if it is there: GRANT VIEW ANY DATABASE TO [login]",
    )


def require_meant(source: Source, database: Database) -> None:
    """ServerNotReady for another database than the one that was looked at before."""
    if source.family is not None and database.family not in (None, source.family):
        raise ServerNotReady(
            f"{source.where}: another database took its place meanwhile",
            hint="run again: it is backed up as a new item",
        )
