"""A vault: where the recovery points of many items live. The vault is the only truth; whatever
is known of a backup is found here by listing and reading.
"""

from __future__ import annotations

import secrets
import threading
from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

from sqlbak.errors import (
    ObjectDamaged,
    ObjectNotFound,
    PreconditionFailed,
    VaultMissing,
    VaultUnusable,
)
from sqlbak.model import Catalog, EngineName, Fork, Item, Point, PointType, ShippedLog
from sqlbak.vault.documents import Fields, decode, encode, instant_text
from sqlbak.vault.items import (
    ItemRecord,
    create_item,
    has_identity,
    item_ids,
    matching,
    read_item,
)
from sqlbak.vault.layout import INDEX_PREFIX, VAULT_KEY, points_prefix
from sqlbak.vault.lineages import list_forks, read_histories, require_sealed
from sqlbak.vault.manifest import Manifest, decode_manifest, require_seal
from sqlbak.vault.names import begins_as_name, parse_name
from sqlbak.vault.payload_reader import PayloadReader
from sqlbak.vault.store import ObjectStore
from sqlbak.vault.tail import STREAM, TailSource, list_tail, read_piece
from sqlbak.vault.vault_keys import NO_KEYS, KeySettings, VaultKeys
from sqlbak.vault.wrapped_key import WrappedKey, about_point

if TYPE_CHECKING:
    from sqlbak.vault.data_key import DataKey

__all__ = ["FORMAT", "REDUNDANCIES", "Vault", "create_vault", "open_vault"]

FORMAT = 1

REDUNDANCIES = ("local", "geo")

KNOWN_FEATURES: frozenset[str] = frozenset()
"""Additions to the format that this version understands."""


@dataclass(frozen=True, slots=True)
class VaultRecord:
    """What ``vault.json`` says."""

    id: str
    created_at: datetime
    redundancy: str


