"""How well each item is protected, decided from values alone: policy, recovery points, job records,
what the server said, and the time. Pure: no clock, no network, no files.

A backup that is absent matters as much as one that failed, so everything is measured against what
the policy promises (monitor/promise.py), never only against what was tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlbak.model import Point, PointType
from sqlbak.monitor.concerns import Concern, found_concerns
from sqlbak.monitor.events import EventKind, EventSeverity
from sqlbak.monitor.holdings import Holdings
from sqlbak.monitor.promise import Promise, promise_of, scheduled
from sqlbak.monitor.slot_view import SlotView, slot_view
from sqlbak.monitor.watched import Look, Watched
from sqlbak.policy.calendar import next_slot

__all__ = ["Health", "ItemStatus", "status_of"]


class Health(StrEnum):
    """The one word for an item, the worst that holds.

    UNPROTECTED: nothing can be restored. UNREACHABLE: server or vault did not answer, so nothing
    new is backed up, and what is told is from the other one alone. AT_RISK: a promise of the policy
    is broken, or will be if nobody acts.
    """

    HEALTHY = "healthy"
    AT_RISK = "at_risk"
    UNREACHABLE = "unreachable"
    UNPROTECTED = "unprotected"


@dataclass(frozen=True, slots=True)
class ItemStatus:
    """How well one item is protected at ``as_of``. Times are UTC; sizes bytes; spans seconds.

    Attributes:
        last: when the newest backup of each type was begun, copies left out.
        next: the next slot of each type that is scheduled.
        newest_restorable, oldest_restorable: the ends of what can be restored.
        rpo: how much work the loss of the server would cost now, on the server's clock where it
            was asked; None: all of it.
        promise: what the policy allows.
        size_bytes: all its recovery points.
        added_bytes_per_day: on average over its last week, or since its first one.
        restore_bytes: about what a restore to the newest instant fetches.
        restore_seconds: how long that takes at the speed of its newest full; None: not known.
        running, stale_jobs: as in Watched.
        slot: PostgreSQL's replication slot; None: the server was not asked, or has none.
        concerns: what is wrong, the worst first.
    """

    name: str
    as_of: datetime
    item_id: str | None
    engine: str
    policy_name: str
    vault_name: str
    health: Health
    last: Mapping[PointType, Point]
    next: Mapping[PointType, datetime]
    newest_restorable: datetime | None
    oldest_restorable: datetime | None
    rpo: timedelta | None
    promise: Promise
    size_bytes: int
    added_bytes_per_day: float
    restore_bytes: int | None
    restore_seconds: float | None
    is_chain_usable: bool
    slot: SlotView | None
    server_was_asked: bool
    server_answers: bool
    running: Mapping[PointType, datetime]
    stale_jobs: int
    concerns: tuple[Concern, ...]


def status_of(watched: Watched, now: datetime) -> ItemStatus:
    """The status of one item at ``now`` (aware)."""
    promise = promise_of(watched.policy, now, watched.paused)
    holdings = watched.holdings
    newest = holdings.newest
    rpo = None if newest is None else max(_server_now(watched.look, now) - newest, timedelta(0))
    slot = slot_view(watched.look.inspection) if watched.look and watched.look.inspection else None
    concerns = found_concerns(watched, rpo, promise, slot, now)
    return ItemStatus(
        name=watched.name,
        as_of=now,
        item_id=watched.item_id,
        engine=watched.engine,
        policy_name=watched.policy_name,
        vault_name=watched.vault_name,
        health=_health(watched, concerns),
        last=holdings.last,
        next={
            kind: next_slot(watched.policy, kind, now).instant for kind in scheduled(watched.policy)
        },
        newest_restorable=newest,
        oldest_restorable=holdings.oldest,
        rpo=rpo,
        promise=promise,
        size_bytes=holdings.size_bytes,
        added_bytes_per_day=holdings.added_bytes_per_day,
        restore_bytes=holdings.restore_bytes,
        restore_seconds=_restore_seconds(holdings),
        is_chain_usable=holdings.is_usable,
        slot=slot,
        server_was_asked=watched.look is not None,
        server_answers=watched.look is not None and watched.look.inspection is not None,
        running=watched.running,
        stale_jobs=watched.stale_jobs,
        concerns=concerns,
    )


def _server_now(look: Look | None, now: datetime) -> datetime:
    """What the server's clock shows at ``now``; without its answer both clocks are taken as one."""
    if look is None or look.inspection is None or look.inspection.server_clock is None:
        return now
    return now + (look.inspection.server_clock - look.looked_at)


def _health(watched: Watched, concerns: tuple[Concern, ...]) -> Health:
    kinds = {concern.kind for concern in concerns}
    if EventKind.VAULT_UNREACHABLE in kinds:
        return Health.UNREACHABLE
    if watched.holdings.newest is None:
        return Health.UNPROTECTED
    if EventKind.SERVER_UNREACHABLE in kinds:
        return Health.UNREACHABLE
    is_fine = all(concern.severity is EventSeverity.NOTICE for concern in concerns)
    return Health.HEALTHY if is_fine else Health.AT_RISK


def _restore_seconds(holdings: Holdings) -> float | None:
    full = holdings.last.get(PointType.FULL)
    if full is None or holdings.restore_bytes is None:
        return None
    seconds = (full.finished_at - full.started_at).total_seconds()
    if seconds <= 0 or full.size_bytes <= 0:
        return None
    return holdings.restore_bytes * seconds / full.size_bytes
