"""Planning and restoring from one item's objects in a plain folder, as a fleet would give them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, tzinfo
from pathlib import Path

from sqlbak.configured_keys import keys_for_reading
from sqlbak.errors import UnknownName
from sqlbak.fleet import StoredItem
from sqlbak.model import Item
from sqlbak.policy.secret_reference import SecretReference
from sqlbak.vault.copied_item import open_copied_item

__all__ = ["DownloadedItem"]


@dataclass(frozen=True, slots=True)
class DownloadedItem:
    """A copy of an ``items/<item>`` folder of a vault. Needs no configuration, so times without
    an offset are read in UTC. ``keys`` lead to the vault keys that it was encrypted with; with
    any, what is not encrypted is believed only where ``accepts_plain``."""

    folder: Path
    keys: tuple[SecretReference, ...] = ()
    accepts_plain: bool = False

    def stored_items(self, name: str | None) -> list[StoredItem]:
        """The item, if ``name`` (None: any) is its name or id. UnknownName, VaultMissing."""
        keys = keys_for_reading(self.keys, accepts_plain=self.accepts_plain)
        vault, item = open_copied_item(self.folder, keys)
        if name not in (None, item.name, item.id):
            raise UnknownName("item", str(name), [item.name])
        return [StoredItem(vault, item)]

    def zone(self, item: Item) -> tzinfo:  # noqa: ARG002 - a fleet has one for each item
        """UTC."""
        return UTC

    def program_dir(self, item: Item) -> Path | None:
        """Nobody says where programs are."""
