"""Whatever instant of a window is asked for, exactly the state of that instant comes back."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.acceptance.history import History, instant, seeded_chance
from tests.acceptance.judges import (
    AMCHECK,
    Restored,
    judge_running,
    judge_stopped,
    remove_cluster,
    restored_by_hand,
    restored_started,
)
from tests.acceptance.site import Site, kill_hard
from tests.acceptance.witness import (
    Witness,
    assert_holds_exactly,
    committed_marks,
    held,
)
from tests.engines.postgres.clusters import (
    available_majors,
    free_port,
    program_directory,
    running_cluster,
    scratch_directory,
)

pytestmark = pytest.mark.postgres

MICROSECOND = timedelta(microseconds=1)


@pytest.fixture
def home() -> Iterator[Path]:
    with scratch_directory() as path:
        yield path


def assert_restored(history: History, to: datetime, into: Path, *more: str) -> None:
    with restored_started(history.site, history.major, to.isoformat(), into, *more) as restored:
        assert_holds_exactly(restored.rows, history.marks, to)
        assert instant(restored.document["stop_at"]) == to
        if "--port" in more:
            assert restored.rows("SHOW port") == [(more[1],)]
        newest = held(history.marks, to)[-1:]
        last = restored.document["last_commit_at"]
        assert last is None or newest[0].committed_at <= instant(last) <= to


def test_a_started_restore_holds_exactly_what_was_committed_by_then(
    history: History, home: Path
) -> None:
    commit, port = history.any_commit(), str(free_port())
    assert_restored(history, commit, home / "data", "--port", port)
    assert_restored(history, commit - MICROSECOND, home / "data")


def test_a_restore_that_is_started_by_its_next_steps_stops_at_the_instant(
    history: History, home: Path
) -> None:
    for to in (history.any_instant(), history.any_commit()):
        into = home / "data"
        with restored_by_hand(history.site, history.major, to.isoformat(), into) as restored:
            assert_holds_exactly(restored.rows, history.marks, to)


def test_two_restores_from_one_vault_at_once_are_both_exact(history: History, home: Path) -> None:
    asked = {name: history.any_instant() for name in ("one", "two")}
    bin_directory = program_directory(history.major)
    words = ("--start", "--json", "--pg-bin", bin_directory)
    running = {
        name: history.site.start("restore", "--to", to.isoformat(), "--into", home / name, *words)
        for name, to in asked.items()
    }
    try:
        for name, process in running.items():
            out, err = process.communicate(timeout=120)
            assert process.returncode == 0, err
            document = json.loads(out)
            into = home / name
            restored = Restored(history.major, into, document["connection"], document)
            assert_holds_exactly(restored.rows, history.marks, asked[name])
            judge_running(restored)
            judge_stopped(history.major, into)
    finally:
        for name, process in running.items():
            if process.poll() is None:
                kill_hard(process)
            remove_cluster(history.major, home / name)


@pytest.mark.parametrize("major", available_majors(), ids=lambda major: f"pg{major}")
def test_a_full_alone_of_a_busy_server_restores_to_its_own_end(
    major: int, tmp_path: Path, home: Path
) -> None:
    settings = {"track_commit_timestamp": "on"}
    with running_cluster(major, wal_segment_megabytes=1, settings=settings) as cluster:
        site = Site(tmp_path, cluster.dsn())
        for database in ("template1", "postgres"):
            cluster.execute(AMCHECK, database=database)
        # Without a rest, so that it commits between the clock's reading and the end of the log.
        with Witness(cluster, seeded_chance(), rests=[0]):
            full = site.backup("full")
        marks = committed_marks(cluster.execute)
    to = instant(full["reachable_from"])
    with restored_started(site, major, "latest", home / "data") as restored:
        assert instant(restored.document["stop_at"]) == to
        assert_holds_exactly(restored.rows, marks, to)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_hundreds_of_random_instants_come_back_exactly(history: History, home: Path) -> None:
    """At least 50 of each major version, more as long as there is time."""
    minutes = float(os.environ.get("SQLBAK_SOAK_MINUTES") or 60) / 4 / len(available_majors())
    deadline = time.monotonic() + minutes * 60
    done = 0
    mismatches: list[str] = []
    while done < 50 or (time.monotonic() < deadline and done < 250):
        to = history.any_instant() if done % 4 else history.any_commit()
        try:
            if done % 5 == 4:
                with restored_by_hand(
                    history.site, history.major, to.isoformat(), home / "data"
                ) as restored:
                    assert_holds_exactly(restored.rows, history.marks, to)
            else:
                assert_restored(history, to, home / "data")
        except AssertionError as problem:
            mismatches.append(f"{to}: {problem}")
        done += 1
    print(f"PostgreSQL {history.major}: {done} restores, {len(mismatches)} mismatches")
    assert mismatches == []
