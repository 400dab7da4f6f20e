"""Which code stands behind each engine. Imports an engine's drivers only when it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from sqlbak.engines.port import Engine, RestoreOutcome, RestoreStep, RestoreTarget
from sqlbak.errors import FeatureUnsupported
from sqlbak.model import EngineName
from sqlbak.progress import Progress
from sqlbak.stopping import StopSignal

__all__ = ["Restorer", "postgres_engine", "restorer"]


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
    ) -> RestoreOutcome:
        """Restore ``steps`` up to ``stop_at``, or to what lies before ``stop_lsn`` in the log (both
        None: to the end of the last one)."""


def postgres_engine(dsn: str, *, slot_name: str, primary_dsn: str | None = None) -> Engine:
    """A PostgreSQL cluster; connects only when used. ``primary_dsn``: the primary of the standby
    that ``dsn`` leads to."""
    from sqlbak.engines.postgres.engine import PostgresEngine

    return PostgresEngine(dsn, slot_name=slot_name, primary_dsn=primary_dsn)


def restorer(engine: EngineName) -> Restorer:
    """What restores backups of that engine. FeatureUnsupported where this version cannot."""
    if engine is not EngineName.POSTGRES:
        raise FeatureUnsupported(
            f"this version does not restore {engine.value}",
            hint="`sqlbak plan --headers` plans restores of SQL Server backups offline",
        )
    from sqlbak.engines.postgres.restoring import restore_cluster

    return restore_cluster
