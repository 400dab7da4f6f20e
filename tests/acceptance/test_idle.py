"""A server on which nothing happens: every instant can be restored all the same."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.acceptance.history import instant, lose_the_server, seeded_chance
from tests.acceptance.judges import AMCHECK, restored_by_hand, restored_started
from tests.acceptance.site import Site
from tests.engines.postgres.clusters import major_cases, running_cluster, scratch_directory

pytestmark = pytest.mark.postgres

SLOTS = 3
SLOT_SECONDS = 1.0


@pytest.fixture
def home() -> Iterator[Path]:
    with scratch_directory() as path:
        yield path


def whole_seconds(start: datetime, end: datetime) -> list[datetime]:
    """Those that lie between."""
    second = start.replace(microsecond=0) + timedelta(seconds=1)
    found = []
    while second <= end:
        found.append(second)
        second += timedelta(seconds=1)
    return found


@pytest.mark.parametrize("major", major_cases(15, 17))
def test_every_instant_of_an_idle_server_can_be_restored(
    major: int, tmp_path: Path, home: Path
) -> None:
    with running_cluster(major, wal_segment_megabytes=1) as cluster:
        for database in ("template1", "postgres"):
            cluster.execute(AMCHECK, database=database)
        cluster.execute("CREATE TABLE marks AS SELECT generate_series(1, 3) AS n")
        site = Site(tmp_path, cluster.dsn())
        site.backup("full")
        logs = []
        for _ in range(SLOTS):
            time.sleep(SLOT_SECONDS)
            logs.append(site.backup("log"))
        assert all(point["type"] == "log" for point in logs)
        ((start, end),) = site.windows()
        assert end - start > timedelta(seconds=SLOTS * SLOT_SECONDS)
        lose_the_server(cluster)
        chance = seeded_chance()
        anywhere = [start + chance.random() * (end - start) for _ in range(2)]
        for to in (*chance.sample(whole_seconds(start, end), 2), *anywhere):
            with restored_started(site, major, to.isoformat(), home / "data") as restored:
                assert restored.rows("SELECT n FROM marks ORDER BY n") == [(1,), (2,), (3,)]
                assert instant(restored.document["stop_at"]) == to
        for to in (chance.choice(whole_seconds(start, end)), end):
            with restored_by_hand(site, major, to.isoformat(), home / "data") as restored:
                assert restored.rows("SELECT n FROM marks ORDER BY n") == [(1,), (2,), (3,)]
