"""Programs that run before and after backups."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sqlbak.model import PointType
from sqlbak.policy.setting_model import SettingModel
from sqlbak.policy.settings import Program

__all__ = ["Hook", "Hooks"]


class Hook(SettingModel):
    """A program that runs before or after each backup of an item."""

    command: Program = Field(
        description="The program's absolute path and its arguments; no shell reads it.",
        examples=[["/usr/local/bin/before-backup", "orders"]],
        json_schema_extra={"minItems": 1},
    )
    timeout: int = Field(
        default=60,
        ge=1,
        le=3600,
        strict=True,
        description="Seconds after which it is ended, and counts as failed.",
        examples=[60],
    )
    on_failure: Literal["stop", "continue"] = Field(
        default="stop",
        description="Of pre: whether the backup is taken when it failed. Of post: whether the "
        "failure counts as one of the run.",
        examples=["continue"],
    )
    types: tuple[PointType, ...] = Field(
        default=tuple(PointType),
        description="Before or after which backups. Not written: all.",
        examples=[["full", "differential"]],
        json_schema_extra={"minItems": 1},
    )


class Hooks(SettingModel):
    """Programs around the backups of an instance's items."""

    pre: Hook | None = Field(
        default=None,
        description="Runs before each backup.",
        examples=[{"command": ["/usr/local/bin/before-backup"]}],
    )
    post: Hook | None = Field(
        default=None,
        description="Runs after each backup, whatever became of it and of pre.",
        examples=[{"command": ["/usr/local/bin/after-backup"]}],
    )
