"""Changes of every kind that a cluster's files and log can feel, chosen by chance, and the state of
a cluster to compare two of them by. The same seed makes the same changes in the same order."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

from tests.acceptance.judges import AMCHECK
from tests.acceptance.witness import Rows, queries
from tests.engines.postgres.clusters import Cluster

__all__ = ["State", "Workload", "assert_holds", "state_of"]

TABLES = tuple(f"t{number}" for number in range(7))
DATABASES = ("d0", "d1")
SPACES = ("space_one", "space_two")
SEQUENCES = ("s0", "s1")
SEQUENCE_AHEAD = 32  # SEQ_LOG_VALS: so many values are logged before they are given out


class Workload:
    """One session's worth of changes to ``cluster`` at a time; ``chance`` decides which. Needs
    ``max_prepared_transactions``."""

    def __init__(self, cluster: Cluster, chance: random.Random) -> None:
        self._cluster = cluster
        self._chance = chance
        self._number = 0
        self.counts: dict[str, int] = {}
        self._calm: tuple[Callable[[], None], ...] = (
            self._create_table,
            self._create_table,
            self._drop_table,
            self._make_anew,
            self._truncate,
            self._truncate_and_freeze,
            self._rewrite,
            self._vacuum_truncation,
            self._load,
            self._load,
            self._insert,
            self._update,
            self._update,
            self._delete,
            self._index,
            self._reindex,
            self._alter_with_rewrite,
            self._alter_in_place,
            self._prepare_transaction,
            self._end_prepared,
            self._subtransactions,
            self._roll_back,
            self._sequence,
            self._large_object,
            self._database,
            self._in_database,
            self._move_table,
            self._move_database,
            self._freeze,
            self._checkpoint,
            self._switch_segment,
        )
        self._rough: tuple[Callable[[], None], ...] = (self._restart,)

    def begin(self) -> None:
        """What all changes start from."""
        for name in SPACES:
            place = self._cluster.make_directory(name)
            self._run("CREATE TABLESPACE {} LOCATION {}", name, literal=str(place))
        for database in ("template1", "postgres"):
            self._cluster.execute(AMCHECK, database=database)
        self._run("CREATE TABLE pledges (gid text PRIMARY KEY, filler text)")
        for name in SEQUENCES:
            self._run("CREATE SEQUENCE {}", name)
        for _ in range(4):
            self._create_table()

    def change(self, times: int, *, is_calm: bool = False) -> None:
        """So many changes; ``is_calm``: none that ends other sessions."""
        for _ in range(times):
            rough = () if is_calm else self._rough
            change = self._chance.choice((*self._calm, *rough))
            name = change.__name__.lstrip("_")
            self.counts[name] = self.counts.get(name, 0) + 1
            change()

    def fence(self) -> None:
        """A commit without effect: what follows it cannot be felt at an instant before it, not
        even where it is not transactional (sequences)."""
        self._cluster.execute("SELECT pg_logical_emit_message(true, 'test', 'fence')")

    def _run(
        self, statement: str, *names: str, literal: Any = None, database: str = "postgres"
    ) -> None:
        """Names and one literal take the place of ``{}`` in order."""
        parts: list[sql.Composable] = [sql.Identifier(name) for name in names]
        if literal is not None:
            parts.append(sql.Literal(literal))
        composed = sql.SQL(statement).format(*parts)  # type: ignore[arg-type]
        with self._cluster.connect(database=database) as connection:
            connection.execute(composed)

    def _tables(self) -> list[str]:
        return [
            name
            for (name,) in self._cluster.execute(
                "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relname ~ '^t[0-9]$'"
                " ORDER BY 1"
            )
        ]

    def _any_table(self) -> str:
        found = self._tables()
        if not found:
            self._create_table()
            found = self._tables()
        return self._chance.choice(found)

    def _fill(self, table: str, count: int, *, database: str = "postgres") -> None:
        self._run(
            "INSERT INTO {} (n, filler)"
            " SELECT g, md5(g::text) || repeat('x', g % 300) FROM generate_series(1, {}) g",
            table,
            literal=count,
            database=database,
        )

    def _create_table(self, name: str | None = None) -> None:
        absent = sorted(set(TABLES) - set(self._tables()))
        if name is None and not absent:
            return
        name = name or self._chance.choice(absent)
        kind = self._chance.choice(["", "", "", "", "UNLOGGED"])
        space = self._chance.choice(["", "", " TABLESPACE space_one", " TABLESPACE space_two"])
        self._run(
            f"CREATE {kind} TABLE {{}} (id bigserial PRIMARY KEY, n int, filler text){space}", name
        )
        if self._chance.random() < 0.3:  # the large ones out of line and as they are
            self._run("ALTER TABLE {} ALTER filler SET STORAGE EXTERNAL", name)
            self._run(
                "INSERT INTO {} (n, filler) SELECT g, repeat(md5(g::text), 200)"
                " FROM generate_series(1, 60) g",
                name,
            )
        if self._chance.random() < 0.8:
            self._fill(name, self._chance.randrange(1, 2500))

    def _drop_table(self) -> None:
        self._run("DROP TABLE {}", self._any_table())

    def _make_anew(self) -> None:
        table = self._any_table()
        self._run("DROP TABLE {}", table)
        self._create_table(table)

    def _truncate(self) -> None:
        table = self._any_table()
        again = self._chance.choice([" RESTART IDENTITY", ""])
        self._run(f"TRUNCATE {{}}{again}", table)
        if self._chance.random() < 0.7:
            self._fill(table, self._chance.randrange(1, 800))

    def _truncate_and_freeze(self) -> None:
        table, count = self._any_table(), self._chance.randrange(1, 500)
        name = sql.Identifier(table)
        with self._cluster.connect() as session, session.transaction():
            session.execute(sql.SQL("TRUNCATE {}").format(name))
            with session.cursor().copy(
                sql.SQL("COPY {} (n, filler) FROM STDIN WITH (FREEZE)").format(name)
            ) as copy:
                for number in range(count):
                    copy.write_row((number, f"frozen {number}"))

    def _rewrite(self) -> None:
        how = self._chance.choice(["VACUUM FULL {}", "CLUSTER {} USING {}"])
        table = self._any_table()
        self._run(how, table, f"{table}_pkey")

    def _vacuum_truncation(self) -> None:
        table = self._any_table()
        self._run("DELETE FROM {} WHERE id > (SELECT max(id) / 2 FROM {})", table, table)
        self._run("VACUUM (TRUNCATE) {}", table)
        if self._chance.random() < 0.5:
            self._fill(table, self._chance.randrange(1, 1500))

    def _load(self) -> None:
        name, count = sql.Identifier(self._any_table()), self._chance.randrange(100, 6000)
        seed = self._chance.randrange(1 << 30)
        with (
            self._cluster.connect() as session,
            session.cursor().copy(sql.SQL("COPY {} (n, filler) FROM STDIN").format(name)) as copy,
        ):
            for number in range(count):
                copy.write_row((number, f"{seed + number * 7919}" * (number % 12)))

    def _insert(self) -> None:
        self._fill(self._any_table(), self._chance.randrange(1, 300))

    def _update(self) -> None:
        which = self._chance.randrange(2, 40)
        self._run(
            "UPDATE {} SET filler = 'changed ' || id WHERE id % {} = 0",
            self._any_table(),
            literal=which,
        )

    def _delete(self) -> None:
        which = self._chance.randrange(2, 12)
        table = self._any_table()
        self._run("DELETE FROM {} WHERE id % {} = 0", table, literal=which)
        if self._chance.random() < 0.5:
            self._run("VACUUM {}", table)

    def _index(self) -> None:
        table = self._any_table()
        self._number += 1
        index = f"{table}_i{self._number % 3}"
        self._run("DROP INDEX IF EXISTS {}", index)
        if self._chance.random() < 0.8:
            space = self._chance.choice(["", " TABLESPACE space_two"])
            what = self._chance.choice(["(n)", "(md5(filler))", "(n, id)"])
            which = self._chance.choice(["", " WHERE n > 50"])
            self._run(f"CREATE INDEX {{}} ON {{}} {what}{space}{which}", index, table)

    def _reindex(self) -> None:
        how = self._chance.choice(["REINDEX TABLE {}", "REINDEX TABLE CONCURRENTLY {}"])
        self._run(how, self._any_table())

    def _alter_with_rewrite(self) -> None:
        how = self._chance.choice(
            ["SET UNLOGGED", "SET LOGGED", "ALTER n TYPE bigint", "ALTER n TYPE int"]
        )
        self._run(f"ALTER TABLE {{}} {how}", self._any_table())

    def _alter_in_place(self) -> None:
        self._number += 1
        table, column = self._any_table(), f"c{self._number % 3}"
        self._run("ALTER TABLE {} DROP COLUMN IF EXISTS {}", table, column)
        self._run("ALTER TABLE {} ADD COLUMN {} int DEFAULT 7", table, column)

    def _prepare_transaction(self) -> None:
        if len(self._prepared()) >= 4:
            self._end_prepared()
        self._number += 1
        gid = f"gid {self._number}"
        name = f"t{100 + self._number}"
        with self._cluster.connect() as session:
            session.execute("BEGIN")
            session.execute("INSERT INTO pledges VALUES (%s, repeat('p', 3000))", [gid])
            if self._chance.random() < 0.5:
                session.execute(
                    sql.SQL(
                        "CREATE TABLE {} AS SELECT g AS id FROM generate_series(1, 500) g"
                    ).format(sql.Identifier(name))
                )
            session.execute(sql.SQL("PREPARE TRANSACTION {}").format(sql.Literal(gid)))

    def _prepared(self) -> list[str]:
        return [
            gid
            for (gid,) in self._cluster.execute("SELECT gid FROM pg_prepared_xacts ORDER BY gid")
        ]

    def _end_prepared(self) -> None:
        if gids := self._prepared():
            how = self._chance.choice(["COMMIT", "COMMIT", "ROLLBACK"])
            self._run(f"{how} PREPARED {{}}", literal=self._chance.choice(gids))

    def _subtransactions(self) -> None:
        name, depth = sql.Identifier(self._any_table()), self._chance.randrange(1, 90)
        undone = {number for number in range(depth) if self._chance.random() < 0.4}
        insert = sql.SQL("INSERT INTO {} (n, filler) VALUES ({}, 'sub')")
        with self._cluster.connect() as session, session.transaction():
            for number in range(depth):
                with session.transaction(force_rollback=number in undone):
                    session.execute(insert.format(name, sql.Literal(number)))

    def _roll_back(self) -> None:
        """Pages that a table was extended by stay; so does a file until the next checkpoint."""
        name = sql.Identifier(self._any_table())
        with self._cluster.connect() as session, session.transaction(force_rollback=True):
            session.execute(
                sql.SQL(
                    "INSERT INTO {} (n, filler) SELECT g, repeat('r', 200)"
                    " FROM generate_series(1, 2000) g"
                ).format(name)
            )
            session.execute("CREATE TABLE never AS SELECT generate_series(1, 3000) AS n")

    def _sequence(self) -> None:
        name = self._chance.choice(SEQUENCES)
        kind, value = self._chance.randrange(4), self._chance.randrange(1, 10_000)
        if kind == 0:
            self._run(f"SELECT setval('{name}', {{}})", literal=value)
        elif kind == 1:
            self._run("ALTER SEQUENCE {} RESTART", name)
        else:
            self._run(f"SELECT nextval('{name}') FROM generate_series(1, {value % 200 + 1})")

    def _large_object(self) -> None:
        found = [oid for (oid,) in self._cluster.execute("SELECT oid FROM pg_largeobject_metadata")]
        kind = self._chance.randrange(4)
        if not found or kind == 0:
            self._number += 1
            size = self._chance.randrange(1, 40_000)
            self._run(
                f"SELECT lo_from_bytea({50_000 + self._number}, decode(repeat('00ff10', {size}),"
                " 'hex'))"
            )
            return
        oid = self._chance.choice(sorted(found))
        if kind == 1:
            self._run(f"SELECT lo_unlink({oid})")
        else:
            self._run(f"SELECT lo_put({oid}, {self._chance.randrange(60_000)}, 'in the middle')")

    def _databases(self) -> list[str]:
        return [
            name
            for (name,) in self._cluster.execute(
                "SELECT datname::text FROM pg_database WHERE datname ~ '^d[0-9]$' ORDER BY 1"
            )
        ]

    def _database(self) -> None:
        """Made anew it may have the very number that the dropped one had, and so its folder."""
        name = self._chance.choice(DATABASES)
        if name in self._databases():
            self._run("DROP DATABASE {}", name)
            if self._chance.random() < 0.5:
                return
        strategy = self._chance.choice(["wal_log", "file_copy"])
        space = self._chance.choice(["", " TABLESPACE space_two"])
        number = self._chance.choice(["", f" OID {70_000 + DATABASES.index(name)}"])
        self._run(f"CREATE DATABASE {{}} STRATEGY {strategy}{space}{number}", name)
        self._run("CREATE TABLE t0 (id bigserial PRIMARY KEY, n int, filler text)", database=name)
        self._fill("t0", self._chance.randrange(1, 800), database=name)

    def _in_database(self) -> None:
        if found := self._databases():
            name = self._chance.choice(found)
            if self._chance.random() < 0.5:
                self._fill("t0", self._chance.randrange(1, 800), database=name)
            else:
                self._run("VACUUM FULL t0", database=name)

    def _move_table(self) -> None:
        space = self._chance.choice([*SPACES, "pg_default"])
        table = self._any_table()
        if self._chance.random() < 0.5:
            self._run("ALTER TABLE {} SET TABLESPACE {}", table, space)
        else:
            self._run("ALTER INDEX {} SET TABLESPACE {}", f"{table}_pkey", space)

    def _move_database(self) -> None:
        if found := self._databases():
            space = self._chance.choice(["space_one", "pg_default"])
            name = self._chance.choice(found)
            self._run("ALTER DATABASE {} SET TABLESPACE {}", name, space)

    def _freeze(self) -> None:
        self._run("VACUUM FREEZE {}", self._any_table())

    def _checkpoint(self) -> None:
        self._run("CHECKPOINT")

    def _switch_segment(self) -> None:
        self._run("SELECT pg_switch_wal()")

    def _restart(self) -> None:
        self._cluster.stop(self._chance.choice(["fast", "immediate"]))
        self._cluster.start()


@dataclass(frozen=True)
class State:
    """What a cluster held at ``at``, on its own clock, with nobody at work. ``unlogged``: tables
    whose rows no backup holds; by database and name. ``sequences``: how far, and by how much each
    value is apart."""

    at: datetime
    databases: dict[str, str]
    rows: dict[str, tuple[int, str]]
    definitions: dict[str, str]
    unlogged: frozenset[tuple[str, str]]
    prepared: tuple[str, ...]
    sequences: dict[str, tuple[int, int]]
    large_objects: dict[int, str] = field(default_factory=dict)


def state_of(connection: str) -> State:
    """The state now. ``connection``: to any database of the cluster, as a superuser."""
    rows = queries(connection)
    ((at,),) = rows("SELECT clock_timestamp()")
    databases: dict[str, str] = dict(
        rows(
            "SELECT datname::text, spcname::text FROM pg_database d JOIN pg_tablespace s"
            " ON s.oid = d.dattablespace WHERE datallowconn"
        )
    )  # type: ignore[arg-type]
    tables: dict[str, tuple[int, str]] = {}
    definitions: dict[str, str] = {}
    unlogged: set[tuple[str, str]] = set()
    sequences: dict[str, tuple[int, int]] = {}
    for database in databases:
        there = queries(psycopg.conninfo.make_conninfo(connection, dbname=database))
        _look_into(there, database, tables, definitions, unlogged)
        for name, last, step in there(
            "SELECT relname::text, coalesce(pg_sequence_last_value(oid), seqstart - seqincrement),"
            " seqincrement FROM pg_sequence JOIN pg_class ON seqrelid = oid"
            " WHERE relpersistence = 'p'"
        ):
            sequences[f"{database} {name}"] = (last, step)
    return State(
        at=at,
        databases=databases,
        rows=tables,
        definitions=definitions,
        unlogged=frozenset(unlogged),
        prepared=tuple(gid for (gid,) in rows("SELECT gid FROM pg_prepared_xacts ORDER BY gid")),
        sequences=sequences,
        large_objects=dict(
            rows("SELECT oid::bigint, md5(lo_get(oid)) FROM pg_largeobject_metadata")
        ),  # type: ignore[arg-type]
    )


def _look_into(
    there: Rows,
    database: str,
    tables: dict[str, tuple[int, str]],
    definitions: dict[str, str],
    unlogged: set[tuple[str, str]],
) -> None:
    for oid, name, is_unlogged, space in there(
        "SELECT c.oid::bigint, c.oid::regclass::text, relpersistence = 'u',"
        " coalesce(spcname::text, 'default') FROM pg_class c LEFT JOIN pg_tablespace s"
        " ON s.oid = reltablespace WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    ):
        key = f"{database} {name}"
        columns = there(
            "SELECT string_agg(attname || ' ' || atttypid::regtype, ',' ORDER BY attnum)"
            f" FROM pg_attribute WHERE attrelid = {oid} AND attnum > 0 AND NOT attisdropped"
        )
        indexes = there(
            "SELECT string_agg(indexdef || coalesce(tablespace, ''), ';' ORDER BY indexname)"
            f" FROM pg_indexes WHERE schemaname = 'public' AND tablename = '{name}'"
        )
        definitions[key] = f"{space} {columns} {indexes}"
        if is_unlogged:
            unlogged.add((database, name))
            continue
        ((count, digest),) = there(
            f"SELECT count(*), md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), ''))"
            f" FROM {name} t"
        )
        tables[key] = (count, digest)


def assert_holds(connection: str, expected: State, *, by_sqlbak: bool) -> None:
    """The cluster holds exactly that state; it is changed a little by finding out. ``by_sqlbak``:
    it did not recover by itself, which leaves some unlogged sequences unusable."""
    found = state_of(connection)
    assert found.databases == expected.databases
    assert found.definitions == expected.definitions
    assert found.rows == expected.rows
    assert found.prepared == expected.prepared
    assert found.large_objects == expected.large_objects
    assert found.unlogged == expected.unlogged
    assert found.sequences.keys() == expected.sequences.keys()
    for name, (last, step) in expected.sequences.items():
        assert 0 <= found.sequences[name][0] - last <= step * SEQUENCE_AHEAD, name
    for database, table in sorted(expected.unlogged):
        there = queries(psycopg.conninfo.make_conninfo(connection, dbname=database))
        assert there(f"SELECT count(*) FROM {table}") == [(0,)]
        there(f"INSERT INTO {table} (id, n) VALUES ({'DEFAULT' if by_sqlbak else '1'}, 1)")
