"""The SQL Server engine: native backups over T-SQL, delivered through a folder that both sides see
or written into the vault by the server itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from sqlbak.engines.port import (
    BackupResult,
    DifferentialBase,
    Inspection,
    LogGap,
    PayloadSink,
    Shipment,
)
from sqlbak.engines.sqlserver.databackup import take_differential, take_full
from sqlbak.engines.sqlserver.inspection import inspect_database
from sqlbak.engines.sqlserver.logbackup import (
    explain_gap,
    left_in_vault,
    oldest_position,
    take_left,
    take_log,
)
from sqlbak.engines.sqlserver.source import Source
from sqlbak.engines.sqlserver.url_delivery import UrlPlace
from sqlbak.errors import FeatureUnsupported
from sqlbak.model import LogPosition
from sqlbak.progress import Progress
from sqlbak.stopping import NEVER, StopSignal

__all__ = ["SqlServerEngine"]


class SqlServerEngine:
    """One database of one instance. See engines.port.Engine.

    After ``inspect`` the engine means the database that it saw then: another one that takes its
    name meanwhile is refused.
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    def inspect(self) -> Inspection:
        """Look at the server and the database without changing anything."""
        inspection = inspect_database(self._source)
        if inspection.items:
            self._source = replace(self._source, family=inspection.items[0].identity)
        return inspection

    def full(
        self,
        sink: PayloadSink,
        *,
        label: str,
        progress: Progress,
        stop: StopSignal,
        is_copy_only: bool = False,
    ) -> BackupResult:
        """BACKUP DATABASE. Removes what crashed runs left of fulls and differentials."""
        return take_full(
            self._source, sink, label=label, is_copy_only=is_copy_only, progress=progress, stop=stop
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
        """BACKUP DATABASE WITH DIFFERENTIAL, if the server's differentials are of ``base``."""
        return take_differential(
            self._source, base, sink, label=label, progress=progress, stop=stop
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
        """BACKUP LOG, if the server's log goes on from ``since``; or a log backup that an earlier
        run took and could not ship. ``leaves_restoring``: the tail, before the database is
        restored over."""
        return take_log(
            self._source,
            sink,
            since=since,
            since_facts=since_facts,
            leaves_restoring=leaves_restoring,
            progress=progress,
            stop=stop,
        )

    @property
    def writes_into_vault(self) -> bool:
        """Whether the server itself writes what it backs up into the vault."""
        return isinstance(self._source.folder, UrlPlace)

    def left_log(self, prefix: str, names: Sequence[str]) -> LogPosition | None:
        """Where the log backup ends that a dead run had the server write to objects of these names
        below ``prefix`` of the vault; None when there is none that is whole. BackupFailed while the
        server still writes there."""
        return left_in_vault(self._source, prefix, names, stop=NEVER)

    def take_left_log(
        self,
        point_id: str,
        names: Sequence[str],
        sink: PayloadSink,
        *,
        progress: Progress,
        stop: StopSignal,
    ) -> BackupResult:
        """That log backup, of the dead run's ``point_id``, as one of a new point."""
        return take_left(
            self._source, sink, point_id=point_id, names=names, progress=progress, stop=stop
        )

    def oldest_log(self) -> LogPosition | None:
        """Where the next log backup begins; None: there is none to take."""
        return oldest_position(self._source, stop=NEVER)

    def log_gap(self, since: LogPosition) -> LogGap | None:
        """Who took the log since then, or what ended its chain."""
        return explain_gap(self._source, since, stop=NEVER)

    def acknowledge(self, position: LogPosition) -> None:
        """Nothing: BACKUP LOG itself tells the server what it may discard."""
        del position

    def ship(
        self,
        since: LogPosition,
        *,
        since_facts: Mapping[str, Any] | None,
        interval_seconds: float,
        stop: StopSignal,
    ) -> AbstractContextManager[Shipment]:
        """FeatureUnsupported: SQL Server gives its log out by BACKUP LOG only."""
        del since, since_facts, interval_seconds, stop
        raise FeatureUnsupported(
            f"{self._source.where}: the log of SQL Server cannot be shipped continuously",
            hint="write log: 15m without log_shipping",
        )

    def is_same_log(self, position: LogPosition, facts: Mapping[str, Any]) -> bool | None:
        """None: nothing is ever shipped ahead."""
        del position, facts
        return None
