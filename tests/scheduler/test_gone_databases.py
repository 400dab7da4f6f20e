"""Databases come and go while a service lives for years; what it knew of them goes with them."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest

from sqlbak.errors import ServerUnreachable
from sqlbak.fleet import Fleet
from sqlbak.model import PointType
from sqlbak.scheduler.configuration_watch import ConfigurationWatch
from sqlbak.scheduler.logs import event_log
from sqlbak.scheduler.service import Service
from sqlbak.stopping import StopSignal

KIND = PointType.FULL


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    file = tmp_path / "policies.yaml"
    file.write_text(
        f'vaults: {{main: {{url: "file://{tmp_path}/vault", redundancy: local}}}}\n'
        "instances:\n"
        + "".join(
            f"  {name}: {{engine: sqlserver, host: {name}, user: u, password: env:P,"
            " delivery: {disk: {server_path: /b, local_path: /b}}, databases: {include: ['*']}}\n"
            for name in ("erp", "crm")
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
    there = {"erp": ("erp/kept",), "crm": ("crm/kept",)}

    def item_names(_fleet: Fleet, instance: str) -> tuple[str, ...]:
        if not there[instance]:
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
