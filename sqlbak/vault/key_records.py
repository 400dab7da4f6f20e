"""Which vault keys a vault was ever written with: their ids, never the keys."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlbak.errors import ObjectNotFound
from sqlbak.vault.documents import decode, encode, instant_text, same_or_put
from sqlbak.vault.layout import KEYS_PREFIX, key_record_key
from sqlbak.vault.store import ObjectStore

__all__ = ["KeyRecord", "record_key", "recorded_ids", "recorded_keys"]


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A vault key's id, and when something was first encrypted with it (UTC, by the clock of the
    machine that did)."""

    id: str
    first_used_at: datetime


def record_key(store: ObjectStore, key_id: str, *, now: datetime) -> None:
    """Remember the key; nothing changes when it is remembered already."""
    document = {
        "kind": "vault key",
        "format": 1,
        "id": key_id,
        "first_used_at": instant_text(now),
    }
    same_or_put(store, key_record_key(key_id), encode(document))


def recorded_ids(store: ObjectStore) -> set[str]:
    """The ids of all keys that are remembered, from a listing alone."""
    names = [info.key.removeprefix(KEYS_PREFIX) for info in store.list(KEYS_PREFIX)]
    return {name.removesuffix(".json") for name in names if name.endswith(".json")}


def recorded_keys(store: ObjectStore) -> list[KeyRecord]:
    """All keys that are remembered, oldest first. ObjectDamaged."""
    records = []
    for info in store.list(KEYS_PREFIX):
        try:
            fields = decode(info.key, store.get(info.key))
        except ObjectNotFound:
            continue
        records.append(KeyRecord(fields.text("id"), fields.instant("first_used_at")))
    return sorted(records, key=lambda record: (record.first_used_at, record.id))
