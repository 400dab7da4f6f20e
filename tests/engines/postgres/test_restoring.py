"""Restoring real backups with real servers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from sqlbak.engines.port import RestoreOutcome
from tests.engines.postgres.clusters import (
    Cluster,
    available_majors,
    has_working_program,
    run_as_server_user,
    running_cluster,
    scratch_directory,
)
from tests.engines.postgres.restores import Recorder, restore

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module", params=available_majors(), ids=lambda major: f"pg{major}")
def recorded(request: pytest.FixtureRequest) -> Iterator[Recorder]:
    """A full and three logs of a cluster with marker rows before, between and after them."""
    options = {"wal_segment_megabytes": 1, "settings": {"track_commit_timestamp": "on"}}
    with running_cluster(request.param, **options) as cluster:
        recorder = Recorder(cluster)
        recorder.prepare()
        recorder.mark(1, 20)
        recorder.full()
        for number in range(3):
            recorder.mark(100 * (number + 1), 20, filler=60_000)
            recorder.log()
        yield recorder


@contextmanager
def _running(outcome: RestoreOutcome, major: int) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    assert outcome.connection is not None
    try:
        with psycopg.connect(outcome.connection, autocommit=True) as connection:
            yield connection
    finally:
        _stop(outcome.directory, major)


def _stop(directory: Path, major: int) -> None:
    cluster = Cluster(major, directory.parent)
    cluster.data_directory = directory
    cluster.stop("immediate")


def _marks(connection: psycopg.Connection[tuple[Any, ...]]) -> list[int]:
    return [row[0] for row in connection.execute("SELECT id FROM marks ORDER BY id")]


def _held(recorder: Recorder, at: datetime) -> list[int]:
    return [number for number, committed_at in recorder.commit_times() if committed_at <= at]


def test_a_started_restore_holds_exactly_what_was_committed_by_then(recorded: Recorder) -> None:
    times = [at for number, at in recorded.commit_times() if number >= 100]
    chosen = random.choice(times)
    with scratch_directory() as home:
        outcome = restore(recorded.steps, home / "data", to=chosen, start=True)
        assert outcome.proven
        with _running(outcome, recorded.cluster.major) as connection:
            assert _marks(connection) == _held(recorded, chosen)
            assert outcome.last_commit_at == chosen
            assert connection.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)
            connection.execute("INSERT INTO marks VALUES (-1, 'writable')")
            assert connection.execute("SHOW archive_mode").fetchone() == ("off",)
        assert not (home / "data" / "sqlbak" / "feed").exists()


def test_a_restore_that_is_not_started_verifies_and_stops_at_the_instant(
    recorded: Recorder,
) -> None:
    major = recorded.cluster.major
    chosen = recorded.commit_times()[35][1]
    with scratch_directory() as home:
        outcome = restore(recorded.steps, home / "data", to=chosen)
        assert not outcome.proven
        if has_working_program(major, "pg_verifybackup"):
            said = recorded.cluster.run("pg_verifybackup", outcome.directory)
            assert "successfully verified" in said
        restored = Cluster(major, home)
        restored.data_directory = outcome.directory
        restored.configure({"port": str(restored.port), "unix_socket_directories": str(home)})
        restored.start()
        try:
            while restored.execute("SELECT pg_get_wal_replay_pause_state()") != [("paused",)]:
                pass
            assert [n for (n,) in restored.execute("SELECT id FROM marks ORDER BY id")] == _held(
                recorded, chosen
            )
        finally:
            restored.stop()
        run_as_server_user([recorded.cluster.programs / "pg_checksums", "-c", "-D", home / "data"])


def test_without_an_instant_everything_in_the_chain_is_restored(recorded: Recorder) -> None:
    with scratch_directory() as home:
        outcome = restore(recorded.steps, home / "data", start=True)
        with _running(outcome, recorded.cluster.major) as connection:
            assert _marks(connection) == [n for n, _ in recorded.commit_times()]
        assert outcome.reached is not None
        assert outcome.reached.lineage == "1"


def test_a_full_alone_restores_to_its_own_end(recorded: Recorder) -> None:
    full = recorded.steps[0]
    with scratch_directory() as home:
        outcome = restore([full], home / "data", to=full.point.reachable_from, start=True)
        with _running(outcome, recorded.cluster.major) as connection:
            assert _marks(connection) == list(range(1, 21))
