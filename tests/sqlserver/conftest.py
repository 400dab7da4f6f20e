"""A site for each test: cheap, as the server is simulated."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.sqlserver.site import SERVER_FOLDER, START, Site
from tests.sqlserver_simulator import Simulator


def started(folder: Path, simulators: list[Simulator], zone: str = "UTC", **options) -> Site:
    delivery = folder / "delivery"
    delivery.mkdir(parents=True)
    simulator = Simulator({SERVER_FOLDER: delivery}, zone=zone, **options).start()
    simulators.append(simulator)
    simulator.clock.set(START)
    os.environ["ERP_PASSWORD"] = simulator.sa_password
    site = Site(
        folder, simulator.host, simulator.port, simulator.sa_password, delivery, simulator, zone
    )
    site.write_policy()
    return site


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    simulators: list[Simulator] = []

    def make(zone: str = "UTC", **options) -> Site:
        return started(tmp_path / f"site{len(simulators)}", simulators, zone, **options)

    yield make
    for simulator in simulators:
        simulator.stop()


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    return make_site()


@pytest.fixture(scope="module")
def sales(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site with a history of the database Sales, for tests that leave it alone."""
    simulators: list[Simulator] = []
    site = started(tmp_path_factory.mktemp("sales") / "site", simulators)
    site.write_history("Sales")
    yield site
    for simulator in simulators:
        simulator.stop()
