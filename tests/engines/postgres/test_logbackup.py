"""Log backups join without a gap, reach every instant they promise, and refuse what is broken."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from sqlbak.engines.postgres.engine import PostgresEngine
from sqlbak.engines.postgres.timelines import segment_name, segment_start
from sqlbak.errors import EngineError, Interrupted, LogChainBroken
from sqlbak.model import Fork, LogPosition
from sqlbak.progress import NO_PROGRESS
from sqlbak.stopping import NEVER, StopSignal
from tests.engines.postgres.backups import (
    MemorySink,
    Taken,
    rebuild,
    recover,
    running_backup_threads,
    stored_log,
)
from tests.engines.postgres.clusters import (
    Cluster,
    available_majors,
    give_to_server_user,
    has_working_program,
    running_cluster,
    scratch_directory,
)
from tests.engines.postgres.standbys import standby_of, wait_for_replay

pytestmark = pytest.mark.postgres


@pytest.fixture
def directory() -> Iterator[Path]:
    with scratch_directory() as path:
        yield path / "restored"


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[Cluster]:
    """One of the newest major version whose log nobody else's test moves."""
    with running_cluster(available_majors()[-1]) as cluster:
        yield cluster


def engine_of(cluster: Cluster, slot_name: str = "sqlbak_log_test") -> PostgresEngine:
    return PostgresEngine(cluster.dsn(), slot_name=slot_name)


def take_full(engine: PostgresEngine) -> Taken:
    sink = MemorySink()
    result = engine.full(sink, label="x", progress=NO_PROGRESS, stop=NEVER)
    return Taken(result, sink.streams)


def take_log(
    engine: PostgresEngine, since: LogPosition, facts: Mapping[str, Any] | None = None
) -> Taken:
    sink = MemorySink()
    result = engine.log(since, sink, progress=NO_PROGRESS, stop=NEVER, since_facts=facts)
    assert sink.order == ["wal"]
    assert len(sink.streams["wal"]) == result.last_lsn - result.first_lsn
    return Taken(result, sink.streams)


def end_of(taken: Taken) -> LogPosition:
    return LogPosition(taken.result.lineage, taken.result.last_lsn)


def test_every_instant_of_a_chain_can_be_reached(cluster: Cluster, directory: Path) -> None:
    engine = engine_of(cluster)
    cluster.execute("CREATE TABLE marks (at timestamptz DEFAULT clock_timestamp(), n int)")
    chain = [take_full(engine)]
    instants: list[tuple[int, datetime]] = []
    for number in range(3):
        cluster.execute("INSERT INTO marks (n) VALUES (%s)", [number])
        chain.append(take_log(engine, end_of(chain[-1]), chain[-1].result.facts))
        covered = chain[-1].result.covers_until
        assert covered is not None
        instants.append((number + 1, covered))
        engine.acknowledge(end_of(chain[-1]))
        cluster.execute("CHECKPOINT")
    # Nothing happens now, and yet this time becomes reachable.
    chain.append(take_log(engine, end_of(chain[-1]), chain[-1].result.facts))
    idle = chain[-1].result.covers_until
    assert idle is not None
    instants.append((3, idle))

    for index, (rows, instant) in enumerate((instants[0], instants[-1])):
        place = directory.with_name(f"restored{index}")
        rebuild(place, chain)
        if has_working_program(cluster.major, "pg_verifybackup"):
            assert "successfully verified" in cluster.run("pg_verifybackup", place)
        with recover(place, chain, to=instant) as restored:
            assert restored.execute("SELECT count(*) FROM marks") == [(rows,)]
    cluster.execute("DROP TABLE marks")
    engine.drop_slot()


@pytest.mark.parametrize("megabytes", [1, 16])
def test_many_cuts_join_to_the_servers_own_segments(megabytes: int) -> None:
    with running_cluster(available_majors()[0], wal_segment_megabytes=megabytes) as cluster:
        engine = engine_of(cluster)
        cluster.execute("CREATE TABLE filler (n int, t text)")
        chain = [take_full(engine)]
        for number in range(12):
            cluster.execute(
                "INSERT INTO filler SELECT n, repeat('x', 100) FROM generate_series(1, %s) n",
                [(number % 4) * 4000],
            )
            chain.append(take_log(engine, end_of(chain[-1]), chain[-1].result.facts))
        start, log = stored_log(chain)
        size = megabytes << 20
        assert len(log) > 3 * (1 << 20)
        for offset in range(0, len(log), size):
            name = segment_name(1, start + offset, size)
            own = (cluster.data_directory / "pg_wal" / name).read_bytes()
            ours = log[offset : offset + size]
            assert ours == own[: len(ours)], name


def test_the_clock_is_read_before_the_end_of_the_log(own_cluster: Cluster) -> None:
    engine = engine_of(own_cluster)
    full = take_full(engine)
    own_cluster.execute("CREATE TABLE before_the_cut ()")
    ((done_at,),) = own_cluster.execute("SELECT clock_timestamp()")
    log = take_log(engine, end_of(full)).result
    assert log.covers_until is not None
    assert done_at <= log.covers_until < log.finished_at
    assert log.started_at < log.covers_until
    assert log.type == "log"
    assert log.continues_on is None


