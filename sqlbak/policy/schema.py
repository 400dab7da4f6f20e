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
from sqlbak.policy.instance_settings import PostgresInstance, SqlServerInstance
from sqlbak.policy.notifications import NotificationSettings
from sqlbak.policy.setting_model import SettingModel
from sqlbak.policy.settings import (
    Cron,
    Quiet,
    Span,
    Text,
    TimezoneName,
)
from sqlbak.policy.vault_settings import VaultSettings

__all__ = [
    "DEFAULT_POLICY_NAME",
    "Configuration",
    "LogCadence",
    "Policy",
    "Retention",
    "default_policy",
]

DEFAULT_SHIPPING_SECONDS = 5

DEFAULT_POLICY_NAME = "DefaultPolicy"
"""The policy of a vault for which none is written."""


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
