"""A full backup restores to its own end by itself; a failed one leaves nothing behind."""

from __future__ import annotations

import io
import json
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sqlbak.engines.postgres.engine import PostgresEngine
from sqlbak.errors import BackupFailed, EngineError, Interrupted, LogChainBroken, UsageError
from sqlbak.progress import NO_PROGRESS
from sqlbak.stopping import NEVER, StopSignal
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
    has_working_program,
    running_cluster,
    scratch_directory,
)

pytestmark = pytest.mark.postgres


@pytest.fixture
def directory() -> Iterator[Path]:
    with scratch_directory() as path:
        yield path / "restored"


def take_full(cluster: Cluster, slot_name: str = "sqlbak_full_test") -> Taken:
    sink = MemorySink()
    result = PostgresEngine(cluster.dsn(), slot_name=slot_name).full(
        sink, label="a test", progress=NO_PROGRESS, stop=NEVER
    )
    assert sink.discarded == []
    return Taken(result, sink.streams)


def slots(cluster: Cluster) -> list[str]:
    rows = cluster.execute("SELECT slot_name FROM pg_replication_slots ORDER BY 1")
    return [name for (name,) in rows]


def test_a_full_restores_to_its_own_end_without_any_log(cluster: Cluster, directory: Path) -> None:
    space = cluster.make_directory("space")
    cluster.execute(f"CREATE TABLESPACE space LOCATION '{space}'")
    cluster.execute("CREATE TABLE kept (n int)")
    cluster.execute("CREATE TABLE apart (n int) TABLESPACE space")
    cluster.execute("INSERT INTO apart SELECT generate_series(1, 1000)")
    stop_writing = threading.Event()

    def write() -> None:
        with cluster.connect() as connection:
            for number in range(100_000):
                if stop_writing.is_set():
                    return
                connection.execute("INSERT INTO kept VALUES (%s)", [number])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        taken = take_full(cluster)
    finally:
        stop_writing.set()
        writer.join()

    result = taken.result
    assert result.lineage == "1"
    assert result.facts["start_lsn"] == result.first_lsn < result.facts["stop_lsn"]
    assert result.facts["stop_lsn"] <= result.last_lsn
    assert result.reachable_from == result.covers_until
    assert result.covers_until is not None
    assert result.started_at < result.covers_until < result.finished_at
    (oid,) = [tablespace["oid"] for tablespace in result.facts["tablespaces"]]
    assert set(taken.streams) == {
        "base.tar",
        f"{oid}.tar",
        "backup_manifest",
        "wal",
        "pages",
        "pages.index",
        "archives.index",
    }
    assert json.loads(taken.streams["backup_manifest"])["WAL-Ranges"][0]["Timeline"] == 1

    rebuild(directory, [taken])
    if has_working_program(cluster.major, "pg_verifybackup"):
        assert "successfully verified" in cluster.run("pg_verifybackup", directory)
    with recover(directory, [taken], to=result.covers_until) as restored:
        (survived,) = restored.execute("SELECT count(*), max(n) FROM kept")
        assert survived[0] == survived[1] + 1 > 0
        assert restored.execute("SELECT count(*) FROM apart") == [(1000,)]
    assert slots(cluster) == ["sqlbak_full_test"]
    cluster.execute("DROP TABLE kept, apart")
    cluster.execute("DROP TABLESPACE space")
    cluster.execute("SELECT pg_drop_replication_slot('sqlbak_full_test')")


def test_the_archives_are_the_servers_own_bytes(newest_cluster: Cluster) -> None:
    taken = take_full(newest_cluster)
    base = taken.streams["base.tar"]
    assert base.endswith(bytes(1024))
    with tarfile.open(fileobj=io.BytesIO(base)) as tar:
        names = tar.getnames()
    assert names[0] == "backup_label"
    assert names[-1] == "global/pg_control"


def test_the_facts_say_what_a_restore_needs(newest_cluster: Cluster) -> None:
    facts = take_full(newest_cluster).result.facts
    json.dumps(facts)
    assert facts["system_identifier"] == str(
        newest_cluster.execute("SELECT system_identifier FROM pg_control_system()")[0][0]
    )
    assert facts["timeline"] == 1
    assert facts["server_version_num"] // 10000 == newest_cluster.major
    assert facts["wal_segment_size"] == 16 << 20
    assert facts["settings"]["max_connections"] == "30"
    assert facts["settings"]["wal_level"] == "replica"
    assert facts["bootstrap_role"] == facts["backup_role"] == "postgres"
    assert facts["data_checksums"] is True
    assert facts["label"] == "a test"
    assert facts["data_directory_files"]["config_file"].endswith("postgresql.conf")


@pytest.mark.parametrize("megabytes", [1, 64])
def test_segments_of_any_size_are_rebuilt(megabytes: int, directory: Path) -> None:
    with running_cluster(available_majors()[0], wal_segment_megabytes=megabytes) as cluster:
        cluster.execute("CREATE TABLE kept AS SELECT generate_series(1, 60000) AS n")
        taken = take_full(cluster)
        assert taken.result.covers_until is not None
        assert taken.result.facts["wal_segment_size"] == megabytes << 20
        rebuild(directory, [taken])
        assert "successfully verified" in cluster.run("pg_verifybackup", directory)
        with recover(directory, [taken], to=taken.result.covers_until) as restored:
            assert restored.execute("SELECT count(*) FROM kept") == [(60000,)]


