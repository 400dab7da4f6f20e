"""A full backup: every file of the cluster, with a page map for the differentials to come."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from sqlbak.engines.port import BackupResult, PayloadSink
from sqlbak.engines.postgres.basebackup import BaseBackupStart, begin_base_backup
from sqlbak.engines.postgres.clusterbackup import ServerNow, take_cluster_backup
from sqlbak.engines.postgres.connection import ReplicationConnection, Watch
from sqlbak.engines.postgres.dsn import ConnectionString
from sqlbak.engines.postgres.pagehash import PageHash
from sqlbak.engines.postgres.pagemapping import mapping_pages
from sqlbak.model import PointType
from sqlbak.progress import Progress
from sqlbak.stopping import StopSignal

__all__ = ["take_full"]


def take_full(
    target: ConnectionString,
    sink: PayloadSink,
    *,
    slot_name: str,
    label: str,
    system_identifier: str | None,
    primary: ConnectionString | None,
    progress: Progress,
    stop: StopSignal,
) -> BackupResult:
    """Take one. Archives and manifest are the server's own bytes; beside them and the log lie
    ``pages`` and ``pages.index`` (see pagemapping.py)."""
    return take_cluster_backup(
        target,
        sink,
        _Full(),
        slot_name=slot_name,
        label=label,
        system_identifier=system_identifier,
        primary=primary,
        progress=progress,
        stop=stop,
    )


class _Full:
    """Implements clusterbackup.ClusterBackupKind."""

    point_type = PointType.FULL

    def __init__(self) -> None:
        self._page_hash = PageHash.new(0)

    def check(self, server: ServerNow) -> None:
        self._page_hash = PageHash.new(int(server.settings["block_size"] or 0))

    def begin(self, connection: ReplicationConnection, label: str, watch: Watch) -> BaseBackupStart:
        return begin_base_backup(connection, label, watch)

    def receiving(self, sink: PayloadSink) -> AbstractContextManager[PayloadSink]:
        return mapping_pages(sink, self._page_hash)

    def facts(self) -> Mapping[str, Any]:
        return {"page_map": self._page_hash.as_fact()}
