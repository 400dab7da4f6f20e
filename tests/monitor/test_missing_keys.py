"""What is told of a vault whose key is not at hand: before a backup fails, and before it is needed
for a restore."""

from __future__ import annotations

from pathlib import Path

import pytest

from sqlbak.fleet import Fleet
from sqlbak.monitor.concerns import Concern
from sqlbak.monitor.events import EventKind, EventSeverity
from sqlbak.monitor.gathering import Gatherer
from sqlbak.monitor.status import Health, ItemStatus, status_of
from sqlbak.policy.loading import load_configuration
from sqlbak.vault.key_records import record_key
from sqlbak.vault.vault_key import VaultKey
from tests.monitor.fleets import Place
from tests.monitor.watching import NOON, served

KEY, OLD_KEY = VaultKey(bytes(32)), VaultKey(bytes([1]) * 32)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """An item with recovery points, in a vault that was written under two keys."""
    place = Place(tmp_path)
    place.add("orders", served(NOON))
    with place.vault() as vault:
        for key in (OLD_KEY, KEY):
            record_key(vault.store, key.id, now=NOON)
    return place


def status(place: Place, encryption: str) -> ItemStatus:
    place.write("orders")
    file = place.root / "policy.yaml"
    text = file.read_text().replace("redundancy: local", f"redundancy: local{encryption}")
    file.write_text(text)
    with Fleet(load_configuration(file).configuration) as fleet:
        (found,) = Gatherer(fleet).gather(None, lambda: NOON, asks_servers=False).items
    return status_of(found, NOON)


def of_keys(found: ItemStatus) -> list[Concern]:
    return [one for one in found.concerns if one.kind is EventKind.VAULT_KEY_MISSING]


def test_a_key_that_cannot_be_read_puts_protection_at_risk(place: Place) -> None:
    for content in (None, "no key at all"):
        if content is not None:
            (place.root / "vault.key").write_text(content)
        found = status(place, ", encryption: {key: 'file:vault.key'}")
        (concern,) = of_keys(found)
        assert (concern.severity, concern.subject) == (EventSeverity.WARNING, "main")
        assert "file:vault.key" in concern.what
        assert concern.remedy
        assert content is None or content not in concern.what + concern.remedy
        assert found.health is Health.AT_RISK
        assert found.newest_restorable is not None


def test_a_key_that_it_was_written_with_and_nobody_names_is_worth_a_notice(place: Place) -> None:
    (place.root / "vault.key").write_text(KEY.text())
    found = status(place, ", encryption: {key: 'file:vault.key'}")
    (concern,) = of_keys(found)
    assert OLD_KEY.id in concern.what
    assert KEY.id not in concern.what
    assert concern.severity is EventSeverity.NOTICE
    assert found.health is Health.HEALTHY
    (place.root / "old.key").write_text(OLD_KEY.text())
    both = ", encryption: {key: 'file:vault.key', old_keys: ['file:old.key']}"
    assert of_keys(status(place, both)) == []


def test_a_key_that_took_the_place_of_the_one_in_use_puts_protection_at_risk(place: Place) -> None:
    """Backups would fail with it, as they cannot read what they go on from."""
    (place.root / "vault.key").write_text(VaultKey(bytes([2]) * 32).text())
    found = status(place, ", encryption: {key: 'file:vault.key'}")
    (concern,) = of_keys(found)
    assert KEY.id in concern.what
    assert found.health is Health.AT_RISK


def test_a_machine_whose_settings_name_no_key_watches_without_one(place: Place) -> None:
    found = status(place, "")
    assert of_keys(found) == []
    assert found.health is Health.HEALTHY
