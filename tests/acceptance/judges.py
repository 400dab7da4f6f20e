"""PostgreSQL's own programs judge restored clusters: nothing of sqlbak vouches for itself."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg.conninfo import conninfo_to_dict

from tests.acceptance.site import Site, kill_hard
from tests.acceptance.witness import Rows, queries
from tests.engines.postgres.clusters import (
    Cluster,
    free_port,
    has_working_program,
    program_directory,
    run_as_server_user,
)

__all__ = [
    "AMCHECK",
    "Restored",
    "fed_by_hand",
    "feeding",
    "judge_files",
    "judge_running",
    "judge_stopped",
    "remove_cluster",
    "restored_by_hand",
    "restored_started",
    "told",
]

PATIENCE_SECONDS = 60.0
AMCHECK = """
    DO $$ BEGIN
        IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'amcheck') THEN
            CREATE EXTENSION IF NOT EXISTS amcheck;
        END IF;
    END $$
"""
"""Run it in a source's databases (template1 too): then ``pg_amcheck`` works in the restored ones,
where the installation has it."""


@dataclass(frozen=True)
class Restored:
    """A restored cluster that runs."""

    major: int
    directory: Path
    connection: str
    document: dict[str, Any]

    @property
    def rows(self) -> Rows:
        """Runs statements in the database postgres."""
        return queries(self.connection)

    def where(self) -> list[str]:
        """How PostgreSQL's programs are told to connect."""
        parts = conninfo_to_dict(self.connection)
        return [f"--host={parts['host']}", f"--port={parts['port']}", f"--username={parts['user']}"]

    def run(self, program: str, *words: str) -> str:
        """Run one of its programs against it; what it printed."""
        path = program_directory(self.major) / program
        return run_as_server_user([path, *self.where(), "--no-password", *words]).stdout


def judge_files(major: int, command: str) -> None:
    """Before the first start: the files are those of the server's backup manifest."""
    if has_working_program(major, "pg_verifybackup"):
        assert "successfully verified" in run_as_server_user(["sh", "-c", command]).stdout


def judge_running(restored: Restored) -> None:
    """Heaps and indexes agree with each other, in every database."""
    if restored.rows("SELECT 1 FROM pg_available_extensions WHERE name = 'amcheck'"):
        program = program_directory(restored.major) / "pg_amcheck"
        words = ("--no-password", "--all", "--heapallindexed", "--jobs=2")
        said = run_as_server_user([program, *restored.where(), *words])
        assert "skipping database" not in said.stderr, said.stderr


def judge_stopped(major: int, directory: Path, *, has_checksums: bool = True) -> None:
    """Stop the server in order; then every page has its right checksum."""
    programs = program_directory(major)
    run_as_server_user([programs / "pg_ctl", "-D", directory, "-m", "fast", "-w", "stop"])
    control = run_as_server_user([programs / "pg_controldata", directory]).stdout
    assert "shut down\n" in control
    assert ("checksum version:           0" in control) is not has_checksums
    if has_checksums:
        run_as_server_user([programs / "pg_checksums", "--check", "-D", directory])


def remove_cluster(major: int, directory: Path) -> None:
    """Stop whatever runs there, and remove it."""
    if (directory / "postmaster.pid").exists():
        program = program_directory(major) / "pg_ctl"
        run_as_server_user([program, "-D", directory, "-m", "immediate", "-w", "stop"])
    shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def restored_started(
    site: Site, major: int, to: str, into: Path, *more: str, has_checksums: bool = True
) -> Iterator[Restored]:
    """``sqlbak restore --start``: the running cluster, judged while it runs and after it was
    stopped; removed at the end."""
    try:
        document = site.restore(
            to, into, "--start", "--pg-bin", program_directory(major), *more
        ).ok()
        assert document["proven"] is True
        restored = Restored(major, into, document["connection"], document)
        assert restored.rows("SELECT pg_is_in_recovery()") == [(False,)]
        yield restored
        judge_running(restored)
        judge_stopped(major, into, has_checksums=has_checksums)
    finally:
        remove_cluster(major, into)


