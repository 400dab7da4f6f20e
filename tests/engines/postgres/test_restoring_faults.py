"""What a restore does when something is wrong: it refuses, or fails in one clear sentence, and
never leaves a server that was promoted to a state that nobody proved."""

from __future__ import annotations

import dataclasses
import itertools
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from sqlbak.engines.port import RestoreStep
from sqlbak.errors import (
    InstantUnreachable,
    Interrupted,
    ObjectDamaged,
    RestoreFailed,
    StoreUnreachable,
    TargetNotUsable,
)
from sqlbak.model import Point
from sqlbak.stopping import StopSignal
from tests.engines.postgres.clusters import (
    available_majors,
    give_to_server_user,
    has_working_program,
    run_as_server_user,
    running_cluster,
    scratch_directory,
)
from tests.engines.postgres.restores import MemorySource, Recorder, restore

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module", params=available_majors(), ids=lambda major: f"pg{major}")
def recorded(request: pytest.FixtureRequest) -> Iterator[Recorder]:
    """A full and one log of a dozen 1 MB segments."""
    options = {"wal_segment_megabytes": 1, "settings": {"track_commit_timestamp": "on"}}
    with running_cluster(request.param, **options) as cluster:
        recorder = Recorder(cluster)
        recorder.prepare()
        recorder.full()
        cluster.execute("ALTER TABLE marks ALTER filler SET STORAGE EXTERNAL")
        recorder.mark(1, 100, filler=100_000)
        recorder.log()
        yield recorder


@pytest.fixture
def home() -> Iterator[Path]:
    with scratch_directory() as path:
        yield path


def _fresh(step: RestoreStep, before_read: Callable[[str, int], None]) -> RestoreStep:
    assert isinstance(step.source, MemorySource)
    streams = {name: b"".join(frames) for name, frames in step.source.frames.items()}
    return RestoreStep(step.point, step.facts, MemorySource(streams, before_read=before_read))


def _no_server_runs_on(directory: Path) -> bool:
    listed = subprocess.run(["ps", "-wweo", "args"], capture_output=True, text=True, check=True)
    return str(directory) not in listed.stdout


def _histories(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "pg_wal").glob("*.history"))


def test_a_target_that_is_not_empty_is_refused_and_left_alone(
    recorded: Recorder, home: Path
) -> None:
    target = home / "data"
    target.mkdir()
    (target / "precious").write_text("x")
    with pytest.raises(TargetNotUsable, match="holds precious"):
        restore(recorded.steps, target, start=True)
    assert [path.name for path in target.iterdir()] == ["precious"]


def test_of_two_restores_into_one_directory_the_slower_is_refused_and_harms_nothing(
    recorded: Recorder, home: Path
) -> None:
    refusals: list[BaseException] = []

    def other(stream: str, frame: int) -> None:
        if not refusals:
            with pytest.raises(TargetNotUsable) as refused:
                restore(recorded.steps, home / "data")
            refusals.append(refused.value)

    for existed in (False, True):
        target = home / "data"
        if existed:
            target.mkdir()
        at_first_byte = _fresh(recorded.steps[0], other)
        outcome = restore([at_first_byte, *recorded.steps[1:]], target)
        assert refusals
        if has_working_program(recorded.cluster.major, "pg_verifybackup"):
            recorded.cluster.run("pg_verifybackup", outcome.directory)
        assert not list(target.glob(".sqlbak*"))
        shutil.rmtree(target)
        refusals.clear()


