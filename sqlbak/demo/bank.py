"""The demo's application: a small bank whose books must always balance.

Every transfer changes an account, a teller and a branch by the same amount and writes a history
row with the clock in it, like pgbench's TPC-B script, so that a restored database can be checked
without trusting the tool that restored it.
"""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import psycopg
from psycopg import errors as server_errors
from psycopg import sql

__all__ = ["Bank", "Books", "Writers"]

ACCOUNTS = 20_000

_TABLES = sql.SQL("""
CREATE TABLE branches (bid int PRIMARY KEY, balance bigint NOT NULL DEFAULT 0);
CREATE TABLE tellers (tid int PRIMARY KEY, balance bigint NOT NULL DEFAULT 0);
CREATE TABLE accounts (aid int PRIMARY KEY, balance bigint NOT NULL DEFAULT 0,
                       filler text NOT NULL DEFAULT '');
CREATE TABLE history (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, aid int NOT NULL,
                      tid int NOT NULL, bid int NOT NULL, delta int NOT NULL,
                      written_at timestamptz NOT NULL DEFAULT clock_timestamp());
INSERT INTO branches SELECT n FROM generate_series(1, 4) n;
INSERT INTO tellers SELECT n FROM generate_series(1, 40) n;
INSERT INTO accounts SELECT n, 0, repeat(md5(n::text), 10) FROM generate_series(1, {accounts}) n;
""")

_MOVE = sql.SQL("UPDATE {table} SET balance = balance + %s WHERE {key} = %s")

_BOOKS = """
SELECT (SELECT count(*) FROM history WHERE pg_xact_commit_timestamp(xmin) <= %(until)s),
       (SELECT coalesce(sum(delta), 0) FROM history
         WHERE pg_xact_commit_timestamp(xmin) <= %(until)s)
"""

_RESTORED_BOOKS = """
SELECT (SELECT count(*) FROM history), (SELECT coalesce(sum(delta), 0) FROM history),
       (SELECT sum(balance) FROM accounts), (SELECT sum(balance) FROM tellers),
       (SELECT sum(balance) FROM branches), (SELECT max(written_at) FROM history)
"""


def _row(answer: psycopg.Cursor[Any]) -> tuple[Any, ...]:
    """The one row of an aggregate."""
    (row,) = answer.fetchall()
    return tuple(row)


@dataclass(frozen=True, slots=True)
class Books:
    """What the bank's books say: transfers, their total, and the sums of all balances."""

    transfers: int
    total: int
    accounts: int
    tellers: int
    branches: int
    newest: datetime | None

    @property
    def balance(self) -> bool:
        """Whether every sum agrees with the history."""
        return self.total == self.accounts == self.tellers == self.branches


class Bank:
    """The bank's database, reached by a libpq connection string."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    def open(self) -> None:
        """Create the tables."""
        with psycopg.connect(self._dsn) as connection:
            connection.execute(_TABLES.format(accounts=ACCOUNTS))

    def clock(self) -> datetime:
        """The database server's clock."""
        with psycopg.connect(self._dsn) as connection:
            moment: datetime = _row(connection.execute("SELECT clock_timestamp()"))[0]
        return moment

    def lose_history(self, until: datetime) -> tuple[int, int]:
        """DROP TABLE history, and tell how many transfers were committed by ``until`` and their
        total, as the server itself remembers them (track_commit_timestamp).
        """
        with psycopg.connect(self._dsn) as connection:
            connection.execute("LOCK TABLE history IN ACCESS EXCLUSIVE MODE")
            row = _row(connection.execute(_BOOKS, {"until": until}))
            connection.execute("DROP TABLE history")
        return int(row[0]), int(row[1])

    def books(self) -> Books:
        """Read the books of a restored bank."""
        with psycopg.connect(self._dsn) as connection:
            row = _row(connection.execute(_RESTORED_BOOKS))
        return Books(int(row[0]), int(row[1]), int(row[2]), int(row[3]), int(row[4]), row[5])


class Writers:
    """Clients that transfer money until the history table is gone or the block ends."""

    def __init__(self, dsn: str, clients: int = 2) -> None:
        self._dsn = dsn
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._transfer, args=(number,), name=f"client-{number}")
            for number in range(clients)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: object, value: object, traceback: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _transfer(self, seed: int) -> None:
        dice = random.Random(seed)  # noqa: S311 - which account gets money is no secret
        with psycopg.connect(self._dsn) as connection:
            while not self._stop.wait(0.002):
                amount = dice.randint(-5000, 5000)
                who = (dice.randint(1, ACCOUNTS), dice.randint(1, 40), dice.randint(1, 4))
                try:
                    with connection.transaction():
                        self._book(connection, amount, *who)
                except server_errors.UndefinedTable:
                    return  # somebody dropped the history: the demo's disaster

    @staticmethod
    def _book(
        connection: psycopg.Connection[Any], amount: int, account: int, teller: int, branch: int
    ) -> None:
        for table, key, number in (
            ("accounts", "aid", account),
            ("tellers", "tid", teller),
            ("branches", "bid", branch),
        ):
            connection.execute(
                _MOVE.format(table=sql.Identifier(table), key=sql.Identifier(key)),
                (amount, number),
            )
        connection.execute(
            "INSERT INTO history (aid, tid, bid, delta) VALUES (%s, %s, %s, %s)",
            (account, teller, branch, amount),
        )
