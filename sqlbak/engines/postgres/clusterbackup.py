"""A backup of a whole cluster: BASE_BACKUP, and beside it all the log that its restore needs.

What a full and a differential have in common; where they differ is a ClusterBackupKind.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

from sqlbak.engines.port import BackupResult, PayloadSink
from sqlbak.engines.postgres.basebackup import BaseBackupStart, receive_base_backup
from sqlbak.engines.postgres.commitclock import CommitClock, StandbyClock, commit_clock
from sqlbak.engines.postgres.connection import ReplicationConnection, SqlConnection, Watch
from sqlbak.engines.postgres.dsn import ConnectionString
from sqlbak.engines.postgres.heartbeat import read_clock
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
from sqlbak.engines.postgres.logtail import TailKeeper
from sqlbak.engines.postgres.recentlog import RecentLog
from sqlbak.engines.postgres.slot import ensure_slot
from sqlbak.engines.postgres.timelines import format_lsn, segment_start
from sqlbak.engines.postgres.walstream import WalStream, may_release_commits
from sqlbak.errors import BackupFailed, LogChainBroken, ServerNotReady
from sqlbak.model import PointType
from sqlbak.progress import Progress
from sqlbak.stopping import StopSignal

__all__ = ["ClusterBackupKind", "ServerNow", "take_cluster_backup"]


@dataclass(frozen=True, slots=True)
class ServerNow:
    """The server as a backup finds it, and the session that asked."""

    session: SqlConnection
    identity: SystemIdentity
    facts: Mapping[str, Any]
    settings: Mapping[str, str | None]


class ClusterBackupKind(Protocol):
    """What is special about one kind of backup. Its methods are called once, in this order."""

    @property
    def point_type(self) -> PointType:
        """Full or differential."""

    def check(self, server: ServerNow) -> None:
        """Look at the server, before anything is done; raise what stands in the way."""

    def begin(self, connection: ReplicationConnection, label: str, watch: Watch) -> BaseBackupStart:
        """Have the server begin BASE_BACKUP."""

    def receiving(self, sink: PayloadSink) -> AbstractContextManager[PayloadSink]:
        """What the server's archives and manifest go through on their way to ``sink``."""

    def facts(self) -> Mapping[str, Any]:
        """For the manifest, beside what every backup of a cluster tells."""


def take_cluster_backup(
    target: ConnectionString,
    sink: PayloadSink,
    kind: ClusterBackupKind,
    *,
    slot_name: str,
    label: str,
    system_identifier: str | None,
    primary: ConnectionString | None,
    progress: Progress,
    stop: StopSignal,
) -> BackupResult:
    """Take one. Streams: ``base.tar``, ``<oid>.tar`` and ``backup_manifest`` as ``kind`` passes
    them on, and ``wal``: raw log from the start of the segment that holds the backup's start up to
    ``last_lsn``.

    Makes the permanent slot if there is none, before the backup starts, so that the first log
    backup finds all that follows. ``primary``: who can be asked about a standby's log.

    A standby begins at its last restartpoint and is consistent from the end of its minimum recovery
    point on; ``stop_lsn`` is that end (do_pg_backup_stop in xlog.c).
    """
    with SqlConnection.open(target) as session:
        settings = read_settings(session)
        require_supported(settings, where=target.where)
        started_at = read_clock(session)
        with (
            ReplicationConnection.open(target) as wal_connection,
            ReplicationConnection.open(target) as base_connection,
        ):
            identity = identify(base_connection, stop.check)
            require_identity(
                (identity, identify(wal_connection, stop.check)),
                session=session,
                expected=system_identifier,
                where=target.where,
            )
            if identity.is_standby:
                require_one_server(session, wal_connection, base_connection, where=target.where)
                with commit_clock(session, base_connection, identity, primary, stop.check) as clock:
                    _require_provable(clock, where=target.where)
            histories = read_histories(base_connection, identity.timeline, stop.check)
            facts = read_facts(session, identity, settings)
            kind.check(ServerNow(session, identity, facts, settings))
            slot_action = ensure_slot(session, slot_name)
            # Not needed for hours; a firewall between us might cut it meanwhile.
            session.close()

            progress.phase("checkpoint")
            temporary_slot = _make_temporary_slot(wal_connection, stop.check)
            start = kind.begin(base_connection, label, stop.check)
            if start.timeline != identity.timeline:
                raise BackupFailed(f"{target.where}: the timeline changed as the backup began")
            progress.phase("base backup", start.total_bytes)
            wal_first_lsn = segment_start(start.lsn, facts["wal_segment_size"])
            wal = WalStream(
                wal_connection,
                timeline=start.timeline,
                start=wal_first_lsn,
                reports_flush=not may_release_commits(settings["synchronous_standby_names"]),
            )
            with wal:
                wal.begin(stop.check, slot=temporary_slot)
                keeper = TailKeeper(wal_first_lsn)
                recent = RecentLog(wal_first_lsn, facts["wal_segment_size"])
                lookers = (keeper, recent) if identity.is_standby else (keeper,)
                with _WalPump(wal, lookers, sink, stop) as pump:

                    def watch() -> None:
                        stop.check()
                        pump.check()

                    with kind.receiving(sink) as receiver:
                        stop_lsn = receive_base_backup(base_connection, receiver, progress, watch)
                    with SqlConnection.open(target) as closing_session:
                        require_identity(
                            (identity, identify(base_connection, watch)),
                            session=closing_session,
                            expected=system_identifier,
                            where=target.where,
                        )
                        with commit_clock(
                            closing_session, base_connection, identity, primary, watch
                        ) as clock:
                            cut = clock.cut(stop_lsn, watch)
                            if cut.lsn < stop_lsn:
                                raise BackupFailed(
                                    f"{target.where}: the log ends at {format_lsn(cut.lsn)},"
                                    " before the end of the base backup at"
                                    f" {format_lsn(stop_lsn)}"
                                )
                            if identity.is_standby:
                                require_one_server(
                                    closing_session, base_connection, where=target.where
                                )
                                # What was read in between was read of this timeline.
                                require_identity(
                                    (identity, identify(base_connection, watch)),
                                    session=closing_session,
                                    expected=system_identifier,
                                    where=target.where,
                                )
                            progress.phase("log of the base backup")
                            pump.finish(cut.lsn, stop.check)
                            covers_until = clock.confirmed(
                                cut.covers_until, recent if identity.is_standby else None
                            )
                            finished_at = clock.now()
                            _require_provable(clock, where=target.where)
    tail = keeper.tail(facts["wal_segment_size"])
    return BackupResult(
        type=kind.point_type,
        lineage=str(start.timeline),
        first_lsn=start.lsn,
        last_lsn=wal.position,
        started_at=started_at,
        finished_at=finished_at,
        reachable_from=covers_until,
        covers_until=covers_until,
        forks=histories.line.forks(),
        histories=histories.files,
        facts={
            **facts,
            "start_lsn": start.lsn,
            "stop_lsn": stop_lsn,
            "wal_first_lsn": wal_first_lsn,
            "log_tail": tail.as_fact() if tail else None,
            "tablespaces": [
                {
                    "oid": tablespace.oid,
                    "location": tablespace.location,
                    "size_bytes": tablespace.size_bytes,
                }
                for tablespace in start.tablespaces
            ],
            "data_checksums": settings["data_checksums"] == "on",
            "label": label,
            "slot": {"name": slot_name, "action": slot_action},
            **kind.facts(),
        },
        notes=tuple(clock.notes),
    )


