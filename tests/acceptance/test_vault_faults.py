"""A folder as the vault, and what disks and people do to it: full, read-only, gone, damaged."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.aftermath import assert_nothing_left, own_slots, restored, servers_on
from tests.acceptance.markers import assert_restored_exactly, commit_times, make_markers
from tests.acceptance.site import Answer, Site
from tests.engines.postgres.clusters import Cluster, scratch_directory

pytestmark = pytest.mark.postgres


@pytest.fixture(autouse=True)
def _own_slots(cluster: Cluster) -> Iterator[None]:
    with own_slots(cluster):
        yield


@pytest.fixture
def home() -> Iterator[Path]:
    with scratch_directory() as path:
        yield path


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """A file system of its own, of that size."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "sqlbak-test", place]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small file system can be mounted by root only")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", place], check=True)


def failed(answer: Answer, code: str, exit_code: int = 1) -> dict[str, Any]:
    """The one error of a run."""
    assert answer.code == exit_code, answer.err + answer.out
    assert "Traceback" not in answer.err
    assert answer.err.count("sqlbak: ") == 1
    error: dict[str, Any] = answer.document["error"]
    assert error["code"] == code, error
    assert error["hint"]
    return error


def mark(cluster: Cluster) -> datetime:
    """Commit a marker; its time."""
    make_markers(cluster)
    cluster.execute("INSERT INTO markers (filler) VALUES ('x')")
    return max(commit_times(cluster).values())


def only(pattern: str, site: Site) -> Path:
    (path,) = (site.root / "vault").glob(pattern)
    return path


@pytest.mark.parametrize("kind", ["full", "log"])
def test_a_full_disk_is_one_error_and_nothing_stays_behind(
    cluster: Cluster, tmp_path: Path, kind: str
) -> None:
    with small_disk(tmp_path / "disk", "32m") as disk:
        site = Site(disk, cluster.dsn())
        site.backup("full")
        site.backup("log")
        filler = disk / "filler"
        filler.write_bytes(b"x" * (28 << 20))
        if kind == "log":
            cluster.execute(
                "CREATE TABLE wide AS SELECT sha512(n::text::bytea) AS a"
                " FROM generate_series(1, 60000) AS n"
            )
            cluster.execute("DROP TABLE wide")
        error = failed(site.run("backup", "orders", "--type", kind), "store_full")
        assert str(disk) in error["message"]
        filler.unlink()
        assert [point["type"] for point in site.run("list").ok()["points"]] == ["full", "log"]
        assert site.run("backup", "orders", "--type", kind).ok()["notes"] == []
        assert_nothing_left(site, cluster)


def test_a_disk_without_a_byte_left_is_one_error(cluster: Cluster, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "16m") as disk:
        site = Site(disk, cluster.dsn())
        site.backup("full")
        filler = disk / "filler"
        with pytest.raises(OSError, match="No space"), filler.open("wb") as out:
            while True:
                out.write(b"x" * 4096)
                out.flush()
        failed(site.run("backup", "orders", "--type", "log"), "store_full")
        filler.unlink()
        assert site.run("backup", "orders", "--type", "log").ok()["notes"] == []
        assert_nothing_left(site, cluster)


def test_a_read_only_vault_takes_no_backup_and_still_restores(
    cluster: Cluster, tmp_path: Path, home: Path
) -> None:
    with small_disk(tmp_path / "disk", "32m") as disk:
        site = Site(disk, cluster.dsn())
        site.backup("full")
        to = mark(cluster)
        site.backup("log")
        remount(disk, "ro")
        error = failed(site.run("backup", "orders", "--type", "log"), "access_denied")
        assert str(disk) in error["message"]
        with restored(site, cluster, to.isoformat(), home / "data") as document:
            assert_restored_exactly(document, commit_times(cluster), to)
        remount(disk, "rw")
        assert site.run("backup", "orders", "--type", "log").ok()["notes"] == []
        assert_nothing_left(site, cluster)


def test_a_vault_folder_whose_mount_is_missing_is_not_made(
    cluster: Cluster, tmp_path: Path
) -> None:
    site = Site(tmp_path, cluster.dsn(), vault_url=f"file://{tmp_path}/not-mounted/vault")
    error = failed(site.run("backup", "orders", "--type", "full"), "vault_unusable")
    assert "not-mounted" in error["message"]
    assert not (tmp_path / "not-mounted").exists()


