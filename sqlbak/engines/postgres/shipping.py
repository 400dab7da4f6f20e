"""Shipping the log while it is written, in small pieces that each prove an instant.

What proves it: the server's clock is read, then how far log has been *inserted*. Every transaction
that was told to be committed by then has its commit record before that place, flushed or not
(``synchronous_commit = off`` too). As soon as the stream has brought us there, the instant is
covered, and no transaction of ours was needed. Where the server leaves log unflushed (nothing
committed since), a heartbeat makes it flush; so an idle server is written to once at most, and
then proves its idle time by standing still. About a standby's log the primary is asked so, or only
what the standby has replayed is promised (shippingclock.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlbak.engines.port import ShippedPiece
from sqlbak.engines.postgres.commitclock import (
    FollowedClock,
    StandbyClock,
    open_primary,
    wait_until_received,
)
from sqlbak.engines.postgres.connection import ReplicationConnection, SqlConnection, Watch
from sqlbak.engines.postgres.dsn import ConnectionString
from sqlbak.engines.postgres.identity import (
    SystemIdentity,
    identify,
    read_facts,
    read_histories,
    read_settings,
    require_identity,
    require_one_server,
    require_supported,
)
from sqlbak.engines.postgres.logbackup import require_descent, require_log_held
from sqlbak.engines.postgres.logtail import LogTail, TailKeeper, another_log, is_tail
from sqlbak.engines.postgres.recentlog import RecentLog
from sqlbak.engines.postgres.shippingclock import (
    FollowedShippingClock,
    PrimaryShippingClock,
    ShippingClock,
    StandbyShippingClock,
)
from sqlbak.engines.postgres.slot import read_slot
from sqlbak.engines.postgres.timelines import format_lsn
from sqlbak.engines.postgres.walstream import WalStream
from sqlbak.errors import BackupFailed, LogChainBroken
from sqlbak.model import LogPosition
from sqlbak.stopping import StopSignal

__all__ = ["LogShipment", "is_known_log", "open_shipment"]

PIECE_BYTES = 8 << 20
"""Raw log in one piece, at most; a busy server fills several an interval."""

_LOOK_SECONDS = 0.2
_STALLED_SECONDS = 60.0


@dataclass(slots=True)
class _Pending:
    """What has come and lies in no piece yet."""

    first_lsn: int
    data: bytearray

    @property
    def last_lsn(self) -> int:
        return self.first_lsn + len(self.data)


class LogShipment:
    """Implements engines.port.Shipment."""

    def __init__(
        self,
        clock: ShippingClock,
        stream: WalStream,
        *,
        start: int,
        known: LogTail | None,
        facts: Mapping[str, Any],
        interval_seconds: float,
        stop: StopSignal,
    ) -> None:
        self._clock = clock
        self._stream = stream
        first = start if known is None else known.first_lsn
        self._keeper = TailKeeper(first)
        self._recent = RecentLog(first, int(facts["wal_segment_size"]))
        self._known = known
        self._pending = _Pending(start, bytearray())
        self._facts = facts
        self._segment_size = int(facts["wal_segment_size"])
        self._interval_seconds = interval_seconds
        # Unflushed log is given a moment: the server's own writer flushes what was committed.
        self._grace_seconds = min(1.0, interval_seconds / 2)
        self._stop = stop

    @property
    def facts(self) -> Mapping[str, Any]:
        """As a log backup taken now would have them."""
        return self._facts

    def prove(self, watch: Watch) -> None:
        """Read the known log once more; LogChainBroken if it is another."""
        known = self._known
        if known is None:
            return
        data = bytearray()
        began = time.monotonic()
        while len(data) < known.last_lsn - known.first_lsn:
            watch()
            chunk = self._stream.next_chunk(_LOOK_SECONDS)
            if chunk is not None:
                data += chunk
                self._note(chunk)
            elif time.monotonic() - began > _STALLED_SECONDS:
                raise BackupFailed("the server does not send the log that it has")
        size = known.last_lsn - known.first_lsn
        if not is_tail(bytes(data[:size]), known):
            raise another_log(known)
        self._pending.data += data[size:]

    def pieces(self) -> Iterator[ShippedPiece]:
        """See Shipment."""
        while True:
            due = time.monotonic() + self._interval_seconds
            yield from self._proven()
            while (left := due - time.monotonic()) > 0:
                self._stop.check()
                self._take(min(left, _LOOK_SECONDS))
                yield from self._overflow()

    def _proven(self) -> Iterator[ShippedPiece]:
        """Look at the clock, wait for all log up to then, and hand it out."""
        covered = self._clock.covered()
        end = covered.lsn
        moved_at = time.monotonic()
        is_pushed = False
        while self._pending.last_lsn < end:
            self._stop.check()
            if self._take(_LOOK_SECONDS):
                moved_at = time.monotonic()
                yield from self._overflow()
                continue
            stands_for = time.monotonic() - moved_at
            if stands_for > self._grace_seconds and not is_pushed:
                self._clock.push()
                is_pushed = True
            if stands_for > _STALLED_SECONDS:
                raise BackupFailed(
                    f"the log stream stands at {format_lsn(self._pending.last_lsn)}, before the"
                    f" log's end at {format_lsn(end)}"
                )
        yield self._cut(covered.covers_until)

    def _overflow(self) -> Iterator[ShippedPiece]:
        if len(self._pending.data) >= PIECE_BYTES:
            yield self._cut(None)

    def _cut(self, covers_until: datetime | None) -> ShippedPiece:
        finished_at = self._clock.now(self._pending.last_lsn, self._stop.check)
        tail = self._keeper.tail(self._segment_size)
        pending = self._pending
        piece = ShippedPiece(
            first_lsn=pending.first_lsn,
            last_lsn=pending.last_lsn,
            data=bytes(pending.data),
            covers_until=covers_until,
            finished_at=finished_at,
            known_by={"log_tail": tail.as_fact() if tail else None},
        )
        self._pending = _Pending(pending.last_lsn, bytearray())
        return piece

    def _take(self, timeout_seconds: float) -> bool:
        """Wait for log; whether any came."""
        chunk = self._stream.next_chunk(timeout_seconds)
        if chunk is None:
            return False
        self._pending.data += chunk
        self._note(chunk)
        return True

    def _note(self, chunk: memoryview) -> None:
        for _ in self._keeper.passing([chunk]):
            pass
        self._recent.note(chunk)
        self._clock.look(self._recent)


@contextmanager
def open_shipment(
    target: ConnectionString,
    *,
    since: LogPosition,
    since_facts: Mapping[str, Any] | None,
    slot_name: str,
    system_identifier: str | None,
    primary: ConnectionString | None,
    interval_seconds: float,
    stop: StopSignal,
) -> Iterator[LogShipment]:
    """Connect, prove that the server's log is the one that ended at ``since``, and stream on.

    Reports nothing as received: the permanent slot keeps what a log backup still has to seal.
    LogChainBroken when the server is on another timeline, too, even a child of that of ``since``:
    how it got there is for the next log backup to find out.
    """
    with ReplicationConnection.open(target) as connection, SqlConnection.open(target) as session:
        settings = read_settings(session)
        require_supported(settings, where=target.where)
        identity = identify(connection, stop.check)
        if since.lineage == str(identity.timeline):
            identity = wait_until_received(connection, identity, since.lsn, stop.check)
        require_identity(
            (identity,), session=session, expected=system_identifier, where=target.where
        )
        require_descent(since, identity, read_histories(connection, identity.timeline, stop.check))
        if str(identity.timeline) != since.lineage:
            raise LogChainBroken(
                f"the server is on timeline {identity.timeline}, and the log in the vault ends on"
                f" timeline {since.lineage}",
                hint="the next log backup follows; shipping goes on after it",
            )
        require_log_held(read_slot(session, slot_name), slot_name, since)
        facts = read_facts(session, identity, settings)
        known = LogTail.of_facts(since_facts, at=since.lsn)
        start = since.lsn if known is None else known.first_lsn
        with (
            _shipping_clock(
                target,
                session,
                connection,
                identity,
                primary,
                int(facts["wal_segment_size"]),
                stop.check,
            ) as clock,
            WalStream(
                connection, timeline=identity.timeline, start=start, reports_written=True
            ) as stream,
        ):
            stream.begin(stop.check)
            shipment = LogShipment(
                clock,
                stream,
                start=since.lsn,
                known=known,
                facts=facts,
                interval_seconds=interval_seconds,
                stop=stop,
            )
            shipment.prove(stop.check)
            yield shipment


@contextmanager
def _shipping_clock(
    target: ConnectionString,
    session: SqlConnection,
    connection: ReplicationConnection,
    identity: SystemIdentity,
    primary: ConnectionString | None,
    segment_size: int,
    watch: Watch,
) -> Iterator[ShippingClock]:
    """Who is asked for the instants of the log that ``connection`` will send."""
    if not identity.is_standby:
        yield PrimaryShippingClock(session, segment_size)
        return
    with ReplicationConnection.open(target) as asking:
        require_one_server(session, connection, asking, where=target.where)
        standby = StandbyClock(session)
        with open_primary(primary, identity) as asked:
            if asked.session is None:
                why_not = "" if primary is None else asked.why_not
                yield StandbyShippingClock(standby, asking, identity, watch, why_not=why_not)
            else:
                followed = FollowedClock(asked.session, standby, lambda: 0)
                yield FollowedShippingClock(
                    followed, asked.session, segment_size, asking, identity, watch
                )


def is_known_log(
    target: ConnectionString, position: LogPosition, facts: Mapping[str, Any], watch: Watch
) -> bool | None:
    """See Engine.is_same_log. ServerBehind for a standby that has not come so far; LogChainBroken
    when the server does not have that log any more and cannot tell otherwise."""
    known = LogTail.of_facts(facts, at=position.lsn)
    with ReplicationConnection.open(target) as connection:
        identity = identify(connection, watch)
        if position.lineage == str(identity.timeline):
            identity = wait_until_received(connection, identity, position.lsn, watch)
        line = read_histories(connection, identity.timeline, watch).line
        if not line.holds(position):
            return None
        if position.lsn > identity.flushed_lsn:
            return False
        if known is None:
            return _has_run_since(target, facts) or None
        data = bytearray()
        with WalStream(
            connection, timeline=int(position.lineage), start=known.first_lsn, end=position.lsn
        ) as stream:
            try:
                stream.begin(watch)
                for chunk in stream.chunks(watch):
                    data += chunk
            except LogChainBroken:
                if _has_run_since(target, facts):
                    return True
                raise
        return is_tail(bytes(data), known)


def _has_run_since(target: ConnectionString, facts: Mapping[str, Any]) -> bool:
    """Whether it is the very run of the server by which these facts were told: as long as it is not
    started again, it cannot be set back."""
    started_at = facts.get("server_started_at")
    if started_at is None:
        return False
    with SqlConnection.open(target) as session:
        now = session.value(
            "SELECT extract(epoch FROM pg_postmaster_start_time())::text",
            doing="asking when the server was started",
        )
    return bool(now == started_at)
