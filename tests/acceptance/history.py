"""What a vault knows of a server that is gone, and what we know of it."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.acceptance.judges import AMCHECK
from tests.acceptance.site import Answer, Site
from tests.acceptance.witness import Mark, Witness, committed_marks
from tests.engines.postgres.clusters import Cluster, running_cluster

__all__ = ["History", "instant", "lose_the_server", "recorded_history", "seeded_chance"]


def instant(text: str) -> datetime:
    """A time of a JSON document."""
    return datetime.fromisoformat(text)


def seeded_chance() -> random.Random:
    """Chance that can be repeated: the seed is printed, and read from SQLBAK_TEST_SEED."""
    seed = int(os.environ.get("SQLBAK_TEST_SEED") or random.SystemRandom().getrandbits(32))
    print(f"SQLBAK_TEST_SEED={seed}")
    return random.Random(seed)


@dataclass
class History:
    """A vault with two windows and a gap between them, and the marks of its source, which does
    not exist any more."""

    major: int
    site: Site
    chance: random.Random
    marks: tuple[Mark, ...]
    points: list[dict[str, Any]] = field(init=False)
    windows: list[tuple[datetime, datetime]] = field(init=False)

    def __post_init__(self) -> None:
        self.points = self.site.run("list").ok()["points"]
        self.windows = self.site.windows()

    def any_instant(self) -> datetime:
        """A random one within the windows, each second as likely as the other."""
        lengths = [end - start for start, end in self.windows]
        start, end = self.chance.choices(self.windows, [x.total_seconds() for x in lengths])[0]
        return start + self.chance.random() * (end - start)

    def any_commit(self) -> datetime:
        """The time of a random mark within the windows."""
        return self.chance.choice(
            [
                mark.committed_at
                for mark in self.marks
                if any(start < mark.committed_at <= end for start, end in self.windows)
            ]
        )


@contextmanager
def recorded_history(major: int, root: Path, *, rest: float = 0.3) -> Iterator[History]:
    """Fulls and logs of a server with a busy writer; ``rest`` seconds between them."""
    chance = seeded_chance()
    settings = {"track_commit_timestamp": "on"}
    with running_cluster(major, wal_segment_megabytes=1, settings=settings) as cluster:
        site = Site(root, cluster.dsn())
        for database in ("template1", "postgres"):
            cluster.execute(AMCHECK, database=database)
        with Witness(cluster, chance):
            time.sleep(rest)
            site.backup("full")
            for _ in range(2):
                time.sleep(rest)
                site.backup("log")
            both = [site.start("backup", "orders", "--type", t, "--json") for t in ("full", "log")]
            for process in both:
                out, err = process.communicate(timeout=120)
                Answer(process.returncode, out, err).ok()
            time.sleep(rest)
            site.backup("log")
            lose_the_slot(cluster)
            time.sleep(rest)
            # From here on a new slot holds log: what lies before is not continued any more.
            cluster.execute("CHECKPOINT")
            assert site.backup("log")["type"] == "full"
            time.sleep(rest)
            site.backup("log")
        site.backup("log")
        marks = committed_marks(cluster.execute)
        lose_the_server(cluster)
        history = History(major, site, chance, marks)
        assert len(history.windows) == 2
        yield history


def lose_the_server(cluster: Cluster) -> None:
    """It crashes, and its disk is gone."""
    cluster.stop("immediate")
    shutil.rmtree(cluster.data_directory)


def lose_the_slot(cluster: Cluster) -> None:
    """What a failover does to it."""
    ((name,),) = cluster.execute("SELECT slot_name FROM pg_replication_slots WHERE NOT temporary")
    cluster.execute("SELECT pg_drop_replication_slot(%s)", [name])
