"""Random changes to a cluster, of every kind that its files can feel, and checksums of all tables
to compare two clusters by."""

from __future__ import annotations

import random
from collections.abc import Mapping

from psycopg import sql

from tests.engines.postgres.clusters import Cluster

__all__ = ["change_at_random", "checksums", "make_tables"]

_NOTHING = sql.SQL("")
_TABLES = [f"table_{number}" for number in range(6)]


def make_tables(cluster: Cluster, *, rows: int = 3000, space: str | None = None) -> None:
    """Tables with an index each, the last one in a tablespace if there is one."""
    for name in _TABLES:
        place: sql.Composable = _NOTHING
        if space is not None and name == _TABLES[-1]:
            place = sql.SQL(" TABLESPACE {}").format(sql.Identifier(space))
        _run(cluster, sql.SQL("CREATE TABLE {} (id int PRIMARY KEY, filler text)"), name, place)
        _fill(cluster, name, 1, rows)
    cluster.execute("CREATE UNLOGGED TABLE unlogged AS SELECT generate_series(1, 1000) AS id")
    cluster.execute("VACUUM")


def _run(cluster: Cluster, statement: sql.SQL, table: str, more: sql.Composable = _NOTHING) -> None:
    composed = statement.format(sql.Identifier(table)) + more
    with cluster.connect() as connection:
        connection.execute(composed)


def _fill(cluster: Cluster, table: str, first: int, count: int) -> None:
    with cluster.connect() as connection:
        connection.execute(
            sql.SQL(
                "INSERT INTO {} SELECT n, md5(n::text) || repeat('x', n %% 300)"
                " FROM generate_series(%s::int, %s::int) n ON CONFLICT DO NOTHING"
            ).format(sql.Identifier(table)),
            [first, first + count - 1],
        )


def change_at_random(cluster: Cluster, chance: random.Random, *, times: int) -> None:
    """That many changes; ``chance`` decides which."""
    for _ in range(times):
        table = chance.choice(_TABLES)
        first = chance.randrange(1, 3000)
        change = chance.randrange(11)
        if change == 0:
            _fill(cluster, table, 10_000 + first, 500)
        elif change == 1:
            _run(cluster, sql.SQL("UPDATE {} SET filler = 'new'"), table, _at(first, 200))
        elif change == 2:
            _run(cluster, sql.SQL("DELETE FROM {}"), table, _at(first, 300))
        elif change == 3:
            _run(cluster, sql.SQL("TRUNCATE {}"), table)
            _fill(cluster, table, 1, first)
        elif change == 4:
            _run(cluster, sql.SQL("VACUUM FULL {}"), table)
        elif change == 5:
            _run(cluster, sql.SQL("DELETE FROM {} WHERE id > 1500"), table)
            _run(cluster, sql.SQL("VACUUM {}"), table)
        elif change == 6:
            _run(cluster, sql.SQL("DROP TABLE {}"), table)
            _run(cluster, sql.SQL("CREATE TABLE {} (id int PRIMARY KEY, filler text)"), table)
            _fill(cluster, table, 1, 1000)
        elif change == 7:
            _run(cluster, sql.SQL("CREATE INDEX ON {} (filler)"), table)
        elif change == 8:
            _run(cluster, sql.SQL("REINDEX TABLE {}"), table)
        elif change == 9:
            cluster.execute("DROP DATABASE IF EXISTS another")
            cluster.execute("CREATE DATABASE another")
        else:
            cluster.execute("CHECKPOINT")


def _at(first: int, count: int) -> sql.Composable:
    return sql.SQL(" WHERE id BETWEEN {} AND {}").format(first, first + count - 1)


def checksums(cluster: Cluster) -> Mapping[str, object]:
    """Rows and checksum of every table of every database, read by table and by index. Without
    pg_class: servers change numbers of pages in it outside of any transaction."""
    found: dict[str, object] = {}
    databases = cluster.execute("SELECT datname FROM pg_database WHERE datallowconn ORDER BY 1")
    for (database,) in databases:
        tables = cluster.execute(
            "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND relpersistence = 'p'"
            " AND (relnamespace = 'public'::regnamespace OR relname IN"
            " ('pg_attribute', 'pg_proc', 'pg_authid')) ORDER BY 1",
            database=database,
        )
        for (table,) in tables:
            for scan in ("enable_seqscan", "enable_indexonlyscan"):
                with cluster.connect(database=database) as connection:
                    connection.execute(f"SET {scan} = off")  # type: ignore[arg-type]
                    row = connection.execute(
                        f"SELECT count(*), sum(hashtext(t::text)::bigint) FROM {table} t"  # type: ignore[arg-type]
                    ).fetchone()
                found[f"{database} {table} {scan}"] = row
    return found
