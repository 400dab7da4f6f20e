"""The tail of a database's log, taken right before the database is restored over (SQL Server).

It leaves the database RESTORING, so that nothing can be written after it, and becomes a recovery
point like any other. It never becomes a full instead: the database is about to be replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlbak.engines.port import BackupResult, LogGap, PayloadSink
from sqlbak.errors import FeatureUnsupported, LogChainBroken
from sqlbak.fleet import Fleet, instance_of
from sqlbak.jobs.left_logs import take_left_logs
from sqlbak.jobs.log_base import find_log_base
from sqlbak.jobs.taking import Run, take
from sqlbak.model import LogPosition, Point, PointType
from sqlbak.progress import NO_PROGRESS, Progress
from sqlbak.stopping import NEVER, StopSignal
from sqlbak.vault.work_progress import CountedProgress

__all__ = ["take_tail"]


def take_tail(
    fleet: Fleet,
    name: str,
    *,
    progress: Progress = NO_PROGRESS,
    stop: StopSignal = NEVER,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    wait_seconds: float = 60.0,
) -> Point:
    """Back up the tail of the log of the item called ``name`` and leave its database RESTORING.

    Raises LogChainBroken when the vault's log does not go on from where it ends (then only giving
    the tail up is left); LeaseHeld; what engine and vault raise.
    """
    from sqlbak.engines.sqlserver.engine import SqlServerEngine

    engine = fleet.engine(name)
    if not isinstance(engine, SqlServerEngine):
        raise FeatureUnsupported(f"{name}: only databases of SQL Server have a tail to take")
    inspection = engine.inspect()
    vault = fleet.vault(name)
    found = inspection.items[0]
    item = vault.find_or_create_item(
        inspection.engine,
        instance_of(name),
        found.database,
        found.identity,
        configured_names=fleet.configured_names(name),
        now=now(),
    )
    leases = fleet.leases(name)
    counted = CountedProgress(progress, now=now)
    with (
        stop.branch() as own_stop,
        leases.acquire(
            f"{item.id}.log",
            purpose=f"tail of the log of {name}",
            wait_seconds=wait_seconds,
            stop=own_stop,
        ) as lease,
    ):
        run = Run(fleet, engine, vault, leases, item, None, False, counted, own_stop, now)
        take_left_logs(run, lease)
        base = find_log_base(
            vault, item.id, engine.oldest_log(), run.notes, after_differentials=True
        )
        if base is None:
            gap = _gap(run)
            raise LogChainBroken(
                f"{name}: the vault's log does not reach to where the tail begins: "
                f"{'there is a gap' if gap is None else gap.why}",
                hint="give the tail up with --tail discard, or take a backup first: "
                f"sqlbak backup {name} --type full",
            )

        since: LogPosition | None = base.position
        facts: Mapping[str, Any] | None = base.facts
        while since is not None:
            begin, known = since, facts

            def stream(
                sink: PayloadSink,
                _label: str,
                begin: LogPosition = begin,
                known: Mapping[str, Any] | None = known,
            ) -> BackupResult:
                return engine.log(
                    begin,
                    sink,
                    since_facts=known,
                    progress=counted,
                    stop=own_stop,
                    leaves_restoring=True,
                )

            # A log that an earlier run left behind comes first, and the tail after it.
            point, since = take(run, lease, PointType.LOG, stream)
            facts = None
    return point


def _gap(run: Run) -> LogGap | None:
    points = run.vault.points(run.item.id)
    newest = max(points, key=lambda point: (point.finished_at, point.last_lsn), default=None)
    return None if newest is None else run.engine.log_gap(newest.position)
