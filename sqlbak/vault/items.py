"""Which folder of the vault an item has: found by the engine's own identity, told by its name.

The same identity under a new name is the same item (renamed). The same name with another identity
is another item (dropped and created again). Two configured items with one identity (a restored
copy beside its source) are two items. A server that was put back to an older copy of itself goes
on as a new item, the successor: its positions in the log mean another history now. An item's
record is never overwritten: it tells the name that the item had when it was first seen.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime

from sqlbak.errors import VaultError
from sqlbak.model import EngineName, Item
from sqlbak.vault.documents import decode, encode, instant_text, same_or_put
from sqlbak.vault.layout import INDEX_PREFIX, ITEM_ID, item_index_key, item_key
from sqlbak.vault.manifest import item_document, item_from_fields
from sqlbak.vault.store import ObjectStore

__all__ = ["ItemRecord", "create_item", "identity_hash", "item_ids", "matching", "read_item"]

_SLUG_LETTERS = 40


@dataclass(frozen=True, slots=True)
class ItemRecord:
    """An item as first seen, and when that was (UTC)."""

    item: Item
    created_at: datetime


def identity_hash(engine: EngineName, identity: str) -> str:
    """Sixteen hexadecimal digits that stand for the engine's own identity of an item."""
    text = f"{engine.value}\0{identity}".encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).hexdigest()[:16]


def slug(name: str) -> str:
    """A readable form of any name: ``[a-z0-9-]``, 1 to 40 characters."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return plain[:_SLUG_LETTERS].strip("-") or "item"


def item_ids(store: ObjectStore) -> list[str]:
    """The ids of all items, from one short listing; somebody else's files are passed over."""
    names = [info.key.removeprefix(INDEX_PREFIX) for info in store.list(INDEX_PREFIX)]
    return [name for name in names if ITEM_ID.fullmatch(name)]


def has_identity(item_id: str, engine: EngineName, identity: str) -> bool:
    """Whether the id was made for that identity."""
    return re.search(f"-{identity_hash(engine, identity)}(-[0-9a-f]{{8}})?$", item_id) is not None


def read_item(store: ObjectStore, item_id: str) -> ItemRecord:
    """What the vault recorded of an item. ObjectNotFound while it is still being made."""
    key = item_key(item_id)
    fields = decode(key, store.get(key))
    item = item_from_fields(fields)
    if item.id != item_id:
        raise fields.wrong("id", f"the id of its folder, {item_id}")
    return ItemRecord(item, fields.instant("created_at"))


def matching(
    records: Collection[ItemRecord], name: str, configured_names: Collection[str]
) -> ItemRecord | None:
    """Which of ``records``, all of one engine and identity, is the item now called ``name``.

    The newest one recorded under this very name; else the newest whose recorded name is
    configured no more, for then it was renamed; else none.
    """
    named = [one for one in records if one.item.name == name]
    renamed = [one for one in records if one.item.name not in configured_names]
    return max(named or renamed, key=lambda one: (one.created_at, one.item.id), default=None)


def create_item(
    store: ObjectStore, item: Item, now: datetime, *, is_successor: bool = False
) -> ItemRecord:
    """Record a new item. ``item.id`` is chosen here: slug of the name, hash of the identity, and
    a hash of the name where another name has the same slug (case twins), or of name and time for
    a successor."""
    name = item.name.encode("utf-8", "surrogatepass")
    plain = f"{slug(item.name)}-{identity_hash(item.engine, item.identity)}"
    twin = f"{plain}-{hashlib.sha256(name).hexdigest()[:8]}"
    later = hashlib.sha256(name + f"\0{instant_text(now)}".encode()).hexdigest()[:8]
    for item_id in (f"{plain}-{later}",) if is_successor else (plain, twin):
        wanted = replace(item, id=item_id)
        document = item_document(wanted) | {"created_at": instant_text(now)}
        # The index first: a folder that no listing finds would never be swept.
        same_or_put(store, item_index_key(item_id), b"")
        key = item_key(item_id)
        fields = decode(key, same_or_put(store, key, encode(document)))
        if item_from_fields(fields) == wanted:
            return ItemRecord(wanted, fields.instant("created_at"))
    raise VaultError(f"no folder is free for {item.name}: {item_key(plain)} is another item's")
