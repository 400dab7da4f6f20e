"""Shipping the log while it is written: without a gap, proven piece by piece, never of another
history, and without harm to the server."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlbak.engines.port import ShippedPiece
from sqlbak.engines.postgres.engine import PostgresEngine
from sqlbak.engines.postgres.shipping import PIECE_BYTES
from sqlbak.engines.postgres.shippingclock import flushed_end
from sqlbak.errors import EngineError, Interrupted, LogChainBroken
from sqlbak.model import LogPosition
from sqlbak.progress import NO_PROGRESS
from sqlbak.stopping import NEVER, StopSignal
from tests.engines.postgres.backups import MemorySink
from tests.engines.postgres.clusters import Cluster, available_majors, running_cluster

pytestmark = pytest.mark.postgres

SEGMENT = 16 << 20
SLOT = "sqlbak_shipping_test"


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    with running_cluster(available_majors()[-1]) as cluster:
        yield cluster


def engine_of(cluster: Cluster) -> PostgresEngine:
    return PostgresEngine(cluster.dsn(), slot_name=SLOT)


def position(cluster: Cluster) -> LogPosition:
    """Where the log stands, with a slot that keeps it from there."""
    cluster.execute(
        "SELECT pg_create_physical_replication_slot(%s, true) WHERE NOT EXISTS"
        " (SELECT FROM pg_replication_slots WHERE slot_name = %s)",
        (SLOT, SLOT),
    )
    lsn = cluster.execute("SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint")[0][0]
    return LogPosition("1", int(lsn))


@contextmanager
def pieces(
    cluster: Cluster, since: LogPosition, facts: dict[str, Any] | None = None
) -> Iterator[Iterator[ShippedPiece]]:
    stop = StopSignal()
    with engine_of(cluster).ship(
        since, since_facts=facts, interval_seconds=0.3, stop=stop
    ) as shipment:
        yield shipment.pieces()
    assert not [t for t in threading.enumerate() if t.name == "wal-receiver"]


def clock(cluster: Cluster) -> datetime:
    now: datetime = cluster.execute("SELECT clock_timestamp()")[0][0]
    return now.astimezone(UTC)


def up_to(found: Iterator[ShippedPiece], instant: datetime) -> list[ShippedPiece]:
    """Pieces up to the first that covers ``instant``."""
    taken: list[ShippedPiece] = []
    for piece in found:
        taken.append(piece)
        if piece.covers_until is not None and piece.covers_until > instant:
            return taken
    raise AssertionError("unreachable")


@given(st.integers(0, 2**40), st.sampled_from([1 << 20, 16 << 20, 1 << 30]))
def test_all_that_is_inserted_is_flushed_where_only_a_pages_header_is_missing(
    lsn: int, segment_size: int
) -> None:
    end = flushed_end(lsn, segment_size)
    assert end <= lsn
    if end != lsn:
        assert end % 8192 == 0
        assert lsn - end == (40 if end % segment_size == 0 else 24)


def test_pieces_join_and_hold_the_very_log_that_a_log_backup_holds(cluster: Cluster) -> None:
    engine = engine_of(cluster)
    since = position(cluster)
    try:
        with pieces(cluster, since) as found:
            cluster.execute("CREATE TABLE shipped AS SELECT generate_series(1, 300000) AS a")
            cluster.execute("SELECT pg_switch_wal()")
            cluster.execute("INSERT INTO shipped VALUES (0)")
            taken = up_to(found, clock(cluster))
        sink = MemorySink()
        result = engine.log(since, sink, progress=NO_PROGRESS, stop=NEVER)
    finally:
        engine.drop_slot()
    assert taken[0].first_lsn == since.lsn
    for one, following in itertools.pairwise(taken):
        assert following.first_lsn == one.last_lsn
    log = b"".join(piece.data for piece in taken)
    assert len(log) > 2 * PIECE_BYTES
    assert max(len(piece.data) for piece in taken) <= PIECE_BYTES + (128 << 10)
    assert sink.streams["wal"].startswith(log)
    assert result.last_lsn >= taken[-1].last_lsn


def test_an_idle_server_is_not_written_to_and_its_time_is_covered(own_cluster: Cluster) -> None:
    since = position(own_cluster)
    with pieces(own_cluster, since) as found:
        up_to(found, clock(own_cluster))
        before = position(own_cluster)
        idle = [next(found) for _ in range(4)]
        assert position(own_cluster) == before
    assert {piece.data for piece in idle} == {b""}
    covered = [piece.covers_until for piece in idle if piece.covers_until]
    assert covered == sorted(set(covered))
    assert len(covered) == 4


def test_log_that_the_server_leaves_unflushed_is_pushed_by_one_heartbeat(
    own_cluster: Cluster,
) -> None:
    own_cluster.configure({"wal_writer_delay": "10s", "wal_writer_flush_after": "1GB"})
    own_cluster.restart()
    own_cluster.execute("CREATE TABLE marks (a int)")
    since = position(own_cluster)
    with pieces(own_cluster, since) as found:
        up_to(found, clock(own_cluster))
        with own_cluster.connect() as session:
            session.execute("SET synchronous_commit = off")
            session.execute("INSERT INTO marks VALUES (1)")
        known = clock(own_cluster)
        taken = up_to(found, known)
    assert b"sqlbak" in b"".join(piece.data for piece in taken)


def test_a_piece_is_known_again_and_the_log_goes_on_behind_it(cluster: Cluster) -> None:
    engine = engine_of(cluster)
    since = position(cluster)
    try:
        cluster.execute("SELECT pg_logical_emit_message(true, 'a', repeat('x', 5000))")
        with pieces(cluster, since) as found:
            last = up_to(found, clock(cluster))[-1]
        end = LogPosition("1", last.last_lsn)
        assert engine.is_same_log(end, last.known_by) is True
        other = {"log_tail": {**last.known_by["log_tail"], "sha256": "0" * 64}}
        assert engine.is_same_log(end, other) is False
        beyond = LogPosition("1", last.last_lsn + SEGMENT)
        fact = {**last.known_by["log_tail"], "last_lsn": beyond.lsn}
        assert engine.is_same_log(beyond, {"log_tail": fact}) is False
        assert engine.is_same_log(LogPosition("7", last.last_lsn), last.known_by) is None
        cluster.execute("SELECT pg_logical_emit_message(true, 'a', 'y')")
        with pieces(cluster, end, dict(last.known_by)) as found:
            assert up_to(found, clock(cluster))[0].first_lsn == last.last_lsn
        with pytest.raises(LogChainBroken, match="older copy"), pieces(cluster, end, other):
            pass
    finally:
        engine.drop_slot()


def test_nothing_is_shipped_that_no_slot_holds_or_of_another_timeline(cluster: Cluster) -> None:
    since = position(cluster)
    engine = engine_of(cluster)
    engine.drop_slot()
    with pytest.raises(LogChainBroken, match="slot"), pieces(cluster, since):
        pass
    position(cluster)
    try:
        with (
            pytest.raises(LogChainBroken, match="timeline"),
            pieces(cluster, LogPosition("7", since.lsn)),
        ):
            pass
        with (
            pytest.raises(LogChainBroken, match="set back"),
            pieces(cluster, LogPosition("1", since.lsn + SEGMENT)),
        ):
            pass
    finally:
        engine.drop_slot()


def test_a_stop_ends_it_at_once_and_a_shutdown_of_the_server_does_not_wait_for_us(
    own_cluster: Cluster,
) -> None:
    since = position(own_cluster)
    stop = StopSignal()
    engine = engine_of(own_cluster)
    with engine.ship(since, since_facts=None, interval_seconds=60, stop=stop) as shipment:
        found = shipment.pieces()
        next(found)
        threading.Timer(0.2, stop.request).start()
        began = time.monotonic()
        with pytest.raises(Interrupted):
            next(found)
        assert time.monotonic() - began < 30
    with engine.ship(since, since_facts=None, interval_seconds=60, stop=NEVER) as shipment:
        found = shipment.pieces()
        next(found)
        own_cluster.execute("SELECT pg_logical_emit_message(true, 'a', 'y')")
        own_cluster.stop("fast")
        with pytest.raises(EngineError):
            next(found)
