"""Log backups that a run which died had the server write into the vault.

The server hands every piece of log out once, so such a backup may be the only one that has it. It
becomes a recovery point of the next log backup's run, which copies it within the store: the dead
run's own payload may still be deleted by that run, should it only have slept.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlbak.engines.port import BackupResult, PayloadSink
from sqlbak.jobs.taking import Run, take
from sqlbak.model import EngineName, LogPosition, Point, PointType
from sqlbak.vault.layout import data_prefix
from sqlbak.vault.lease import Lease
from sqlbak.vault.running import (
    RunningRecord,
    has_manifest,
    list_running,
    put_dead_verdict,
)
from sqlbak.vault.sweep import sweep

__all__ = ["sweep_item", "take_left_logs"]

_ENDING = ".trn"


def sweep_item(run: Run, *, is_log_run: bool = False) -> None:
    """Settle every dead job of the item and delete what they left, but for log that a log backup's
    run has still to take over. ``is_log_run``: it has."""

    def nothing(_record: RunningRecord) -> bool:
        return False

    sweep(
        run.vault.store,
        run.item.id,
        is_live=_is_live(run),
        now=run.now(),
        spares=nothing if is_log_run else lambda record: bool(_left(run, record)),
    )


def take_left_logs(run: Run, lease: Lease) -> list[Point]:
    """Make recovery points of the log backups that dead runs left in the vault, oldest first, and
    clear away the rest. Under the lease of the item's log. BackupFailed while one still runs."""
    made: list[Point] = []
    if run.item.engine is EngineName.SQLSERVER:
        made = _taken(run, lease)
    sweep_item(run, is_log_run=True)
    return made


def _taken(run: Run, lease: Lease) -> list[Point]:
    from sqlbak.engines.sqlserver.engine import SqlServerEngine

    if not isinstance(run.engine, SqlServerEngine):
        return []
    engine = run.engine
    records, _ = list_running(run.vault.store, run.item.id)
    is_live = _is_live(run)
    made: list[Point] = []
    for record in sorted(records, key=lambda one: one.point_id):
        names = [] if is_live(record) else _left(run, record)
        if not names:
            continue
        prefix = data_prefix(run.item.id, record.point_id)
        end = engine.left_log([prefix + name for name in names])
        if end is None or end in _ends(run):
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


def _ends(run: Run) -> set[LogPosition]:
    return {
        point.position for point in run.vault.points(run.item.id) if point.type is PointType.LOG
    }


def _is_live(run: Run) -> Callable[[RunningRecord], bool]:
    return lambda record: not run.leases.is_lost(record.lease, record.grant)


def _left(run: Run, record: RunningRecord) -> list[str]:
    """The objects of a whole set of log that the server wrote for a job that died before its point
    was decided on; none: there is nothing of it to take over."""
    from sqlbak.engines.sqlserver.url_delivery import is_whole_set

    if run.item.engine is not EngineName.SQLSERVER or record.type != PointType.LOG.value:
        return []
    store, item_id = run.vault.store, run.item.id
    prefix = data_prefix(item_id, record.point_id)
    names = [info.key.removeprefix(prefix) for info in store.list(prefix)]
    names = [name for name in names if name.endswith(_ENDING)]
    if not names or not is_whole_set(names):
        return []
    # From here on that job cannot commit any more, whether it lives or not.
    if put_dead_verdict(store, item_id, record.job_id).manifest is not None:
        return []
    if has_manifest(store, item_id, record.point_id):
        return []
    return sorted(names, key=lambda name: int(name.partition("of")[0]))