@pytest.mark.parametrize("kind", ["full", "log"])
def test_a_vault_that_is_deleted_under_a_running_backup_is_one_error(
    site: Site, cluster: Cluster, kind: str
) -> None:
    site.backup("full")
    vault = site.root / "vault"
    process = site.start("backup", "orders", "--type", kind, "--json")
    while not list(vault.glob("items/*/running/*.json")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGSTOP)
    shutil.rmtree(vault)
    os.kill(process.pid, signal.SIGCONT)
    out, err = process.communicate(timeout=120)
    answer = Answer(process.returncode, out, err)
    assert answer.code == 1, err
    assert "Traceback" not in err
    assert answer.document["error"]["message"]
    # Whoever puts the vault back finds it as it was; whoever does not gets a new one.
    assert site.run("backup", "orders", "--type", "full").ok()["point"]["type"] == "full"
    points = site.run("list").ok()["points"]
    assert len(points) == 1


def test_a_damaged_vault_record_is_told_and_the_vault_is_not_made_anew(
    site: Site, cluster: Cluster
) -> None:
    site.backup("full")
    record = site.root / "vault" / "vault.json"
    good = record.read_bytes()
    for bad in (b"", good[:-20], b"\0" * len(good), None):
        record.unlink()
        if bad is not None:
            record.write_bytes(bad)
        for words in (("backup", "orders", "--type", "log"), ("list",), ("plan",)):
            answer = site.run(*words)
            error = failed(answer, "vault_unusable" if bad is None else "object_damaged")
            assert "vault.json" in error["message"]
            assert "bring vault.json back" in error["hint"]
        record.write_bytes(good)
    assert site.run("backup", "orders", "--type", "log").ok()["notes"] == []


