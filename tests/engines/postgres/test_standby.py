"""A standby's log and files: proven to be its primary's, and given up loudly when they are not."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from sqlbak.engines.port import ShippedPiece
from sqlbak.engines.postgres import commitclock
from sqlbak.engines.postgres.engine import PostgresEngine
from sqlbak.errors import BackupFailed, LogChainBroken, ServerBehind, ServerNotReady
from sqlbak.model import LogPosition
from sqlbak.progress import NO_PROGRESS
from sqlbak.stopping import NEVER, StopSignal
from tests.engines.postgres.backups import MemorySink, running_backup_threads
from tests.engines.postgres.clusters import (
    Cluster,
    available_majors,
    give_to_server_user,
    running_cluster,
    scratch_directory,
)
from tests.engines.postgres.standbys import running_standby, wait_for_replay

pytestmark = pytest.mark.postgres

SLOT = "sqlbak_standby_test"
SETTINGS = {"track_commit_timestamp": "on"}


@pytest.fixture(scope="module")
def primary() -> Iterator[Cluster]:
    with running_cluster(available_majors()[-1], settings=SETTINGS) as cluster:
        cluster.execute("CREATE TABLE t (n int)")
        yield cluster


@pytest.fixture(scope="module")
def standby(primary: Cluster) -> Iterator[Cluster]:
    with running_standby(primary) as cluster:
        cluster.execute("SELECT pg_create_physical_replication_slot(%s, true)", [SLOT])
        yield cluster


def engine_of(standby: Cluster, primary: Cluster | None = None) -> PostgresEngine:
    return PostgresEngine(
        standby.dsn(), slot_name=SLOT, primary_dsn=None if primary is None else primary.dsn()
    )


def commit(primary: Cluster, standby: Cluster) -> datetime:
    """A transaction that the standby has replayed; when it was committed."""
    primary.execute("INSERT INTO t VALUES (1)")
    wait_for_replay(primary, standby)
    ((at,),) = primary.execute("SELECT timestamp FROM pg_last_committed_xact()")
    committed: datetime = at.astimezone(UTC)
    return committed


def replayed(standby: Cluster) -> LogPosition:
    ((lsn,),) = standby.execute("SELECT (pg_last_wal_replay_lsn() - '0/0')::bigint")
    return LogPosition("1", int(lsn))


@contextmanager
def shipped(engine: PostgresEngine, since: LogPosition) -> Iterator[Iterator[ShippedPiece]]:
    stop = StopSignal()
    options = {"since_facts": None, "interval_seconds": 0.3, "stop": stop}
    with engine.ship(since, **options) as shipment:  # type: ignore[arg-type]
        yield shipment.pieces()
    assert running_backup_threads() == []


def until(pieces: Iterator[ShippedPiece], instant: datetime) -> list[ShippedPiece]:
    """Pieces up to the first that covers ``instant``; they join."""
    taken: list[ShippedPiece] = []
    for piece in itertools.islice(pieces, 100):
        taken.append(piece)
        if piece.covers_until is not None and piece.covers_until >= instant:
            break
    else:
        raise AssertionError(f"{instant} is not covered")
    for one, following in itertools.pairwise(taken):
        assert one.last_lsn == following.first_lsn
    return taken


def test_what_is_shipped_of_a_standby_alone_covers_what_it_has_replayed(
    primary: Cluster, standby: Cluster
) -> None:
    commit(primary, standby)
    since = replayed(standby)
    with shipped(engine_of(standby), since) as pieces:
        last = commit(primary, standby)
        found = until(pieces, last)
        assert found[-1].covers_until == last
        assert found[-1].finished_at > last
        assert next(pieces).covers_until == last
    with_log = engine_of(standby).log(since, sink := MemorySink(), progress=NO_PROGRESS, stop=NEVER)
    log = b"".join(piece.data for piece in found)
    assert sink.streams["wal"][: len(log)] == log
    assert with_log.covers_until == last


def test_what_is_shipped_of_a_standby_covers_idle_time_where_the_primary_says_so(
    primary: Cluster, standby: Cluster
) -> None:
    last = commit(primary, standby)
    with shipped(engine_of(standby, primary), replayed(standby)) as pieces:
        ((now,),) = primary.execute("SELECT clock_timestamp()")
        covered = until(pieces, now)[-1].covers_until
        assert covered is not None
        assert covered >= now > last
        end = next(pieces)
        assert end.data == b""
        assert end.covers_until is not None
        assert end.covers_until > covered


def test_the_heartbeat_of_another_server_with_the_same_names_is_not_believed(
    primary: Cluster, standby: Cluster
) -> None:
    with scratch_directory() as home:
        twin = Cluster(primary.major, home, settings=SETTINGS)
        primary.run(
            "pg_basebackup", "-h", str(primary.home), "-p", str(primary.port), "-U", "postgres",
            "-D", twin.data_directory, "-c", "fast", "--no-sync",
        )  # fmt: skip
        twin.configure({"port": str(twin.port), "unix_socket_directories": str(home)})
        give_to_server_user(home)
        twin.start()
        try:
            twin.execute("INSERT INTO t VALUES (2)")
            since = replayed(standby)
            primary.execute("CREATE TABLE more AS SELECT generate_series(1, 100000)")
            primary.execute("DROP TABLE more")
            wait_for_replay(primary, standby)
            engine = engine_of(standby, twin)
            with pytest.raises(BackupFailed, match="not in the standby's log"):
                engine.log(since, MemorySink(), progress=NO_PROGRESS, stop=NEVER)
            with (
                pytest.raises(BackupFailed, match="not in the standby's log"),
                shipped(engine, since) as pieces,
            ):
                next(pieces)
        finally:
            twin.stop("immediate")


def test_a_standby_that_is_promoted_while_it_is_read_fails_the_full_and_the_shipping(
    primary: Cluster,
) -> None:
    with running_standby(primary) as own:
        commit(primary, own)
        promoted: list[bool] = []

        def promote(name: str, size: int) -> None:
            if not promoted and name == "base.tar":
                promoted.append(True)
                own.promote()

        sink = MemorySink(promote)
        engine = engine_of(own)
        with pytest.raises(BackupFailed) as failed:
            engine.full(sink, label="x", progress=NO_PROGRESS, stop=NEVER)
        assert "again" in failed.value.hint or "promoted" in failed.value.hint
        assert promoted
        assert "wal" not in sink.streams
        assert running_backup_threads() == []
        full = engine.full(MemorySink(), label="x", progress=NO_PROGRESS, stop=NEVER)
        assert (full.lineage, full.facts["taken_from"]) == ("2", "primary")


def test_log_of_a_promoted_standby_is_not_shipped_under_the_old_timeline(
    primary: Cluster,
) -> None:
    with running_standby(primary) as own:
        commit(primary, own)
        own.execute("SELECT pg_create_physical_replication_slot(%s, true)", [SLOT])
        with (
            pytest.raises((LogChainBroken, BackupFailed), match=r"promoted|ended the log stream"),
            shipped(engine_of(own), replayed(own)) as pieces,
        ):
            next(pieces)
            own.promote()
            for piece in itertools.islice(pieces, 50):
                assert piece.covers_until is not None


def test_a_standby_that_was_just_started_promises_nothing_until_it_has_replayed_a_transaction(
    primary: Cluster, standby: Cluster
) -> None:
    commit(primary, standby)
    primary.execute("CHECKPOINT")
    wait_for_replay(primary, standby)
    standby.execute("CHECKPOINT")
    standby.restart()
    since = replayed(standby)
    engine = engine_of(standby)
    log = engine.log(since, MemorySink(), progress=NO_PROGRESS, stop=NEVER)
    assert log.covers_until is None
    with pytest.raises(ServerNotReady, match="replayed no transaction") as refused:
        engine.full(MemorySink(), label="x", progress=NO_PROGRESS, stop=NEVER)
    assert "primary_dsn" in refused.value.hint
    with_primary = engine_of(standby, primary)
    assert with_primary.full(
        MemorySink(), label="x", progress=NO_PROGRESS, stop=NEVER
    ).reachable_from


def test_a_standby_that_does_not_come_as_far_as_the_vault_is_behind_and_not_another(
    primary: Cluster, standby: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commitclock, "PATIENCE_SECONDS", 0.3)
    far = LogPosition("1", replayed(standby).lsn + (1 << 30))
    engine = engine_of(standby)
    with pytest.raises(ServerBehind):
        engine.log(far, MemorySink(), progress=NO_PROGRESS, stop=NEVER)
    with pytest.raises(ServerBehind):
        engine.is_same_log(far, {})
    with pytest.raises(ServerBehind):
        engine.acknowledge(far)
