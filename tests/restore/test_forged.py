"""What somebody can do to a restore from an encrypted vault who can write anything into the store
and has no key: names are all that plans are made from, and none is believed unproven."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

import pytest

from sqlbak.engines.port import ShippedPiece
from sqlbak.errors import (
    InstantUnreachable,
    NotEncrypted,
    ObjectDamaged,
    ObjectNotFound,
)
from sqlbak.model import Item, Point, PointType, ShippedLog
from sqlbak.restore.executor import PlannedItem, plan_readable
from sqlbak.stopping import NEVER
from sqlbak.stored_item import StoredItem
from sqlbak.vault.documents import canonical, encode
from sqlbak.vault.layout import item_index_key, item_key, point_key, points_prefix, tail_key
from sqlbak.vault.memory_store import MemoryStore
from sqlbak.vault.names import format_name
from sqlbak.vault.running import publish
from sqlbak.vault.tail import put_piece
from sqlbak.vault.tail_names import format_tail_name
from sqlbak.vault.vault import Vault, create_vault, open_vault
from sqlbak.vault.vault_key import KEY_BYTES, VaultKey
from sqlbak.vault.vault_keys import KeySettings
from sqlbak.vault.wrapped_key import about_shipped_log
from tests.vault.making import ITEM, NOW, RESULT, Job

KEY = VaultKey(bytes(range(KEY_BYTES)))
ON = KeySettings(lambda: KEY)
RUN = "0123456789ab"


@dataclass
class OneVault:
    """A Stock of one vault."""

    vault: Vault

    def stored_items(self, name: str | None) -> list[StoredItem]:
        found = [StoredItem(self.vault, item) for item in self.vault.items()]
        return [one for one in found if name in (None, one.item.name, one.item.id)]

    def zone(self, _item: Item) -> tzinfo:
        return UTC

    def program_dir(self, _item: Item) -> Path | None:
        return None


def minute(number: float) -> datetime:
    return NOW + timedelta(minutes=number)


@pytest.fixture
def vault() -> Vault:
    """A full up to position 200 and a log up to 300, which prove everything up to minute 1."""
    vault = create_vault(MemoryStore(), redundancy="local", now=NOW, keys=ON)
    vault.store.put(item_key(ITEM.id), encode(item_record(ITEM)))
    vault.store.put(item_index_key(ITEM.id), b"")
    add(vault, PointType.FULL, 100, 200, 0)
    add(vault, PointType.LOG, 200, 300, 1)
    return vault


def item_record(item: Item) -> dict[str, str | None]:
    return {
        "id": item.id,
        "engine": item.engine.value,
        "instance": item.instance,
        "database": item.database,
        "identity": item.identity,
        "created_at": NOW.isoformat(),
    }


def add(vault: Vault, kind: PointType, first: int, last: int, at: float) -> Point:
    result = replace(
        RESULT,
        type=kind,
        lineage="1",
        first_lsn=first,
        last_lsn=last,
        started_at=minute(at - 0.1),
        finished_at=minute(at),
        reachable_from=minute(at) if kind is PointType.FULL else None,
        covers_until=minute(at),
        forks=(),
        histories={},
    )
    job = Job(vault.store, keys=ON)
    with job.writer:
        return job.commit(result)


def planned(
    vault: Vault, to: str | datetime = "latest", name: str | None = None
) -> tuple[PlannedItem, Sequence[object]]:
    text = to if isinstance(to, str) else to.isoformat()
    return plan_readable(OneVault(vault), name, text, lineage=None, stop=NEVER)


def forge_point(vault: Vault, point: Point, manifest: bytes) -> None:
    vault.store.put(point_key(ITEM.id, format_name(point)), manifest)


def manifest_of(vault: Vault, point: Point) -> bytes:
    (info,) = vault.store.list(f"{points_prefix(ITEM.id)}{point.id}_")
    return vault.store.get(info.key)


def ship(vault: Vault, first: int, last: int, at: float, run: str = RUN) -> ShippedLog:
    anchor = vault.points(ITEM.id)[-1]
    return put_piece(
        vault.store,
        ITEM.id,
        ShippedPiece(first, last, b"x" * (last - first), minute(at), minute(at), {}),
        lineage="1",
        run=run,
        anchor_id=anchor.id,
        facts={"a": 1},
        key=vault.keys.new(about_shipped_log(ITEM.id)),
    )


def key_of(piece: ShippedLog) -> str:
    return tail_key(ITEM.id, "n1", piece.name)


def rename(vault: Vault, piece: ShippedLog, **changes: object) -> ShippedLog:
    """The same object under a name that says something else; its checksums stay right."""
    forged = replace(piece, **changes)  # type: ignore[arg-type]
    forged = replace(forged, name=format_tail_name(forged))
    vault.store.put(key_of(forged), vault.store.get(key_of(piece)))
    return forged


def test_all_is_well_without_a_forger(vault: Vault) -> None:
    ship(vault, 300, 310, 2)
    ship(vault, 310, 310, 3)
    found, steps = planned(vault, minute(2.5))
    assert found.plan.stop_at == minute(2.5)
    assert len(steps) == 3


def test_an_empty_log_backup_that_was_made_up_proves_no_instant(vault: Vault) -> None:
    """It would make a restore take an older state for that of a later instant."""
    log = vault.points(ITEM.id)[-1]
    forged = replace(
        log,
        id="20240501T130000Z-aaaaaaaaaa",
        first_lsn=300,
        last_lsn=300,
        covers_until=minute(60),
        finished_at=minute(60),
    )
    forge_point(vault, forged, manifest_of(vault, log))
    with pytest.raises(ObjectDamaged, match=forged.id):
        planned(vault, minute(30))
    # What it does not matter for is restored as ever.
    assert planned(vault, minute(0.5))[0].plan.stop_at == minute(0.5)


def test_an_empty_piece_of_shipped_log_that_was_renamed_proves_no_instant(vault: Vault) -> None:
    ship(vault, 300, 310, 2)
    empty = ship(vault, 310, 310, 3)
    rename(vault, empty, covers_until=minute(60), finished_at=minute(60))
    with pytest.raises(InstantUnreachable, match="another name"):
        planned(vault, minute(30))
    assert planned(vault, minute(2.5))[0].plan.stop_at == minute(2.5)


@pytest.mark.parametrize(
    "changes",
    [
        {"covers_until": minute(60)},
        {"finished_at": minute(60)},
        {"first_lsn": 305, "last_lsn": 315},
        {"run": "ba9876543210"},
        {"anchor_id": "20240501T130000Z-aaaaaaaaaa"},
        {"facts_id": "00000000"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_piece_of_shipped_log_that_was_renamed_is_not_taken(
    vault: Vault, changes: dict[str, object]
) -> None:
    piece = rename(vault, ship(vault, 300, 310, 2), **changes)
    with pytest.raises(ObjectDamaged, match="another name"):
        StoredItem(vault, ITEM).check_shipped(piece)


def test_a_piece_that_is_gone_when_it_is_looked_at_proves_nothing(vault: Vault) -> None:
    """Whoever holds the store can show it in a listing, and nowhere else."""

    class Lying(MemoryStore):
        def get(self, key: str) -> bytes:
            if key.endswith(".wal"):
                raise ObjectNotFound(key)
            return super().get(key)

    ship(vault, 300, 310, 2)
    lying = Lying()
    for info in vault.store.list(""):
        lying.put(info.key, vault.store.get(info.key))
    with pytest.raises(InstantUnreachable):
        planned(open_vault(lying, ON), minute(1.5))


def test_an_item_under_the_name_of_another_is_not_restored_for_it(vault: Vault) -> None:
    planned(vault, name="orders")
    vault.store.put(
        item_key(ITEM.id), encode(item_record(replace(ITEM, instance="invoices"))), if_absent=False
    )
    changed = open_vault(vault.store, ON)
    with pytest.raises(ObjectDamaged, match="no recovery point of it") as caught:
        planned(changed, name="invoices")
    assert ITEM.id in caught.value.hint
    assert planned(changed, name=ITEM.id)[0].plan.stop_at == minute(1)


def test_with_a_key_for_reading_only_what_is_not_encrypted_is_not_believed(vault: Vault) -> None:
    plain = create_vault(MemoryStore(), redundancy="local", now=NOW)
    Job(plain.store).run()
    (info,) = plain.store.list(points_prefix(ITEM.id))
    vault.store.put(info.key, plain.store.get(info.key))
    point_id = info.key.removeprefix(points_prefix(ITEM.id)).partition("_")[0]
    reading = open_vault(vault.store, KeySettings(None, [lambda: KEY]))
    with pytest.raises(NotEncrypted, match="could have put it there"):
        reading.manifest(ITEM.id, point_id)
    told = open_vault(vault.store, KeySettings(None, [lambda: KEY], accepts_plain=True))
    assert told.manifest(ITEM.id, point_id).wrapped_key is None


def test_a_verdict_that_was_made_up_becomes_no_recovery_point_that_is_believed(
    vault: Vault,
) -> None:
    """A sweep publishes what a verdict says; that makes it no more true."""
    forged_id = "20240501T130000Z-aaaaaaaaaa"
    document = json.loads(manifest_of(vault, vault.points(ITEM.id)[-1]))
    del document["digest"]
    document["point"] |= {"id": forged_id, "covers_until": minute(60).isoformat()}
    digest = f"sha256:{hashlib.sha256(canonical(document)).hexdigest()}"
    publish(vault.store, ITEM.id, encode(document | {"digest": digest}))
    assert forged_id in {point.id for point in vault.points(ITEM.id)}
    with pytest.raises(ObjectDamaged, match="another object's"):
        vault.manifest(ITEM.id, forged_id)
