"""How an item's lineages descend from each other, as its server told it.

One record for each fork, named ``<lineage>.from.<parent>.at.<lsn, hexadecimal>``; its content is
the engine's own record byte for byte (PostgreSQL: the timeline history file). A fork that the
server told without its own record is kept as an empty object with ``.told`` at the end. Nothing
is ever overwritten: overwritten history files have made tools choose wrong timelines.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sqlbak.errors import LineageConflict, ObjectDamaged, ObjectNotFound
from sqlbak.model import Fork
from sqlbak.vault.documents import same_or_put
from sqlbak.vault.fork_seals import is_sealed, seal_record
from sqlbak.vault.layout import lineages_prefix
from sqlbak.vault.store import ObjectStore

if TYPE_CHECKING:
    from sqlbak.vault.vault_key import VaultKey
    from sqlbak.vault.vault_keys import VaultKeys

__all__ = ["list_forks", "read_histories", "record_forks", "require_sealed"]

_TOLD = ".told"
_WORD = "[A-Za-z0-9-]{1,64}"
_NAME = re.compile(
    rf"({_WORD})\.from\.({_WORD})\.at\.(0|[1-9a-f][0-9a-f]{{0,31}})(\.told)?", re.ASCII
)


def fork_name(fork: Fork) -> str:
    """The name of a fork's record. ValueError for a lineage that cannot stand in a name."""
    name = f"{fork.lineage}.from.{fork.parent}.at.{fork.lsn:x}"
    if not _NAME.fullmatch(name):
        raise ValueError(f"the fork {fork} cannot be written in a name")
    return name


def list_forks(store: ObjectStore, item_id: str) -> tuple[Fork, ...]:
    """All forks that the vault knows for the item, from a listing alone."""
    prefix = lineages_prefix(item_id)
    forks = {_fork(key, prefix): None for key in _keys(store, prefix)}
    return tuple(forks)


def read_histories(
    store: ObjectStore, item_id: str, keys: VaultKeys | None = None
) -> dict[str, bytes]:
    """The engine's own record of each lineage that has one; with ``keys``, only those that one of
    them has sealed."""
    prefix = lineages_prefix(item_id)
    histories: dict[str, bytes] = {}
    for key in _keys(store, prefix):
        if key.endswith(_TOLD):
            continue
        lineage, content = _fork(key, prefix).lineage, store.get(key)
        if keys and not is_sealed(store, item_id, key.removeprefix(prefix), content, keys):
            continue
        if lineage in histories:
            raise LineageConflict(f"{prefix} holds two different histories of lineage {lineage}")
        histories[lineage] = content
    return histories


def record_forks(
    store: ObjectStore,
    item_id: str,
    forks: Sequence[Fork],
    histories: Mapping[str, bytes],
    key: VaultKey | None = None,
) -> None:
    """Keep what a server told, unless it is known already, and seal it with ``key``.

    LineageConflict when it contradicts what is known: two servers then made a lineage of the
    same name, and no restore could tell them apart.
    """
    if missing := histories.keys() - {fork.lineage for fork in forks}:
        raise ValueError(f"there is a history of {min(missing)}, but no fork")
    if not forks:
        return
    prefix = lineages_prefix(item_id)
    known = {_fork(key, prefix): key for key in _keys(store, prefix)}
    for fork in forks:
        name = fork_name(fork)
        for other, other_key in known.items():
            if other.lineage == fork.lineage and other != fork:
                raise LineageConflict(
                    f"the server says {name}, but the vault has {other_key}: two servers made "
                    f"lineage {fork.lineage} of one item",
                    hint="give the copy its own instance name, so that it becomes an item of "
                    "its own",
                )
        history = histories.get(fork.lineage)
        if history is None:
            # A record that this server did not tell cannot be sealed for it; that there is the
            # fork can be told beside.
            if fork not in known or key is not None:
                same_or_put(store, f"{prefix}{name}{_TOLD}", b"")
            if key is not None:
                seal_record(store, item_id, name + _TOLD, b"", key)
        elif (kept := same_or_put(store, prefix + name, history)) != history:
            raise LineageConflict(
                f"{prefix}{name} holds another history ({len(kept)} bytes) than the server now "
                f"tells of lineage {fork.lineage} ({len(history)} bytes)",
                hint="two servers made one lineage; give the copy its own instance name",
            )
        elif key is not None:
            seal_record(store, item_id, name, history, key)


def require_sealed(store: ObjectStore, item_id: str, fork: Fork, keys: VaultKeys) -> None:
    """ObjectDamaged when no key at hand proves that a server told of this fork."""
    name = fork_name(fork)
    for record in (name, name + _TOLD):
        try:
            content = store.get(lineages_prefix(item_id) + record)
        except ObjectNotFound:
            continue
        if is_sealed(store, item_id, record, content, keys):
            return
    raise ObjectDamaged(
        f"{lineages_prefix(item_id)}{name} is not sealed by the vault's key: somebody may have "
        "put it there",
        hint="the next backup of that server seals what is true of it; if the server knows "
        "nothing of it, move it out of the vault",
    )


def _keys(store: ObjectStore, prefix: str) -> list[str]:
    """The records; what is nothing like one is somebody else's file."""
    return [info.key for info in store.list(prefix) if ".from." in info.key.removeprefix(prefix)]


def _fork(key: str, prefix: str) -> Fork:
    match = _NAME.fullmatch(key.removeprefix(prefix))
    if match is None:
        raise ObjectDamaged(
            f"{key} is not the name of a lineage record",
            hint="if the file is not sqlbak's, move it out of the vault",
        )
    return Fork(match[1], match[2], int(match[3], 16))
