"""Log that is too long to be unpacked is fed to a server that the operator starts."""

from __future__ import annotations

import os
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from sqlbak.engines.port import RestoreStep
from sqlbak.engines.postgres.feeding import feed_cluster
from sqlbak.engines.postgres.programs import Programs
from sqlbak.engines.postgres.server import choose_user
from sqlbak.engines.postgres.startcheck import check_start
from sqlbak.errors import Interrupted, RestoreFailed, StoreUnreachable, TargetNotUsable
from sqlbak.progress import NO_PROGRESS
from sqlbak.stopping import StopSignal
from tests.engines.postgres.clusters import (
    Cluster,
    available_majors,
    has_working_program,
    run_as_server_user,
    running_cluster,
    scratch_directory,
)
from tests.engines.postgres.restores import MemorySource, Recorder, restore

pytestmark = pytest.mark.postgres

_MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def recorded() -> Iterator[Recorder]:
    """A full and two logs, together of some twenty segments of 1 MB."""
    options = {"wal_segment_megabytes": 1, "settings": {"track_commit_timestamp": "on"}}
    with running_cluster(available_majors()[-1], **options) as cluster:
        recorder = Recorder(cluster)
        recorder.prepare()
        cluster.execute("ALTER TABLE marks ALTER filler SET STORAGE EXTERNAL")
        recorder.full()
        for number in range(2):
            recorder.mark(100 * number, 90, filler=100_000)
            recorder.log()
        yield recorder


@pytest.fixture
def home() -> Iterator[Path]:
    with scratch_directory() as path:
        yield path


def _watched(
    steps: list[RestoreStep], before_read: Callable[[str, int], None]
) -> list[RestoreStep]:
    """The last step with something that happens before each frame of it."""
    *others, last = steps
    assert isinstance(last.source, MemorySource)
    source = MemorySource(last.source.contents, before_read=before_read)
    return [*others, RestoreStep(last.point, last.facts, source)]


def _restored(recorded: Recorder, home: Path, to: datetime | None) -> Cluster:
    """Restored, not started, with room for two segments."""
    outcome = restore(recorded.steps, home / "data", to=to, log_space_bytes=2 * _MEGABYTE)
    assert outcome.facts["fed"]
    assert not list((home / "data" / "pg_wal").glob("0*"))
    restored = Cluster(recorded.cluster.major, home)
    restored.data_directory = outcome.directory
    restored.configure({"port": str(restored.port), "unix_socket_directories": str(home)})
    if has_working_program(restored.major, "pg_verifybackup"):
        command = next(step for step in outcome.next_steps if "pg_verifybackup" in step)
        words = shlex.split(command.partition(": ")[2])
        said = run_as_server_user([*words[:-1], "--ignore=postgresql.conf", words[-1]])
        assert "successfully verified" in said.stdout
    assert any("sqlbak feed" in step for step in outcome.next_steps)
    return restored


def _feed(steps: list[RestoreStep], directory: Path, stop: StopSignal) -> None:
    feed_cluster(
        steps,
        directory,
        histories={},
        feed_command=("sqlbak", "feed"),
        log_space_bytes=None,
        progress=NO_PROGRESS,
        stop=stop,
    )


@contextmanager
def _feeding(steps: list[RestoreStep], directory: Path) -> Iterator[threading.Thread]:
    """Fed by a thread until the block ends, or the thread."""
    stop = StopSignal()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            _feed(steps, directory, stop)
        except BaseException as problem:
            failures.append(problem)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield thread
    finally:
        stop.request()
        thread.join()
    assert [type(problem) for problem in failures] in ([], [Interrupted])


def _held(recorder: Recorder, at: datetime) -> list[tuple[int]]:
    return [(number,) for number, committed_at in recorder.commit_times() if committed_at <= at]


def _assert_paused_at(restored: Cluster, recorded: Recorder, to: datetime) -> None:
    while restored.execute("SELECT pg_get_wal_replay_pause_state()") != [("paused",)]:
        time.sleep(0.05)
    assert restored.execute("SELECT id FROM marks ORDER BY id") == _held(recorded, to)


def _refuses_to_start(restored: Cluster) -> str:
    with pytest.raises(AssertionError):
        restored.start()
    assert not list((restored.data_directory / "pg_wal").glob("*.history"))
    assert (restored.data_directory / "recovery.signal").exists()
    return restored.log_file.read_text()


