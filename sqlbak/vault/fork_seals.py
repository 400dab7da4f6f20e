"""Seals of lineage records, in encrypted vaults: ``items/<item>/seals/<record>.<key id>``.

Somebody who can write into the store could otherwise send a restore along another of the item's
own branches. Each backup seals what its server told, under the vault key that it is written with:
a record never changes, while its seals become more when the key is changed.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from sqlbak.errors import ObjectNotFound
from sqlbak.vault.documents import same_or_put
from sqlbak.vault.layout import seals_prefix
from sqlbak.vault.store import ObjectStore

if TYPE_CHECKING:
    from sqlbak.vault.vault_key import VaultKey
    from sqlbak.vault.vault_keys import VaultKeys

__all__ = ["is_sealed", "seal_record"]


def seal_record(
    store: ObjectStore, item_id: str, record: str, content: bytes, key: VaultKey
) -> None:
    """Seal the lineage record called ``record``, which holds ``content``."""
    seal = key.seal_of_fork(item_id, record, content).encode()
    same_or_put(store, f"{seals_prefix(item_id)}{record}.{key.id}", seal)


def is_sealed(
    store: ObjectStore, item_id: str, record: str, content: bytes, keys: VaultKeys
) -> bool:
    """Whether somebody who has a key that is at hand wrote exactly this."""
    prefix = f"{seals_prefix(item_id)}{record}."
    held = {key.id: key for key in keys.readable()}
    for info in store.list(prefix):
        key = held.get(info.key.removeprefix(prefix))
        if key is None:
            continue
        try:
            found = store.get(info.key)
        except ObjectNotFound:
            continue
        if hmac.compare_digest(found, key.seal_of_fork(item_id, record, content).encode()):
            return True
    return False