@contextmanager
def restored_by_hand(
    site: Site,
    major: int,
    to: str,
    into: Path,
    *,
    has_checksums: bool = True,
    is_paused: bool = True,
) -> Iterator[Restored]:
    """``sqlbak restore`` without ``--start``, then what its ``next_steps`` say, word by word. In
    the block the server is paused at the target, and made writable afterwards; or it is writable
    already."""
    feeder: subprocess.Popen[str] | None = None
    try:
        document = site.restore(to, into, "--pg-bin", program_directory(major)).ok()
        assert document["proven"] is False
        assert document["connection"] is None
        judge_files(major, told(document, "Check the files"))
        if document["facts"].get("fed"):
            feeder = feeding(site, shlex.split(told(document, "Its log has ")), into)
        port = str(free_port())
        start = told(document, "Start it as user ").replace("PORT", port)
        started = run_as_server_user(["sh", "-c", start], check=False)
        log = into / "server.log"
        assert started.returncode == 0, f"{started}\n{log.read_text() if log.exists() else ''}"
        sockets = (into / "postmaster.pid").read_text().splitlines()[4]
        restored = Restored(
            major, into, f"host={sockets} port={port} user=postgres dbname=postgres", document
        )
        wait_until_paused(restored)
        if is_paused:
            yield restored
            judge_running(restored)
        restored.rows(told(document, "Make it writable").split(";")[0])
        deadline = time.monotonic() + PATIENCE_SECONDS
        while restored.rows("SELECT pg_is_in_recovery()") != [(False,)]:
            assert time.monotonic() < deadline, "it was not promoted"
            time.sleep(0.05)
        if not is_paused:
            yield restored
        restored.rows("CREATE TABLE after_restore (n int)")
        judge_running(restored)
        judge_stopped(major, into, has_checksums=has_checksums)
    finally:
        if feeder is not None:
            feeder.kill()
            feeder.communicate()
        remove_cluster(major, into)


@contextmanager
def fed_by_hand(
    site: Site, command: Sequence[str], major: int, into: Path
) -> Iterator[tuple[Cluster, subprocess.Popen[str]]]:
    """The server on ``into``, paused at its target, fed by the ``command`` that the restore
    printed; and the feeder."""
    fed = Cluster(major, into.parent)
    fed.data_directory = into
    fed.configure({"port": str(fed.port), "unix_socket_directories": str(into.parent)})
    feeder = feeding(site, [*command, "--json"], into)
    try:
        fed.start()
        while fed.execute("SELECT pg_get_wal_replay_pause_state()") != [("paused",)]:
            assert feeder.poll() is None, feeder.communicate()
            time.sleep(0.05)
        yield fed, feeder
    finally:
        kill_hard(feeder)
        fed.stop("immediate")


def feeding(site: Site, command: Sequence[str], into: Path) -> subprocess.Popen[str]:
    """A feeder that is ready for the server on ``into``."""
    feeder = site.start(*command[1:])
    while (into / "sqlbak" / "feed" / "shut").exists():
        assert feeder.poll() is None, feeder.communicate()
        time.sleep(0.05)
    return feeder


def told(document: dict[str, Any], beginning: str) -> str:
    """What follows the first colon of the step that begins so."""
    (step,) = (step for step in document["next_steps"] if step.startswith(beginning))
    return str(step).partition(": ")[2]


def wait_until_paused(restored: Restored) -> None:
    """Until it has replayed all that belongs to the instant."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while restored.rows("SELECT pg_get_wal_replay_pause_state()") != [("paused",)]:
        log = (restored.directory / "server.log").read_text()
        assert time.monotonic() < deadline, log
        assert (restored.directory / "postmaster.pid").exists(), log
        time.sleep(0.05)