def flip(path: Path, position: int = -1) -> None:
    """Turn one bit of a file around."""
    data = bytearray(path.read_bytes())
    data[position if position >= 0 else len(data) // 2] ^= 0x10
    path.write_bytes(data)


def manifest_of(site: Site, point: dict[str, Any]) -> Path:
    return only(f"items/*/points/{point['id']}_*", site)


def test_a_damaged_manifest_of_an_old_point_stops_neither_backups_nor_other_restores(
    site: Site, cluster: Cluster, home: Path
) -> None:
    old = site.backup("full")
    early = mark(cluster)
    first = site.backup("log")
    site.backup("full")
    site.backup("log")
    late = mark(cluster)
    site.backup("log")
    flip(manifest_of(site, old))
    assert site.run("backup", "orders", "--type", "log").ok()["notes"] == []
    site.backup("full")
    with restored(site, cluster, late.isoformat(), home / "data") as document:
        assert_restored_exactly(document, commit_times(cluster), late)
    error = failed(site.restore(early.isoformat(), home / "other"), "object_damaged")
    assert old["id"] in error["message"]
    assert "copy of the vault" in error["hint"]
    assert not (home / "other").exists()
    flip(manifest_of(site, first))
    assert site.run("list").ok()["points"]


def test_a_damaged_full_is_planned_around_where_an_older_one_leads_to_the_same_state(
    site: Site, cluster: Cluster, home: Path
) -> None:
    site.backup("full")
    site.backup("log")
    second = site.backup("full")
    to = mark(cluster)
    last = site.backup("log")
    flip(manifest_of(site, second))
    with restored(site, cluster, "latest", home / "data") as document:
        assert document["stop_at"] == last["covers_until"]
        assert any(second["id"] in note for note in document["notes"])
        assert_restored_exactly(document, commit_times(cluster), to)


def test_when_the_latest_log_is_damaged_latest_is_not_silently_an_earlier_state(
    site: Site, cluster: Cluster, home: Path
) -> None:
    site.backup("full")
    good = site.backup("log")
    mark(cluster)
    bad = site.backup("log")
    flip(manifest_of(site, bad))
    error = failed(site.restore("latest", home / "data"), "object_damaged")
    assert bad["id"] in error["message"]
    site.restore(good["covers_until"], home / "data").ok()


def test_a_log_whose_predecessor_is_damaged_becomes_a_full_once_and_logs_go_on(
    site: Site, cluster: Cluster, home: Path
) -> None:
    site.backup("full")
    bad = site.backup("log")
    flip(manifest_of(site, bad))
    healed = site.run("backup", "orders", "--type", "log").ok()
    assert healed["point"]["type"] == "full"
    assert any(bad["id"] in note for note in healed["notes"])
    to = mark(cluster)
    for _ in range(2):
        assert site.run("backup", "orders", "--type", "log").ok()["point"]["type"] == "log"
    with restored(site, cluster, to.isoformat(), home / "data") as document:
        assert_restored_exactly(document, commit_times(cluster), to)


@pytest.mark.parametrize("stream", ["base.tar", "wal", "backup_manifest"])
def test_a_flipped_payload_bit_is_told_with_its_object_and_the_target_stays_clean(
    site: Site, cluster: Cluster, home: Path, stream: str
) -> None:
    site.backup("full")
    payload = only(f"items/*/data/*/{stream}.00000.zst", site)
    flip(payload)
    error = failed(site.restore("latest", home / "data"), "object_damaged")
    assert f"{stream}.00000.zst" in error["message"]
    assert not (home / "data").exists()
    error = failed(site.restore("latest", home / "started", "--start"), "object_damaged")
    assert f"{stream}.00000.zst" in error["message"]
    assert servers_on(home) == []
    site.backup("log")
    site.backup("full")  # an older point's damage is no reason to stop
    with restored(site, cluster, "latest", home / "data"):
        pass


def test_a_flipped_bit_in_a_log_is_told_and_no_server_is_left(
    site: Site, cluster: Cluster, home: Path
) -> None:
    site.backup("full")
    mark(cluster)
    log = site.backup("log")
    for _ in range(2):  # the last segments are looked into before the target is touched
        cluster.execute("SELECT pg_switch_wal()")
        mark(cluster)
    site.backup("log")
    flip(only(f"items/*/data/{log['id']}/wal.00000.zst", site))
    error = failed(site.restore("latest", home / "data", "--start"), "object_damaged")
    assert log["id"] in error["message"]
    assert f"{home / 'data'} is kept for a look and is no usable database" in error["hint"]
    assert (home / "data" / "PG_VERSION").exists()
    assert servers_on(home) == []


def test_a_missing_volume_is_told_by_name(site: Site, cluster: Cluster, home: Path) -> None:
    site.backup("full")
    only("items/*/data/*/base.tar.00000.zst", site).unlink()
    error = failed(site.restore("latest", home / "data"), "object_not_found")
    assert "base.tar.00000.zst" in error["message"]
    assert not (home / "data").exists()


def test_files_of_somebody_else_stop_nothing_and_are_left_alone(
    site: Site, cluster: Cluster, home: Path
) -> None:
    site.backup("full")
    vault = site.root / "vault"
    folders = [vault, *(path for path in vault.rglob("*") if path.is_dir())]
    folders += [vault / "items" / next((vault / "items").iterdir()).name / "running"]
    foreign = []
    for folder in folders:
        if ".sqlbak" in folder.parts:
            continue
        folder.mkdir(exist_ok=True)
        for name in ("Thumbs.db", ".DS_Store", "notes", "Notizen für später.txt", "a b (1).json"):
            (folder / name).write_text("mine")
            foreign.append(folder / name)
    assert site.run("backup", "orders", "--type", "log").ok()["notes"] == []
    site.backup("full")
    assert len(site.run("list").ok()["points"]) == 3
    site.windows()
    with restored(site, cluster, "latest", home / "data"):
        pass
    assert all(path.read_text() == "mine" for path in foreign)


def test_a_newer_format_is_refused_with_what_to_do(site: Site, cluster: Cluster) -> None:
    site.backup("full")
    record = site.root / "vault" / "vault.json"
    document = json.loads(record.read_text())
    record.write_text(json.dumps({**document, "format": 2}))
    error = failed(site.run("backup", "orders", "--type", "log"), "vault_unusable")
    assert "upgrade" in error["hint"]
