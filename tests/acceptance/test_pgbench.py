"""pgbench moves money while backups run; in every restored cluster the books balance."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from tests.acceptance.history import lose_the_server, seeded_chance
from tests.acceptance.judges import AMCHECK, Restored, restored_by_hand, restored_started
from tests.acceptance.site import Site
from tests.engines.postgres.clusters import (
    Cluster,
    has_working_program,
    major_cases,
    program_directory,
    running_cluster,
    scratch_directory,
)

pytestmark = pytest.mark.postgres

SCALE = 5
CLIENTS = 2
SUMS = """
    SELECT (SELECT sum(abalance) FROM pgbench_accounts),
           (SELECT sum(bbalance) FROM pgbench_branches),
           (SELECT sum(tbalance) FROM pgbench_tellers),
           (SELECT coalesce(sum(delta), 0) FROM pgbench_history)
"""


@pytest.fixture
def home() -> Iterator[Path]:
    with scratch_directory() as path:
        yield path


@contextmanager
def pgbench_running(cluster: Cluster) -> Iterator[None]:
    process = subprocess.Popen(
        [
            *(program_directory(cluster.major) / "pgbench", "--no-vacuum", "--rate=800"),
            *(f"--client={CLIENTS}", f"--jobs={CLIENTS}", "--time=600"),
            *(f"--host={cluster.home}", f"--port={cluster.port}", "--username=postgres"),
            "postgres",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
        assert process.poll() is None, "pgbench ended before it was told to"
    finally:
        process.terminate()
        process.wait()


def assert_balanced(restored: Restored, committed: dict[str, datetime], to: datetime) -> None:
    """Each transaction moved the same amount in four tables; and those that are there are those
    that had been committed. Of transactions in flight at the same moment, PostgreSQL may write the
    one with the earlier time later: as many as there are clients may be left out by that."""
    ((accounts, branches, tellers, history),) = restored.rows(SUMS)
    assert accounts == branches == tellers == history
    found = {xid for (xid,) in restored.rows("SELECT xmin::text FROM pgbench_history")}
    expected = {xid for xid, at in committed.items() if at <= to}
    assert found <= expected
    assert len(expected - found) <= CLIENTS


@pytest.mark.parametrize("major", major_cases(16, 17))
def test_the_books_balance_at_every_instant(major: int, tmp_path: Path, home: Path) -> None:
    if not has_working_program(major, "pgbench"):
        pytest.skip("this build has no pgbench")
    with running_cluster(major, settings={"track_commit_timestamp": "on"}) as cluster:
        for database in ("template1", "postgres"):
            cluster.execute(AMCHECK, database=database)
        where = [f"--host={cluster.home}", f"--port={cluster.port}", "--username=postgres"]
        cluster.run("pgbench", "-i", "-q", f"--scale={SCALE}", *where, "postgres")
        site = Site(tmp_path, cluster.dsn())
        with pgbench_running(cluster):
            site.backup("full")
            for _ in range(3):
                time.sleep(0.5)
                site.backup("log")
        committed = dict(
            cluster.execute(
                "SELECT xmin::text, pg_xact_commit_timestamp(xmin) FROM pgbench_history"
            )
        )
        assert len(committed) > 100
        lose_the_server(cluster)
        ((start, end),) = site.windows()
        chance = seeded_chance()
        instants = sorted(start + chance.random() * (end - start) for _ in range(4))
        for number, to in enumerate(instants):
            way = restored_by_hand if number == 2 else restored_started
            with way(site, major, to.isoformat(), home / "data") as restored:
                assert_balanced(restored, committed, to)
