"""A full and a differential of it are the cluster as it was at the differential's end."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sqlbak.engines.port import DifferentialBase
from sqlbak.engines.postgres.engine import PostgresEngine
from sqlbak.engines.postgres.nativedifferential import summaries_reach_back
from sqlbak.engines.postgres.timelines import segment_name
from sqlbak.errors import BaseUnusable, Interrupted, LogRewritten
from sqlbak.model import DifferentialMethod, PointType
from sqlbak.progress import NO_PROGRESS
from sqlbak.stopping import NEVER, StopSignal
from sqlbak.vault.frames import zstd
from tests.engines.postgres.backups import (
    MemorySink,
    Taken,
    rebuild,
    recover,
    running_backup_threads,
)
from tests.engines.postgres.clusters import (
    Cluster,
    available_majors,
    give_to_server_user,
    has_working_program,
    running_cluster,
    scratch_directory,
)
from tests.engines.postgres.overlays import PREFIX, files_of, overlaid
from tests.engines.postgres.restores import MemorySource, as_step
from tests.engines.postgres.workloads import change_at_random, checksums, make_tables

pytestmark = pytest.mark.postgres

SLOT = "sqlbak_differential_test"
NATIVE_MAJORS = [major for major in available_majors() if major >= 17]


@pytest.fixture
def directory() -> Iterator[Path]:
    with scratch_directory() as path:
        yield path / "restored"


def engine(cluster: Cluster) -> PostgresEngine:
    return PostgresEngine(cluster.dsn(), slot_name=SLOT)


def take_full(cluster: Cluster) -> Taken:
    sink = MemorySink()
    result = engine(cluster).full(sink, label="full", progress=NO_PROGRESS, stop=NEVER)
    return Taken(result, sink.streams)


def base_of(
    full: Taken, method: DifferentialMethod = DifferentialMethod.AUTO, **facts: Any
) -> DifferentialBase:
    step = as_step(full.result, full.streams)
    return DifferentialBase(step.point, {**step.facts, **facts}, step.source, method)


def take_differential(
    cluster: Cluster, base: DifferentialBase, sink: MemorySink | None = None
) -> Taken:
    sink = sink or MemorySink()
    result = engine(cluster).differential(
        base, sink, label="differential", progress=NO_PROGRESS, stop=NEVER
    )
    assert sink.discarded == []
    return Taken(result, sink.streams)


def verify(cluster: Cluster, directory: Path) -> None:
    if has_working_program(cluster.major, "pg_verifybackup"):
        assert "successfully verified" in cluster.run("pg_verifybackup", directory)


def check_pages(restored: Cluster) -> None:
    restored.stop()
    said = restored.run("pg_checksums", "--check", "--pgdata", restored.data_directory)
    assert "Bad checksums:  0" in said
    restored.start()


@pytest.mark.parametrize("major", available_majors())
@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_changed_the_two_restore_the_cluster_as_it_was(major: int, seed: int) -> None:
    chance = random.Random(seed)
    with running_cluster(major) as cluster, scratch_directory() as home:
        space = cluster.make_directory("space")
        cluster.execute(f"CREATE TABLESPACE space LOCATION '{space}'")
        make_tables(cluster, space="space")
        full = take_full(cluster)
        for number in range(2):
            change_at_random(cluster, chance, times=12)
            before = checksums(cluster)
            differential = take_differential(cluster, base_of(full))
            result = differential.result
            assert result.type is PointType.DIFFERENTIAL
            assert result.facts["differential"]["method"] == "pages"
            assert result.covers_until is not None
            assert set(differential.streams) == set(full.streams) - {
                "pages",
                "pages.index",
                "archives.index",
            }
            directory = home / f"restored-{number}"
            whole = overlaid(full, differential)
            rebuild(directory, [whole])
            verify(cluster, directory)
            with recover(directory, [whole], to=result.covers_until) as restored:
                assert checksums(restored) == before
                check_pages(restored)


def test_pages_that_are_written_meanwhile_are_mended_by_the_log(
    cluster: Cluster, directory: Path
) -> None:
    cluster.execute("CREATE TABLE busy (n int PRIMARY KEY, filler text)")
    cluster.execute("INSERT INTO busy SELECT n, repeat('x', 500) FROM generate_series(1, 5000) n")
    full = take_full(cluster)
    stop_writing = threading.Event()

    def write() -> None:
        chance = random.Random(3)
        with cluster.connect() as connection:
            for number in range(5001, 1_000_000):
                if stop_writing.is_set():
                    return
                connection.execute("INSERT INTO busy VALUES (%s, 'y')", [number])
                connection.execute(
                    "UPDATE busy SET filler = %s WHERE n = %s",
                    [str(number), chance.randrange(1, number)],
                )
                if number % 500 == 0:
                    connection.execute("CHECKPOINT")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        differential = take_differential(cluster, base_of(full))
    finally:
        stop_writing.set()
        writer.join()
    whole = overlaid(full, differential)
    rebuild(directory, [whole])
    verify(cluster, directory)
    assert differential.result.covers_until is not None
    with recover(directory, [whole], to=differential.result.covers_until) as restored:
        (found,) = restored.execute("SELECT count(*), max(n) FROM busy")
        assert found[0] == found[1] > 5000
        check_pages(restored)
    cluster.execute("DROP TABLE busy")
    cluster.execute("SELECT pg_drop_replication_slot(%s)", [SLOT])


def test_the_size_is_that_of_the_changed_pages_and_the_other_files() -> None:
    with running_cluster(available_majors()[-1]) as cluster:
        cluster.execute(
            "CREATE TABLE large WITH (fillfactor = 50) AS SELECT n,"
            " md5(n::text) || md5((n + 1)::text) AS filler FROM generate_series(1, 200000) n"
        )
        cluster.execute("VACUUM (FREEZE)")
        full = take_full(cluster)
        path = cluster.execute("SELECT pg_relation_filepath('large')")[0][0]
        # One row on each of every tenth page: exactly these pages change.
        cluster.execute(
            "UPDATE large SET n = -n WHERE (ctid::text::point)[1] = 1"
            " AND (ctid::text::point)[0]::int % 10 = 0"
        )
        cluster.execute("CHECKPOINT")
        differential = take_differential(cluster, base_of(full))
    before, after = files_of(full.streams["base.tar"]), files_of(differential.streams["base.tar"])
    changed = (len(after[folder_with(path, PREFIX)]) - 8192) // 8192
    blocks = len(before[path]) // 8192
    assert abs(changed - blocks // 10) < 10
    whole = overlaid(full, differential)
    new = files_of(whole.streams["base.tar"])
    needed = b""
    for name, data in new.items():
        old = before.get(name)
        if folder_with(name, PREFIX) not in after:
            needed += data
            continue
        assert old is not None
        needed += b"".join(
            data[at : at + 8192]
            for at in range(0, len(data), 8192)
            if data[at : at + 8192] != old[at : at + 8192]
        )
    stored = len(zstd.compress(differential.streams["base.tar"], 1))
    assert stored < 1.15 * len(zstd.compress(needed, 1))


def folder_with(path: str, prefix: str) -> str:
    folder, slash, name = path.rpartition("/")
    return f"{folder}{slash}{prefix}{name}"


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"system_identifier": "1"}, "system identifier"),
        ({"server_version_num": 140000}, "major version"),
        ({"wal_segment_size": 1 << 20}, "segment size"),
        ({"page_map": None}, "no page map"),
        (
            {"page_map": {"hash": "xxh3_64", "hash_bytes": 8, "seed": 1, "block_size": 4096}},
            "pages of 4096",
        ),
    ],
)
def test_a_full_of_something_else_is_no_base(
    newest_cluster: Cluster, facts: dict[str, Any], says: str
) -> None:
    full = take_full(newest_cluster)
    sink = MemorySink()
    with pytest.raises(BaseUnusable, match=says):
        take_differential(newest_cluster, base_of(full, **facts), sink)
    assert sink.order == []


def test_a_full_of_another_timeline_or_of_a_later_state_is_no_base(
    newest_cluster: Cluster,
) -> None:
    base = base_of(take_full(newest_cluster))
    elsewhere = replace(base, point=replace(base.point, lineage="7"))
    with pytest.raises(BaseUnusable, match="timeline"):
        take_differential(newest_cluster, elsewhere)
    later = replace(base, point=replace(base.point, last_lsn=1 << 50))
    with pytest.raises(LogRewritten, match="put back"):
        take_differential(newest_cluster, later)


@pytest.mark.parametrize("stream", ["pages", "pages.index"])
def test_a_damaged_page_map_ends_the_differential_and_leaves_nothing(
    newest_cluster: Cluster, stream: str
) -> None:
    base = base_of(take_full(newest_cluster))
    assert isinstance(base.source, MemorySource)
    base.source.frames[stream][0][5] ^= 1
    sink = MemorySink()
    with pytest.raises(BaseUnusable, match="damaged"):
        take_differential(newest_cluster, base, sink)
    assert "base.tar" not in sink.streams
    assert running_backup_threads() == []


def test_a_request_to_stop_ends_a_differential_promptly(newest_cluster: Cluster) -> None:
    base = base_of(take_full(newest_cluster))
    stop = StopSignal()
    sink = MemorySink(lambda name, size: stop.request() if name == "base.tar" else None)
    with pytest.raises(Interrupted):
        engine(newest_cluster).differential(base, sink, label="x", progress=NO_PROGRESS, stop=stop)
    assert running_backup_threads() == []


def combine(cluster: Cluster, full: Taken, differential: Taken, directory: Path) -> None:
    """Both as directories, then the server's own program."""
    parts = []
    for name, taken in (("full", full), ("differential", differential)):
        part = directory.with_name(name)
        rebuild(part, [taken])
        for old in (part / "pg_wal").iterdir():
            if old.is_file():
                old.unlink()
        give_to_server_user(part)
        parts.append(part)
    cluster.run("pg_combinebackup", *parts, "--output", directory, "--no-sync")
    taken, result = differential, differential.result
    size = result.facts["wal_segment_size"]
    start, log = result.facts["wal_first_lsn"], taken.streams["wal"]
    for at in range(0, len(log), size):
        name = segment_name(int(result.lineage), start + at, size)
        (directory / "pg_wal" / name).write_bytes(log[at : at + size].ljust(size, b"\0"))


