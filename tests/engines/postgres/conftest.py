"""Clusters shared by the tests of the PostgreSQL engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engines.postgres.clusters import Cluster, available_majors, running_cluster


@pytest.fixture(scope="session", params=available_majors(), ids=lambda major: f"pg{major}")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """One running cluster of each major version, with checksums, shared by the whole session:
    tests may add tables and databases, but leave settings and the timeline alone."""
    with running_cluster(request.param) as running:
        yield running


@pytest.fixture(scope="session")
def newest_cluster() -> Iterator[Cluster]:
    """Like ``cluster``, of the newest major version only."""
    with running_cluster(available_majors()[-1]) as running:
        yield running
