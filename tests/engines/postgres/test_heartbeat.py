"""The instant that a backup promises lies strictly before a commit that is in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from sqlbak.engines.postgres.connection import SqlConnection
from sqlbak.engines.postgres.dsn import ConnectionString
from sqlbak.engines.postgres.heartbeat import take_cut
from sqlbak.errors import BackupFailed
from tests.engines.postgres.clusters import Cluster, available_majors, running_cluster

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


class Session:
    """A server whose clock shows ``times`` one after the other, then stands still."""

    def __init__(self, times: list[datetime], *, end: str = "0/200") -> None:
        self.times = times
        self.end = end
        self.events: list[str] = []

    def value(self, sql: str, parameters: Any = (), *, doing: str) -> Any:
        if "clock_timestamp" in sql:
            self.events.append("clock")
            return self.times.pop(0) if len(self.times) > 1 else self.times[0]
        if "emit_message" in sql:
            self.events.append("heartbeat")
            return "0/100"
        self.events.append("end")
        return self.end

    def execute(self, sql: str, parameters: Any = (), *, doing: str) -> None:
        pass

    @contextmanager
    def transaction(self, *, doing: str) -> Iterator[None]:
        yield
        self.events.append("commit")


def cut_of(session: Session) -> datetime:
    return take_cut(cast("SqlConnection", session)).covers_until


def test_clock_then_heartbeat_then_end() -> None:
    session = Session([NOON, NOON + timedelta(microseconds=1)])
    assert cut_of(session) == NOON
    assert session.events == ["clock", "heartbeat", "clock", "commit", "end"]


def test_the_heartbeat_commits_only_once_the_clock_has_moved() -> None:
    still = [NOON, NOON, NOON, NOON - timedelta(seconds=1), NOON + timedelta(microseconds=1)]
    session = Session(still)
    cut_of(session)
    assert session.events == ["clock", "heartbeat", *["clock"] * 4, "commit", "end"]


def test_a_clock_that_stands_still_fails_the_backup() -> None:
    session = Session([NOON])
    with pytest.raises(BackupFailed, match="clock"):
        cut_of(session)
    assert "commit" not in session.events


def test_an_end_before_the_heartbeat_fails_the_backup() -> None:
    with pytest.raises(BackupFailed, match="flush"):
        cut_of(Session([NOON, NOON + timedelta(seconds=1)], end="0/100"))


@pytest.mark.postgres
def test_a_role_with_hostile_defaults_still_writes_its_heartbeat() -> None:
    with running_cluster(
        available_majors()[-1], settings={"track_commit_timestamp": "on"}
    ) as cluster:
        cluster.execute("CREATE ROLE odd WITH LOGIN REPLICATION")
        for setting in (
            "default_transaction_read_only = on",
            "synchronous_commit = off",
            "TimeZone = 'Asia/Kolkata'",
            "DateStyle = 'German'",
            "search_path = nowhere",
            "default_transaction_isolation = 'serializable'",
            "client_encoding = 'LATIN1'",
        ):
            cluster.execute(f"ALTER ROLE odd SET {setting}")
        _assert_commit_is_later(cluster)


def _assert_commit_is_later(cluster: Cluster) -> None:
    target = ConnectionString.parse(cluster.dsn(user="odd"), connect_timeout_seconds=5)
    for _ in range(20):
        with SqlConnection.open(target) as session:
            cut = take_cut(session)
        ((committed_at, is_before_end),) = cluster.execute(
            "SELECT timestamp, pg_current_wal_flush_lsn() - '0/0' >= %s"
            " FROM pg_last_committed_xact()",
            [cut.lsn],
        )
        assert committed_at > cut.covers_until
        assert is_before_end