@pytest.mark.parametrize(
    ("summaries", "reach"),
    [
        ([(50, 100), (100, 200)], True),
        ([(100, 200), (50, 100)], True),
        ([(100, 150), (150, 170), (160, 200)], True),
        ([(101, 200)], False),
        ([(50, 150), (151, 200)], False),
        ([(20, 90)], True),
        ([], True),
    ],
)
def test_summaries_must_hold_everything_since_the_fulls_start(
    summaries: list[tuple[int, int]], reach: bool
) -> None:
    assert summaries_reach_back(summaries, 100) is reach


@pytest.mark.parametrize("major", NATIVE_MAJORS)
def test_the_servers_own_method_restores_the_same(major: int) -> None:
    chance = random.Random(5)
    settings = {"summarize_wal": "on"}
    with running_cluster(major, settings=settings) as cluster, scratch_directory() as home:
        make_tables(cluster)
        full = take_full(cluster)
        change_at_random(cluster, chance, times=12)
        before = checksums(cluster)
        differential = take_differential(cluster, base_of(full, DifferentialMethod.NATIVE))
        result = differential.result
        assert result.notes == ()
        assert result.facts["differential"]["method"] == "native"
        assert result.covers_until is not None
        combine(cluster, full, differential, home / "restored")
        verify(cluster, home / "restored")
        with recover(home / "restored", [differential], to=result.covers_until) as restored:
            assert checksums(restored) == before
            check_pages(restored)


