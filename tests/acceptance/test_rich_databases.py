"""What a database can hold beside rows in tables comes back too: judged by ``pg_dump``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import LiteralString

import pytest

from tests.acceptance.history import lose_the_server
from tests.acceptance.judges import AMCHECK, Restored, restored_by_hand, restored_started
from tests.acceptance.site import Site
from tests.acceptance.witness import Noise
from tests.engines.postgres.clusters import (
    Cluster,
    available_majors,
    major_cases,
    running_cluster,
    scratch_directory,
)

pytestmark = pytest.mark.postgres

# Each version with another combination of segment size (MB) and checksums.
SHAPES = {15: (1, False), 16: (64, True), 17: (64, False), 18: (1, True)}
SEQUENCE_AHEAD = 32  # SEQ_LOG_VALS: so many values are logged before they are given out

BEFORE_THE_FULL: tuple[LiteralString, ...] = (
    "CREATE TABLE one (n serial PRIMARY KEY, filler text) TABLESPACE space_one",
    "CREATE TABLE two (n serial, filler text) TABLESPACE space_two",
    "CREATE INDEX two_n ON two (n) TABLESPACE space_one",
    "CREATE UNLOGGED TABLE unlogged (n int PRIMARY KEY)",
    "INSERT INTO unlogged SELECT generate_series(1, 500)",
    "CREATE TABLE doomed AS SELECT generate_series(1, 1000) AS n",
    "CREATE TABLE promised (who text PRIMARY KEY)",
    "CREATE TABLE pledged (n int PRIMARY KEY)",
    "CREATE SEQUENCE tickets INCREMENT 3",
    "SELECT nextval('tickets') FROM generate_series(1, 100)",
    "SELECT lo_from_bytea(4711, decode(repeat('00ff10', 30000), 'hex'))",
    "SELECT lo_from_bytea(4712, 'unlinked later')",
    "CREATE ROLE clerk",
)
WHILE_THE_FULL_RUNS: tuple[LiteralString, ...] = (
    "INSERT INTO one (filler) VALUES (repeat('x', 500))",
    "INSERT INTO two (filler) VALUES (repeat('y', 500))",
    "UPDATE one SET filler = 'changed' WHERE n % 7 = 0 AND filler <> 'changed'",
    "DELETE FROM two WHERE n % 5 = 0",
    "INSERT INTO unlogged SELECT max(n) + 1 FROM unlogged",
)
AFTER_THE_FULL: tuple[LiteralString, ...] = (
    "DROP TABLE doomed",
    "CREATE TABLE born AS SELECT g AS n, repeat('b', 300) AS t FROM generate_series(1, 2000) g",
    "CREATE TABLE short_lived TABLESPACE space_two AS SELECT generate_series(1, 2000) AS n",
    "DROP TABLE short_lived",
    "CREATE TABLE parts (n int, at date) PARTITION BY RANGE (at)",
    "CREATE TABLE parts_may PARTITION OF parts FOR VALUES FROM ('2026-05-01') TO ('2026-06-01')",
    "INSERT INTO parts SELECT g, '2026-05-10' FROM generate_series(1, 500) g",
    "ALTER TABLE parts DETACH PARTITION parts_may",
    "ALTER TABLE one ADD COLUMN added int DEFAULT 7",
    "ALTER TABLE one ALTER COLUMN filler TYPE varchar(600)",
    "ALTER TABLE two SET TABLESPACE space_one",
    "CREATE INDEX one_filler ON one (md5(filler))",
    "CREATE MATERIALIZED VIEW summary AS SELECT count(*), sum(n) FROM one",
    "CREATE TYPE mood AS ENUM ('good', 'bad')",
    "CREATE UNLOGGED TABLE numbered (id bigserial, n int)",  # its sequence is unlogged, too
    "CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql AS 'SELECT 2 * n'",
    "GRANT SELECT ON born TO clerk",
    "CREATE ROLE newcomer",
    "TRUNCATE promised",
    "INSERT INTO promised VALUES ('truncated before')",
    "CLUSTER one USING one_pkey",
    "VACUUM FULL two",
    "REINDEX TABLE born",
    "VACUUM FREEZE born",
    "SELECT nextval('tickets') FROM generate_series(1, 50)",
    "SELECT lo_put(4711, 40000, 'in the middle')",
    "SELECT lo_unlink(4712)",
    "SELECT lo_from_bytea(4713, 'made later')",
    "CREATE DATABASE shop TABLESPACE space_one",
    "CREATE DATABASE copied TEMPLATE template1 STRATEGY file_copy",
)
# A transaction with more subtransactions than fit into shared memory, half of them undone.
SUBTRANSACTIONS: LiteralString = """
    DO $$ BEGIN
        FOR number IN 1..300 LOOP
            BEGIN
                INSERT INTO promised VALUES ('subtransaction ' || number);
                IF number % 2 = 0 THEN RAISE division_by_zero; END IF;
            EXCEPTION WHEN division_by_zero THEN NULL;
            END;
        END LOOP;
    END $$
