"""Databases come and go while a service lives for years; what it knew of them goes with them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest

from sqlbak.errors import ServerUnreachable, StoreUnreachable
from sqlbak.fleet import Fleet
from sqlbak.model import PointType
from sqlbak.scheduler.configuration_watch import ConfigurationWatch
from sqlbak.scheduler.logs import event_log
from sqlbak.scheduler.service import Service
from sqlbak.stopping import StopSignal
from sqlbak.stored_item import Served

KIND = PointType.FULL


INSTANCES = ("erp", "crm", *(f"dark{number}" for number in range(8)))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    file = tmp_path / "policies.yaml"
    file.write_text(
        f'vaults: {{main: {{url: "file://{tmp_path}/vault", redundancy: local}}}}\n'
        "instances:\n"
        + "".join(
            f"  {name}: {{engine: sqlserver, host: {name}, user: u, password: env:P,"
            " delivery: {disk: {server_path: /b, local_path: /b}}, databases: {include: ['*']}}\n"
            for name in INSTANCES
        )
    )
    made = Service(ConfigurationWatch(file), event_log(StringIO(), as_json=True), StopSignal())
    made._reload()
    yield made
    made._catalogs.close()
    made._fleet.close()


def test_a_database_that_is_gone_leaves_nothing_and_a_silent_instance_keeps_all(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = {name: (f"{name}/kept",) for name in INSTANCES if name in ("erp", "crm")}

    def item_names(_fleet: Fleet, instance: str) -> tuple[str, ...]:
        if not there.get(instance):
            raise ServerUnreachable("away")
        return there[instance]

    monkeypatch.setattr(Fleet, "item_names", item_names)
    state = service._state
    for name in ("erp/kept", "erp/gone", "crm/kept", "crm/gone"):
        state.given_up[name, KIND] = "slot"
        state.paused[name, KIND] = (None, 0.0)
        state.backoff.failed((name, KIND), 0.0)
        service._catalogs.forget(name)

    def left() -> set[str]:
        kept = {name for name, _ in state.given_up}
        assert kept == {name for name, _ in state.paused}
        assert kept == {name for name, kind in state.backoff._failures if kind is KIND}
        assert kept == set(service._catalogs._current().forgotten)
        return kept

    there["crm"] = ()
    service._forget_gone(list(service._item_names(service._fleet)))
    assert left() == {"erp/kept", "crm/kept", "crm/gone"}

    there["crm"] = ("crm/kept",)
    state.backoff.succeeded(("crm", None))
    service._forget_gone(list(service._item_names(service._fleet)))
    assert left() == {"erp/kept", "crm/kept"}


def test_many_instances_that_are_away_cost_the_others_no_more_than_one(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    dark = threading.Barrier(8)

    def item_names(_fleet: Fleet, instance: str) -> tuple[str, ...]:
        if instance.startswith("dark"):
            dark.wait(30)  # one after another they would never all be here
            raise ServerUnreachable("away")
        return (f"{instance}/main",)

    monkeypatch.setattr(Fleet, "item_names", item_names)
    assert list(service._item_names(service._fleet)) == ["crm/main", "erp/main"]
    assert not dark.broken
    assert service._silent == {name for name in INSTANCES if name.startswith("dark")}


def test_an_instance_that_answered_again_begins_anew_with_short_waits(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = service._state
    is_away = threading.Event()

    def item_names(_fleet: Fleet, _instance: str) -> tuple[str, ...]:
        if is_away.is_set():
            raise ServerUnreachable("away")
        return ()

    monkeypatch.setattr(Fleet, "item_names", item_names)
    for change in (is_away.set, is_away.set, is_away.set, is_away.clear, is_away.set):
        change()
        list(service._item_names(service._fleet))
        state.backoff._until.clear()  # as time does
    assert {state.backoff._failures[name, None] for name in INSTANCES} == {1}


def test_a_catalog_that_was_read_again_begins_anew_with_short_waits(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    backoff = service._state.backoff
    is_away = threading.Event()

    def served(_fleet: Fleet, _name: str) -> Served:
        if is_away.is_set():
            raise StoreUnreachable("away")
        return Served()

    monkeypatch.setattr(Fleet, "served", served)
    failures = []
    for change in (is_away.set, is_away.set, is_away.clear, is_away.set):
        change()
        service._wake.clear()
        service._catalogs.forget("erp/main")
        service._catalogs.known("erp/main")
        assert service._wake.wait(30)
        failures.append(backoff._failures.get(("erp/main", None), 0))
    assert failures == [1, 2, 0, 1]
