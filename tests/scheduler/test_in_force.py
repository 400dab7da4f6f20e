"""Which policies are in force: recorded by a scheduler, compared with by ``validate --against``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sqlbak.errors import ObjectDamaged
from sqlbak.fleet import Fleet
from sqlbak.policy.loading import load_configuration
from sqlbak.scheduler.in_force import policies_in_force, record_in_force, record_of
from sqlbak.vault.memory_store import MemoryStore
from sqlbak.vault.policy_records import newest_policies, record_policies
from tests.acceptance.site import Site

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def site_of(tmp_path: Path) -> Site:
    return Site(tmp_path, "host=/nowhere")


def test_what_is_recorded_is_read_back_and_written_again_only_when_it_changes(
    tmp_path: Path,
) -> None:
    site = site_of(tmp_path)
    configuration = load_configuration(site.config).configuration
    store = MemoryStore()
    assert policies_in_force(store) is None
    assert record_policies(store, record_of(configuration, "main", NOW))
    later = NOW + timedelta(hours=1)
    assert not record_policies(store, record_of(configuration, "main", later))
    assert policies_in_force(store) == (NOW, {"orders": configuration.policy_for("orders")})
    (site.config / "orders.yaml").write_text(site.text().replace("15m", "1h"))
    changed = load_configuration(site.config).configuration
    assert record_policies(store, record_of(changed, "main", later))
    assert policies_in_force(store) == (later, {"orders": changed.policy_for("orders")})
    assert len(list(store.list("policies/"))) == 2
    assert record_of(changed, "another", NOW).instances == {}


def test_a_record_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    configuration = load_configuration(site_of(tmp_path).config).configuration
    store = MemoryStore()
    record_policies(store, record_of(configuration, "main", NOW))
    newest = newest_policies(store)
    assert newest is not None
    broken = record_of(configuration, "main", NOW + timedelta(seconds=1))
    record_policies(
        store, type(broken)(broken.recorded_at, {"gold": {"full": "x"}}, broken.instances)
    )
    with pytest.raises(ObjectDamaged, match="gold"):
        policies_in_force(store)


def test_validate_against_a_vault_shows_what_a_change_does(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    fresh = site.run("validate", "--against", "main").ok()
    assert fresh["in_force_since"] is None
    assert {slot["type"] for slot in fresh["items"][0]["gained"]} == {"full", "log"}
    with Fleet(load_configuration(site.config).configuration) as fleet:
        record_in_force(fleet, NOW)
    same = site.run("validate", "--against", "main").ok()
    assert same["in_force_since"]
    assert same["items"] == [
        {"item": "orders", "gained": [], "lost": [], "expiring": [], "returning": []}
    ]
    (site.config / "orders.yaml").write_text(
        site.text().replace('"0 1 * * *"', '"0 1 * * sun"').replace("orders:", "sales:")
    )
    moved = {one["item"]: one for one in site.run("validate", "--against", "main").ok()["items"]}
    assert set(moved) == {"orders", "sales"}
    assert not moved["orders"]["gained"]
    assert len([slot for slot in moved["sales"]["gained"] if slot["type"] == "full"]) == 4
