"""What lies in the configured vaults, looked at in parallel: thousands of items in seconds."""

from __future__ import annotations

from dataclasses import dataclass

from sqlbak.errors import ObjectNotFound, SqlbakError, UnknownName
from sqlbak.fleet import Fleet, StoredItem
from sqlbak.monitor.at_once import at_once
from sqlbak.vault.items import item_ids
from sqlbak.vault.vault import Vault

__all__ = ["Stock", "named", "stock_of"]


@dataclass(frozen=True, slots=True)
class Stock:
    """The stored items of all configured vaults, and the vaults that could not be asked."""

    items: tuple[StoredItem, ...]
    failures: tuple[tuple[str, SqlbakError], ...] = ()


def stock_of(fleet: Fleet) -> Stock:
    """Every stored item of every configured vault that answers, by vault and item id."""
    items: list[StoredItem] = []
    failures: list[tuple[str, SqlbakError]] = []
    for name in fleet.vault_names():
        try:
            vault = fleet.existing_vault(name)
            items += [] if vault is None else _items(vault)
        except SqlbakError as error:
            failures.append((name, error))
    return Stock(tuple(items), tuple(failures))


def _items(vault: Vault) -> list[StoredItem]:
    def read(item_id: str) -> StoredItem | None:
        try:
            return StoredItem(vault, vault.item(item_id))
        except ObjectNotFound:
            return None  # its maker crashed, or is between its two steps

    found = at_once(read, item_ids(vault.store))
    return [stored for stored in found if stored is not None]


def named(fleet: Fleet, stock: Stock, name: str | None) -> tuple[StoredItem, ...]:
    """The stored items meant by an item's name, an instance's (all of it) or an item id; None: all.
    UnknownName when that is neither stored nor configured."""
    if name is None:
        return stock.items
    found = tuple(
        each for each in stock.items if name in (each.item.name, each.item.instance, each.item.id)
    )
    instance = name.partition("/")[0]
    if not found and instance not in fleet.instances():
        known = {each.item.name for each in stock.items} | set(fleet.instances())
        raise UnknownName("item", name, sorted(known))
    return found
