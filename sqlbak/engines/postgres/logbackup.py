"""A log backup: raw log from where the last one ended to a position that proves an instant."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlbak.engines.port import BackupResult, PayloadSink
from sqlbak.engines.postgres.commitclock import commit_clock, wait_until_received
from sqlbak.engines.postgres.connection import ReplicationConnection, SqlConnection
from sqlbak.engines.postgres.dsn import ConnectionString
from sqlbak.engines.postgres.heartbeat import read_clock
from sqlbak.engines.postgres.identity import (
    Histories,
    SystemIdentity,
    identify,
    read_facts,
    read_histories,
    read_settings,
    require_identity,
    require_one_server,
    require_supported,
)
from sqlbak.engines.postgres.logtail import LogTail, TailKeeper, without_tail
from sqlbak.engines.postgres.recentlog import RecentLog
from sqlbak.engines.postgres.slot import SlotState, read_slot
from sqlbak.engines.postgres.timelines import format_lsn
from sqlbak.engines.postgres.walstream import WalStream
from sqlbak.errors import LogChainBroken, LogRewritten, ServerBehind
from sqlbak.model import LogPosition, PointType
from sqlbak.progress import Progress
from sqlbak.stopping import StopSignal

__all__ = ["require_descent", "require_log_held", "take_log"]

_FULL_HEALS = "take a full backup; it starts a new chain"


def take_log(
    target: ConnectionString,
    sink: PayloadSink,
    *,
    since: LogPosition,
    since_facts: Mapping[str, Any] | None,
    slot_name: str,
    system_identifier: str | None,
    primary: ConnectionString | None,
    progress: Progress,
    stop: StopSignal,
) -> BackupResult:
    """Take one, as the stream ``wal``: exactly the bytes from ``since`` to ``last_lsn``, which may
    both lie in the middle of a segment or record. ``since_facts`` are the facts of the recovery
    point that ended at ``since``: with them, the server's log is proven to be the same one.

    When the server has left the timeline of ``since`` behind, the log ends where it was left, and
    ``continues_on`` says where to go on. ``primary``: who can be asked about a standby's log;
    ServerBehind when a standby does not come as far as ``since``.
    """
    with ReplicationConnection.open(target) as connection:
        covers_until: datetime | None = None
        continues_on: LogPosition | None = None
        with SqlConnection.open(target) as session:
            settings = read_settings(session)
            require_supported(settings, where=target.where)
            started_at = read_clock(session)
            identity = identify(connection, stop.check)
            if since.lineage == str(identity.timeline):
                identity = wait_until_received(connection, identity, since.lsn, stop.check)
            require_identity(
                (identity,), session=session, expected=system_identifier, where=target.where
            )
            if identity.is_standby:
                require_one_server(session, connection, where=target.where)
            histories = read_histories(connection, identity.timeline, stop.check)
            require_descent(since, identity, histories)
            require_log_held(read_slot(session, slot_name), slot_name, since)
            facts = read_facts(session, identity, settings)
            left_at = histories.line.left_at(int(since.lineage))
            with commit_clock(session, connection, identity, primary, stop.check) as clock:
                if left_at is None:
                    cut = clock.cut(since.lsn, stop.check)
                    end, covers_until = cut.lsn, cut.covers_until
                else:
                    # The commits around the end of an abandoned timeline have no clock to trust:
                    # nothing was read from it before that end was known.
                    end = left_at
                    child = histories.line.child_of(int(since.lineage))
                    continues_on = LogPosition(str(child), left_at)
                finished_at = clock.now()
            if identity.is_standby:
                # What was read in between was read of this timeline.
                require_identity(
                    (identity, identify(connection, stop.check)),
                    session=session,
                    expected=system_identifier,
                    where=target.where,
                )

        progress.phase("log", end - since.lsn)
        known = LogTail.of_facts(since_facts, at=since.lsn)
        tail = known
        recent: RecentLog | None = None
        with sink.stream("wal") as writer:
            # Even where nothing was written since: that is only true of the log that is known.
            if end > since.lsn or known is not None:
                start = since.lsn if known is None else known.first_lsn
                with WalStream(
                    connection, timeline=int(since.lineage), start=start, end=end
                ) as wal:
                    wal.begin(stop.check)
                    keeper = TailKeeper(start)
                    chunks = keeper.passing(wal.chunks(stop.check))
                    if identity.is_standby:
                        recent = RecentLog(start, facts["wal_segment_size"])
                        chunks = recent.passing(chunks)
                    for chunk in chunks if known is None else without_tail(chunks, known):
                        writer.write(chunk)
                        progress.advance(len(chunk))
                tail = keeper.tail(facts["wal_segment_size"])
    covers_until = clock.confirmed(covers_until, recent)
    return BackupResult(
        type=PointType.LOG,
        lineage=since.lineage,
        first_lsn=since.lsn,
        last_lsn=end,
        started_at=started_at,
        finished_at=finished_at,
        covers_until=covers_until,
        forks=histories.line.forks(),
        histories=histories.files,
        facts={**facts, "log_tail": tail.as_fact() if tail else None},
        continues_on=continues_on,
        notes=tuple(clock.notes),
    )


def require_descent(position: LogPosition, identity: SystemIdentity, histories: Histories) -> None:
    """LogChainBroken unless the server's present state descends from ``position``; when it has not
    come that far yet on the same timeline, ServerBehind for a standby, else LogRewritten."""
    where = f"{format_lsn(position.lsn)} on timeline {position.lineage}"
    if not histories.line.holds(position):
        raise LogChainBroken(
            f"the server is on timeline {identity.timeline}, which does not descend from {where}:"
            " it was restored, or another server was promoted, from before that position",
            hint=_FULL_HEALS,
        )
    if position.lsn > identity.flushed_lsn and identity.is_standby:
        raise ServerBehind(
            f"the standby has log up to {format_lsn(identity.flushed_lsn)}, not yet up to {where},"
            " which the vault holds",
            hint="the next run tries again; pg_stat_wal_receiver on the standby says whether it"
            " follows its primary",
        )
    if position.lsn > identity.flushed_lsn:
        raise LogRewritten(
            f"the server's log ends at {format_lsn(identity.flushed_lsn)}, before {where}:"
            " it was set back to an older state",
            hint=_FULL_HEALS,
        )


def require_log_held(slot: SlotState | None, name: str, since: LogPosition) -> None:
    """LogChainBroken unless the slot still makes the server keep the log from ``since`` on."""
    if slot is None:
        raise LogChainBroken(
            f"the replication slot {name} does not exist, so nothing keeps the log",
            hint=f"{_FULL_HEALS}, and makes the slot. Slots do not survive a failover",
        )
    if slot.is_lost or slot.restart_lsn is None:
        raise LogChainBroken(
            f"the replication slot {name} is lost: the server discarded log that it held",
            hint=f"{_FULL_HEALS}. To keep more: raise max_slot_wal_keep_size"
            " (and idle_replication_slot_timeout, where it is set)",
        )
    if slot.restart_lsn > since.lsn:
        raise LogChainBroken(
            f"the replication slot {name} keeps log from {format_lsn(slot.restart_lsn)} on only,"
            f" not from {format_lsn(since.lsn)}",
            hint=f"{_FULL_HEALS}. Does another program use this slot?",
        )