@dataclass(slots=True, eq=False)
class Vault:
    """An opened vault. Every method may be called from several threads at once."""

    store: ObjectStore
    record: VaultRecord
    keys: VaultKeys
    _records: dict[str, ItemRecord] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def id(self) -> str:
        """The vault's own id; its replicas have the same."""
        return self.record.id

    def items(self) -> list[Item]:
        """Every item that ever had a backup, under the name that it was first seen with."""
        return [record.item for record in self._known(item_ids(self.store))]

    def item_ids(self) -> list[str]:
        """The ids of all items, by listing."""
        return item_ids(self.store)

    def item(self, item_id: str) -> Item:
        """One item. ObjectNotFound when the vault has none with that id."""
        return self._record(item_id).item

    def find_item(
        self,
        engine: EngineName,
        instance: str,
        database: str | None,
        identity: str,
        *,
        configured_names: Collection[str],
        known_ids: Sequence[str] | None = None,
    ) -> Item | None:
        """The item that is now called ``instance`` or ``instance/database``, with that name, by
        the rule of vault/items.py; None when the vault has none. ``configured_names``: all items
        that are configured now, as ``Item.name`` writes them. ``known_ids``: ``item_ids()`` of a
        moment ago, for who asks for many items at once."""
        wanted = Item("", engine, instance, database, identity)
        listed = self.item_ids() if known_ids is None else known_ids
        ids = [one for one in listed if has_identity(one, engine, identity)]
        records = [
            record
            for record in self._known(ids)
            if (record.item.engine, record.item.identity) == (engine, identity)
        ]
        record = matching(records, wanted.name, configured_names)
        return None if record is None else replace(wanted, id=record.item.id)

    def find_or_create_item(
        self,
        engine: EngineName,
        instance: str,
        database: str | None,
        identity: str,
        *,
        configured_names: Collection[str],
        now: datetime,
    ) -> Item:
        """As ``find_item``, making the item when there is none. ``now`` is kept for showing."""
        found = self.find_item(
            engine, instance, database, identity, configured_names=configured_names
        )
        if found is not None:
            return found
        return create_item(self.store, Item("", engine, instance, database, identity), now).item

    def create_successor(self, item: Item, *, now: datetime) -> Item:
        """A new item that has the name and identity of ``item`` from now on. The old one keeps its
        recovery points. ``now`` is the successor's place in their order."""
        return create_item(self.store, item, now, is_successor=True).item

    def points(self, item_id: str) -> list[Point]:
        """All recovery points of the item, by their ids, from a listing alone. What does not even
        begin like a recovery point's name is somebody else's and passed over; ObjectDamaged
        naming the object when one that does is not whole."""
        prefix = points_prefix(item_id)
        keys = [info.key for info in self.store.list(prefix)]
        points = [parse_name(key) for key in keys if begins_as_name(key.removeprefix(prefix))]
        if len({point.id for point in points}) != len(points):
            raise ObjectDamaged(f"{points_prefix(item_id)} holds one recovery point twice")
        return points

    def catalog(self, item: Item) -> Catalog:
        """All that the planner needs, from three listings."""
        # Shipped log is listed first: what is sealed and deleted meanwhile is in a point then.
        tail = list_tail(self.store, item.id)
        return Catalog(
            item.name,
            tuple(self.points(item.id)),
            list_forks(self.store, item.id),
            shipped=tail.pieces,
            notes=tuple(
                f"{key} is not the name of a piece of shipped log, and is not used"
                for key in tail.unknown
            ),
        )

    def histories(self, item_id: str) -> dict[str, bytes]:
        """The engine's own record of each lineage that has one, by lineage; where keys are named
        and nothing else is believed, of those that are sealed."""
        keys = self.keys if self.keys.require_proof else None
        return read_histories(self.store, item_id, keys)

    def require_fork(self, item_id: str, fork: Fork) -> None:
        """ObjectDamaged when keys are named, nothing else is believed, and none proves ``fork``."""
        if self.keys.require_proof:
            require_sealed(self.store, item_id, fork, self.keys)

    def manifest(self, item_id: str, point_id: str) -> Manifest:
        """The manifest of one recovery point, proven. ObjectNotFound when there is none (any
        more): plan again. ObjectDamaged when it does not say what its name says. Where the vault's
        settings name keys, its seal is proven with them (VaultKeyMissing, NotEncrypted); without
        any it can be read, but not be proven to be untouched."""
        prefix = f"{points_prefix(item_id)}{point_id}_"
        infos = list(self.store.list(prefix))
        if not infos:
            raise ObjectNotFound(f"{prefix}…", hint="it was deleted meanwhile: plan again")
        if len(infos) > 1:
            raise ObjectDamaged(f"{prefix} names more than one manifest")
        key = infos[0].key
        data = self.store.get(key)
        manifest = decode_manifest(key, data)
        if manifest.item.id != item_id or manifest.point != parse_name(key):
            raise ObjectDamaged(
                f"{key} is the manifest of recovery point {manifest.point.id} of "
                f"{manifest.item.id}, or of other facts than its name tells",
                hint=f"its name should be {manifest.name}",
            )
        if manifest.wrapped_key is None:
            self.keys.check_plain(f"recovery point {point_id}")
        elif self.keys.are_named:
            require_seal(key, data, self._data_key(manifest, manifest.wrapped_key))
        return manifest

    def point_source(self, item_id: str, manifest: Manifest) -> PayloadReader:
        """The payload of one recovery point. VaultKeyMissing when it is encrypted and its key is
        not at hand."""
        wrapped = manifest.wrapped_key
        data_key = None if wrapped is None else self._data_key(manifest, wrapped)
        return PayloadReader(self.store, item_id, manifest.point.id, manifest.payload, data_key)

    def _data_key(self, manifest: Manifest, wrapped: WrappedKey) -> DataKey:
        point_id = manifest.point.id
        about = about_point(manifest.item.id, point_id)
        return self.keys.open(wrapped, about, where=f"recovery point {point_id}")

    def tail_steps(
        self, item_id: str, step: Point, pieces: Sequence[ShippedLog]
    ) -> list[tuple[Point, Mapping[str, Any], TailSource]]:
        """What a plan's last step of shipped log consists of: ``step`` cut wherever the engine's
        facts change, with those facts and the payload. There is one even when it is empty."""
        cut: list[tuple[Point, Mapping[str, Any], TailSource]] = []
        position = step.first_lsn
        groups = [list(group) for _, group in groupby(pieces, key=lambda piece: piece.facts_id)]
        for group in groups or [[]]:
            source = TailSource(
                self.store,
                item_id,
                group,
                self.keys,
                first_lsn=position,
                sealed=lambda *where: self.sealed_log(item_id, *where),
            )
            point = replace(
                step,
                id=f"{step.id}.{len(cut)}" if len(groups) > 1 else step.id,
                first_lsn=position,
                last_lsn=source.last_lsn,
            )
            cut.append((point, self._tail_facts(item_id, step, group), source))
            position = source.last_lsn
        return cut

    def _tail_facts(
        self, item_id: str, step: Point, group: Sequence[ShippedLog]
    ) -> Mapping[str, Any]:
        for piece in group:
            try:
                return read_piece(self.store, item_id, piece, self.keys).facts
            except ObjectNotFound:
                continue  # sealed meanwhile, as the others may be
        points = [
            point
            for point in self.points(item_id)
            if point.lineage == step.lineage and point.type is not PointType.DIFFERENTIAL
        ]
        # No piece is left, or there never was one: a recovery point beside them has the same.
        near = min(points, key=lambda point: abs(point.last_lsn - step.last_lsn), default=None)
        return {} if near is None else self.manifest(item_id, near.id).facts or {}

    def sealed_log(self, item_id: str, lineage: str, first: int, last: int) -> bytes:
        """The raw log ``[first, last)`` from log backups. ObjectNotFound when they do not hold all
        of it."""
        found = bytearray()
        logs = [
            point
            for point in self.points(item_id)
            if point.type is PointType.LOG and point.lineage == lineage
        ]
        while (position := first + len(found)) < last:
            log = next((log for log in logs if log.first_lsn <= position < log.last_lsn), None)
            if log is None:
                raise ObjectNotFound(
                    f"the log {position}..{last} of lineage {lineage}",
                    hint="it was shipped and is gone: plan again",
                )
            end = min(last, log.last_lsn) - log.first_lsn
            source = self.point_source(item_id, self.manifest(item_id, log.id))
            starts = source.frame_starts(STREAM)
            for index in range(bisect_right(starts, position - log.first_lsn) - 1, len(starts)):
                at = first + len(found) - log.first_lsn
                if at >= end:
                    break
                frame = source.read_frame(STREAM, index)
                found += frame[at - starts[index] : end - starts[index]]
        return bytes(found)

    def _known(self, ids: list[str]) -> list[ItemRecord]:
        records = []
        for item_id in ids:
            try:
                records.append(self._record(item_id))
            except ObjectNotFound:
                continue  # its maker crashed, or is between its two steps
        return records

    def _record(self, item_id: str) -> ItemRecord:
        # Records never change, so each is read once.
        with self._lock:
            record = self._records.get(item_id)
        if record is None:
            record = read_item(self.store, item_id)
            with self._lock:
                self._records[item_id] = record
        return record


