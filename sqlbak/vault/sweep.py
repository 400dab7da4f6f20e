"""Clearing away what crashed jobs left, and nothing that is not known to be dead.

Payload is dead in two cases only. A running record names it, the job behind that record has lost
its lease, and the verdict says dead (vault/running.py); a job whose payload another one takes over
is spared. Or nothing at all names it (no manifest, here or in the trash, and no running record),
and it has been there for a day.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlbak.vault.layout import (
    LEASES_PREFIX,
    cancel_key,
    cancelled_prefix,
    data_prefix,
    jobs_prefix,
    lineages_prefix,
    point_id_of_payload,
    points_prefix,
    running_key,
    running_prefix,
    seals_prefix,
    tail_prefix,
    trash_prefix,
    verdict_key,
)
from sqlbak.vault.names import point_id_instant, point_id_of_name
from sqlbak.vault.payload import delete_payload
from sqlbak.vault.running import (
    RunningRecord,
    has_manifest,
    is_running,
    list_running,
    publish,
    put_dead_verdict,
    remove_running,
)
from sqlbak.vault.store import ObjectStore

__all__ = ["GRACE", "SweepReport", "sweep"]

GRACE = timedelta(hours=24)
"""How long payload that nothing names is left alone. No writer of ours makes such payload; the
time is for what we do not know of."""


@dataclass(slots=True)
class SweepReport:
    """What a sweep did, for showing.

    Attributes:
        live: ids of jobs that run, or may run.
        spared: ids of dead jobs that were left as they are.
        rolled_forward: points whose job died after its commit was decided; they are whole.
        removed: points whose job died before; their payload is gone.
        orphaned: points whose payload nothing named; it is gone.
        unknown: keys in the payload's folder that no writer of ours makes; left alone.
        objects: how many payload objects were deleted.
    """

    live: list[str] = field(default_factory=list)
    spared: list[str] = field(default_factory=list)
    rolled_forward: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    orphaned: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    objects: int = 0


def sweep(
    store: ObjectStore,
    item_id: str,
    *,
    is_live: Callable[[RunningRecord], bool],
    now: datetime,
    spares: Callable[[RunningRecord], bool] = lambda _record: False,
) -> SweepReport:
    """Settle every dead job of the item and delete what they left.

    ``is_live``: whether the job may still hold its lease; ``lambda record: not
    leases.is_lost(record.lease, record.grant)``. A wrong answer costs that job its commit, never
    anybody a recovery point. ``now`` (aware) is compared with the store's clock, against a day of
    grace. ``spares``: dead jobs that are left as they are, for a job that takes over what they
    wrote. Any number of sweeps and jobs may run at once.
    """
    report = SweepReport()
    # The order matters. A live job wrote its running record before its payload and removes it
    # after its manifest is there: payload listed first whose record is not listed next has its
    # manifest listed last, or nobody cares for it.
    payload = _payload(store, item_id, report)
    records, stale_keys = list_running(store, item_id)
    for record in records:
        if is_live(record):
            report.live.append(record.job_id)
        elif spares(record):
            report.spared.append(record.job_id)
        else:
            _settle(store, item_id, record, now, report)
    # A verdict or a cancellation without a running record is refuse, whatever it says.
    store.delete(stale_keys)
    _remove_orphans(store, item_id, payload, {one.point_id for one in records}, now, report)
    if not report.live and not report.spared:
        store.sweep_unfinished(data_prefix(item_id), older_than=now - GRACE)
    for prefix in (
        f"{LEASES_PREFIX}{item_id}",
        running_prefix(item_id),
        points_prefix(item_id),
        jobs_prefix(item_id),
        cancelled_prefix(item_id),
        lineages_prefix(item_id),
        seals_prefix(item_id),
        tail_prefix(item_id),
    ):
        # What is put in one request takes no time: that of living writers is locked or whole.
        store.sweep_unfinished(prefix, older_than=now + GRACE)
    return report


def _payload(store: ObjectStore, item_id: str, report: SweepReport) -> dict[str, datetime]:
    """When each point's newest payload object was written, by point id."""
    newest: dict[str, datetime] = {}
    for info in store.list(data_prefix(item_id)):
        point_id = point_id_of_payload(item_id, info.key)
        if point_id is None:
            report.unknown.append(info.key)
        else:
            newest[point_id] = max(newest.get(point_id, info.modified_at), info.modified_at)
    return newest


def _settle(
    store: ObjectStore, item_id: str, record: RunningRecord, now: datetime, report: SweepReport
) -> None:
    verdict = put_dead_verdict(store, item_id, record.job_id)
    if verdict.manifest is not None:
        # Its commit was decided. With its record still there the payload was never touched; else
        # the job or another sweep has finished meanwhile.
        if is_running(store, item_id, record.job_id):
            publish(store, item_id, verdict.manifest)
            report.rolled_forward.append(record.point_id)
        remove_running(store, item_id, record.job_id)
        return
    if not has_manifest(store, item_id, record.point_id):
        # Every upload for this point is dead, whatever the two clocks say.
        store.sweep_unfinished(data_prefix(item_id, record.point_id), older_than=now + GRACE)
        report.objects += delete_payload(store, item_id, record.point_id)
        report.removed.append(record.point_id)
    _remove_dead(store, item_id, record.job_id)


def _remove_dead(store: ObjectStore, item_id: str, job_id: str) -> None:
    # Here the record goes first: while it is there, the verdict must keep the job from committing.
    store.delete([running_key(item_id, job_id)])
    store.delete([verdict_key(item_id, job_id), cancel_key(item_id, job_id)])


def _remove_orphans(
    store: ObjectStore,
    item_id: str,
    payload: dict[str, datetime],
    running: set[str],
    now: datetime,
    report: SweepReport,
) -> None:
    # A manifest may move between the two folders meanwhile, either way, hence three listings.
    named = set(running)
    for prefix in (points_prefix(item_id), trash_prefix(item_id), points_prefix(item_id)):
        named.update(point_id_of_name(info.key.removeprefix(prefix)) for info in store.list(prefix))
    for point_id, written_at in payload.items():
        made_at = point_id_instant(point_id)
        if point_id in named or made_at is None:
            continue
        if max(made_at, written_at) < now - GRACE:
            report.objects += delete_payload(store, item_id, point_id)
            report.orphaned.append(point_id)