def test_where_the_servers_own_method_is_not_safe_pages_are_compared_and_it_is_said() -> None:
    major = available_majors()[-1]
    with running_cluster(major, has_checksums=False) as cluster:
        full = take_full(cluster)

        def refused(**facts: Any) -> str:
            base = base_of(full, DifferentialMethod.NATIVE, **facts)
            result = take_differential(cluster, base).result
            assert result.facts["differential"]["method"] == "pages"
            (note,) = result.notes
            return note.text

        assert "summarize_wal is off" in refused()
        cluster.configure({"summarize_wal": "on"})
        cluster.reload()
        assert "wal_log_hints" in refused()
        cluster.configure({"wal_log_hints": "on"})
        cluster.restart()
        version = int(full.result.facts["server_version_num"])
        assert "taken of PostgreSQL" in refused(server_version_num=version - 1)
        assert "data checksums were switched" in refused(data_checksums=True)
        assert "do not reach back" in refused(start_lsn=1 << 20)
        assert "manifest" in refused_manifest(cluster, full)


def refused_manifest(cluster: Cluster, full: Taken) -> str:
    """What is said when the server itself refuses."""
    streams = {**full.streams, "backup_manifest": b"{}"}
    base = base_of(Taken(full.result, streams), DifferentialMethod.NATIVE)
    (note,) = take_differential(cluster, base).result.notes
    return note.text


@pytest.mark.parametrize("major", [m for m in available_majors() if m < 17][:1])
def test_versions_without_the_servers_own_method_compare_pages(major: int) -> None:
    with running_cluster(major) as cluster:
        base = base_of(take_full(cluster), DifferentialMethod.NATIVE)
        result = take_differential(cluster, base).result
    assert result.facts["differential"]["method"] == "pages"
    assert "does not have it" in result.notes[0].text
