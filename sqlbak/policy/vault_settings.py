"""Vaults in policy files: where recovery points live, and how that place is reached."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from sqlbak.policy.limits import VaultLimits
from sqlbak.policy.setting_model import SettingModel
from sqlbak.policy.settings import (
    Endpoint,
    FolderPath,
    Secret,
    Span,
    Text,
    VaultUrl,
)

__all__ = [
    "Encryption",
    "PlainPoints",
    "Redundancy",
    "S3Settings",
    "VaultSettings",
]


class Redundancy(StrEnum):
    """Whether recovery points live in one place or in two."""

    LOCAL = "local"
    GEO = "geo"


class PlainPoints(StrEnum):
    """Whether recovery points that are not encrypted are believed, in a vault that is."""

    REFUSED = "refused"
    ALLOWED = "allowed"


class Encryption(SettingModel):
    """Encryption of all backup data in a vault."""

    key: Secret = Field(
        description="Reference to the vault key: 32 random bytes as base64 (sqlbak key new).",
        examples=["file:/run/secrets/vault.key"],
    )
    old_keys: tuple[Secret, ...] = Field(
        default=(),
        description="Keys that `key` has replaced, for what was encrypted with them.",
        examples=[["file:/run/secrets/vault-2025.key"]],
    )
    plain_points: PlainPoints = Field(
        default=PlainPoints.REFUSED,
        description="allowed: recovery points from before encryption was turned on can be "
        "restored. refused: anything that is not encrypted is taken for forged.",
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
        description="Encrypt the data of every backup before it leaves this machine.",
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
