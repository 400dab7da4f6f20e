"""Engines out of the settings of instances: what stands in a policy file, in the engines' words."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sqlbak.engines.port import Engine, Inspection
from sqlbak.engines.registry import (
    FolderDelivery,
    InstanceView,
    SqlServerLogin,
    SqlServerPlace,
    SqlServerReplica,
    UrlDelivery,
    inspect_sql_server,
    look_at_sql_server,
    postgres_engine,
    sql_server_engine,
    sql_server_target,
)
from sqlbak.errors import FeatureUnsupported
from sqlbak.policy.instance_settings import PostgresInstance, SqlServerInstance
from sqlbak.policy.vault_settings import S3Settings

if TYPE_CHECKING:
    from sqlbak.engines.sqlserver.restoring import TargetServer

__all__ = [
    "cluster_engine",
    "database_engine",
    "database_target",
    "instance_inspection",
    "instance_view",
    "place_of",
]


def cluster_engine(settings: PostgresInstance, vault_id: str) -> Engine:
    """The engine of a PostgreSQL cluster; connects only when used. SecretUnavailable."""
    # One slot a vault: two services that keep one server in two vaults do not share a slot.
    slot_name = settings.slot or f"sqlbak_{vault_id.replace('-', '_')[:16]}"
    primary = settings.primary_dsn
    return postgres_engine(
        settings.dsn.resolve(),
        slot_name=slot_name,
        primary_dsn=None if primary is None else primary.resolve(),
    )


def database_engine(settings: SqlServerInstance, place: SqlServerPlace, database: str) -> Engine:
    """The engine of one database of SQL Server; connects only when used. SecretUnavailable."""
    return sql_server_engine(_login(settings), place, database, _replicas(settings, place))


def database_target(settings: SqlServerInstance, instance: str) -> TargetServer:
    """Where databases are restored to; connects only when used. SecretUnavailable."""
    disk = settings.delivery.disk
    folder = None if disk is None else (disk.server_path, Path(disk.local_path))
    return sql_server_target(instance, _login(settings), folder)


def instance_inspection(settings: SqlServerInstance, place: SqlServerPlace) -> Inspection:
    """What a SQL Server says of itself and of all its databases."""
    return inspect_sql_server(
        _login(settings),
        place,
        _replicas(settings, place),
        include=settings.databases.include,
        exclude=settings.databases.exclude,
    )


def instance_view(settings: SqlServerInstance) -> InstanceView:
    """Which databases a SQL Server shows."""
    return look_at_sql_server(
        _login(settings),
        {name: _replica_login(settings, name) for name in settings.replicas},
        include=settings.databases.include,
        exclude=settings.databases.exclude,
    )


def place_of(
    settings: SqlServerInstance, instance: str, vault_id: str, s3: S3Settings | None
) -> SqlServerPlace:
    """Where an instance writes its backups on their way to a vault. ``s3``: how that is reached."""
    disk, url = settings.delivery.disk, settings.delivery.url
    delivery: FolderDelivery | UrlDelivery
    if disk is not None:
        owner = re.sub(r"[^0-9a-z]", "", vault_id.lower())[:16] or "sqlbak"
        delivery = FolderDelivery(disk.server_path, Path(disk.local_path), owner)
    elif url is not None:
        delivery = UrlDelivery(url, _region(url, s3))
    else:
        raise FeatureUnsupported(f"{instance}: delivery needs disk: or url:")
    return SqlServerPlace(delivery, settings.compression, settings.stripes)


def _region(url: str, s3: S3Settings | None) -> str | None:
    """What the server's requests to ``url`` are signed for, where it does not know itself."""
    host = url.removeprefix("s3://").partition("/")[0]
    # The names of Amazon's hosts tell it.
    if s3 is None or s3.region in (None, "us-east-1") or ".amazonaws.com" in host:
        return None
    return s3.region


def _login(settings: SqlServerInstance) -> SqlServerLogin:
    return SqlServerLogin(
        host=settings.host,
        port=settings.port,
        user=settings.user,
        password=settings.password.resolve(),
        wire=settings.wire,
        ca_file=settings.ca_file,
    )


def _replica_login(settings: SqlServerInstance, name: str) -> SqlServerLogin:
    """The same login, at the replica of that name."""
    host, port = settings.replica_host(name), settings.replicas[name].port
    return replace(_login(settings), host=host, port=port)


def _replicas(settings: SqlServerInstance, place: SqlServerPlace) -> list[SqlServerReplica]:
    """The servers of an instance's availability groups; ``place`` is how the instance delivers."""
    found: list[SqlServerReplica] = []
    for name, replica in settings.replicas.items():
        delivery = place.delivery
        disk = None if replica.delivery is None else replica.delivery.disk
        if disk is not None and isinstance(delivery, FolderDelivery):
            delivery = FolderDelivery(disk.server_path, Path(disk.local_path), delivery.owner)
        found.append(SqlServerReplica(name, _replica_login(settings, name), delivery))
    return found
