"""Which code stands behind each engine. Imports an engine's drivers only when it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sqlbak.engines.port import (
    DiscoveredItem,
    Engine,
    Inspection,
    RestoreOutcome,
    RestoreStep,
    RestoreTarget,
)
from sqlbak.errors import FeatureUnsupported
from sqlbak.model import EngineName
from sqlbak.progress import Progress
from sqlbak.stopping import StopSignal

if TYPE_CHECKING:
    from sqlbak.engines.sqlserver.address import ServerAddress
    from sqlbak.engines.sqlserver.delivery import DiskFolder
    from sqlbak.engines.sqlserver.restoring import TargetServer
    from sqlbak.engines.sqlserver.source import Source
    from sqlbak.engines.sqlserver.url_delivery import UrlPlace

__all__ = [
    "FolderDelivery",
    "InstanceView",
    "LogFeeder",
    "LogOrder",
    "Restorer",
    "SqlServerLogin",
    "SqlServerPlace",
    "SqlServerReplica",
    "UrlDelivery",
    "inspect_sql_server",
    "log_feeder",
    "look_at_sql_server",
    "postgres_engine",
    "restorer",
    "sql_server_engine",
    "sql_server_target",
]


@dataclass(frozen=True, slots=True)
class SqlServerLogin:
    """How to reach an instance. ``wire``: verified, required or clear."""

    host: str
    port: int
    user: str
    password: str
    wire: str
    ca_file: Path | None

    def __repr__(self) -> str:
        return f"SqlServerLogin({self.user}@{self.host}:{self.port})"


@dataclass(frozen=True, slots=True)
class FolderDelivery:
    """Backups go through a folder that both sides see. ``owner`` tells the files of one vault from
    those of others."""

    server_path: str
    local_path: Path
    owner: str


@dataclass(frozen=True, slots=True)
class UrlDelivery:
    """The server writes into the vault itself, which it knows by ``url``. ``region``: what its
    requests are signed for; None: what it assumes."""

    url: str
    region: str | None


@dataclass(frozen=True, slots=True)
class SqlServerPlace:
    """How backups are delivered, and how they are written."""

    delivery: FolderDelivery | UrlDelivery
    compression: str
    stripes: int | None


@dataclass(frozen=True, slots=True)
class SqlServerReplica:
    """One server of an instance's availability groups, by its own name; its login, and how its
    backups are delivered."""

    name: str
    login: SqlServerLogin
    delivery: FolderDelivery | UrlDelivery


@dataclass(frozen=True, slots=True)
class InstanceView:
    """What an instance said: the names of all its databases, and those that are protected, by
    name. ``is_whole``: no others can be there."""

    names: frozenset[str]
    items: Mapping[str, DiscoveredItem]
    is_whole: bool = True


class Restorer(Protocol):
    """Restores one chain; needs no connection to the server that it was taken from."""

    def __call__(
        self,
        steps: Sequence[RestoreStep],
        *,
        stop_at: datetime | None,
        lineage: str,
        histories: Mapping[str, bytes],
        target: RestoreTarget,
        progress: Progress,
        stop: StopSignal,
        stop_lsn: int | None = None,
        item_id: str = "",
    ) -> RestoreOutcome:
        """Restore ``steps`` up to ``stop_at``, or to what lies before ``stop_lsn`` in the log (both
        None: to the end of the last one). ``item_id``: by which the steps can be found again."""


class LogOrder(Protocol):
    """Which log a restored database that the operator starts waits for."""

    @property
    def item_id(self) -> str:
        """The item that it is a restore of."""

    @property
    def lineage(self) -> str:
        """The log's lineage."""

    @property
    def full(self) -> str:
        """Id of the full on which it stands."""

    @property
    def differential(self) -> str | None:
        """Id of the differential over that full."""

    @property
    def last_lsn(self) -> int:
        """Where the log ends."""


class LogFeeder(Protocol):
    """Feeds log to a restored database that the operator starts."""

    def read_order(self, directory: Path) -> LogOrder:
        """What the database in ``directory`` waits for. TargetNotUsable: for nothing."""

    def feed_cluster(
        self,
        steps: Sequence[RestoreStep],
        directory: Path,
        *,
        histories: Mapping[str, bytes],
        feed_command: Sequence[str],
        log_space_bytes: int | None,
        progress: Progress,
        stop: StopSignal,
    ) -> LogOrder:
        """Feed it until it needs no more."""


