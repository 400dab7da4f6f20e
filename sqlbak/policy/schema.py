"""The document that policy files make together: vaults, policies and instances.

Each model checks its own fields; rules that join fields or documents are in sqlbak.policy.rules,
so that a loader can name all problems at once.
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import Field

from sqlbak.model import DifferentialMethod
from sqlbak.policy.cron import CronLine
from sqlbak.policy.duration import Duration
from sqlbak.policy.hook_settings import Hooks
from sqlbak.policy.limits import InstanceLimits, VaultLimits
from sqlbak.policy.notifications import NotificationSettings
from sqlbak.policy.setting_model import SettingModel
from sqlbak.policy.settings import (
    Cron,
    Dsn,
    Endpoint,
    FolderPath,
    Quiet,
    Secret,
    ServerUrl,
    SlotName,
    Span,
    Text,
    TimezoneName,
    VaultUrl,
)

__all__ = [
    "DEFAULT_POLICY_NAME",
    "Configuration",
    "Databases",
    "Delivery",
    "DiskDelivery",
    "Encryption",
    "LogCadence",
    "Policy",
    "PostgresInstance",
    "Redundancy",
    "Retention",
    "S3Settings",
    "SqlServerInstance",
    "VaultSettings",
    "default_policy",
]

DEFAULT_SHIPPING_SECONDS = 5

DEFAULT_POLICY_NAME = "DefaultPolicy"
"""The policy of a vault for which none is written."""


class Redundancy(StrEnum):
    """Whether recovery points live in one place or in two."""

    LOCAL = "local"
    GEO = "geo"


class LogCadence(StrEnum):
    """How often the log is backed up, counted from midnight UTC."""

    EVERY_15_MINUTES = "15m"
    EVERY_30_MINUTES = "30m"
    HOURLY = "1h"
    EVERY_2_HOURS = "2h"
    EVERY_4_HOURS = "4h"
    EVERY_8_HOURS = "8h"
    EVERY_12_HOURS = "12h"
    DAILY = "24h"

    @property
    def interval(self) -> timedelta:
        """The time between two log backups."""
        count, unit = int(self.value[:-1]), self.value[-1]
        return timedelta(minutes=count) if unit == "m" else timedelta(hours=count)


class Encryption(SettingModel):
    """Encryption of everything in a vault."""

    key: Secret = Field(
        description="Reference to the vault key.", examples=["file:/run/secrets/vault.key"]
    )


class S3Settings(SettingModel):
    """How to reach the S3 server of a vault. Without it: AWS, with the credentials, region and
    certificates that its own tools would find."""

    endpoint: Endpoint | None = Field(
        default=None,
        description="URL of an S3 server other than AWS.",
        examples=["https://storage.example.com"],
    )
    region: Text | None = Field(
        default=None, description="Region of the bucket.", examples=["eu-central-1"]
    )
    addressing: Literal["auto", "path", "virtual"] = Field(
        default="auto",
        description="Whether the bucket is part of the path or of the host name.",
        examples=["path"],
    )
    ca_file: FolderPath | None = Field(
        default=None,
        description="Certificates to trust instead of the system's; relative to this file.",
        examples=["/etc/ssl/own-ca.pem"],
    )
    access_key: Secret | None = Field(
        default=None,
        description="Reference to the access key id.",
        examples=["env:BACKUP_ACCESS_KEY"],
    )
    secret_key: Secret | None = Field(
        default=None,
        description="Reference to the secret access key.",
        examples=["env:BACKUP_SECRET_KEY"],
    )
    session_token: Secret | None = Field(
        default=None,
        description="Reference to the token of temporary credentials.",
        examples=["env:BACKUP_SESSION_TOKEN"],
    )


class VaultSettings(SettingModel):
    """A vault: where recovery points live."""

    url: VaultUrl = Field(
        description="Where it is: s3://bucket/prefix or file:///absolute/path.",
        examples=["s3://acme-backups/prod"],
    )
    redundancy: Redundancy = Field(
        description="local: one copy, in this place. geo: a second copy in `secondary`.",
        examples=["local"],
    )
    secondary: VaultUrl | None = Field(
        default=None,
        description="Where the second copy is, with redundancy: geo.",
        examples=["s3://acme-backups-dr/prod"],
    )
    encryption: Encryption | None = Field(
        default=None,
        description="Encrypt everything that is written.",
        examples=[{"key": "file:/run/secrets/vault.key"}],
    )
    soft_delete: Span | None = Field(
        default=None,
        description="How long deleted recovery points can be brought back, 1d to 180d.",
        examples=["14d"],
    )
    s3: S3Settings | None = Field(
        default=None,
        description="How to reach the S3 server.",
        examples=[{"endpoint": "https://storage.example.com"}],
    )
    limits: VaultLimits = Field(
        default=VaultLimits(),
        description="How much one process may ask of it at once.",
        examples=[{"jobs": 8, "bandwidth": "50MiB/s"}],
    )


class Retention(SettingModel):
    """How long recovery points are kept; months and years are calendar units."""

    full: Span = Field(
        default=Duration(30, "d"),
        description="Every full: 7d to 9999d.",
        examples=["30d"],
    )
    differential: Span | None = Field(
        default=None,
        description="Every differential: 7d to 180d, at most as long as full. Not written: as long "
        "as full, at most 180d.",
        examples=["30d"],
    )
    log: Span = Field(
        default=Duration(15, "d"), description="Every log: 7d to 35d.", examples=["15d"]
    )
    weekly: Span | None = Field(
        default=None, description="One full a week: 1w to 5163w.", examples=["12w"]
    )
    monthly: Span | None = Field(
        default=None, description="One full a month: 1m to 1188m.", examples=["12m"]
    )
    yearly: Span | None = Field(
        default=None, description="One full a year: 1y to 99y.", examples=["7y"]
    )


class Policy(SettingModel):
    """When backups are taken and how long they are kept."""

    vault: Text = Field(description="Name of the vault.", examples=["main"])
    timezone: TimezoneName = Field(
        default="UTC",
        description="IANA time zone of the cron lines and of times without an offset.",
        examples=["Europe/Berlin"],
    )
    full: Cron = Field(
        description="Cron line of the full backup, at most one a local day.",
        examples=["0 1 * * sun"],
    )
    differential: Cron | None = Field(
        default=None,
        description="Cron line of the differential backup, at most one a local day, never on a day "
        "with a full.",
        examples=["0 1 * * mon-sat"],
    )
    differential_method: DifferentialMethod = Field(
        default=DifferentialMethod.AUTO,
        description="How it is found out what changed since the full. pages: every page is "
        "compared. native: PostgreSQL 17 and later say it themselves, where that is known to be "
        "safe, else pages. auto: pages.",
        examples=["pages"],
    )
    log: LogCadence | None = Field(
        default=None,
        description="How often the log is backed up, from midnight UTC. Not written: no log "
        "backups, so a restore reaches only the ends of the other backups.",
        examples=["15m"],
    )
    log_shipping: Literal["continuous"] | None = Field(
        default=None,
        description="continuous: between two log backups the log is shipped as it is written, so "
        "that losing the server costs seconds. Beside log only.",
        examples=["continuous"],
    )
    log_shipping_interval: int | None = Field(
        default=None,
        ge=1,
        le=60,
        strict=True,
        description="Seconds of work that losing the server may cost, with log_shipping: "
        "continuous. Not written: 5.",
        examples=[5],
    )
    quiet_hours: tuple[Quiet, ...] = Field(
        default=(),
        description="When no full and no differential starts, in the policy's zone; logs go on.",
        examples=[["mon-fri 08:00-18:00"]],
    )
    retention: Retention = Field(
        default=Retention(),
        description="How long recovery points are kept.",
        examples=[{"full": "30d", "log": "15d"}],
    )

    @property
    def zone(self) -> ZoneInfo:
        """The zone of its cron lines."""
        return ZoneInfo(self.timezone)

    @property
    def log_interval(self) -> timedelta | None:
        """The time between two log backups; None without log backups."""
        return None if self.log is None else self.log.interval

    @property
    def shipping_interval_seconds(self) -> int | None:
        """How often shipped log proves an instant; None where log is not shipped continuously."""
        if self.log_shipping is None:
            return None
        return self.log_shipping_interval or DEFAULT_SHIPPING_SECONDS


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


class Configuration(SettingModel):
    """All policy files together. Made by sqlbak.policy.loading, where names are resolved: every
    instance then has a ``policy`` that is in ``policies``, whose vault is in ``vaults``."""

    vaults: dict[str, VaultSettings] = Field(default={}, description="Where recovery points live.")
    policies: dict[str, Policy] = Field(default={}, description="Schedules and retention.")
    instances: dict[
        str, Annotated[PostgresInstance | SqlServerInstance, Field(discriminator="engine")]
    ] = Field(default={}, description="Database servers to protect.")
    notifications: dict[str, NotificationSettings] = Field(
        default={}, description="Who is told when protection is at risk."
    )

    def policy_for(self, instance: str) -> Policy:
        """The policy of an instance. KeyError when there is no such instance or policy."""
        return self.policies[self.instances[instance].policy or DEFAULT_POLICY_NAME]

    def vault_for(self, instance: str) -> VaultSettings:
        """The vault of an instance. KeyError when there is no such instance, policy or vault."""
        return self.vaults[self.policy_for(instance).vault]


def default_policy(vault: str) -> Policy:
    """What a vault without policies of its own gets: a full every night at 22:00 UTC kept for 30
    days, the log every 15 minutes kept for 15 days."""
    return Policy(
        vault=vault,
        full=CronLine.parse("0 22 * * *"),
        log=LogCadence.EVERY_15_MINUTES,
        retention=Retention(full=Duration(30, "d"), log=Duration(15, "d")),
    )
