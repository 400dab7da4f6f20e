"""An item keeps its folder as long as it is the same item, and shares it with no other."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlbak.errors import ObjectDamaged, VaultError
from sqlbak.model import EngineName, Item
from sqlbak.vault.items import slug
from sqlbak.vault.layout import ITEM_ID, item_index_key, item_key
from sqlbak.vault.memory_store import MemoryStore
from sqlbak.vault.store import ObjectStore
from sqlbak.vault.vault import Vault, create_vault, open_vault
from tests.vault.crashing import CrashingStore
from tests.vault.making import NOW

PG, MS = EngineName.POSTGRES, EngineName.SQLSERVER


@pytest.fixture
def vault(store: ObjectStore) -> Vault:
    return create_vault(store, redundancy="local", now=NOW)


def find(
    vault: Vault,
    instance: str,
    identity: str,
    configured: set[str],
    *,
    database: str | None = None,
    days: int = 0,
) -> Item:
    # A fresh vault object each time: nothing may rest on what this process remembers.
    return open_vault(vault.store).find_or_create_item(
        PG if database is None else MS,
        instance,
        database,
        identity,
        configured_names=configured,
        now=NOW + timedelta(days=days),
    )


@given(st.text(max_size=80))
def test_every_name_has_a_readable_slug(name: str) -> None:
    assert ITEM_ID.fullmatch(slug(name))
    assert len(slug(name)) <= 40


@given(
    st.text(st.characters(), min_size=1), st.none() | st.text(st.characters()), st.text(min_size=1)
)
def test_every_name_that_a_server_allows_works(
    instance: str, database: str | None, identity: str
) -> None:
    vault = create_vault(MemoryStore(), redundancy="local", now=NOW)
    item = find(vault, instance, identity, {"x"}, database=database)
    assert open_vault(vault.store).items() == [item]
    assert (item.instance, item.database, item.identity) == (instance, database, identity)


def test_the_id_tells_the_name(vault: Vault) -> None:
    item = find(vault, "ERP", "guid-1", {"ERP/Order Data"}, database="Order Data")
    assert item.id.startswith("erp-order-data-")
    assert item.name == "ERP/Order Data"


def test_the_same_item_keeps_its_folder(vault: Vault) -> None:
    assert find(vault, "a", "1", {"a"}) == find(vault, "a", "1", {"a"})


def test_a_renamed_item_keeps_its_folder_and_has_its_new_name(vault: Vault) -> None:
    old = find(vault, "a", "1", {"a"})
    new = find(vault, "b", "1", {"b"})
    assert (new.id, new.name) == (old.id, "b")


def test_an_item_dropped_and_created_again_is_another(vault: Vault) -> None:
    assert find(vault, "a", "1", {"a"}).id != find(vault, "a", "2", {"a"}).id


def test_a_copy_configured_beside_its_source_has_a_folder_of_its_own(vault: Vault) -> None:
    source = find(vault, "a", "1", {"a", "b"})
    copy = find(vault, "b", "1", {"a", "b"})
    assert source.id != copy.id
    assert find(vault, "a", "1", {"a", "b"}) == source
    assert find(vault, "b", "1", {"a", "b"}) == copy


def test_case_twins_of_one_identity_have_two_folders(vault: Vault) -> None:
    names = {"Orders", "orders"}
    first, second = find(vault, "Orders", "1", names), find(vault, "orders", "1", names)
    assert first.id != second.id
    assert find(vault, "Orders", "1", names) == first
    assert find(vault, "orders", "1", names) == second


def test_of_two_names_that_are_gone_the_newer_is_the_one_that_was_renamed(vault: Vault) -> None:
    find(vault, "a", "1", {"a", "b"}, days=0)
    newer = find(vault, "b", "1", {"a", "b"}, days=1)
    assert find(vault, "c", "1", {"c"}).id == newer.id


def test_both_engines_may_use_one_identity(vault: Vault) -> None:
    assert find(vault, "a", "1", {"a"}).id != find(vault, "a", "1", {"a"}, database="a").id


@pytest.mark.parametrize("is_done", [False, True])
def test_making_an_item_can_be_broken_off_anywhere(is_done: bool) -> None:
    for last in range(1, 20):
        vault = create_vault(MemoryStore(), redundancy="local", now=NOW)
        broken = CrashingStore(vault.store, last=last, is_done=is_done)
        try:
            find(Vault(broken, vault.record, vault.keys), "a", "1", {"a"})
        except VaultError:
            item = find(vault, "a", "1", {"a"})
            assert open_vault(vault.store).items() == [item]
        else:
            return
    raise AssertionError("it never came to its end")


def test_a_record_in_the_wrong_folder_is_told(vault: Vault) -> None:
    item = find(vault, "a", "1", {"a"})
    vault.store.put(item_index_key("b-0123"), b"")
    vault.store.copy(item_key(item.id), item_key("b-0123"))
    with pytest.raises(ObjectDamaged, match="b-0123"):
        open_vault(vault.store).items()


def test_foreign_files_in_the_index_are_passed_over(vault: Vault) -> None:
    item = find(vault, "a", "1", {"a"})
    vault.store.put("index/Read me", b"")
    vault.store.put("index/notes", b"")
    assert vault.items() == [item]


def test_a_successor_takes_name_and_identity_over_and_the_old_item_stays(vault: Vault) -> None:
    old = find(vault, "a", "1", {"a"})
    new = vault.create_successor(old, now=NOW + timedelta(days=1))
    newest = vault.create_successor(new, now=NOW + timedelta(days=2))
    assert len({old.id, new.id, newest.id}) == 3
    assert (newest.name, newest.identity) == (old.name, old.identity)
    assert find(vault, "a", "1", {"a"}) == newest
    assert find(vault, "b", "1", {"b"}).id == newest.id  # renamed
    assert {item.id for item in open_vault(vault.store).items()} == {old.id, new.id, newest.id}