def test_a_damaged_page_fails_the_backup_although_every_byte_arrived() -> None:
    with running_cluster(available_majors()[-1]) as cluster:
        cluster.execute("CREATE TABLE damaged AS SELECT generate_series(1, 10000) AS n")
        cluster.execute("CHECKPOINT")
        path = cluster.execute("SELECT pg_relation_filepath('damaged')")[0][0]
        cluster.stop()
        with (cluster.data_directory / path).open("r+b") as table:
            table.seek(3 * 8192 + 4000)
            table.write(b"\xff" * 16)
        cluster.start()
        with pytest.raises(BackupFailed, match="checksum") as failed:
            take_full(cluster)
        assert path in str(failed.value)
        assert "pg_amcheck" in failed.value.hint
        assert running_backup_threads() == []


def test_a_sink_slower_than_the_servers_patience_loses_nothing() -> None:
    with running_cluster(available_majors()[-1], settings={"wal_sender_timeout": "3s"}) as cluster:
        cluster.execute("CREATE TABLE filler AS SELECT generate_series(1, 300000) AS n")
        slept: set[str] = set()

        def dawdle(name: str, size: int) -> None:
            if name not in slept and (name != "wal" or size > 1 << 20):
                slept.add(name)
                if name == "base.tar":  # much more log than fits into the queue
                    cluster.execute("CREATE TABLE more AS SELECT * FROM filler")
                time.sleep(5)

        sink = MemorySink(dawdle)
        engine = PostgresEngine(cluster.dsn(), slot_name="s")
        result = engine.full(sink, label="slow", progress=NO_PROGRESS, stop=NEVER)
        assert "wal" in slept
        assert len(sink.streams["wal"]) == result.last_lsn - result.facts["wal_first_lsn"]


@pytest.mark.parametrize("victim", ["base", "wal"])
def test_a_killed_session_is_one_clear_error_and_leaves_no_temporary_slot(
    newest_cluster: Cluster, victim: str
) -> None:
    engine = PostgresEngine(newest_cluster.dsn(), slot_name="sqlbak_killed")
    take_full(newest_cluster, "sqlbak_killed")
    before = engine.oldest_log()
    command = {"base": "BASE_BACKUP%", "wal": "START_REPLICATION%"}[victim]
    killed: list[tuple[bool]] = []

    def kill(name: str, size: int) -> None:
        if name == "base.tar" and size > 1 << 20 and not killed:
            killed.extend(
                newest_cluster.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE backend_type = 'walsender' AND query LIKE %s",
                    [command],
                )
            )
            time.sleep(0.5)

    sink = MemorySink(kill)
    with pytest.raises(EngineError) as failed:
        engine.full(sink, label="killed", progress=NO_PROGRESS, stop=NEVER)
    assert failed.value.code in ("backup_failed", "server_unreachable")
    assert "backup_manifest" not in sink.streams or victim == "wal"
    assert running_backup_threads() == []
    assert engine.oldest_log() == before
    assert killed == [(True,)]
    while newest_cluster.execute("SELECT 1 FROM pg_replication_slots WHERE temporary"):
        time.sleep(0.05)


def test_a_request_to_stop_ends_a_full_promptly(newest_cluster: Cluster) -> None:
    stop = StopSignal()
    sink = MemorySink(lambda name, size: stop.request() if size > 1 << 20 else None)
    engine = PostgresEngine(newest_cluster.dsn(), slot_name="sqlbak_stopped")
    with pytest.raises(Interrupted):
        engine.full(sink, label="stopped", progress=NO_PROGRESS, stop=stop)
    assert "base.tar" in sink.discarded
    assert "backup_manifest" not in sink.streams
    assert running_backup_threads() == []


def test_an_error_of_the_sink_comes_out_as_it_is(newest_cluster: Cluster) -> None:
    class Full(Exception):
        pass

    def fail(name: str, size: int) -> None:
        if name == "wal":
            raise Full

    engine = PostgresEngine(newest_cluster.dsn(), slot_name="sqlbak_sink")
    with pytest.raises(Full):
        engine.full(MemorySink(fail), label="x", progress=NO_PROGRESS, stop=NEVER)
    assert running_backup_threads() == []


def test_another_cluster_at_the_same_address_is_refused(newest_cluster: Cluster) -> None:
    engine = PostgresEngine(newest_cluster.dsn(), slot_name="s", system_identifier="123")
    with pytest.raises(LogChainBroken, match="another cluster"):
        engine.full(MemorySink(), label="x", progress=NO_PROGRESS, stop=NEVER)
    assert "s" not in slots(newest_cluster)


def test_a_label_cannot_write_its_own_lines_into_the_backup(newest_cluster: Cluster) -> None:
    engine = PostgresEngine(newest_cluster.dsn(), slot_name="sqlbak_label")
    with pytest.raises(UsageError):
        engine.full(MemorySink(), label="a\nb", progress=NO_PROGRESS, stop=NEVER)


def test_progress_knows_the_size_beforehand(newest_cluster: Cluster) -> None:
    class Recorder:
        def __init__(self) -> None:
            self.phases: list[tuple[str, int | None]] = []
            self.done = 0

        def phase(self, name: str, total_bytes: int | None = None) -> None:
            self.phases.append((name, total_bytes))

        def advance(self, size_bytes: int) -> None:
            self.done += size_bytes

    recorder = Recorder()
    sink = MemorySink()
    PostgresEngine(newest_cluster.dsn(), slot_name="sqlbak_progress").full(
        sink, label="it's", progress=recorder, stop=NEVER
    )
    total = dict(recorder.phases)["base backup"]
    assert total is not None
    assert 0.8 * len(sink.streams["base.tar"]) < total < 1.2 * len(sink.streams["base.tar"])
    assert recorder.done >= len(sink.streams["base.tar"])