def log_feeder() -> LogFeeder:
    """What feeds log to PostgreSQL, the only engine that takes it while it recovers."""
    from sqlbak.engines.postgres import feeding

    return feeding


def postgres_engine(dsn: str, *, slot_name: str, primary_dsn: str | None = None) -> Engine:
    """A PostgreSQL cluster; connects only when used. ``primary_dsn``: the primary of the standby
    that ``dsn`` leads to."""
    from sqlbak.engines.postgres.engine import PostgresEngine

    return PostgresEngine(dsn, slot_name=slot_name, primary_dsn=primary_dsn)


def sql_server_engine(
    login: SqlServerLogin,
    place: SqlServerPlace,
    database: str,
    replicas: Sequence[SqlServerReplica] = (),
) -> Engine:
    """One database of a SQL Server instance; connects only when used."""
    from sqlbak.engines.sqlserver.engine import SqlServerEngine

    return SqlServerEngine(_source(login, place, database, replicas))


def _source(
    login: SqlServerLogin,
    place: SqlServerPlace,
    database: str,
    replicas: Sequence[SqlServerReplica],
) -> Source:
    from sqlbak.engines.sqlserver.source import ReplicaPlace, Source

    return Source(
        address=_address(login),
        folder=_folder(place.delivery),
        database=database,
        compression=place.compression,
        stripes=place.stripes,
        replicas=tuple(
            ReplicaPlace(one.name, _address(one.login), _folder(one.delivery)) for one in replicas
        ),
    )


def sql_server_target(
    instance: str, login: SqlServerLogin, folder: tuple[str, Path] | None
) -> TargetServer:
    """Where databases are restored to; connects only when used. ``folder``: the delivery folder as
    the server and as sqlbak see it."""
    from sqlbak.engines.sqlserver.delivery import DiskFolder
    from sqlbak.engines.sqlserver.restoring import TargetServer

    return TargetServer(
        instance,
        _address(login),
        None if folder is None else DiskFolder(folder[0], folder[1], owner="restore"),
    )


def look_at_sql_server(
    login: SqlServerLogin,
    replicas: Mapping[str, SqlServerLogin] | None = None,
    *,
    include: Sequence[str],
    exclude: Sequence[str],
) -> InstanceView:
    """The databases of an instance. ``replicas``: the servers of its availability groups.
    ServerUnreachable, ServerRefused."""
    from sqlbak.engines.sqlserver.groups import Member
    from sqlbak.engines.sqlserver.inspection import look

    members = [Member(name, _address(one)) for name, one in (replicas or {}).items()]
    names, items, is_whole = look(_address(login), members, include=include, exclude=exclude)
    return InstanceView(names, {item.database or "": item for item in items}, is_whole)


def inspect_sql_server(
    login: SqlServerLogin,
    place: SqlServerPlace,
    replicas: Sequence[SqlServerReplica] = (),
    *,
    include: Sequence[str],
    exclude: Sequence[str],
) -> Inspection:
    """The whole instance with all that stands in the way of its databases' backups."""
    from sqlbak.engines.sqlserver.inspection import inspect_instance

    source = _source(login, place, "", replicas)
    return inspect_instance(source, include=include, exclude=exclude)


def _folder(delivery: FolderDelivery | UrlDelivery) -> DiskFolder | UrlPlace:
    from sqlbak.engines.sqlserver.delivery import DiskFolder
    from sqlbak.engines.sqlserver.url_delivery import UrlPlace

    if isinstance(delivery, UrlDelivery):
        return UrlPlace(delivery.url, delivery.region)
    return DiskFolder(delivery.server_path, delivery.local_path, delivery.owner)


def _address(login: SqlServerLogin) -> ServerAddress:
    from sqlbak.engines.sqlserver.address import ServerAddress, Wire

    return ServerAddress(
        login.host, login.port, login.user, login.password, Wire(login.wire), login.ca_file
    )


def restorer(engine: EngineName) -> Restorer:
    """What restores backups of that engine. FeatureUnsupported where this version cannot."""
    if engine is not EngineName.POSTGRES:
        raise FeatureUnsupported(
            f"this version does not restore {engine.value}",
            hint="`sqlbak plan --headers` plans restores of SQL Server backups offline",
        )
    from sqlbak.engines.postgres.restoring import restore_cluster

    return restore_cluster
