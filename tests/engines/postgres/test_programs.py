"""Which PostgreSQL programs are used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sqlbak.engines.postgres.programs import Programs, find_programs, reachable_programs
from sqlbak.engines.postgres.server import choose_user
from sqlbak.errors import ServerProgramMissing
from tests.engines.postgres.clusters import available_majors, elsewhere


def _pretend(directory: Path, version: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    program = directory / "postgres"
    program.write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")
    program.chmod(0o755)
    return directory


@pytest.mark.parametrize("major", available_majors())
def test_programs_of_every_installed_major_are_found(major: int) -> None:
    found = find_programs(major, explicit=elsewhere(major))
    assert found.major == major
    assert found.path("pg_ctl").exists()


def test_an_explicit_directory_of_another_major_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ServerProgramMissing, match="holds PostgreSQL 14, not PostgreSQL 16"):
        find_programs(16, explicit=_pretend(tmp_path, "14.9 (Debian 14.9-1)"))


def test_an_explicit_directory_without_programs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ServerProgramMissing, match="no postgres program"):
        find_programs(16, explicit=tmp_path)


def test_programs_of_another_major_on_the_path_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(_pretend(tmp_path, "14.1")))
    major = available_majors()[0]
    assert find_programs(major).directory != tmp_path


def test_a_missing_major_names_what_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(_pretend(tmp_path, "18beta1")))
    with pytest.raises(ServerProgramMissing, match=rf"PostgreSQL 42 .*18 in {tmp_path}"):
        find_programs(42)


def test_a_program_that_the_installation_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(ServerProgramMissing, match="no program pg_ctl"):
        Programs(_pretend(tmp_path, "16.1"), 16).path("pg_ctl")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has another user run the server")
@pytest.mark.parametrize("major", available_majors())
def test_the_server_user_can_run_what_root_found(major: int, tmp_path: Path) -> None:
    user = choose_user(tmp_path)
    programs = reachable_programs(
        find_programs(major, explicit=elsewhere(major)), uid=user.uid, gid=user.gid
    )
    done = user.run([programs.path("initdb"), "--version"])
    assert f"(PostgreSQL) {major}" in done.stdout
