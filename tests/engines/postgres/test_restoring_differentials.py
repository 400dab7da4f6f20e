"""Restoring a full, a differential of it, and logs, held against the server's own tools."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import random
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from sqlbak.engines.port import RestoreOutcome, RestoreStep
from sqlbak.errors import InstantUnreachable
from sqlbak.model import DifferentialMethod
from tests.engines.postgres.clusters import (
    Cluster,
    available_majors,
    give_to_server_user,
    has_working_program,
    run_as_server_user,
    running_cluster,
    scratch_directory,
)
from tests.engines.postgres.differentials import (
    native_differential,
    pages_differential,
    streams_of,
)
from tests.engines.postgres.restores import Recorder, restore
from tests.engines.postgres.workloads import change_at_random, checksums, make_tables

pytestmark = pytest.mark.postgres

_OURS = {"backup_manifest", "postgresql.auto.conf", "recovery.signal", "pg_wal"}
"""What differs from a plain backup in a directory that is ready to recover."""


@dataclass
class Recorded:
    """A cluster with a full, a second full, a differential of the first by each method that its
    version has, and one log from the first full's end to after them all."""

    recorder: Recorder
    full: RestoreStep
    later: RestoreStep
    pages: RestoreStep
    native: RestoreStep | None
    log: RestoreStep

    @property
    def cluster(self) -> Cluster:
        return self.recorder.cluster


@pytest.fixture(scope="module", params=available_majors(), ids=lambda major: f"pg{major}")
def recorded(request: pytest.FixtureRequest) -> Iterator[Recorded]:
    settings = {"track_commit_timestamp": "on"}
    if request.param >= 17:
        settings["summarize_wal"] = "on"
    with (
        running_cluster(request.param, settings=settings) as cluster,
        scratch_directory() as work,
    ):
        recorder = Recorder(cluster)
        recorder.prepare()
        for name in ("kept", "grown", "shrunk", "emptied", "dropped"):
            cluster.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, filler text)")
            cluster.execute(
                f"INSERT INTO {name} SELECT n, repeat('x', 500) FROM generate_series(1, 5000) n"
            )
        spaces = {name: cluster.make_directory(name) for name in ("stays", "goes", "comes")}
        for name in ("stays", "goes"):
            cluster.execute(f"CREATE TABLESPACE {name} LOCATION '{spaces[name]}'")
            cluster.execute(f"CREATE TABLE in_{name} TABLESPACE {name} AS SELECT * FROM kept")
        cluster.execute("CREATE DATABASE dropped_too")
        recorder.mark(1, 10)
        full = recorder.full()
        recorder.mark(11, 10)
        cluster.execute("UPDATE kept SET filler = repeat('y', 500) WHERE id % 500 = 0")
        cluster.execute("UPDATE in_stays SET filler = repeat('y', 500) WHERE id % 700 = 0")
        cluster.execute(
            "INSERT INTO grown SELECT n, repeat('z', 500) FROM generate_series(6000, 7000) n"
        )
        cluster.execute("DELETE FROM shrunk WHERE id > 2000")
        cluster.execute("VACUUM (FREEZE) shrunk")
        cluster.execute("TRUNCATE emptied")
        cluster.execute("DROP TABLE dropped")
        cluster.execute("CREATE TABLE added AS SELECT * FROM kept")
        cluster.execute("DROP TABLE in_goes")
        cluster.execute("DROP TABLESPACE goes")
        cluster.execute("DROP DATABASE dropped_too")
        cluster.execute("CREATE DATABASE added_too")
        cluster.execute(f"CREATE TABLESPACE comes LOCATION '{spaces['comes']}'")
        cluster.execute("CREATE TABLE in_comes TABLESPACE comes AS SELECT * FROM kept")
        recorder.mark(21, 10)
        native = None
        if request.param >= 17:
            native = native_differential(cluster, full, work / "native")
        later = recorder.full()
        recorder.mark(31, 10)
        log = recorder.log(since=full.point.position)
        pages = pages_differential(full, later)
        yield Recorded(recorder, full, later, pages, native, log)


def _made_by(method: str, recorded: Recorded) -> RestoreStep:
    differential = recorded.pages if method == "pages" else recorded.native
    if differential is None:
        pytest.skip("this version has no incremental backup")
    return differential


def _tree(directory: Path) -> dict[str, bytes | None]:
    """Every file's content, and every directory, by its path with links followed."""
    found: dict[str, bytes | None] = {}
    for folder, folders, files in os.walk(directory, followlinks=True):
        inside = Path(folder).relative_to(directory)
        if inside == Path():
            folders[:] = [name for name in folders if name != "sqlbak_tablespaces"]
        found.update({str(inside / name): None for name in folders})
        found.update({str(inside / name): (Path(folder) / name).read_bytes() for name in files})
    return {path: data for path, data in found.items() if path.split("/")[0] not in _OURS}


