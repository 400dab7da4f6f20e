"""A data key as it lies in the vault: wrapped, beside the name of the vault key that unwraps it."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any

from sqlbak.errors import VaultUnusable
from sqlbak.vault.documents import Fields

__all__ = ["METHOD", "NONCE_BYTES", "WrappedKey", "about_point", "about_shipped_log"]

METHOD = "aes-256-gcm"

NONCE_BYTES = 12
"""What the method takes, wherever it is used."""


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """``key_id`` names the vault key, ``wrapped`` is what it made of the data key."""

    key_id: str
    wrapped: bytes

    def to_document(self) -> dict[str, Any]:
        """As it stands in manifests and in headers of shipped log."""
        return {
            "method": METHOD,
            "key_id": self.key_id,
            "wrapped_key": base64.b64encode(self.wrapped).decode("ascii"),
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> WrappedKey:
        """The reverse. VaultUnusable when a newer version wrote it, else ObjectDamaged."""
        if fields.document.get("method") != METHOD:
            raise VaultUnusable(
                f"{fields.key} is encrypted in a way that this version does not know",
                hint="upgrade sqlbak",
            )
        try:
            wrapped = base64.b64decode(fields.text("wrapped_key"), validate=True)
        except (binascii.Error, ValueError) as error:
            raise fields.wrong("wrapped_key", "base64") from error
        return cls(fields.text("key_id"), wrapped)


def about_point(item_id: str, point_id: str) -> str:
    """What the data key of a recovery point is for."""
    return f"sqlbak recovery point {point_id} of {item_id}"


def about_shipped_log(item_id: str) -> str:
    """What the data key of a run of shipped log is for."""
    return f"sqlbak shipped log of {item_id}"
