"""How much may run at once, and how fast."""

from __future__ import annotations

from pydantic import Field

from sqlbak.policy.setting_model import SettingModel
from sqlbak.policy.settings import TransferRate

__all__ = ["InstanceLimits", "VaultLimits"]


class VaultLimits(SettingModel):
    """How much one process may ask of a vault at once."""

    jobs: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        strict=True,
        description="Backups at once into this vault. Not written: as many as `sqlbak run --jobs`.",
        examples=[8],
    )
    bandwidth: TransferRate | None = Field(
        default=None,
        description="What all backups together may send to it. Not written: no limit.",
        examples=["50MiB/s"],
    )


class InstanceLimits(SettingModel):
    """How much one process may ask of an instance at once."""

    jobs: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        strict=True,
        description="Backups at once of it. Not written: as many as `sqlbak run --jobs`.",
        examples=[2],
    )
