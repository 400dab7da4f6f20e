"""Instances in policy files: the database servers to protect."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sqlbak.policy.hook_settings import Hooks
from sqlbak.policy.limits import InstanceLimits
from sqlbak.policy.setting_model import SettingModel
from sqlbak.policy.settings import (
    Dsn,
    FolderPath,
    Secret,
    ServerUrl,
    SlotName,
    Text,
)

__all__ = [
    "Databases",
    "Delivery",
    "DiskDelivery",
    "PostgresInstance",
    "Replica",
    "SqlServerInstance",
]


class PostgresInstance(SettingModel):
    """A PostgreSQL cluster to protect."""

    engine: Literal["postgres"] = Field(examples=["postgres"])
    dsn: Dsn = Field(
        description="How to connect: a reference to a DSN (env:NAME or file:PATH), or a DSN "
        "without a password.",
        examples=["env:ORDERS_DSN"],
    )
    primary_dsn: Dsn | None = Field(
        default=None,
        description="Where dsn leads to a standby: how to connect to its primary, where the "
        "heartbeat of each backup is then written. A reference, or a DSN without a password.",
        examples=["env:ORDERS_PRIMARY_DSN"],
    )
    policy: Text | None = Field(
        default=None,
        description="Name of its policy. Not written: the only policy there is, or DefaultPolicy.",
        examples=["gold"],
    )
    slot: SlotName | None = Field(
        default=None,
        description="Name of the replication slot that holds the log: a-z, 0-9 and _.",
        examples=["sqlbak_orders"],
    )
    pg_bin: FolderPath | None = Field(
        default=None,
        description="Folder of PostgreSQL's own programs, of the server's major version.",
        examples=["/usr/lib/postgresql/17/bin"],
    )
    limits: InstanceLimits = Field(
        default=InstanceLimits(),
        description="How much one process may ask of it at once.",
        examples=[{"jobs": 2}],
    )
    hooks: Hooks = Field(
        default=Hooks(),
        description="Programs that run before and after each backup.",
        examples=[{"pre": {"command": ["/usr/local/bin/before-backup"]}}],
    )


class DiskDelivery(SettingModel):
    """SQL Server writes to a folder that sqlbak sees too."""

    server_path: Text = Field(
        description="The folder as the server sees it.", examples=["/var/opt/mssql/backup"]
    )
    local_path: Text = Field(
        description="The same folder as sqlbak sees it.", examples=["/mnt/erp-backup"]
    )


class Delivery(SettingModel):
    """How a SQL Server backup reaches the vault: exactly one of the two."""

    disk: DiskDelivery | None = Field(
        default=None,
        description="Through a folder that both sides see; every version.",
        examples=[{"server_path": "/var/opt/mssql/backup", "local_path": "/mnt/erp-backup"}],
    )
    url: ServerUrl | None = Field(
        default=None,
        description="The vault as SQL Server 2022 and later reach it, which then write into it "
        "themselves: s3://host/bucket/prefix or s3://bucket.host/prefix.",
        examples=["s3://s3.eu-central-1.amazonaws.com/acme-backups/prod"],
    )


class Databases(SettingModel):
    """Which databases of an instance are protected; names may hold the wildcard *."""

    include: tuple[Text, ...] = Field(
        default=("*",), examples=[["*"]], json_schema_extra={"minItems": 1}
    )
    exclude: tuple[Text, ...] = Field(default=(), examples=[["tempdb"]])


class Replica(SettingModel):
    """One server of an instance's availability groups, under its own name (@@SERVERNAME)."""

    host: Text | None = Field(
        default=None,
        description="Host name or address. Not written: the server's own name, in small letters.",
        examples=["node1.example.com"],
    )
    port: int = Field(default=1433, ge=1, le=65535, strict=True, examples=[1433])
    delivery: Delivery | None = Field(
        default=None,
        description="How a backup that this server takes reaches the vault. Not written: as the "
        "instance says.",
        examples=[{"disk": {"server_path": "D:\\Backup", "local_path": "/mnt/node1-backup"}}],
    )


class SqlServerInstance(SettingModel):
    """A SQL Server instance to protect."""

    engine: Literal["sqlserver"] = Field(examples=["sqlserver"])
    host: Text = Field(description="Host name or address.", examples=["erp.example.com"])
    port: int = Field(default=1433, ge=1, le=65535, strict=True, examples=[1433])
    user: Text = Field(description="Login.", examples=["sqlbak"])
    password: Secret = Field(
        description="Reference to the login's password.", examples=["env:ERP_PASSWORD"]
    )
    delivery: Delivery = Field(
        description="How a backup reaches the vault.",
        examples=[
            {"disk": {"server_path": "/var/opt/mssql/backup", "local_path": "/mnt/erp-backup"}}
        ],
    )
    databases: Databases = Field(
        default=Databases(), examples=[{"include": ["*"], "exclude": ["tempdb"]}]
    )
    replicas: dict[Text, Replica] = Field(
        default={},
        description="The servers of its availability groups, by their own names. Fulls and "
        "differentials are then taken on the primary, logs where the group prefers it.",
        examples=[{"NODE1": {"host": "node1.example.com"}, "NODE2": {"host": "node2.example.com"}}],
    )
    tls: Literal["verified", "required", "clear"] | None = Field(
        default=None,
        description="verified: encrypted, and the server's certificate is checked against ca_file. "
        "required: encrypted, but anybody in between could be the server. clear: nothing is "
        "hidden. Not written: verified with ca_file, else required.",
        examples=["verified"],
    )
    ca_file: FolderPath | None = Field(
        default=None,
        description="Certificates to trust (PEM), with tls: verified; relative to this file.",
        examples=["/etc/ssl/own-ca.pem"],
    )
    compression: Literal["auto", "none", "ms_xpress", "zstd"] = Field(
        default="auto",
        description="How SQL Server compresses. auto: the best that the server can (zstd from 2025 "
        "on, none with Express).",
        examples=["auto"],
    )
    stripes: int | None = Field(
        default=None,
        ge=1,
        le=64,
        strict=True,
        description="Files over which fulls and differentials are striped. Not written: one for "
        "each 100 GiB.",
        examples=[4],
    )
    policy: Text | None = Field(
        default=None,
        description="Name of its policy. Not written: the only policy there is, or DefaultPolicy.",
        examples=["gold"],
    )
    limits: InstanceLimits = Field(
        default=InstanceLimits(),
        description="How much one process may ask of it at once.",
        examples=[{"jobs": 2}],
    )
    hooks: Hooks = Field(
        default=Hooks(),
        description="Programs that run before and after each backup.",
        examples=[{"pre": {"command": ["/usr/local/bin/before-backup"]}}],
    )

    @property
    def wire(self) -> str:
        """How the wire is protected: ``tls``, or what stands for it when it is not written."""
        return self.tls or ("required" if self.ca_file is None else "verified")

    def replica_host(self, name: str) -> str:
        """The host of a replica: as it is written, or the server's name without the instance."""
        return self.replicas[name].host or name.partition("\\")[0].lower()
