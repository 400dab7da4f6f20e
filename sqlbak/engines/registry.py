"""Which code stands behind each engine. Imports an engine's drivers only when it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

from sqlbak.engines.port import Engine, RestoreOutcome, RestoreStep, RestoreTarget
from sqlbak.errors import FeatureUnsupported
from sqlbak.model import EngineName
from sqlbak.progress import Progress
from sqlbak.stopping import StopSignal

__all__ = ["LogFeeder", "LogOrder", "Restorer", "log_feeder", "postgres_engine", "restorer"]


class Restorer(Protocol):
    """Restores one chain; needs no connection to the server that it was taken from."""

    def __call__(
        self,
        steps: Sequence[RestoreStep],
        *,
        stop_at: datetime | None,
        lineage: str,
        histories: Mapping[str, bytes],
        target: RestoreTarget,
        progress: Progress,
        stop: StopSignal,
        stop_lsn: int | None = None,
        item_id: str = "",
    ) -> RestoreOutcome:
        """Restore ``steps`` up to ``stop_at``, or to what lies before ``stop_lsn`` in the log (both
        None: to the end of the last one). ``item_id``: by which the steps can be found again."""


class LogOrder(Protocol):
    """Which log a restored database that the operator starts waits for."""

    @property
    def item_id(self) -> str:
        """The item that it is a restore of."""

    @property
    def lineage(self) -> str:
        """The log's lineage."""

    @property
    def full(self) -> str:
        """Id of the full on which it stands."""

    @property
    def differential(self) -> str | None:
        """Id of the differential over that full."""

    @property
    def last_lsn(self) -> int:
        """Where the log ends."""


class LogFeeder(Protocol):
    """Feeds log to a restored database that the operator starts."""

    def read_order(self, directory: Path) -> LogOrder:
        """What the database in ``directory`` waits for. TargetNotUsable: for nothing."""

    def feed_cluster(
        self,
        steps: Sequence[RestoreStep],
        directory: Path,
        *,
        histories: Mapping[str, bytes],
        feed_command: Sequence[str],
        log_space_bytes: int | None,
        progress: Progress,
        stop: StopSignal,
    ) -> LogOrder:
        """Feed it until it needs no more."""


def log_feeder() -> LogFeeder:
    """What feeds log to PostgreSQL, the only engine that takes it while it recovers."""
    from sqlbak.engines.postgres import feeding

    return feeding


def postgres_engine(dsn: str, *, slot_name: str) -> Engine:
    """A PostgreSQL cluster; connects only when used."""
    from sqlbak.engines.postgres.engine import PostgresEngine

    return PostgresEngine(dsn, slot_name=slot_name)


def restorer(engine: EngineName) -> Restorer:
    """What restores backups of that engine. FeatureUnsupported where this version cannot."""
    if engine is not EngineName.POSTGRES:
        raise FeatureUnsupported(
            f"this version does not restore {engine.value}",
            hint="`sqlbak plan --headers` plans restores of SQL Server backups offline",
        )
    from sqlbak.engines.postgres.restoring import restore_cluster

    return restore_cluster
