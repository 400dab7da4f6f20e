"""Chains of a full and differentials over versions, methods, checksums, segment sizes and
tablespaces: judged by PostgreSQL's own programs and by every row."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.acceptance.combining import assert_same_files, combined_by_postgres
from tests.acceptance.history import seeded_chance
from tests.acceptance.judges import (
    AMCHECK,
    Restored,
    judge_files,
    remove_cluster,
    restored_started,
    told,
)
from tests.acceptance.site import Site
from tests.engines.postgres.clusters import (
    Cluster,
    available_majors,
    has_working_program,
    program_directory,
    running_cluster,
    scratch_directory,
)
from tests.engines.postgres.workloads import change_at_random, checksums, make_tables

pytestmark = pytest.mark.postgres

POLICY = 'full: "0 1 * * sun"\n    differential: "0 1 * * mon-sat"\n    log: 15m'


@dataclass(frozen=True)
class Shape:
    """One combination."""

    major: int
    method: str
    megabytes: int
    has_checksums: bool
    has_tablespace: bool

    def __str__(self) -> str:
        checksums_or_not = "checksums" if self.has_checksums else "plain"
        space = "space" if self.has_tablespace else "nospace"
        return f"pg{self.major}-{self.method}-{self.megabytes}MB-{checksums_or_not}-{space}"


SLICE = [
    Shape(15, "pages", 1, False, True),
    Shape(16, "pages", 64, True, False),
    Shape(17, "native", 16, True, True),
    Shape(18, "native", 1, False, False),
]
PRODUCT = [
    Shape(*shape)
    for shape in itertools.product(
        available_majors(), ("pages", "native"), (1, 16, 64), (True, False), (True, False)
    )
    if shape[0] >= 17 or shape[1] == "pages"
]


@pytest.mark.parametrize(
    "shape", [shape for shape in SLICE if shape.major in available_majors()], ids=str
)
def test_every_chain_restores_to_the_very_rows(shape: Shape, tmp_path: Path) -> None:
    with built(shape, tmp_path) as chains:
        chains.assert_base_is_whole(1)
        chains.assert_restores(2)


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("shape", PRODUCT, ids=str)
def test_every_chain_of_every_shape_restores_to_the_very_rows(shape: Shape, tmp_path: Path) -> None:
    with built(shape, tmp_path) as chains:
        for number in range(3):
            chains.assert_base_is_whole(number)
            chains.assert_restores(number)


@dataclass
class Chains:
    """A full and two differentials of a cluster that went on all the time, and what it held at an
    instant after each: one chain of each length leads there."""

    shape: Shape
    cluster: Cluster
    site: Site
    home: Path
    chance: random.Random
    bases: list[str]
    instants: list[tuple[datetime, object]]

    def go_on(self) -> None:
        """Much log about pages that are gone afterwards: a differential is cheaper than that."""
        change_at_random(self.cluster, self.chance, times=5)
        self.cluster.execute(
            "CREATE TABLE gone AS SELECT md5(n::text) FROM generate_series(1, 200000) n"
        )
        self.cluster.execute("DROP TABLE gone")
        self.site.backup("log")

    def take(self, kind: str) -> None:
        """A base, and an instant between it and the next log backup."""
        point = self.site.run("backup", "orders", "--type", kind).ok()
        assert point["point"]["type"] == kind
        assert point["notes"] == []
        self.bases.append(point["point"]["id"])
        change_at_random(self.cluster, self.chance, times=4)
        held = checksums(self.cluster)
        self.instants.append((datetime.now(UTC), held))
        # Dropping a database begins before it is committed, and is not undone.
        self.cluster.execute("SELECT pg_logical_emit_message(true, 'test', 'fence')")
        change_at_random(self.cluster, self.chance, times=2)
        self.site.backup("log")

    def assert_base_is_whole(self, number: int) -> None:
        """One of the bases alone, before a server runs on it."""
        into = self.home / "alone"
        words = ("--pg-bin", program_directory(self.shape.major))
        document = self.site.restore(self.bases[number], into, *words).ok()
        assert [step["point"] for step in document["steps"]] == self.chain(number)
        judge_files(self.shape.major, told(document, "Check the files"))
        can_combine = has_working_program(self.shape.major, "pg_combinebackup")
        if number and self.shape.method == "native" and can_combine:
            with scratch_directory() as work:
                theirs = combined_by_postgres(self.site, self.cluster, self.chain(number), work)
                assert_same_files(into, theirs)
        remove_cluster(self.shape.major, into)

    def chain(self, number: int) -> list[str]:
        return [self.bases[0], self.bases[number]] if number else self.bases[:1]

    def assert_restores(self, number: int) -> None:
        """The instant after that base, by it and the log behind it."""
        at, held = self.instants[number]
        with restored_started(
            self.site,
            self.shape.major,
            at.isoformat(),
            self.home / "data",
            has_checksums=self.shape.has_checksums,
        ) as restored:
            steps = [step["point"] for step in restored.document["steps"]]
            assert steps[:-1] == self.chain(number)
            assert checksums(as_cluster(restored)) == held


def as_cluster(restored: Restored) -> Cluster:
    twin = Cluster(restored.major, restored.directory.parent)
    lines = (restored.directory / "postmaster.pid").read_text().splitlines()
    twin.data_directory, twin.port, twin.home = restored.directory, int(lines[3]), Path(lines[4])
    return twin


@contextmanager
def built(shape: Shape, root: Path) -> Iterator[Chains]:
    settings = {"track_commit_timestamp": "on"}
    if shape.major >= 17:
        settings |= {"summarize_wal": "on", "wal_log_hints": "on"}
    with (
        running_cluster(
            shape.major,
            wal_segment_megabytes=shape.megabytes,
            has_checksums=shape.has_checksums,
            settings=settings,
        ) as cluster,
        scratch_directory() as home,
    ):
        policy = f"{POLICY}\n    differential_method: {shape.method}"
        site = Site(root, cluster.dsn(), policy=policy)
        space = None
        if shape.has_tablespace:
            space = "space"
            cluster.execute(f"CREATE TABLESPACE space LOCATION '{cluster.make_directory(space)}'")
        for database in ("template1", "postgres"):
            cluster.execute(AMCHECK, database=database)
        make_tables(cluster, space=space)
        chains = Chains(shape, cluster, site, home, seeded_chance(), [], [])
        chains.take("full")
        for _ in range(2):
            chains.go_on()
            chains.take("differential")
        yield chains
