"""Running servers of our own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from sqlbak.engines.postgres.programs import Programs, find_programs, reachable_programs
from sqlbak.engines.postgres.server import (
    Server,
    ServerUser,
    choose_user,
    free_port,
    initialise,
    last_complaint,
    start_and_leave,
    stop_server,
)
from sqlbak.errors import RestoreFailed, TargetNotUsable
from tests.engines.postgres.clusters import available_majors, elsewhere, scratch_directory

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module", params=available_majors(), ids=lambda major: f"pg{major}")
def made(request: pytest.FixtureRequest) -> Iterator[tuple[Programs, Path, ServerUser]]:
    with scratch_directory() as home:
        user = choose_user(home)
        programs = reachable_programs(
            find_programs(request.param, explicit=elsewhere(request.param)),
            uid=user.uid,
            gid=user.gid,
        )
        initialise(programs, home / "data", user=user, options=("--no-sync",))
        yield programs, home / "data", user


def _settings(directory: Path, port: int) -> dict[str, str]:
    return {
        "port": str(port),
        "listen_addresses": "",
        "unix_socket_directories": str(directory.parent),
    }


def test_a_server_runs_outlives_the_call_and_stops(
    made: tuple[Programs, Path, ServerUser],
) -> None:
    programs, directory, user = made
    port = free_port()
    log = directory.parent / "log"
    start_and_leave(
        programs, directory, user=user, log_path=log, options=_settings(directory, port)
    )
    with psycopg.connect(f"host={directory.parent} port={port} user=postgres") as connection:
        row = connection.execute("SHOW data_directory").fetchone()
    stop_server(programs, directory, user=user)
    assert row == (str(directory),)
    assert not (directory / "postmaster.pid").exists()
    stop_server(programs, directory, user=user)  # a second time does nothing


def test_a_server_that_cannot_start_fails_with_its_own_words(
    made: tuple[Programs, Path, ServerUser],
) -> None:
    programs, directory, user = made
    options = {**_settings(directory, free_port()), "shared_preload_libraries": "not_there"}
    with pytest.raises(RestoreFailed, match="not_there"):
        start_and_leave(
            programs, directory, user=user, log_path=directory.parent / "bad", options=options
        )


def test_a_child_server_is_gone_when_its_block_is_left(
    made: tuple[Programs, Path, ServerUser],
) -> None:
    programs, directory, user = made
    server = Server(
        programs,
        directory,
        user=user,
        log_path=directory.parent / "child",
        options=_settings(directory, free_port()),
    )
    with server:
        assert server.exit_code() is None
    assert server.exit_code() is not None
    assert not (directory / "postmaster.pid").exists()


def test_a_complaint_is_found_with_its_detail(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "2026 LOG:  starting\n2026 FATAL:  the database system is starting up\n"
        "2026 FATAL:  could not open file\n2026 HINT:  make it\n2026 LOG:  bye\n"
    )
    assert last_complaint(log) == "could not open file (make it)"
    assert last_complaint(tmp_path / "absent") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user than ours")
def test_a_directory_that_the_server_user_cannot_reach_is_refused(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o700)
    with pytest.raises(TargetNotUsable, match="may not enter"):
        choose_user(locked / "data").check_reaches(locked / "data")