def test_only_what_was_acknowledged_may_be_discarded(own_cluster: Cluster) -> None:
    engine = engine_of(own_cluster)
    first = end_of(take_full(engine))
    engine.acknowledge(first)
    assert engine.oldest_log() == first
    log = take_log(engine, first)
    assert engine.oldest_log() == first
    engine.acknowledge(end_of(log))
    engine.acknowledge(end_of(log))
    assert engine.oldest_log() == end_of(log)
    engine.acknowledge(first)
    assert engine.oldest_log() == end_of(log)
    with pytest.raises(LogChainBroken):
        engine.acknowledge(LogPosition("1", log.result.last_lsn + (1 << 40)))
    with pytest.raises(LogChainBroken):
        engine.acknowledge(LogPosition("7", log.result.last_lsn))
    assert engine.oldest_log() == end_of(log)


def test_a_dead_synchronous_standby_does_not_hang_backups() -> None:
    with running_cluster(
        available_majors()[-1], settings={"synchronous_standby_names": "nobody_there"}
    ) as cluster:
        engine = engine_of(cluster)
        take_log(engine, end_of(take_full(engine)))


def test_backups_never_release_a_commit_that_waits_for_a_standby() -> None:
    with running_cluster(
        available_majors()[-1], settings={"synchronous_standby_names": "*"}
    ) as cluster:
        seen: set[str] = set()

        def look(name: str, size: int) -> None:
            seen.update(
                str(state)
                for (state,) in cluster.execute(
                    "SELECT sync_state || ' ' || coalesce(flush_lsn::text, 'nothing')"
                    " FROM pg_stat_replication WHERE state = 'streaming'"
                )
            )
            time.sleep(0.01)

        with cluster.connect() as connection:
            connection.execute("SET synchronous_commit = local")
            connection.execute("CREATE TABLE x AS SELECT generate_series(1, 100000)")
        engine_of(cluster).full(MemorySink(look), label="x", progress=NO_PROGRESS, stop=NEVER)
        assert seen
        assert {state.split()[1] for state in seen} == {"nothing"}


def test_a_missing_slot_breaks_the_chain_and_a_full_mends_it(own_cluster: Cluster) -> None:
    engine = engine_of(own_cluster)
    end = end_of(take_full(engine))
    assert engine.drop_slot() is True
    assert engine.drop_slot() is False
    assert engine.oldest_log() is None
    with pytest.raises(LogChainBroken, match="does not exist"):
        take_log(engine, end)
    with pytest.raises(LogChainBroken, match="does not exist"):
        engine.acknowledge(end)
    take_log(engine, end_of(take_full(engine)))


def test_log_before_the_slot_is_gone(own_cluster: Cluster) -> None:
    engine = engine_of(own_cluster)
    end = end_of(take_full(engine))
    log = take_log(engine, end)
    engine.acknowledge(end_of(log))
    with pytest.raises(LogChainBroken, match="keeps log from"):
        take_log(engine, end)


def test_a_slot_that_outgrew_its_limit_breaks_the_chain_and_a_full_mends_it() -> None:
    with running_cluster(
        available_majors()[-1],
        wal_segment_megabytes=1,
        settings={"max_slot_wal_keep_size": "2MB", "min_wal_size": "2MB", "max_wal_size": "2MB"},
    ) as cluster:
        engine = engine_of(cluster)
        end = end_of(take_full(engine))
        for _ in range(8):
            cluster.execute("CREATE TABLE t AS SELECT generate_series(1, 30000)")
            cluster.execute("DROP TABLE t")
            cluster.execute("CHECKPOINT")
        assert engine.oldest_log() is None
        assert "slot_lost" in {problem.code for problem in engine.inspect().problems}
        with pytest.raises(LogChainBroken, match="lost") as broken:
            take_log(engine, end)
        assert "max_slot_wal_keep_size" in broken.value.hint
        with pytest.raises(LogChainBroken, match="lost"):
            engine.acknowledge(end)
        full = take_full(engine)
        assert full.result.facts["slot"]["action"] == "recreated"
        take_log(engine, end_of(full))


@pytest.mark.parametrize("lineage", ["2", "0", "x"])
def test_a_timeline_that_the_server_never_had_breaks_the_chain(
    own_cluster: Cluster, lineage: str
) -> None:
    engine = engine_of(own_cluster)
    end = end_of(take_full(engine))
    with pytest.raises(LogChainBroken, match="does not descend"):
        take_log(engine, LogPosition(lineage, end.lsn))


def test_a_server_set_back_to_an_older_state_breaks_the_chain(own_cluster: Cluster) -> None:
    engine = engine_of(own_cluster)
    end = end_of(take_full(engine))
    with pytest.raises(LogChainBroken, match="set back"):
        take_log(engine, LogPosition("1", end.lsn + (1 << 40)))


