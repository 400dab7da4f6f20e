"""The place to restore into, and what may be wrong with it. Whatever was there stays as it was."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.aftermath import own_slots, remove_restored, restored, servers_on
from tests.acceptance.markers import assert_restored_exactly, commit_times, make_markers
from tests.acceptance.site import Answer, Site
from tests.acceptance.test_vault_faults import small_disk
from tests.engines.postgres.clusters import (
    Cluster,
    give_to_server_user,
    scratch_directory,
    server_user,
)

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def used(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site with a full and a log; tests here only read it."""
    with own_slots(cluster):
        site = Site(tmp_path_factory.mktemp("used"), cluster.dsn())
        make_markers(cluster)
        site.backup("full")
        cluster.execute("INSERT INTO markers (filler) VALUES ('x')")
        site.backup("log")
        yield site


@pytest.fixture
def home() -> Iterator[Path]:
    with scratch_directory() as path:
        yield path


def refused(answer: Answer) -> dict[str, Any]:
    """The one error of a restore that touched nothing."""
    assert answer.code == 3, answer.err + answer.out
    assert "Traceback" not in answer.err
    error: dict[str, Any] = answer.document["error"]
    assert error["code"] == "target_not_usable", error
    return error


def test_a_target_that_is_not_empty_is_refused_and_left_alone(used: Site, home: Path) -> None:
    (home / "data").mkdir()
    (home / "data" / "precious").write_text("mine")
    error = refused(used.restore("latest", home / "data", "--start"))
    assert "precious" in error["message"]
    assert [path.name for path in (home / "data").iterdir()] == ["precious"]


def test_a_file_in_the_target_s_place_is_refused(used: Site, home: Path) -> None:
    (home / "data").write_text("mine")
    assert str(home / "data") in refused(used.restore("latest", home / "data"))["message"]
    assert (home / "data").read_text() == "mine"
    assert str(home / "data") in refused(used.restore("latest", home / "data" / "in"))["message"]


def test_a_target_inside_the_vault_is_refused(used: Site, home: Path) -> None:
    vault = used.root / "vault"
    (home / "link").symlink_to(vault)
    for into in (vault / "restored", vault, vault / "items" / "x", home / "link" / "restored"):
        before = sorted(vault.rglob("*"))
        assert str(into) in refused(used.restore("latest", into))["message"]
        assert sorted(vault.rglob("*")) == before


def test_missing_parents_are_made(used: Site, cluster: Cluster, home: Path) -> None:
    into = home / "a" / "b" / "data"
    with restored(used, cluster, "latest", into) as document:
        assert document["directory"] == str(into)


@pytest.mark.parametrize(
    "name", ["with space", "Größe 数据 ñ", "quo'te", "per%cent %p", "a;b (c)&"]
)
def test_unusual_paths_work(used: Site, cluster: Cluster, home: Path, name: str) -> None:
    with restored(used, cluster, "latest", home / name) as document:
        latest = max(commit_times(cluster).values())
        assert_restored_exactly(document, commit_times(cluster), latest)


@pytest.mark.parametrize("name", ["a$(touch b)", "a`b`", 'a"b', "a\\b", "a\nb"])
def test_paths_that_a_shell_would_change_are_refused(used: Site, home: Path, name: str) -> None:
    assert "character" in refused(used.restore("latest", home / name, "--start"))["message"]
    assert list(home.iterdir()) == []


def test_a_full_disk_is_told_before_anything_is_written(used: Site, home: Path) -> None:
    with small_disk(home / "disk", "40m") as disk:
        error = refused(used.restore("latest", disk / "data", "--start"))
        assert "free" in error["message"]
        assert list(disk.iterdir()) == []


def test_a_disk_that_fills_up_meanwhile_is_told_and_cleaned(
    used: Site, cluster: Cluster, home: Path
) -> None:
    with small_disk(home / "disk", "200m") as disk:
        process = used.start("restore", "--to", "latest", "--into", disk / "data", "--json")
        while not (disk / "data" / "base").exists():
            assert process.poll() is None, process.communicate()
        filler = disk / "filler"
        with pytest.raises(OSError, match="No space"), filler.open("wb", buffering=0) as out:
            while True:
                out.write(b"x" * (1 << 20))
        out_text, err = process.communicate(timeout=60)
        answer = Answer(process.returncode, out_text, err)
        if answer.code != 0:  # else it was faster
            assert "no space" in refused(answer)["message"].lower()
            assert not (disk / "data").exists()
        filler.unlink()
        remove_restored(cluster, disk / "data")
        with restored(used, cluster, "latest", disk / "data"):
            pass


def test_an_ordinary_user_without_permission_is_told_so(used: Site, home: Path) -> None:
    if server_user() is None:
        forbidden = home / "forbidden"
        forbidden.mkdir(mode=0o500)
        error = refused(used.restore("latest", forbidden / "data"))
        assert "cannot be written" in error["message"]
        return
    # As root: the program, once it has loaded everything by a first run, becomes the server's
    # user, who reads the vault but may not write here.
    shutil.copytree(used.root, home / "site")
    give_to_server_user(home / "site")
    file = home / "site" / "policies" / "orders.yaml"
    file.write_text(file.read_text().replace(str(used.root), str(home / "site")))
    forbidden = home / "forbidden"
    forbidden.mkdir(mode=0o755)
    os.chown(forbidden, 0, 0)
    entry = pwd.getpwnam(str(server_user()))
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import contextlib, io, os, sys, sqlbak.cli.main as program\n"
            "with contextlib.redirect_stdout(io.StringIO()), "
            "contextlib.redirect_stderr(io.StringIO()):\n"
            "    program._run(['restore', '--to', 'latest', '--into', '/', '--json'])\n"
            f"os.setgroups([]); os.setgid({entry.pw_gid}); os.setuid({entry.pw_uid})\n"
            "program.main(sys.argv[1:])",
            *("restore", "--to", "latest", "--into", forbidden / "data", "--json"),
        ],
        env={**used.environ, "SQLBAK_CONFIG": str(home / "site" / "policies")},
        capture_output=True,
        text=True,
        check=False,
    )
    error = refused(Answer(done.returncode, done.stdout, done.stderr))
    assert "cannot be written" in error["message"]
    assert list(forbidden.iterdir()) == []


def test_a_second_restore_into_the_same_place_is_refused_while_the_first_runs(
    used: Site, cluster: Cluster, home: Path
) -> None:
    process = used.start("restore", "--to", "latest", "--into", home / "data", "--start", "--json")
    while not (home / "data").exists():
        assert process.poll() is None, process.communicate()
    answer = used.restore("latest", home / "data", "--start")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    refused(answer)
    assert len([line for line in servers_on(home / "data") if "-D" in line]) == 1
    remove_restored(cluster, home / "data")


def test_a_port_that_is_taken_is_told(used: Site, cluster: Cluster, home: Path) -> None:
    answer = used.restore("latest", home / "data", "--start", "--port", str(cluster.port))
    assert str(cluster.port) in refused(answer)["message"]
    assert not (home / "data").exists()