def _require_provable(clock: CommitClock, *, where: str) -> None:
    """ServerNotReady where a standby could not tell any instant: nothing could be restored by
    time with such a backup."""
    if isinstance(clock, StandbyClock) and clock.last_transaction_end() is None:
        raise ServerNotReady(
            f"{where} is a standby that has replayed no transaction since it was started, so it"
            " cannot tell which instant its data is of",
            hint="set primary_dsn, or commit a transaction on the primary and try again",
        )


def _make_temporary_slot(connection: ReplicationConnection, watch: Watch) -> str:
    """A slot that lives as long as this session and keeps log from the last checkpoint on: while
    the backup runs, log backups move the permanent slot past what it needs."""
    name = f"sqlbak_base_{secrets.token_hex(8)}"
    connection.rows(
        f'CREATE_REPLICATION_SLOT "{name}" TEMPORARY PHYSICAL (RESERVE_WAL true)',
        watch,
        doing="creating a temporary replication slot",
    )
    return name


class _WalPump:
    """The thread that carries the log stream into the sink. Leaving the ``with`` block ends it;
    unless it was ``finish``ed, the stream is discarded."""

    def __init__(
        self,
        wal: WalStream,
        lookers: Sequence[TailKeeper | RecentLog],
        sink: PayloadSink,
        stop: StopSignal,
    ) -> None:
        self._wal = wal
        self._lookers = lookers
        self._sink = sink
        self._stop = stop
        self._is_abandoned = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="wal-pump")

    def _run(self) -> None:
        try:
            with self._sink.stream("wal") as writer:
                chunks = self._wal.chunks(self._watch)
                for looker in self._lookers:
                    chunks = looker.passing(chunks)
                for chunk in chunks:
                    writer.write(chunk)
        except BaseException as problem:  # noqa: BLE001  raised again by ``check``
            self._failure = problem

    def _watch(self) -> None:
        self._stop.check()
        if self._is_abandoned.is_set():
            raise BackupFailed("the backup was given up")

    def check(self) -> None:
        """Raise what the thread failed with, if it failed."""
        if isinstance(self._failure, LogChainBroken):
            raise BackupFailed(self._failure.message, hint="take the backup again")
        if self._failure is not None:
            raise self._failure

    def finish(self, end: int, watch: Watch) -> None:
        """Carry on to ``end``, then wait until all of it is in the sink."""
        self._wal.end_at(end)
        while self._thread.is_alive():
            self._thread.join(0.05)
            watch()
        self.check()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_abandoned.set()
        self._thread.join()
