"""A vault tells by itself what it is, which items it has, and what their points are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from sqlbak.errors import (
    LineageConflict,
    ObjectDamaged,
    ObjectNotFound,
    VaultError,
    VaultMissing,
    VaultUnusable,
)
from sqlbak.model import Fork, PointType
from sqlbak.vault.layout import VAULT_KEY, lineages_prefix, point_key, points_prefix
from sqlbak.vault.lineages import record_forks
from sqlbak.vault.memory_store import MemoryStore
from sqlbak.vault.store import ObjectInfo, ObjectStore
from sqlbak.vault.vault import create_vault, open_vault
from tests.vault.making import FORK, ITEM, NOW, RESULT, Job, keys


def test_a_vault_is_made_once(store: ObjectStore) -> None:
    made = create_vault(store, redundancy="geo", now=NOW)
    again = create_vault(store, redundancy="geo", now=NOW + timedelta(days=1))
    assert made.id == again.id == open_vault(store).id
    assert open_vault(store).record.created_at == NOW
    assert open_vault(store).record.redundancy == "geo"


def test_a_vault_keeps_its_redundancy(store: ObjectStore) -> None:
    create_vault(store, redundancy="geo", now=NOW)
    with pytest.raises(VaultUnusable, match="redundancy geo, not local"):
        create_vault(store, redundancy="local", now=NOW)


def test_where_there_is_no_vault_nothing_is_opened(store: ObjectStore) -> None:
    with pytest.raises(VaultUnusable, match="no vault"):
        open_vault(store)


def change_vault(store: ObjectStore, change: dict[str, Any]) -> None:
    create_vault(store, redundancy="local", now=NOW)
    document = json.loads(store.get(VAULT_KEY)) | change
    store.delete([VAULT_KEY])
    store.put(VAULT_KEY, json.dumps(document).encode())


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"encryption": {"key": "x"}},
        {"features": [{"name": "tiering", "required": True}]},
    ],
)
def test_a_vault_that_needs_a_newer_version_is_refused(
    store: ObjectStore, change: dict[str, Any]
) -> None:
    change_vault(store, change)
    with pytest.raises(VaultUnusable) as caught:
        open_vault(store)
    assert caught.value.hint == "upgrade sqlbak"


def test_an_optional_feature_that_is_unknown_is_passed_over(store: ObjectStore) -> None:
    change_vault(store, {"features": [{"name": "index", "required": False}], "zebra": 1})
    open_vault(store)


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"format": 1}', b"\x00" * 90])
def test_a_vault_whose_record_is_gone_or_damaged_is_not_made_anew(
    store: ObjectStore, content: bytes | None
) -> None:
    create_vault(store, redundancy="local", now=NOW).find_or_create_item(
        ITEM.engine, "orders", None, "1", configured_names=(), now=NOW
    )
    store.delete(["vault.json"])
    if content is not None:
        store.put("vault.json", content)
    for attempt in (
        lambda: open_vault(store),
        lambda: create_vault(store, redundancy="local", now=NOW),
    ):
        with pytest.raises(VaultError, match=r"vault\.json") as caught:
            attempt()
        assert not isinstance(caught.value, VaultMissing)
        assert "bring vault.json back" in caught.value.hint


def test_a_point_is_listed_read_and_read_back(store: ObjectStore) -> None:
    vault = create_vault(store, redundancy="local", now=NOW)
    made = [Job(store).run() for _ in range(3)]
    points = vault.points(ITEM.id)
    assert points == sorted(made, key=lambda point: point.id)
    catalog = vault.catalog(ITEM)
    assert (catalog.item, catalog.points, catalog.forks) == ("orders", tuple(points), (FORK,))
    manifest = vault.manifest(ITEM.id, made[0].id)
    assert (manifest.point, manifest.item, manifest.slot) == (made[0], ITEM, NOW)
    assert manifest.facts == {"version": "18.4"}
    assert made[0].size_bytes == manifest.payload.stored_bytes > 0
    assert vault.point_source(ITEM.id, manifest).streams() == ["base.tar", "page-map"]
    assert vault.histories(ITEM.id) == dict(RESULT.histories)


def test_planning_reads_no_object() -> None:
    class ListedOnly(MemoryStore):
        reads: int = 0

        def get(self, key: str) -> bytes:
            self.reads += 1
            return super().get(key)

    store = ListedOnly()
    vault = create_vault(store, redundancy="local", now=NOW)
    Job(store).run()
    store.reads = 0
    assert len(vault.catalog(ITEM).points) == 1
    assert store.reads == 0


def test_a_foreign_file_among_the_points_is_passed_over(store: ObjectStore) -> None:
    vault = create_vault(store, redundancy="local", now=NOW)
    store.put(point_key(ITEM.id, "Thumbs.db"), b"{}")
    assert vault.points(ITEM.id) == []


def test_what_somebody_made_of_a_manifest_is_told(store: ObjectStore) -> None:
    vault = create_vault(store, redundancy="local", now=NOW)
    store.put(point_key(ITEM.id, "20240501T120000Z-abcdefghij_tf.json (1)"), b"{}")
    with pytest.raises(ObjectDamaged, match=r"abcdefghij_tf\.json \(1\)"):
        vault.points(ITEM.id)


def test_a_point_that_was_deleted_is_told_as_such(store: ObjectStore) -> None:
    vault = create_vault(store, redundancy="local", now=NOW)
    with pytest.raises(ObjectNotFound) as caught:
        vault.manifest(ITEM.id, "20240501T120000Z-abcdefghij")
    assert "plan again" in caught.value.hint


def test_manifests_that_changed_places_are_found(store: ObjectStore) -> None:
    vault = create_vault(store, redundancy="local", now=NOW)
    points = [Job(store).run() for _ in range(2)]
    first, second = keys(store, points_prefix(ITEM.id))
    contents = store.get(first), store.get(second)
    store.delete([first, second])
    store.put(first, contents[1])
    store.put(second, contents[0])
    for point in points:
        with pytest.raises(ObjectDamaged, match="is the manifest of"):
            vault.manifest(ITEM.id, point.id)


def test_a_manifest_of_another_item_is_found(store: ObjectStore) -> None:
    vault = create_vault(store, redundancy="local", now=NOW)
    point = Job(store).run()
    key = keys(store, points_prefix(ITEM.id))[0]
    store.copy(key, key.replace(ITEM.id, "other-0123"))
    with pytest.raises(ObjectDamaged, match=ITEM.id):
        vault.manifest("other-0123", point.id)


def test_a_differential_needs_its_base(store: ObjectStore) -> None:
    job = Job(store)
    result = replace(RESULT, type=PointType.DIFFERENTIAL)
    with pytest.raises(ValueError, match="base"), job.writer:
        job.fill()
        job.commit(result)
    assert keys(store) == []


def test_facts_that_json_would_change_are_refused_before_the_commit(store: ObjectStore) -> None:
    for facts in ({"x": float("nan")}, {"x": b"raw"}, {10: 1, 9: 2}):
        job = Job(store)
        with pytest.raises((TypeError, ValueError, ObjectDamaged)), job.writer:
            job.fill()
            job.commit(replace(RESULT, facts=facts))  # type: ignore[arg-type]
    assert keys(store) == []


def test_lineage_records_are_never_overwritten(store: ObjectStore) -> None:
    record_forks(store, ITEM.id, [FORK], {"2": b"one"})
    record_forks(store, ITEM.id, [FORK], {"2": b"one"})
    record_forks(store, ITEM.id, [FORK], {})
    with pytest.raises(LineageConflict, match="another history") as caught:
        record_forks(store, ITEM.id, [FORK], {"2": b"two"})
    assert "2.from.1.at.3000060" in caught.value.message
    assert keys(store) == [f"{lineages_prefix(ITEM.id)}2.from.1.at.3000060"]


def test_two_origins_of_one_lineage_are_refused_and_both_named(store: ObjectStore) -> None:
    record_forks(store, ITEM.id, [FORK], {"2": b"one"})
    with pytest.raises(LineageConflict) as caught:
        record_forks(store, ITEM.id, [replace(FORK, lsn=0x5000000)], {"2": b"two"})
    assert "2.from.1.at.3000060" in caught.value.message
    assert "2.from.1.at.5000000" in caught.value.message


def test_a_fork_told_without_its_history_is_known_and_completed_later(store: ObjectStore) -> None:
    vault = create_vault(store, redundancy="local", now=NOW)
    third = Fork("3", "2", 0x6000000)
    record_forks(store, ITEM.id, [FORK, third], {"3": b"three"})
    assert set(vault.catalog(ITEM).forks) == {FORK, third}
    assert vault.histories(ITEM.id) == {"3": b"three"}
    record_forks(store, ITEM.id, [FORK], {"2": b"two"})
    assert set(vault.catalog(ITEM).forks) == {FORK, third}
    assert vault.histories(ITEM.id) == {"2": b"two", "3": b"three"}


def test_forks_of_sql_server_keep_their_guids(store: ObjectStore) -> None:
    vault = create_vault(store, redundancy="local", now=NOW)
    fork = Fork(
        "0fd8a3f4-9c2e-4d56-8b1a-6c1f00000001", "0fd8a3f4-9c2e-4d56-8b1a-6c1f00000002", 10**25 - 1
    )
    record_forks(store, ITEM.id, [fork], {})
    assert vault.catalog(ITEM).forks == (fork,)


def test_a_history_without_a_fork_is_not_dropped_silently(store: ObjectStore) -> None:
    with pytest.raises(ValueError, match="history of 2"):
        record_forks(store, ITEM.id, [], {"2": b"one"})


def test_items_are_found_without_listing_their_data() -> None:
    class Listing(MemoryStore):
        listed: int = 0

        def list(self, prefix: str) -> Iterator[ObjectInfo]:
            for info in super().list(prefix):
                self.listed += 1
                yield info

    store = Listing()
    vault = create_vault(store, redundancy="local", now=NOW)
    item = vault.find_or_create_item(
        ITEM.engine, "orders", None, "1", configured_names={"orders"}, now=NOW
    )
    for number in range(50):
        store.put(f"items/{item.id}/jobs/{number}", b"")
    store.listed = 0
    assert open_vault(store).items() == [item]
    assert store.listed == 1
