"""Log backups that a run which died had the server write into the vault (SQL Server).

The server hands every piece of log out once, so such a backup may be the only one that has it. It
becomes a recovery point of the next log backup's run, which copies it within the store: the dead
run's own payload may still be deleted by that run, should it only have slept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sqlbak.engines.port import BackupResult, PayloadSink
from sqlbak.jobs.taking import Run, take
from sqlbak.model import EngineName, Point, PointType
from sqlbak.vault.layout import data_prefix
from sqlbak.vault.lease import Lease
from sqlbak.vault.running import RunningRecord, has_manifest, list_running, put_dead_verdict
from sqlbak.vault.sweep import sweep

if TYPE_CHECKING:
    from sqlbak.engines.sqlserver.engine import SqlServerEngine

__all__ = ["sweep_item", "take_left_logs"]


def sweep_item(run: Run) -> None:
    """Settle every dead job of the item and delete what they left, but for log backups that the
    server may have written into the vault: those are for a log backup's run."""
    is_by_url = _engine(run) is not None
    _sweep(run, lambda record: is_by_url and _is_dead_log(run, record))


def take_left_logs(run: Run, lease: Lease) -> list[Point]:
    """Make recovery points of the log backups that dead runs left in the vault, oldest first, and
    clear away the rest. Under the lease of the item's log. BackupFailed while the server still
    writes one."""
    engine = _engine(run)
    made = [] if engine is None else _taken(run, engine, lease)
    _sweep(run, lambda _record: False)
    return made


def _engine(run: Run) -> SqlServerEngine | None:
    """The engine, where its server writes into the vault."""
    if run.item.engine is not EngineName.SQLSERVER:
        return None
    from sqlbak.engines.sqlserver.engine import SqlServerEngine

    engine = run.engine
    return engine if isinstance(engine, SqlServerEngine) and engine.writes_into_vault else None


def _taken(run: Run, engine: SqlServerEngine, lease: Lease) -> list[Point]:
    store, item_id = run.vault.store, run.item.id
    records, _ = list_running(store, item_id)
    is_live = _is_live(run)
    made: list[Point] = []
    for record in sorted(records, key=lambda one: one.point_id):
        if is_live(record) or not _is_dead_log(run, record):
            continue
        prefix = data_prefix(item_id, record.point_id)
        found = sorted(info.key.removeprefix(prefix) for info in store.list(prefix))
        names = sorted(found, key=lambda name: (len(name), name))
        end = engine.left_log(prefix, names)
        ends = {one.position for one in run.vault.points(item_id) if one.type is PointType.LOG}
        if end is None or end in ends:
            continue

        def stream(
            sink: PayloadSink,
            _label: str,
            point_id: str = record.point_id,
            names: list[str] = names,
        ) -> BackupResult:
            return engine.take_left_log(point_id, names, sink, progress=run.progress, stop=run.stop)

        point, _ = take(run, lease, PointType.LOG, stream)
        made.append(point)
    return made


def _is_dead_log(run: Run, record: RunningRecord) -> bool:
    """Whether that dead job took a log backup that is no recovery point; from here on it cannot
    become one by that job, whether it lives or not."""
    store, item_id = run.vault.store, run.item.id
    if record.type != PointType.LOG.value:
        return False
    if put_dead_verdict(store, item_id, record.job_id).manifest is not None:
        return False  # decided before: the sweep finishes it
    return not has_manifest(store, item_id, record.point_id)


def _sweep(run: Run, spares: Callable[[RunningRecord], bool]) -> None:
    sweep(run.vault.store, run.item.id, is_live=_is_live(run), now=run.now(), spares=spares)


def _is_live(run: Run) -> Callable[[RunningRecord], bool]:
    return lambda record: not run.leases.is_lost(record.lease, record.grant)
