"""A differential backup: what changed since a full, with the log that its own restore needs.

Two methods with one form on disk (see changedpages.py). ``pages`` reads everything and believes
nothing but bytes. ``native`` lets the server choose by its summaries of the log; it is refused
wherever servers are known to have chosen wrongly, and ``pages`` taken instead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from sqlbak.engines.port import BackupResult, DifferentialBase, PayloadSink
from sqlbak.engines.postgres.basebackup import BaseBackupStart, begin_base_backup
from sqlbak.engines.postgres.changedpages import ChangedPagesSink
from sqlbak.engines.postgres.clusterbackup import ServerNow, take_cluster_backup
from sqlbak.engines.postgres.connection import ReplicationConnection, Watch
from sqlbak.engines.postgres.dsn import ConnectionString
from sqlbak.engines.postgres.nativedifferential import (
    NativeRefused,
    begin_native,
    require_native,
)
from sqlbak.engines.postgres.pagehash import PageHash
from sqlbak.engines.postgres.pagemap import PageMap
from sqlbak.engines.postgres.timelines import format_lsn
from sqlbak.errors import BaseUnusable, LogRewritten, ServerBehind
from sqlbak.model import DifferentialMethod, Note, NoteCode, PointType
from sqlbak.progress import Progress
from sqlbak.stopping import StopSignal

__all__ = ["take_differential"]


def take_differential(
    target: ConnectionString,
    base: DifferentialBase,
    sink: PayloadSink,
    *,
    slot_name: str,
    label: str,
    system_identifier: str | None,
    primary: ConnectionString | None,
    progress: Progress,
    stop: StopSignal,
) -> BackupResult:
    """Take one. Streams as of a full, without a page map; in the archives, a relation file may
    stand in the server's incremental layout. BaseUnusable when only another full helps;
    LogRewritten when the server was put back to an older copy of itself."""

    def take(kind: _Pages | _Native) -> BackupResult:
        return take_cluster_backup(
            target,
            sink,
            kind,
            slot_name=slot_name,
            label=label,
            system_identifier=system_identifier,
            primary=primary,
            progress=progress,
            stop=stop,
        )

    notes: tuple[Note, ...] = ()
    if base.method is DifferentialMethod.NATIVE:
        try:
            return take(_Native(base))
        except NativeRefused as refused:
            why = f"pages were compared instead of the native method: {refused}"
            notes = (Note(NoteCode.METHOD_CHANGED, why),)
    taken = take(_Pages(base))
    return replace(taken, notes=(*notes, *taken.notes))


class _Pages:
    """Implements clusterbackup.ClusterBackupKind: compare every page with the full's page map."""

    point_type = PointType.DIFFERENTIAL

    def __init__(self, base: DifferentialBase) -> None:
        self._base = base
        self._page_hash = PageHash.from_facts(base.facts)
        self._page_map = PageMap.read(base.source)

    def check(self, server: ServerNow) -> None:
        _require_same_server(self._base, server)
        if server.settings["block_size"] != str(self._page_hash.block_size):
            raise BaseUnusable(
                f"the full was made of pages of {self._page_hash.block_size} bytes; the server has"
                f" pages of {server.settings['block_size']}"
            )

    def begin(self, connection: ReplicationConnection, label: str, watch: Watch) -> BaseBackupStart:
        return begin_base_backup(connection, label, watch)

    def receiving(self, sink: PayloadSink) -> AbstractContextManager[PayloadSink]:
        return contextlib.nullcontext(ChangedPagesSink(sink, self._page_hash, self._page_map))

    def facts(self) -> Mapping[str, Any]:
        return _facts(self._base, DifferentialMethod.PAGES)


class _Native:
    """Implements clusterbackup.ClusterBackupKind: BASE_BACKUP with INCREMENTAL, always against the
    full. Raises NativeRefused before the first byte."""

    point_type = PointType.DIFFERENTIAL

    def __init__(self, base: DifferentialBase) -> None:
        self._base = base

    def check(self, server: ServerNow) -> None:
        _require_same_server(self._base, server)
        require_native(self._base.facts, server.session, server.settings)

    def begin(self, connection: ReplicationConnection, label: str, watch: Watch) -> BaseBackupStart:
        return begin_native(self._base.source, connection, label, watch)

    def receiving(self, sink: PayloadSink) -> AbstractContextManager[PayloadSink]:
        return contextlib.nullcontext(sink)

    def facts(self) -> Mapping[str, Any]:
        return _facts(self._base, DifferentialMethod.NATIVE)


def _facts(base: DifferentialBase, method: DifferentialMethod) -> dict[str, Any]:
    return {
        "differential": {
            "method": method.value,
            "base_id": base.point.id,
            "base_start_lsn": int(base.facts["start_lsn"]),
            "base_timeline": int(base.facts["timeline"]),
        }
    }


def _require_same_server(base: DifferentialBase, server: ServerNow) -> None:
    """BaseUnusable unless the full is of this very cluster, as it is now; when the server has not
    come as far as the full yet on the same timeline, ServerBehind for a standby, which may come,
    else LogRewritten."""
    full = base.point
    if full.type is not PointType.FULL or full.is_copy_only:
        raise ValueError(f"{full.id} cannot be the base of a differential")
    for what, then, now in (
        ("system identifier", base.facts["system_identifier"], server.identity.system_identifier),
        ("timeline", int(full.lineage), server.identity.timeline),
        ("segment size", int(base.facts["wal_segment_size"]), server.facts["wal_segment_size"]),
        (
            "major version",
            int(base.facts["server_version_num"]) // 10000,
            int(server.facts["server_version_num"]) // 10000,
        ),
    ):
        if then != now:
            raise BaseUnusable(f"the full {full.id} is of {what} {then}; the server's is {now}")
    if server.identity.flushed_lsn < full.last_lsn and server.identity.is_standby:
        raise ServerBehind(
            f"the standby has log up to {format_lsn(server.identity.flushed_lsn)}, not yet up to"
            f" the end of the full {full.id} at {format_lsn(full.last_lsn)}",
            hint="the next run tries again",
        )
    if server.identity.flushed_lsn < full.last_lsn:
        raise LogRewritten(
            f"the server's log ends at {format_lsn(server.identity.flushed_lsn)}, before the end"
            f" of the full {full.id} at {format_lsn(full.last_lsn)}: it was put back to an older"
            " state",
            hint="take a full backup; it starts a new chain",
        )