def _assert_same_tree(one: Path, other: Path) -> None:
    left, right = _tree(one), _tree(other)
    assert left.keys() == right.keys()
    assert [path for path, data in left.items() if right[path] != data] == []


def _assert_manifest_holds(directory: Path) -> None:
    """What pg_verifybackup checks; not every build has a working one."""
    raw = (directory / "backup_manifest").read_bytes()
    body, _, _ = raw.rstrip(b"\n").rpartition(b"\n")
    manifest = json.loads(raw)
    assert hashlib.sha256(body + b"\n").hexdigest() == manifest["Manifest-Checksum"]
    named = {
        entry["Path"]: entry for entry in manifest["Files"] if entry["Path"] != "tablespace_map"
    }
    there = {path: data for path, data in _tree(directory).items() if data is not None}
    there.pop("tablespace_map", None)
    ignored = {"postgresql.auto.conf"}
    assert there.keys() == named.keys() - ignored
    for path, data in there.items():
        assert named[path]["Size"] == len(data), path
        if named[path]["Checksum-Algorithm"] == "SHA256":
            assert hashlib.sha256(data).hexdigest() == named[path]["Checksum"], path


@pytest.fixture(params=available_majors(), ids=lambda major: f"pg{major}")
def major(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


@pytest.fixture
def home() -> Iterator[Path]:
    with scratch_directory() as path:
        yield path


def test_pages_laid_over_a_full_are_the_later_full(recorded: Recorded, home: Path) -> None:
    one = restore([recorded.full, recorded.pages], home / "overlaid")
    other = restore([recorded.later], home / "later")
    for outcome in (one, other):  # holds the place that it lies in
        (outcome.directory / "tablespace_map").unlink()
    _assert_same_tree(one.directory, other.directory)
    manifests = [
        (path / "backup_manifest").read_bytes() for path in (one.directory, other.directory)
    ]
    assert manifests[0] == manifests[1]


def test_an_incremental_backup_is_combined_as_pg_combinebackup_does(
    recorded: Recorded, home: Path
) -> None:
    native = _made_by("native", recorded)
    outcome = restore([recorded.full, native], home / "ours")
    inputs = []
    for name, step in (("full", recorded.full), ("incremental", native)):
        plain = home / name
        _untar(streams_of(step)["base.tar"], plain)
        (plain / "backup_manifest").write_bytes(streams_of(step)["backup_manifest"])
        for tablespace in step.facts["tablespaces"]:
            place = home / f"{name}-{tablespace['oid']}"
            _untar(streams_of(step)[f"{tablespace['oid']}.tar"], place)
            link = plain / "pg_tblspc" / str(tablespace["oid"])
            link.unlink(missing_ok=True)
            link.symlink_to(place)
        (plain / "tablespace_map").unlink(missing_ok=True)
        give_to_server_user(plain)
        inputs.append(plain)
    mappings = [
        f"--tablespace-mapping={home}/incremental-{oid}={home}/theirs-{oid}"
        for oid in [tablespace["oid"] for tablespace in native.facts["tablespaces"]]
    ]
    recorded.cluster.run("pg_combinebackup", "--no-sync", *mappings, *inputs, "-o", home / "theirs")
    (outcome.directory / "tablespace_map").unlink()
    _assert_same_tree(outcome.directory, home / "theirs")
    ours, theirs = (
        json.loads((path / "backup_manifest").read_bytes())
        for path in (outcome.directory, home / "theirs")
    )
    assert ours["WAL-Ranges"] == theirs["WAL-Ranges"]
    assert ours["System-Identifier"] == theirs["System-Identifier"]
    sizes = [
        {entry["Path"]: entry["Size"] for entry in manifest["Files"]} for manifest in (ours, theirs)
    ]
    sizes[0].pop("tablespace_map")
    assert sizes[0] == sizes[1]


def _untar(archive: bytes, directory: Path) -> None:
    directory.mkdir(mode=0o700)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(directory, filter="tar")
    give_to_server_user(directory)


@pytest.mark.parametrize("method", ["pages", "native"])
def test_the_result_is_verified_by_the_server_s_own_tools(
    recorded: Recorded, home: Path, method: str
) -> None:
    differential, log = _made_by(method, recorded), recorded.log
    cluster = recorded.cluster
    outcome = restore([recorded.full, differential], home / "stopped")
    _assert_manifest_holds(outcome.directory)
    if has_working_program(cluster.major, "pg_verifybackup"):
        command = next(step for step in outcome.next_steps if "pg_verifybackup" in step)
        said = run_as_server_user(command.partition(": ")[2].split())
        assert "successfully verified" in said.stdout
    chosen = random.choice([at for number, at in recorded.recorder.commit_times() if number > 30])
    outcome = restore([recorded.full, differential, log], home / "data", to=chosen, start=True)
    assert outcome.last_commit_at == chosen
    restored = Cluster(cluster.major, home)
    restored.data_directory = outcome.directory
    try:
        assert outcome.connection is not None
        held = [n for n, at in recorded.recorder.commit_times() if at <= chosen]
        assert _rows(outcome, "SELECT id FROM marks ORDER BY id") == [(n,) for n in held]
        counts = "SELECT count(*), sum(id), sum(length(filler)) FROM "
        for table in ("kept", "grown", "shrunk", "emptied", "added", "in_stays", "in_comes"):
            assert _rows(outcome, counts + table) == cluster.execute(counts + table)
        if _rows(outcome, "SELECT 1 FROM pg_available_extensions WHERE name = 'amcheck'"):
            where = psycopg.conninfo.conninfo_to_dict(outcome.connection)
            place = ("-h", str(where["host"]), "-p", str(where["port"]), "-U", str(where["user"]))
            cluster.run("pg_amcheck", "--all", "--install-missing", "--heapallindexed", *place)
    finally:
        restored.stop()
    run_as_server_user([cluster.programs / "pg_checksums", "-c", "-D", outcome.directory])


def _rows(outcome: RestoreOutcome, sql: str) -> list[tuple[Any, ...]]:
    assert outcome.connection is not None
    with psycopg.connect(outcome.connection, autocommit=True) as connection:
        cursor = connection.execute(sql)
        return cursor.fetchall() if cursor.description else []


@pytest.mark.parametrize("method", [DifferentialMethod.PAGES, DifferentialMethod.NATIVE])
def test_any_instant_behind_a_differential_is_exact_while_everything_changes(
    major: int, home: Path, method: DifferentialMethod
) -> None:
    if method is DifferentialMethod.NATIVE and major < 17:
        pytest.skip("this version has no incremental backup")
    settings = {"track_commit_timestamp": "on"} | ({"summarize_wal": "on"} if major >= 17 else {})
    chance = random.Random()
    with running_cluster(major, settings=settings, wal_segment_megabytes=1) as cluster:
        recorder = Recorder(cluster)
        recorder.prepare()
        make_tables(cluster)
        full = recorder.full()
        recorder.mark(1, 5)
        change_at_random(cluster, chance, times=10)
        recorder.mark(6, 5)
        with _changing(cluster, recorder, chance):
            differential = recorder.differential(full, method)
        assert differential.facts["differential"]["method"] == method
        recorder.mark(3001, 10)
        change_at_random(cluster, chance, times=5)
        before = checksums(cluster)
        log = recorder.log(since=differential.point.position)
        steps = [full, differential, log]
        outcome = restore(steps, home / "whole", start=True)
        assert checksums(_as_cluster(outcome, cluster.major)) == before
        _check_and_stop(outcome, cluster)
        reachable_from = differential.point.reachable_from
        assert reachable_from is not None
        times = recorder.commit_times()
        chosen = chance.choice([at for _, at in times if at >= reachable_from])
        outcome = restore(steps, home / "data", to=chosen, start=True)
        held = [(number,) for number, at in times if at <= chosen]
        assert _rows(outcome, "SELECT id FROM marks ORDER BY id") == held
        _check_and_stop(outcome, cluster)
        with pytest.raises(InstantUnreachable):
            restore(steps, home / "early", to=reachable_from - timedelta(microseconds=1))


@contextmanager
def _changing(cluster: Cluster, recorder: Recorder, chance: random.Random) -> Iterator[None]:
    """Marks and changes, by another thread, until the block ends."""
    done = threading.Event()

    def run() -> None:
        for number in itertools.count(1000):
            if done.is_set() or number >= 3000:
                return
            recorder.mark(number, 1)
            if number % 20 == 0:
                change_at_random(cluster, chance, times=1)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _as_cluster(outcome: RestoreOutcome, major: int) -> Cluster:
    """The restored server, for helpers that want a cluster."""
    assert outcome.connection is not None
    where = psycopg.conninfo.conninfo_to_dict(outcome.connection)
    restored = Cluster(major, Path(str(where["host"])))
    restored.data_directory = outcome.directory
    restored.port = int(str(where["port"]))
    return restored


def _check_and_stop(outcome: RestoreOutcome, source: Cluster) -> None:
    command = [source.programs / "pg_ctl", "stop", "-m", "fast", "-D", outcome.directory]
    run_as_server_user(command)
    run_as_server_user([source.programs / "pg_checksums", "-c", "-D", outcome.directory])
