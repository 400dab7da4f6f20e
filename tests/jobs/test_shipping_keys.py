"""A vault key that is replaced, or taken away, while log is shipped continuously."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sqlbak.engines.port import DiscoveredItem, Inspection, ShippedPiece
from sqlbak.errors import SecretUnavailable
from sqlbak.fleet import Fleet
from sqlbak.jobs import shipping
from sqlbak.jobs.shipping import ship_log
from sqlbak.model import LogPosition, PointType
from sqlbak.stopping import NEVER
from sqlbak.vault.key_records import recorded_ids
from sqlbak.vault.lease import Leases
from sqlbak.vault.memory_store import MemoryStore
from sqlbak.vault.tail import list_tail
from sqlbak.vault.vault import Vault, create_vault
from sqlbak.vault.vault_key import VaultKey
from sqlbak.vault.vault_keys import KeySettings
from tests.vault.making import ITEM, NOW, RESULT, Job

KEYS = [VaultKey(bytes([number]) * 32) for number in range(2)]


@dataclass
class Server:
    """Sends three pieces of log; before each, ``before`` happens."""

    before: list[Any] = field(default_factory=list)

    def inspect(self) -> Inspection:
        found = DiscoveredItem(ITEM.identity, None, LogPosition("1", 200))
        return Inspection(ITEM.engine, "18", NOW, (found,), ())

    def oldest_log(self) -> LogPosition:
        return LogPosition("1", 100)

    @contextmanager
    def ship(self, *_where: Any, **_how: Any) -> Iterator[Any]:
        yield SimpleNamespace(facts={}, pieces=self.pieces)

    def pieces(self) -> Iterator[ShippedPiece]:
        for number, happens in enumerate(self.before):
            happens()
            start = 200 + 10 * number
            yield ShippedPiece(start, start + 10, bytes(10), NOW, NOW, {})


@pytest.fixture
def key() -> list[VaultKey]:
    """What the key's file holds now; empty: it is gone."""
    return [KEYS[0]]


@pytest.fixture
def vault(key: list[VaultKey]) -> Vault:
    def read() -> VaultKey:
        if not key:
            raise SecretUnavailable("the secret file:vault.key cannot be read")
        return key[0]

    settings = KeySettings(read, [lambda: KEYS[0]])
    vault = create_vault(MemoryStore(), redundancy="local", now=NOW, keys=settings)
    full = replace(RESULT, lineage="1", first_lsn=100, last_lsn=200, forks=(), histories={})
    job = Job(vault.store, keys=settings)
    with job.writer:
        job.commit(replace(full, type=PointType.FULL))
    return vault


def ship(vault: Vault, server: Server) -> None:
    fleet = SimpleNamespace(
        engine=lambda _name: server,
        vault=lambda _name: vault,
        configured_names=lambda: [ITEM.name],
        leases=lambda _name: Leases(vault.store, holder="here"),
    )
    ship_log(cast("Fleet", fleet), ITEM.instance, interval_seconds=1, stop=NEVER)


def test_shipping_ends_when_its_key_is_gone_and_goes_on_with_a_new_one(
    vault: Vault, key: list[VaultKey], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Vault, "find_item", lambda *_where, **_how: ITEM)
    monkeypatch.setattr(shipping, "_LOOK_AGAIN_SECONDS", -1.0)

    def nothing() -> None:
        return

    ship(vault, Server([nothing, lambda: key.__setitem__(0, KEYS[1]), nothing]))
    assert recorded_ids(vault.store) == {one.id for one in KEYS}
    with pytest.raises(SecretUnavailable):
        ship(vault, Server([nothing, nothing, key.clear]))
    assert list_tail(vault.store, ITEM.id).pieces[-1].last_lsn == 230