def test_a_server_started_by_hand_is_fed_within_the_room_until_it_is_writable(
    recorded: Recorder, home: Path
) -> None:
    to = recorded.commit_times()[150][1]
    restored = _restored(recorded, home, to)
    said = _refuses_to_start(restored)
    assert f"run: sqlbak feed {home}/data" in said
    most = 0

    def watch(stream: str, index: int) -> None:
        nonlocal most
        ready = home / "data" / "sqlbak" / "feed" / "ready"
        most = max(most, len(list(ready.iterdir())))

    steps = _watched(recorded.steps, watch)
    moved = restored.data_directory = home / "moved"
    (home / "data").rename(moved)
    (home / "data").symlink_to(moved)
    try:
        with _feeding(steps, moved) as feeder:
            restored.start()
            _assert_paused_at(restored, recorded, to)
            with pytest.raises(TargetNotUsable, match="is fed already"):
                _feed(recorded.steps, moved, StopSignal())
            restored.execute("SELECT pg_wal_replay_resume()")
            feeder.join(60)
            assert not feeder.is_alive()
        while restored.execute("SELECT pg_is_in_recovery()") != [(False,)]:
            time.sleep(0.05)
        assert restored.execute("SELECT id FROM marks ORDER BY id") == _held(recorded, to)
    finally:
        restored.stop("fast")
    assert 1 <= most <= 2
    assert not (moved / "sqlbak").exists()
    with pytest.raises(TargetNotUsable, match="waits for no log"):
        _feed(recorded.steps, moved, StopSignal())
    run_as_server_user([recorded.cluster.programs / "pg_checksums", "-c", "-D", moved])


def test_a_server_whose_feeder_fails_or_is_killed_never_ends_recovery_early(
    recorded: Recorder, home: Path
) -> None:
    to = recorded.commit_times()[160][1]
    restored = _restored(recorded, home, to)
    spool = home / "data" / "sqlbak" / "feed"

    def fail(stream: str, index: int) -> None:
        if index == 20:
            raise StoreUnreachable("the store is gone")

    def start() -> None:
        with pytest.raises(AssertionError):
            restored.start()
            while (home / "data" / "postmaster.pid").exists():
                time.sleep(0.05)
            raise AssertionError("it gave up after it had become consistent")

    starter = threading.Thread(target=start)
    starter.start()
    with pytest.raises(StoreUnreachable, match="the store is gone"):
        _feed(_watched(recorded.steps, fail), home / "data", StopSignal())
    starter.join()
    assert not list((home / "data" / "pg_wal").glob("*.history"))
    assert (home / "data" / "recovery.signal").exists()
    # And once more, with a feeder that is killed while the server waits for it.
    child = os.fork()
    if child == 0:
        try:

            def hang(stream: str, index: int) -> None:
                if index >= 24:
                    time.sleep(3600)

            _feed(_watched(recorded.steps, hang), home / "data", StopSignal())
        finally:
            os._exit(1)
    try:
        restored.start()
        while not any(spool.joinpath("asked").iterdir()):
            time.sleep(0.05)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    try:
        with _feeding(recorded.steps, home / "data"):
            _assert_paused_at(restored, recorded, to)
    finally:
        restored.stop("immediate")


def test_log_that_is_not_all_there_is_refused(recorded: Recorder, home: Path) -> None:
    _restored(recorded, home, None)
    with pytest.raises(RestoreFailed, match="and the cluster needs it"):
        _feed(recorded.steps[:-1], home / "data", StopSignal())


def test_a_log_that_fits_is_unpacked_and_needs_nobody(recorded: Recorder, home: Path) -> None:
    outcome = restore(recorded.steps, home / "data", log_space_bytes=100 * _MEGABYTE)
    assert not outcome.facts["fed"]
    assert len(list((home / "data" / "pg_wal").glob("0*"))) > 10
    assert not (home / "data" / "sqlbak").exists()


def test_settings_that_keep_it_from_starting_here_are_told_and_overridden(
    recorded: Recorder, home: Path
) -> None:
    outcome = restore(recorded.steps[:1], home / "data")
    restored = Cluster(recorded.cluster.major, home)
    restored.data_directory = outcome.directory
    assert not any("does not fit here" in step for step in outcome.next_steps)
    restored.configure(
        {
            "port": str(restored.port),
            "unix_socket_directories": "/run/of/another/machine",
            "listen_addresses": "192.0.2.1",
            "data_directory": str(recorded.cluster.data_directory),
            "external_pid_file": str(home / "of-the-source.pid"),
            "hba_file": "/etc/of/another/machine/pg_hba.conf",
            "logging_collector": "on",
            "log_directory": "/var/log/of/another/machine",
        }
    )
    programs = Programs(restored.programs, restored.major)
    found = check_start(outcome.directory, programs, choose_user(outcome.directory))
    assert {name for name, _ in found.overrides} == {
        "unix_socket_directories",
        "listen_addresses",
        "data_directory",
        "external_pid_file",
        "hba_file",
        "logging_collector",
    }
    assert all("does not fit here" in said for said in found.findings)
    command = [restored.programs / "pg_ctl", "-D", outcome.directory, "-w", "-l"]
    run_as_server_user([*command, home / "server.log", "-o", found.options(), "start"])
    try:
        assert (outcome.directory / "postmaster.pid").exists()
        assert not (home / "of-the-source.pid").exists()
    finally:
        restored.stop()
    restored.configure({"include": "/of/another/machine.conf"})
    broken = check_start(outcome.directory, programs, choose_user(outcome.directory))
    assert "cannot be read on this machine" in broken.findings[0]
