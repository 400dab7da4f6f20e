"""Whole fleets in a folder, without a server: policies, and vaults that hold nothing but names."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlbak.fleet import Fleet
from sqlbak.model import EngineName, Item, Point
from sqlbak.policy.loading import load_configuration
from sqlbak.policy.schema import Configuration
from sqlbak.vault.items import create_item
from sqlbak.vault.layout import points_prefix, volume_key
from sqlbak.vault.names import format_name
from sqlbak.vault.opening import open_store
from sqlbak.vault.vault import Vault, create_vault
from tests.monitor.watching import NOON


@dataclass(frozen=True)
class Place:
    """A folder with one policy file and one vault."""

    root: Path

    def write(self, *instances: str, more: str = "") -> Configuration:
        """Configure these instances, none of which has a server that answers."""
        text = (
            f"vaults:\n  main: {{url: 'file://{self.root}/vault', redundancy: local}}\n"
            "policies:\n  gold: {vault: main, full: '0 1 * * *', log: 15m}\ninstances:\n"
        )
        for name in instances:
            text += f"  {name}: {{engine: postgres, dsn: 'host=/nowhere port=1', policy: gold}}\n"
        file = self.root / "policy.yaml"
        file.write_text(text + more)
        return load_configuration(file).configuration

    @contextmanager
    def vault(self) -> Iterator[Vault]:
        """Its vault, made if it is not there."""
        store = open_store(f"file://{self.root}/vault")
        try:
            yield create_vault(store, redundancy="local", now=NOON)
        finally:
            store.close()

    def add(
        self, name: str, points: Sequence[Point], *, identity: str = "", at: datetime = NOON
    ) -> Item:
        """An item with recovery points that are nothing but names, and holes of their size."""
        with self.vault() as vault:
            wanted = Item("", EngineName.POSTGRES, name, None, identity or f"id of {name}")
            item = create_item(vault.store, wanted, at).item
        folder = self.root / "vault" / points_prefix(item.id)
        folder.mkdir(parents=True, exist_ok=True)
        for point in points:
            (folder / format_name(point)).touch()  # the store would flush each to the disk
            volume = volume_key(item.id, point.id, "base", 0, is_encrypted=False)
            payload = self.root / "vault" / volume
            payload.parent.mkdir(parents=True)
            payload.touch()
            os.truncate(payload, point.size_bytes)
        return item

    @contextmanager
    def fleet(self, *instances: str) -> Iterator[Fleet]:
        """The fleet of these instances."""
        with Fleet(self.write(*instances)) as fleet:
            yield fleet