def test_a_server_that_ends_a_connection_as_it_is_made_is_asked_again(
    recorded: Recorder, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect, calls = psycopg.connect, itertools.count()

    def unsteady(*arguments: Any, **options: Any) -> Any:
        if next(calls) == 0:
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        return connect(*arguments, **options)

    monkeypatch.setattr(psycopg, "connect", unsteady)
    assert restore(recorded.steps, home / "data", start=True).proven
    assert next(calls) > 1
    run_as_server_user(
        [recorded.cluster.programs / "pg_ctl", "-D", home / "data", "-m", "immediate", "stop"]
    )


def test_a_port_that_is_taken_is_refused_before_anything_is_written(
    recorded: Recorder, home: Path
) -> None:
    with pytest.raises(TargetNotUsable, match="is taken"):
        restore(recorded.steps, home / "data", start=True, port=recorded.cluster.port)
    assert not (home / "data").exists()


def test_an_instant_before_the_base_s_end_is_refused(recorded: Recorder, home: Path) -> None:
    reachable_from = recorded.steps[0].point.reachable_from
    assert reachable_from is not None
    with pytest.raises(InstantUnreachable):
        restore(recorded.steps, home / "data", to=reachable_from - timedelta(microseconds=1))
    assert not (home / "data").exists()


def test_an_instant_after_what_is_proven_is_refused(recorded: Recorder, home: Path) -> None:
    covers_until = recorded.steps[-1].point.covers_until
    assert covers_until is not None
    with pytest.raises(InstantUnreachable):
        restore(recorded.steps, home / "data", to=covers_until + timedelta(microseconds=1))


def test_a_chain_with_a_missing_log_is_refused(recorded: Recorder, home: Path) -> None:
    full, log = recorded.steps
    facts = {**log.facts}
    with pytest.raises(RestoreFailed, match="is missing"):
        restore(
            [
                full,
                RestoreStep(
                    _moved(log, first_lsn=log.point.first_lsn + 100),
                    facts,
                    MemorySource({"wal": bytes(log.source.size("wal") - 100)}),
                ),
            ],
            home / "data",
        )
    assert not (home / "data").exists()


def _moved(step: RestoreStep, **changes: Any) -> Point:
    return dataclasses.replace(step.point, **changes)


def test_recovery_points_of_two_clusters_are_refused(recorded: Recorder, home: Path) -> None:
    full, log = recorded.steps
    other = RestoreStep(log.point, {**log.facts, "system_identifier": "1"}, log.source)
    with pytest.raises(RestoreFailed, match="differ in system_identifier"):
        restore([full, other], home / "data")


@pytest.mark.parametrize("stream", ["base.tar", "backup_manifest", "wal"])
def test_a_flipped_bit_is_found_before_any_server_starts(
    recorded: Recorder, home: Path, stream: str
) -> None:
    step = _fresh(recorded.steps[0], lambda name, index: None)
    assert isinstance(step.source, MemorySource)
    step.source.frames[stream][-1][7] ^= 0x10
    with pytest.raises(ObjectDamaged):
        restore([step], home / "data", start=True)
    assert not (home / "data").exists()


def test_a_store_that_fails_while_the_server_recovers_never_promotes_it(
    recorded: Recorder, home: Path
) -> None:
    def fail_late(stream: str, index: int) -> None:
        if index == 20:
            raise StoreUnreachable("the store is gone")

    full, log = recorded.steps
    steps = [full, _fresh(log, fail_late)]
    to = recorded.commit_times()[-2][1]
    with pytest.raises(StoreUnreachable, match="the store is gone"):
        restore(steps, home / "data", to=to, start=True, log_space_bytes=1)
    assert _no_server_runs_on(home / "data")
    assert _histories(home / "data") == []
    assert (home / "data" / "recovery.signal").exists()


def test_two_segments_of_spool_are_enough(recorded: Recorder, home: Path) -> None:
    most = 0

    def watch(stream: str, index: int) -> None:
        nonlocal most
        ready = home / "data" / "sqlbak" / "feed" / "ready"
        if ready.exists():
            most = max(most, sum(1 for _ in ready.iterdir()))

    full, log = recorded.steps
    to = recorded.commit_times()[60][1]
    outcome = restore(
        [full, _fresh(log, watch)],
        home / "data",
        to=to,
        start=True,
        log_space_bytes=1,
    )
    _stop(home / "data", recorded.cluster.programs)
    assert outcome.last_commit_at == to
    assert 1 <= most <= 2


def _stop(directory: Path, programs: Path) -> None:
    run_as_server_user([programs / "pg_ctl", "stop", "-m", "immediate", "-D", directory])


def test_an_interrupted_restore_leaves_nothing(recorded: Recorder, home: Path) -> None:
    stop = StopSignal()

    def interrupt(stream: str, index: int) -> None:
        if index == 20:
            stop.request("enough")

    full, log = recorded.steps
    with pytest.raises(Interrupted, match="enough"):
        restore([full, _fresh(log, interrupt)], home / "data", start=True, stop=stop)
    assert _no_server_runs_on(home / "data")
    assert not (home / "data").exists()
    assert not [t.name for t in threading.enumerate() if t.name.startswith("sqlbak-")]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
@pytest.mark.parametrize("start", [False, True])
def test_a_full_disk_is_reported_once_and_cleaned_up(
    recorded: Recorder, home: Path, start: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = home / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "none", small], check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        small.chmod(0o755)
        give_to_server_user(small)
        with pytest.raises(TargetNotUsable, match="free"):
            restore(recorded.steps, small / "data", start=start)
        assert not (small / "data").exists()
        # The same when space runs out under way, taken by somebody else.
        monkeypatch.setattr("shutil.disk_usage", lambda path: (1 << 40, 0, 1 << 40))
        usage = type("Usage", (), {"free": 1 << 40})
        monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
        with pytest.raises(TargetNotUsable, match="no space is left"):
            restore(recorded.steps, small / "data", start=start)
        assert not (small / "data").exists()
        assert not [t.name for t in threading.enumerate() if t.name.startswith("sqlbak-")]
    finally:
        subprocess.run(["umount", small], check=True)


def test_killing_us_while_the_server_recovers_leaves_no_promoted_server(
    recorded: Recorder, home: Path
) -> None:
    def hang(stream: str, index: int) -> None:
        if 20 <= index < 24:
            time.sleep(3600)

    full, log = recorded.steps
    steps = [full, _fresh(log, hang)]
    child = os.fork()
    if child == 0:
        try:
            restore(
                steps,
                home / "data",
                start=True,
                give_up_seconds=3,
                log_space_bytes=1,
            )
        finally:
            os._exit(1)
    pid_file = home / "data" / "postmaster.pid"
    asked = home / "data" / "sqlbak" / "feed" / "asked"
    try:
        deadline = time.monotonic() + 30
        while not (pid_file.exists() and asked.exists() and any(asked.iterdir())):
            assert time.monotonic() < deadline, "the server never waited for log"
            time.sleep(0.05)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    while pid_file.exists():
        time.sleep(0.05)
    assert _histories(home / "data") == []
    assert (home / "data" / "recovery.signal").exists()
    log_text = (home / "data" / "sqlbak" / "server.log").read_text()
    assert "selected new timeline" not in log_text
    # Started by hand, it does not go on by itself either.
    again = run_as_server_user(
        [recorded.cluster.programs / "pg_ctl", "start", "-w", "-t", "20", "-D", home / "data"],
        check=False,
    )
    assert again.returncode != 0
