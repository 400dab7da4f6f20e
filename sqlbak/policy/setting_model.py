"""What all models of policy files have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["SettingModel"]


class SettingModel(BaseModel):
    """Frozen, without unknown keys."""

    # Error texts must not repeat values: one of them may be a secret in the wrong place.
    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, arbitrary_types_allowed=True
    )