"""
AFTER_THE_FIRST_INSTANT: tuple[LiteralString, ...] = (
    "COMMIT PREPARED 'across'",
    "ROLLBACK PREPARED 'early'",
    "DROP TABLE born",
    "DROP DATABASE shop",
    "DROP MATERIALIZED VIEW summary",
    "DROP TABLE numbered",  # pg_dump cannot read its sequence where PostgreSQL recovered alone
    "TRUNCATE one",
    "INSERT INTO one (filler) SELECT 'fresh' FROM generate_series(1, 10)",
    "ALTER TABLE parts ATTACH PARTITION parts_may FOR VALUES FROM ('2026-05-01') TO ('2026-06-01')",
    "SELECT lo_unlink(4711)",
    "DROP ROLE newcomer",
    "SELECT nextval('tickets') FROM generate_series(1, 50)",
)
AFTER_THE_SECOND_INSTANT: tuple[LiteralString, ...] = (
    "DROP TABLE one",
    "DROP DATABASE copied",
    "INSERT INTO promised VALUES ('too late')",
)


@dataclass(frozen=True)
class State:
    """All of a cluster at one instant, as PostgreSQL's own programs print it."""

    databases: tuple[str, ...]
    dumps: tuple[str, ...]
    roles: str
    prepared: tuple[str, ...]
    tickets: int


@pytest.fixture
def home() -> Iterator[Path]:
    with scratch_directory() as path:
        yield path


def state(server: Restored) -> State:
    databases = tuple(
        name
        for (name,) in server.rows(
            "SELECT datname FROM pg_database WHERE datallowconn ORDER BY datname"
        )
    )
    words = ("--no-unlogged-table-data", "--create")
    ((tickets,),) = server.rows("SELECT last_value FROM tickets")
    return State(
        databases,
        tuple(comparable(server.run("pg_dump", *words, name)) for name in databases),
        comparable(server.run("pg_dumpall", "--roles-only")),
        tuple(gid for (gid,) in server.rows("SELECT gid FROM pg_prepared_xacts ORDER BY gid")),
        tickets,
    )


def comparable(dump: str) -> str:
    """Without pg_dump's random keys; and sequences, which may be ahead, are compared otherwise."""
    return re.sub(r"(?m)^(\\(un)?restrict .*|SELECT pg_catalog\.setval.*)$", "", dump)


def assert_same(found: State, source: State) -> None:
    assert found.databases == source.databases
    assert found.prepared == source.prepared
    assert found.roles == source.roles
    for name, dump, expected in zip(found.databases, found.dumps, source.dumps, strict=True):
        assert dump.splitlines() == expected.splitlines(), name
    assert 0 <= found.tickets - source.tickets <= 3 * SEQUENCE_AHEAD


def assert_usable(restored: Restored) -> None:
    """Unlogged tables are there and empty, and sequences give out no value twice."""
    rows = restored.rows
    assert rows("SELECT count(*) FROM unlogged") == [(0,)]
    rows("INSERT INTO unlogged VALUES (1)")
    rows("INSERT INTO numbered (n) VALUES (1)")
    ((last,),) = rows("SELECT last_value FROM tickets")
    assert rows("SELECT nextval('tickets')") == [(last + 3,)]


