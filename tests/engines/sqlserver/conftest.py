from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engines.sqlserver.site import Site, site_in


@pytest.fixture(scope="module")
def shared_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One simulated server for a module; each test makes databases of its own."""
    with site_in(tmp_path_factory.mktemp("sqlserver") / "site") as site:
        yield site


@pytest.fixture
def site(shared_site: Site) -> Iterator[Site]:
    """The module's server, with nothing going wrong (any more)."""
    shared_site.simulator.faults.clear()
    yield shared_site
    shared_site.simulator.faults.clear()