def test_a_killed_session_leaves_the_slot_where_it_was(own_cluster: Cluster) -> None:
    engine = engine_of(own_cluster)
    end = end_of(take_full(engine))
    own_cluster.execute("CREATE TABLE big AS SELECT generate_series(1, 600000)")
    before = engine.oldest_log()
    killed: list[tuple[bool]] = []

    def kill(name: str, size: int) -> None:
        if not killed:
            killed.extend(
                own_cluster.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE backend_type = 'walsender'"
                )
            )
            time.sleep(0.5)

    sink = MemorySink(kill)
    with pytest.raises(EngineError) as failed:
        engine.log(end, sink, progress=NO_PROGRESS, stop=NEVER)
    assert killed == [(True,)]
    assert failed.value.code in ("backup_failed", "server_unreachable")
    assert sink.discarded == ["wal"]
    assert engine.oldest_log() == before
    assert running_backup_threads() == []
    own_cluster.execute("DROP TABLE big")
    take_log(engine, end)


def test_a_request_to_stop_ends_a_log_promptly(own_cluster: Cluster) -> None:
    engine = engine_of(own_cluster)
    end = end_of(take_full(engine))
    stop = StopSignal()
    stop.request()
    with pytest.raises(Interrupted):
        engine.log(end, MemorySink(), progress=NO_PROGRESS, stop=stop)
    assert running_backup_threads() == []


@pytest.mark.parametrize("major", available_majors())
def test_after_a_failover_the_log_goes_on_across_the_fork(major: int, directory: Path) -> None:
    with running_cluster(major) as primary:
        engine = engine_of(primary)
        primary.execute("CREATE TABLE kept (n int)")
        full = take_full(engine)
        with scratch_directory() as home:
            standby = standby_of(primary, home)
            standby.execute("SELECT pg_create_physical_replication_slot('sqlbak_log_test', true)")
            try:
                primary.execute("INSERT INTO kept VALUES (1)")
                first = take_log(engine, end_of(full))
                wait_for_replay(primary, standby)
                primary.stop()
                standby.promote()
                standby.execute("INSERT INTO kept VALUES (2)")

                moved = engine_of(standby)
                to_fork = take_log(moved, end_of(first), first.result.facts)
                fork = to_fork.result.continues_on
                assert fork is not None
                assert fork == LogPosition("2", to_fork.result.last_lsn)
                assert to_fork.result.lineage == "1"
                assert to_fork.result.covers_until is None
                assert to_fork.result.forks == (Fork("2", "1", fork.lsn),)
                own = standby.data_directory / "pg_wal" / "00000002.history"
                assert to_fork.result.histories == {"2": own.read_bytes()}

                at_fork = take_log(moved, end_of(to_fork), to_fork.result.facts)
                assert at_fork.result.facts["log_tail"] == to_fork.result.facts["log_tail"]
                assert at_fork.streams["wal"] == b""
                assert at_fork.result.continues_on == fork
                after = take_log(moved, fork, at_fork.result.facts)
                assert after.result.lineage == "2"
                assert after.result.covers_until is not None
                assert after.result.continues_on is None
                _assert_last_segment_matches(standby, after)
                beyond = LogPosition("1", fork.lsn + 8)
                with pytest.raises(LogChainBroken, match="does not descend"):
                    take_log(moved, beyond)
                with pytest.raises(LogChainBroken, match="does not descend"):
                    moved.acknowledge(beyond)
                moved.acknowledge(end_of(to_fork))
                assert moved.oldest_log() == fork
            finally:
                standby.stop("immediate")


def _assert_last_segment_matches(cluster: Cluster, taken: Taken) -> None:
    size = taken.result.facts["wal_segment_size"]
    begin = max(taken.result.first_lsn, segment_start(taken.result.last_lsn - 1, size))
    name = segment_name(int(taken.result.lineage), begin, size)
    own = (cluster.data_directory / "pg_wal" / name).read_bytes()
    offset = begin % size
    ours = taken.streams["wal"][begin - taken.result.first_lsn :]
    assert own[offset : offset + len(ours)] == ours


def test_a_cluster_put_back_to_an_older_copy_is_noticed_at_the_next_log() -> None:
    with running_cluster(available_majors()[-1]) as cluster:
        engine = engine_of(cluster)
        take_full(engine)
        cluster.stop()
        copy = cluster.home / "copy"
        shutil.copytree(cluster.data_directory, copy, symlinks=True)
        cluster.start()
        cluster.execute("CREATE TABLE later AS SELECT generate_series(1, 100000)")
        full = take_full(engine)
        end = end_of(full)
        cluster.stop()
        shutil.rmtree(cluster.data_directory)
        copy.rename(cluster.data_directory)
        give_to_server_user(cluster.data_directory)
        cluster.start()
        with pytest.raises(LogChainBroken, match="set back"):
            take_log(engine, end, full.result.facts)
        cluster.execute("CREATE TABLE otherwise AS SELECT generate_series(1, 900000)")
        with pytest.raises(LogChainBroken, match="not the log in the vault"):
            take_log(engine, end, full.result.facts)