def assert_tablespaces_are_its_own(restored: Restored, source: Cluster) -> None:
    places = restored.rows(
        "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname ~ '^space'"
    )
    assert len(places) == 2
    for (place,) in places:
        assert Path(place).is_relative_to(restored.directory)
        assert list(Path(place).iterdir())


def prepare(cluster: Cluster, gid: LiteralString, statement: LiteralString) -> None:
    with cluster.connect() as connection:
        connection.execute("BEGIN")
        connection.execute(statement)
        connection.execute(f"PREPARE TRANSACTION '{gid}'")


def now(cluster: Cluster) -> datetime:
    ((clock,),) = cluster.execute("SELECT clock_timestamp()")
    assert isinstance(clock, datetime)
    return clock


def run_all(cluster: Cluster, statements: tuple[LiteralString, ...]) -> None:
    with cluster.connect() as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.mark.parametrize("major", major_cases(15, 18))
def test_everything_that_a_cluster_can_hold_comes_back(
    major: int, tmp_path: Path, home: Path
) -> None:
    megabytes, has_checksums = SHAPES.get(major, (1, True))
    assert_everything_comes_back(major, tmp_path, home, megabytes, has_checksums)


@pytest.mark.soak
def test_everything_comes_back_with_segments_of_a_gigabyte(tmp_path: Path, home: Path) -> None:
    assert_everything_comes_back(available_majors()[-1], tmp_path, home, 1024, True)


def assert_everything_comes_back(
    major: int, tmp_path: Path, home: Path, megabytes: int, has_checksums: bool
) -> None:
    with running_cluster(
        major,
        wal_segment_megabytes=megabytes,
        has_checksums=has_checksums,
        settings={"max_prepared_transactions": "5"},
    ) as cluster:
        site = Site(tmp_path, cluster.dsn())
        source = Restored(major, cluster.data_directory, cluster.dsn(), {})
        for name in ("space_one", "space_two"):
            place = cluster.make_directory(name)
            cluster.execute(f"CREATE TABLESPACE {name} LOCATION '{place}'")
        for database in ("template1", "postgres"):
            cluster.execute(AMCHECK, database=database)
        run_all(cluster, BEFORE_THE_FULL)
        prepare(cluster, "early", "INSERT INTO pledged VALUES (1)")
        with Noise(cluster, *WHILE_THE_FULL_RUNS):
            site.backup("full")
            site.backup("log")
        run_all(cluster, AFTER_THE_FULL)
        cluster.execute(
            "CREATE TABLE goods AS SELECT g AS n FROM generate_series(1, 3000) g", database="shop"
        )
        cluster.execute(SUBTRANSACTIONS)
        site.backup("log")
        prepare(cluster, "across", "INSERT INTO promised VALUES ('kept')")
        first, at_first = now(cluster), state(source)
        run_all(cluster, AFTER_THE_FIRST_INSTANT)
        second, at_second = now(cluster), state(source)
        run_all(cluster, AFTER_THE_SECOND_INSTANT)
        site.backup("log")
        lose_the_server(cluster)

        into = home / "data"
        assert at_first.prepared == ("across", "early")
        with restored_started(
            site, major, first.isoformat(), into, has_checksums=has_checksums
        ) as restored:
            assert_same(state(restored), at_first)
            assert_tablespaces_are_its_own(restored, cluster)
            assert_usable(restored)
            for gid in at_first.prepared:
                restored.rows(f"COMMIT PREPARED '{gid}'")
            assert restored.rows("SELECT n FROM pledged") == [(1,)]
            assert restored.rows("SELECT who FROM promised WHERE who = 'kept'") == [("kept",)]
        # While it is paused, tables that a transaction in flight had locked are locked.
        with restored_by_hand(
            site, major, second.isoformat(), into, has_checksums=has_checksums, is_paused=False
        ) as restored:
            assert_same(state(restored), at_second)
            assert_tablespaces_are_its_own(restored, cluster)
