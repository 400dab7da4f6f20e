"""The PostgreSQL engine: physical backups over the replication protocol, without an agent."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from sqlbak.engines.port import (
    BackupResult,
    DifferentialBase,
    Inspection,
    LogGap,
    PayloadSink,
    Shipment,
)
from sqlbak.engines.postgres.commitclock import open_primary
from sqlbak.engines.postgres.connection import ReplicationConnection, SqlConnection
from sqlbak.engines.postgres.differentialbackup import take_differential
from sqlbak.engines.postgres.dsn import ConnectionString
from sqlbak.engines.postgres.fullbackup import take_full
from sqlbak.engines.postgres.identity import (
    SystemIdentity,
    identify,
    read_histories,
    require_identity,
)
from sqlbak.engines.postgres.inspection import inspect_server
from sqlbak.engines.postgres.logbackup import require_descent, take_log
from sqlbak.engines.postgres.shipping import is_known_log, open_shipment
from sqlbak.engines.postgres.slot import (
    SlotState,
    advance_slot,
    check_slot_name,
    drop_slot,
    read_slot,
)
from sqlbak.errors import BackupFailed, FeatureUnsupported, LogChainBroken
from sqlbak.model import LogPosition
from sqlbak.progress import Progress
from sqlbak.stopping import NEVER, StopSignal

__all__ = ["PostgresEngine"]


class PostgresEngine:
    """One PostgreSQL cluster, reached over the network or a socket. See engines.port.Engine.

    Args:
        dsn: any form that libpq knows. Never shown.
        slot_name: the permanent replication slot of this item on the server.
        system_identifier: the cluster that is meant to be there; every backup of another one is
            refused with LogChainBroken. None: whichever it is.
        primary_dsn: where ``dsn`` leads to a standby, how to reach its primary, to have the
            heartbeat written there. Needs no right of replication. Never shown.
        connect_timeout_seconds: for each connection attempt.

    Raises:
        UsageError: the dsn or the slot's name cannot be read.
    """

    def __init__(
        self,
        dsn: str,
        *,
        slot_name: str,
        system_identifier: str | None = None,
        primary_dsn: str | None = None,
        connect_timeout_seconds: int = 15,
    ) -> None:
        check_slot_name(slot_name)
        self._target = ConnectionString.parse(dsn, connect_timeout_seconds=connect_timeout_seconds)
        self._primary = (
            None
            if primary_dsn is None
            else ConnectionString.parse(
                primary_dsn, connect_timeout_seconds=connect_timeout_seconds
            )
        )
        self._slot_name = slot_name
        self._system_identifier = system_identifier

    def inspect(self) -> Inspection:
        """Look at the server without changing anything."""
        return inspect_server(self._target, slot_name=self._slot_name, primary=self._primary)

    def full(
        self,
        sink: PayloadSink,
        *,
        label: str,
        progress: Progress,
        stop: StopSignal,
        is_copy_only: bool = False,  # noqa: ARG002 - PostgreSQL keeps no account of fulls
    ) -> BackupResult:
        """A full backup; makes the permanent slot if there is none or it was lost."""
        return take_full(
            self._target,
            sink,
            slot_name=self._slot_name,
            label=label,
            system_identifier=self._system_identifier,
            primary=self._primary,
            progress=progress,
            stop=stop,
        )

    def differential(
        self,
        base: DifferentialBase,
        sink: PayloadSink,
        *,
        label: str,
        progress: Progress,
        stop: StopSignal,
    ) -> BackupResult:
        """What changed since a full; ``pages`` in whatever method asked for where the server
        cannot be trusted to know (the result's notes then say why)."""
        return take_differential(
            self._target,
            base,
            sink,
            slot_name=self._slot_name,
            label=label,
            system_identifier=self._system_identifier,
            primary=self._primary,
            progress=progress,
            stop=stop,
        )

    def log(
        self,
        since: LogPosition,
        sink: PayloadSink,
        *,
        progress: Progress,
        stop: StopSignal,
        since_facts: Mapping[str, Any] | None = None,
        leaves_restoring: bool = False,
    ) -> BackupResult:
        """The log from ``since`` to now, or to the end of the timeline of ``since``.

        ``since_facts`` are the facts of the recovery point that ended at ``since``. With them a
        cluster that was put back to an older copy of itself and written on is recognised
        (LogChainBroken); without them its log would be joined to one that it does not continue.
        """
        if leaves_restoring:
            raise FeatureUnsupported(
                "PostgreSQL has no tail of the log that ends its writes",
                hint="stop the server; its log is complete then",
            )
        return take_log(
            self._target,
            sink,
            since=since,
            since_facts=since_facts,
            slot_name=self._slot_name,
            system_identifier=self._system_identifier,
            primary=self._primary,
            progress=progress,
            stop=stop,
        )

    def ship(
        self,
        since: LogPosition,
        *,
        since_facts: Mapping[str, Any] | None,
        interval_seconds: float,
        stop: StopSignal,
    ) -> AbstractContextManager[Shipment]:
        """The log from ``since`` on, while it is written. Needs one WAL sender and one session;
        of a standby two WAL senders."""
        return open_shipment(
            self._target,
            since=since,
            since_facts=since_facts,
            slot_name=self._slot_name,
            system_identifier=self._system_identifier,
            primary=self._primary,
            interval_seconds=interval_seconds,
            stop=stop,
        )

    def is_same_log(self, position: LogPosition, facts: Mapping[str, Any]) -> bool | None:
        """Whether the server's log up to ``position`` is the one known by ``facts``."""
        return is_known_log(self._target, position, facts, NEVER.check)

    def slot(self) -> SlotState | None:
        """The permanent slot as it is now; None if there is none."""
        with SqlConnection.open(self._target) as session:
            return read_slot(session, self._slot_name)

    def oldest_log(self) -> LogPosition | None:
        """Where the oldest log begins that the permanent slot holds; None: it holds nothing."""
        slot = self.slot()
        if slot is None or slot.restart_lsn is None or slot.is_lost:
            return None
        with ReplicationConnection.open(self._target) as connection:
            identity = identify(connection, NEVER.check)
            line = read_histories(connection, identity.timeline, NEVER.check).line
        return LogPosition(str(line.timeline_of(slot.restart_lsn)), slot.restart_lsn)

    def log_gap(self, since: LogPosition) -> LogGap | None:  # noqa: ARG002 - the slot tells no more
        """Nothing more is known."""
        return None

    def acknowledge(self, position: LogPosition) -> None:
        """Let the server discard log before ``position``, which must lie in its own past
        (LogChainBroken otherwise: what it holds then is not what the vault has). Repeating it, or
        an older position, changes nothing. Of a standby, a slot of the same name on its primary is
        moved along, so that log can be taken from there again."""
        with (
            SqlConnection.open(self._target) as session,
            ReplicationConnection.open(self._target) as connection,
        ):
            identity = identify(connection, NEVER.check)
            require_identity(
                (identity,),
                session=session,
                expected=self._system_identifier,
                where=self._target.where,
            )
            histories = read_histories(connection, identity.timeline, NEVER.check)
            require_descent(position, identity, histories)
            advance_slot(session, self._slot_name, position.lsn)
        if identity.is_standby:
            self._acknowledge_to_primary(identity, position)

    def _acknowledge_to_primary(self, standby: SystemIdentity, position: LogPosition) -> None:
        """Never LogChainBroken: the log of this item comes from the standby. Where the primary
        cannot be asked, the next time will do: its log is kept until then."""
        with open_primary(self._primary, standby) as primary:
            if primary.session is None:
                return
            slot = read_slot(primary.session, self._slot_name)
            if slot is None or not slot.is_physical or slot.restart_lsn is None or slot.is_lost:
                return
            try:
                advance_slot(primary.session, self._slot_name, position.lsn)
            except LogChainBroken as gone:
                raise BackupFailed(gone.message) from gone

    def drop_slot(self) -> bool:
        """End the protection of this item on the server: it keeps log for us no longer. False if
        there was no slot."""
        with SqlConnection.open(self._target) as session:
            return drop_slot(session, self._slot_name)
