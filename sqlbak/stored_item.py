"""One item as it lies in a vault: what restores and lists read of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlbak.engines.port import PayloadSource
from sqlbak.errors import NotEncrypted, ObjectDamaged, ObjectNotFound, VaultKeyMissing
from sqlbak.model import Catalog, Fork, Item, Point, PointType, ShippedLog
from sqlbak.vault.cancelled_slots import TypeSlot, list_cancelled_slots
from sqlbak.vault.layout import item_key
from sqlbak.vault.payload_reader import PayloadReader
from sqlbak.vault.tail import read_piece
from sqlbak.vault.vault import Vault

__all__ = ["Served", "StoredItem", "newest_name", "newest_points", "newest_served"]


@dataclass(frozen=True, slots=True)
class Served:
    """What tells which slots of an item are done with: its recovery points, and the slots that
    somebody cancelled."""

    points: tuple[Point, ...] = ()
    cancelled: tuple[TypeSlot, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredItem:
    """One item as it lies in a vault."""

    vault: Vault
    item: Item

    def catalog(self) -> Catalog:
        """Its recovery points and forks, by listing."""
        return self.vault.catalog(self.item)

    def histories(self) -> Mapping[str, bytes]:
        """The engine's own records of its lineages."""
        return self.vault.histories(self.item.id)

    def points(self) -> tuple[Point, ...]:
        """Its recovery points, by listing."""
        return tuple(self.vault.points(self.item.id))

    def open_tail(
        self, step: Point, pieces: Sequence[ShippedLog]
    ) -> list[tuple[Point, Mapping[str, Any], PayloadSource]]:
        """What a plan's last step of shipped log consists of (vault/vault.py)."""
        return [*self.vault.tail_steps(self.item.id, step, pieces)]

    def check_shipped(self, piece: ShippedLog) -> None:
        """Read one piece of shipped log and prove it. ObjectDamaged; ObjectNotFound when a log
        backup has sealed it meanwhile: plan again."""
        read_piece(self.vault.store, self.item.id, piece, self.vault.keys)

    def require_called(self, name: str, steps: Sequence[Point]) -> None:
        """ObjectDamaged when, where keys are named, no recovery point proves that this was ever
        called ``name`` (the name of the item or of its instance). The item's own record, by which
        it was found, is not sealed: who can write into the store can exchange two names there."""
        if not self.vault.keys.are_named or name == self.item.id:
            return
        points = sorted(self.points(), key=lambda point: (point.finished_at, point.id))[::-1]
        others = [*points[:1], *(point for point in points if point.type is PointType.FULL)]
        for point in (*(step for step in steps if not step.is_tail), *others):
            try:
                item = self.vault.manifest(self.item.id, point.id).item
            except (ObjectDamaged, ObjectNotFound, NotEncrypted, VaultKeyMissing):
                continue  # proves nothing
            if name in (item.name, item.instance):
                return
        raise ObjectDamaged(
            f"{self.item.id} is recorded as {self.item.name}, but no recovery point of it was "
            f"taken under the name {name}",
            hint=f"somebody may have changed {item_key(self.item.id)}; if it was renamed since, "
            f"name it by its id: {self.item.id}",
        )

    def require_forks(self, forks: Sequence[Fork], lineage: str, base: str) -> None:
        """ObjectDamaged when, where keys are named, a fork is not proven that leads from lineage
        ``base`` to ``lineage``."""
        parents = {fork.lineage: fork for fork in forks}
        while lineage != base and (fork := parents.pop(lineage, None)) is not None:
            self.vault.require_fork(self.item.id, fork)
            lineage = fork.parent

    def describe_point(self, point: Point) -> tuple[Mapping[str, Any], PayloadSource]:
        """As ``open_point``, for who looks at the facts only: needs no key. Encrypted payload
        cannot be read so."""
        manifest = self.vault.manifest(self.item.id, point.id)
        store, payload = self.vault.store, manifest.payload
        return manifest.facts or {}, PayloadReader(store, self.item.id, point.id, payload)

    def open_point(self, point: Point) -> tuple[Mapping[str, Any], PayloadSource]:
        """The engine's facts of one recovery point, and its payload."""
        manifest = self.vault.manifest(self.item.id, point.id)
        return manifest.facts or {}, self.vault.point_source(self.item.id, manifest)


def newest_name(stored: StoredItem, wanted: str) -> str | None:
    """The name in the item's newest recovery point, where it is of the instance that is meant: a
    database that was renamed is recorded under its first name."""
    if stored.item.instance != wanted.partition("/")[0] or "/" not in wanted:
        return None
    newest = max(
        stored.points(), key=lambda point: (point.finished_at, point.last_lsn), default=None
    )
    if newest is None:
        return None
    return stored.vault.manifest(stored.item.id, newest.id).item.name


def newest_points(stored: Sequence[StoredItem]) -> tuple[Point, ...]:
    """The recovery points of that one of several items that has the newest; none at all: ()."""
    return _newest(stored)[1]


def newest_served(stored: Sequence[StoredItem]) -> Served:
    """The same with the slots of it that were cancelled; of all where none has a point."""
    newest, points = _newest(stored)
    asked = stored if newest is None else [newest]
    return Served(
        points,
        tuple(
            slot for each in asked for slot in list_cancelled_slots(each.vault.store, each.item.id)
        ),
    )


def _newest(stored: Sequence[StoredItem]) -> tuple[StoredItem | None, tuple[Point, ...]]:
    catalogs = [(each, each.points()) for each in stored]
    with_points = [pair for pair in catalogs if pair[1]]
    return max(with_points, key=lambda pair: max(p.id for p in pair[1]), default=(None, ()))
