"""One item's objects in a plain folder."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sqlbak.errors import AccessDenied, ObjectDamaged, ObjectNotFound, VaultMissing
from sqlbak.model import EngineName, Item
from sqlbak.vault.copied_item import open_copied_item
from sqlbak.vault.file_store import FileStore
from sqlbak.vault.layout import item_key, item_prefix, points_prefix
from sqlbak.vault.vault import create_vault

_NOW = datetime(2026, 5, 1, tzinfo=UTC)


def _copied(tmp_path: Path) -> tuple[Path, Item]:
    store = FileStore(tmp_path / "vault")
    vault = create_vault(store, redundancy="local", now=_NOW)
    item = vault.find_or_create_item(
        EngineName.POSTGRES, "orders", None, "7", configured_names=["orders"], now=_NOW
    )
    store.put(f"{item_prefix(item.id)}data/one/base.tar.00000.zst", b"0123456789")
    folder = tmp_path / "anywhere" / "under another name"
    shutil.copytree(tmp_path / "vault" / "items" / item.id, folder)
    shutil.rmtree(tmp_path / "vault")
    return folder, item


def test_the_objects_have_the_keys_that_they_had_in_the_vault(tmp_path: Path) -> None:
    folder, item = _copied(tmp_path)
    vault, found = open_copied_item(folder)
    assert found == item
    store = vault.store
    key = f"{item_prefix(item.id)}data/one/base.tar.00000.zst"
    assert store.read(key, 3, 4) == b"3456"
    assert store.head(key).key == key
    assert [info.key for info in store.list(item_prefix(item.id))] == [key, item_key(item.id)]
    assert list(store.list(points_prefix(item.id))) == []
    assert vault.catalog(item).points == ()
    store.close()


def test_what_is_not_of_this_item_is_not_there(tmp_path: Path) -> None:
    folder, _ = _copied(tmp_path)
    vault, _ = open_copied_item(folder)
    for key in ("vault.json", "items/other/item.json"):
        with pytest.raises(ObjectNotFound):
            vault.store.get(key)
    assert list(vault.store.list("leases/")) == []


def test_nothing_is_ever_written(tmp_path: Path) -> None:
    folder, item = _copied(tmp_path)
    store = open_copied_item(folder)[0].store
    key = item_key(item.id)
    for write in (
        lambda: store.put(key, b""),
        lambda: store.replace(key, b"", if_match="x"),
        lambda: store.writer(key),
        lambda: store.delete([key]),
        lambda: store.delete_if(key, if_match="x"),
        lambda: store.copy(key, f"{key}2"),
        lambda: store.sweep_unfinished("", older_than=_NOW),
    ):
        with pytest.raises(AccessDenied):
            write()
    assert sorted(path.name for path in folder.iterdir()) == ["data", "item.json"]


def test_a_folder_that_is_no_copy_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(VaultMissing):
            open_copied_item(folder)
    (tmp_path / "item.json").write_text("{}")
    with pytest.raises(ObjectDamaged):
        open_copied_item(tmp_path)
