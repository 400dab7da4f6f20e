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
from sqlbak.model import Fork, Item, Point, PointType, ShippedLog
from sqlbak.restore.executor import PlannedItem, plan_readable
from sqlbak.stopping import NEVER
from sqlbak.stored_item import StoredItem
from sqlbak.vault.documents import canonical, encode
from sqlbak.vault.layout import (
    item_index_key,
    item_key,
    lineages_prefix,
    point_key,
    points_prefix,
    seals_prefix,
    tail_key,
)
from sqlbak.vault.lineages import record_forks
from sqlbak.vault.manifest import item_document
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
    return item_document(item) | {"created_at": NOW.isoformat()}


def add(
    vault: Vault,
    kind: PointType,
    first: int,
    last: int,
    at: float,
    *,
    fork: Fork | None = None,
    keys: KeySettings = ON,
) -> Point:
    """A recovery point; on the lineage of ``fork``, of which the server tells then."""
    result = replace(
        RESULT,
        type=kind,
        lineage="1" if fork is None else fork.lineage,
        first_lsn=first,
        last_lsn=last,
        started_at=minute(at - 0.1),
        finished_at=minute(at),
        reachable_from=minute(at) if kind is PointType.FULL else None,
        covers_until=minute(at),
        forks=() if fork is None else (fork,),
        histories={} if fork is None else {fork.lineage: b"1\t0/12C\t\n"},
    )
    job = Job(vault.store, keys=keys)
    with job.writer:
        return job.commit(result)


def planned(
    vault: Vault, to: str | datetime = "latest", name: str | None = None
) -> tuple[PlannedItem, Sequence[object]]:
    text = to if isinstance(to, str) else to.isoformat()
    return plan_readable(OneVault(vault), name, text, lineage=None, stop=NEVER)


def newest(vault: Vault) -> Point:
    return max(vault.points(ITEM.id), key=lambda point: point.last_lsn)


def forge_point(vault: Vault, point: Point, manifest: bytes) -> None:
    vault.store.put(point_key(ITEM.id, format_name(point)), manifest)


def manifest_of(vault: Vault, point: Point) -> bytes:
    (info,) = vault.store.list(f"{points_prefix(ITEM.id)}{point.id}_")
    return vault.store.get(info.key)


def ship(vault: Vault, first: int, last: int, at: float, run: str = RUN) -> ShippedLog:
    anchor = newest(vault)
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
    log = newest(vault)
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
    document = json.loads(manifest_of(vault, newest(vault)))
    del document["digest"]
    document["point"] |= {"id": forged_id, "covers_until": minute(60).isoformat()}
    digest = f"sha256:{hashlib.sha256(canonical(document)).hexdigest()}"
    publish(vault.store, ITEM.id, encode(document | {"digest": digest}))
    assert forged_id in {point.id for point in vault.points(ITEM.id)}
    with pytest.raises(ObjectDamaged, match="another object's"):
        vault.manifest(ITEM.id, forged_id)


class TestForks:
    SECOND, THIRD = Fork("2", "1", 300), Fork("3", "1", 300)

    @pytest.fixture
    def branches(self, vault: Vault) -> Vault:
        """Lineages 2 and 3 both began at 300, where the log of 1 ended."""
        add(vault, PointType.LOG, 300, 400, 2, fork=self.SECOND)
        add(vault, PointType.LOG, 300, 500, 3, fork=self.THIRD)
        return vault

    def restored(self, vault: Vault, lineage: str) -> PlannedItem:
        return plan_readable(OneVault(vault), None, "latest", lineage=lineage, stop=NEVER)[0]

    def test_a_restore_crosses_forks_that_its_server_told(self, branches: Vault) -> None:
        for lineage, until in (("2", 2), ("3", 3)):
            assert self.restored(branches, lineage).plan.stop_at == minute(until)
        assert set(branches.histories(ITEM.id)) == {"2", "3"}

    def test_a_fork_that_was_made_up_leads_nowhere(self, branches: Vault) -> None:
        """Along it the state of one branch would be restored as that of another."""
        store = branches.store
        (real,) = store.list(f"{lineages_prefix(ITEM.id)}3.from.")
        store.delete([real.key])
        store.put(f"{lineages_prefix(ITEM.id)}3.from.2.at.136", b"2\t0/136\t\n")
        seals = {info.key: store.get(info.key) for info in store.list(seals_prefix(ITEM.id))}
        assert len(seals) == 2
        for key, seal in seals.items():  # those of other records, under the name of this one
            store.put(f"{seals_prefix(ITEM.id)}3.from.2.at.136.{key[-16:]}", seal, if_absent=False)
        with pytest.raises(ObjectDamaged, match="not sealed"):
            self.restored(branches, "3")
        assert set(branches.histories(ITEM.id)) == {"2"}
        # Where no fork is crossed, none is asked for.
        assert self.restored(branches, "1").plan.stop_at == minute(1)
        assert self.restored(branches, "2").plan.stop_at == minute(2)

    def test_a_history_that_was_exchanged_is_not_given_to_the_server(self, branches: Vault) -> None:
        (record,) = branches.store.list(f"{lineages_prefix(ITEM.id)}3.from.")
        branches.store.put(record.key, b"1\t0/FFF\t\n", if_absent=False)
        assert set(branches.histories(ITEM.id)) == {"2"}
        with pytest.raises(ObjectDamaged, match="not sealed"):
            self.restored(branches, "3")

    def test_after_a_change_of_keys_the_next_backup_seals_it_anew(self, branches: Vault) -> None:
        other = VaultKey(bytes(KEY_BYTES))
        rotated = KeySettings(lambda: other, [lambda: KEY])
        vault = open_vault(branches.store, rotated)
        add(vault, PointType.FULL, 500, 600, 4, fork=self.THIRD, keys=rotated)
        names = [info.key for info in vault.store.list(f"{seals_prefix(ITEM.id)}3.from.")]
        assert [name[-16:] for name in names] == sorted([KEY.id, other.id])
        alone = open_vault(branches.store, KeySettings(lambda: other))
        assert set(alone.histories(ITEM.id)) == {"3"}
        assert self.restored(alone, "3").plan.stop_at == minute(4)

    def test_a_fork_that_the_server_told_without_a_record_is_sealed_too(self, vault: Vault) -> None:
        fork = self.SECOND
        record_forks(vault.store, ITEM.id, [fork], {}, KEY)
        vault.require_fork(ITEM.id, fork)
        with pytest.raises(ObjectDamaged, match="not sealed"):
            vault.require_fork(ITEM.id, self.THIRD)
        # One that is there from before, with a record that this server does not tell.
        vault.store.put(f"{lineages_prefix(ITEM.id)}3.from.1.at.12c", b"1\t0/12C\t\n")
        record_forks(vault.store, ITEM.id, [self.THIRD], {}, KEY)
        vault.require_fork(ITEM.id, self.THIRD)
        assert vault.histories(ITEM.id) == {}

    def test_without_keys_or_where_plain_points_are_believed_no_seal_is_asked_for(
        self, vault: Vault
    ) -> None:
        record_forks(vault.store, ITEM.id, [self.SECOND], {"2": b"1\t0/12C\t\n"})
        for settings in (KeySettings(), KeySettings(lambda: KEY, accepts_plain=True)):
            believing = open_vault(vault.store, settings)
            believing.require_fork(ITEM.id, self.SECOND)
            assert set(believing.histories(ITEM.id)) == {"2"}