def create_vault(
    store: ObjectStore, *, redundancy: str, now: datetime, keys: KeySettings = NO_KEYS
) -> Vault:
    """Make a vault in ``store``, or open the one that is there. VaultUnusable when the one there
    has another redundancy or cannot be read."""
    if redundancy not in REDUNDANCIES:
        raise ValueError(f"redundancy is one of {', '.join(REDUNDANCIES)}")
    document = {
        "format": FORMAT,
        "kind": "sqlbak vault",
        "id": secrets.token_hex(16),
        "created_at": instant_text(now),
        "redundancy": redundancy,
        "encryption": None,
        "features": [],
    }
    if _has_items(store) and not _has_record(store):
        raise _headless(store)
    try:
        store.put(VAULT_KEY, encode(document), if_absent=True)
    except PreconditionFailed:
        vault = open_vault(store, keys)
        if vault.record.redundancy != redundancy:
            raise VaultUnusable(
                f"the vault at {store.url} was made with redundancy {vault.record.redundancy}, "
                f"not {redundancy}",
                hint="a vault keeps the redundancy that it was made with; mend the "
                "configuration or make another vault",
            ) from None
        return vault
    return open_vault(store, keys)


def open_vault(store: ObjectStore, keys: KeySettings = NO_KEYS) -> Vault:
    """The vault in ``store``. VaultUnusable when there is none, or when it needs something that
    this version does not know."""
    try:
        data = store.get(VAULT_KEY)
    except ObjectNotFound as error:
        if _has_items(store):
            raise _headless(store) from error
        raise VaultMissing(
            f"there is no vault at {store.url}", hint="check the url, or make it with a backup"
        ) from error
    try:
        record = _read_record(store, decode(VAULT_KEY, data))
        return Vault(store, record, VaultKeys(store, keys))
    except ObjectDamaged as error:
        raise ObjectDamaged(f"in the vault at {store.url}, {error.message}", hint=_MEND) from error


_MEND = f"bring {VAULT_KEY} back from a copy, or write it anew: docs/format.md tells what it says"


def _has_record(store: ObjectStore) -> bool:
    try:
        store.head(VAULT_KEY)
    except ObjectNotFound:
        return False
    return True


def _has_items(store: ObjectStore) -> bool:
    return next(iter(store.list(INDEX_PREFIX)), None) is not None


def _headless(store: ObjectStore) -> VaultUnusable:
    # Made anew it would have another id: other slots on the servers, and the old ones forgotten.
    return VaultUnusable(
        f"the vault at {store.url} holds items, but its {VAULT_KEY} is missing", hint=_MEND
    )


def _read_record(store: ObjectStore, fields: Fields) -> VaultRecord:
    upgrade = "upgrade sqlbak"
    if fields.integer("format", minimum=1) > FORMAT:
        raise VaultUnusable(
            f"the vault at {store.url} is in format {fields.integer('format')}; this version "
            f"reads up to {FORMAT}",
            hint=upgrade,
        )
    if not fields.is_null("encryption"):
        raise VaultUnusable(
            f"the vault at {store.url} is encrypted in a way that this version does not know",
            hint=upgrade,
        )
    for feature in fields.sections("features"):
        name = feature.text("name")
        if feature.boolean("required") and name not in KNOWN_FEATURES:
            raise VaultUnusable(
                f"the vault at {store.url} needs the feature {name}, which this version does "
                "not know",
                hint=upgrade,
            )
    return VaultRecord(fields.text("id"), fields.instant("created_at"), fields.text("redundancy"))
