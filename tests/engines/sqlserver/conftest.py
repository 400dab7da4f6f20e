from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import pytest

from sqlbak.vault import s3_client
from tests.engines.sqlserver.site import Site, site_in
from tests.engines.sqlserver.url_site import url_site
from tests.vault.s3_servers import S3Server, start_moto


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


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with start_moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture(scope="module")
def url_site_of_module(store: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One simulated server for a module that writes into a bucket."""
    with pytest.MonkeyPatch.context() as patch:
        # Making a client anew for each command takes longer than most that a test does.
        patch.setattr(s3_client, "make_client", lru_cache(maxsize=8)(s3_client.make_client))
        with url_site(tmp_path_factory.mktemp("url") / "site", store) as site:
            yield site
