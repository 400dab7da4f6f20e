"""Sessions that write while backups run. One of them leaves a row with every transaction, so that
afterwards it is known, to the microsecond, what the database held at any instant."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString, Self

import psycopg

from tests.engines.postgres.clusters import Cluster

__all__ = [
    "Mark",
    "Noise",
    "Rows",
    "Witness",
    "assert_holds_exactly",
    "committed_marks",
    "held",
    "queries",
]

Rows = Callable[[str], list[tuple[Any, ...]]]
"""Runs a statement on some database; its rows."""

TABLES = (
    "CREATE TABLE marks (n bigint PRIMARY KEY, written_at timestamptz NOT NULL)",
    "CREATE TABLE newest (n bigint NOT NULL, changes bigint NOT NULL)",
    "INSERT INTO newest VALUES (0, 0)",
)
MARK = """
    WITH mark AS (INSERT INTO marks VALUES (%s, clock_timestamp()) RETURNING n)
    UPDATE newest SET n = mark.n, changes = changes + 1 FROM mark
"""


@dataclass(frozen=True)
class Mark:
    """One transaction: its number, what it wrote, and when it was committed."""

    number: int
    written_at: datetime
    committed_at: datetime


class Witness:
    """Commits one mark after the other until the block is left, some with subtransactions, with
    roll-backs and rests (in seconds) in between. The only writer of its tables, so the order of
    commits is the order of numbers."""

    def __init__(
        self,
        cluster: Cluster,
        chance: random.Random,
        *,
        rests: Sequence[float] = (0, 0.001, 0.004, 0.02),
    ) -> None:
        self._cluster = cluster
        self._chance = chance
        self._rests = rests
        self._ended = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="witness")
        with cluster.connect() as connection:
            if connection.execute("SELECT to_regclass('marks')").fetchone() == (None,):
                for statement in TABLES:
                    connection.execute(statement)
            row = connection.execute("SELECT n FROM newest").fetchone()
        self._number: int = row[0] if row else 0

    def _run(self) -> None:
        try:
            with self._cluster.connect() as connection:
                while not self._ended.wait(self._chance.choice(self._rests)):
                    self._number += 1
                    self._commit(connection)
        except BaseException as problem:
            self._failure = problem

    def _commit(self, connection: psycopg.Connection[Any]) -> None:
        kind = self._chance.random()
        if kind < 0.1:
            with connection.transaction(force_rollback=True):
                connection.execute(MARK, [-self._number])
        if kind > 0.8:
            with connection.transaction():
                with connection.transaction(force_rollback=True):
                    connection.execute(MARK, [-self._number])
                with connection.transaction():
                    connection.execute(MARK, [self._number])
        else:
            connection.execute(MARK, [self._number])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure


class Noise:
    """Sessions that each run the same statements over and over until the block is left."""

    def __init__(
        self, cluster: Cluster, *statements: LiteralString, sessions: int = 1, pause: float = 0.0
    ) -> None:
        self._cluster = cluster
        self._statements = statements
        self._pause = pause
        self._ended = threading.Event()
        self._failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(sessions)]

    def _run(self) -> None:
        try:
            with self._cluster.connect() as connection:
                while not self._ended.wait(self._pause):
                    for statement in self._statements:
                        connection.execute(statement)
        except BaseException as problem:
            self._failures.append(problem)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        for failure in self._failures:
            raise failure


def queries(connection: str) -> Rows:
    """Runs statements over a connection string, each in a session of its own."""

    def rows(statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(connection, autocommit=True) as session:
            cursor = session.execute(statement)
            return cursor.fetchall() if cursor.description else []

    return rows


def committed_marks(rows: Rows) -> tuple[Mark, ...]:
    """Every mark of the source, by number. Needs ``track_commit_timestamp``. The time is the one
    in the commit record, as RecordTransactionCommit writes one value to both."""
    found = tuple(
        Mark(number, written_at, committed_at)
        for number, written_at, committed_at in rows(
            "SELECT n, written_at, pg_xact_commit_timestamp(xmin) FROM marks ORDER BY n"
        )
    )
    times = [mark.committed_at for mark in found]
    assert times == sorted(times), "the server's clock was set back during the test"
    assert all(mark.number > 0 for mark in found)
    return found


def held(marks: Iterable[Mark], to: datetime) -> list[Mark]:
    """Those that belong to the state at ``to``: committed then or before."""
    return [mark for mark in marks if mark.committed_at <= to]


def assert_holds_exactly(rows: Rows, marks: Iterable[Mark], to: datetime) -> None:
    """A restored database holds the state at ``to``: these marks, no other, none of their effects
    halved."""
    expected = [(mark.number, mark.written_at) for mark in held(marks, to)]
    found = rows("SELECT n, written_at FROM marks ORDER BY n")
    assert found == expected, (
        f"restored to {to}: {len(set(found) - set(expected))} too many, "
        f"{len(set(expected) - set(found))} missing; it ends with {found[-1:]}, "
        f"not {expected[-1:]}"
    )
    newest = expected[-1][0] if expected else 0
    assert rows("SELECT n, changes FROM newest") == [(newest, len(expected))]
