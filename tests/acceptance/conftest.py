"""Sites for the tests that run sqlbak as a process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.history import History, recorded_history
from tests.acceptance.site import Site
from tests.engines.postgres.clusters import (
    Cluster,
    available_majors,
    major_cases,
    running_cluster,
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A running cluster of the newest version, with commit times on."""
    settings = {"track_commit_timestamp": "on"}
    with running_cluster(available_majors()[-1], settings=settings) as running:
        yield running


@pytest.fixture
def site(cluster: Cluster, tmp_path: Path) -> Site:
    """A fresh vault and policy for that cluster."""
    return Site(tmp_path, cluster.dsn())


@pytest.fixture(scope="session", params=major_cases(15, 18))
def history(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[History]:
    """A vault of each major version (two of them but for the soak) whose source is gone, with two
    windows and a gap."""
    with recorded_history(request.param, tmp_path_factory.mktemp("history")) as recorded:
        yield recorded
