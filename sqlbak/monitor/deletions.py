"""Recovery points that are gone although the policy still keeps them. Pure.

What retention lets go is no news. Anything else that makes a backup disappear is told, whoever did
it and with whatever tool: a person, a lifecycle rule of the bucket, an attacker.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlbak.model import Point
from sqlbak.monitor.events import Event, EventKind, EventSeverity
from sqlbak.monitor.holdings import NO_HOLDINGS, Holdings
from sqlbak.monitor.watched import Watched
from sqlbak.policy.retention import kept_until, reasons_to_keep

__all__ = ["deletions"]


@dataclass(frozen=True, slots=True)
class _Lost:
    """What is gone of one item too early; ``logs``: when each was taken, ascending."""

    data: tuple[Point, ...]
    logs: tuple[datetime, ...]


def deletions(
    before: Mapping[str, Holdings], items: Iterable[Watched], now: datetime
) -> tuple[list[Event], dict[str, Holdings]]:
    """The events to emit now, and what is there, by item: ``before`` of the next time. Items whose
    vault does not answer are left as they were."""
    told: list[Event] = []
    there: dict[str, Holdings] = {}
    for item in items:
        known = before.get(item.name, NO_HOLDINGS)
        if item.vault_error is not None:
            there[item.name] = known
            continue
        there[item.name] = item.holdings
        # Where the name stands for another server now, the old one's points are still stored.
        if known is item.holdings or _is_another(known, item):
            continue
        lost = _lost(known, item, now)
        if lost.data or lost.logs:
            told.append(_event(item, lost, now))
    return told, there


def _is_another(known: Holdings, item: Watched) -> bool:
    ids = {point.id for point in known.data}
    return (
        item.item_id is not None
        and bool(item.holdings.data)
        and not any(point.id in ids for point in item.holdings.data)
    )


def _lost(known: Holdings, item: Watched, now: datetime) -> _Lost:
    retention = item.policy.retention
    ids = {point.id for point in item.holdings.data}
    data: tuple[Point, ...] = tuple(point for point in known.data if point.id not in ids)
    if data:
        kept = reasons_to_keep(known.data, retention, item.policy.zone, now)
        data = tuple(point for point in data if point.id in kept)
    # Counted, since two may have been taken within one second.
    gone = Counter(known.log_seconds) - Counter(item.holdings.log_seconds)
    logs = (datetime.fromtimestamp(second, UTC) for second in sorted(gone.elements()))
    return _Lost(data, tuple(at for at in logs if now < kept_until(at, retention.log)))


def _event(item: Watched, lost: _Lost, now: datetime) -> Event:
    parts: list[str] = []
    if lost.data:
        count = len(lost.data)
        what = "1 full or differential" if count == 1 else f"{count} fulls and differentials"
        oldest, newest = min(one.id for one in lost.data), max(one.id for one in lost.data)
        parts.append(f"{what} of {item.name}, " + _span(oldest, newest))
    if lost.logs:
        what = "1 log" if len(lost.logs) == 1 else f"{len(lost.logs)} logs"
        first, last = (f"{at:%Y-%m-%d %H:%M:%S}Z" for at in (lost.logs[0], lost.logs[-1]))
        parts.append(f"{what} of {item.name}, taken " + _span(first, last))
    return Event(
        EventKind.BACKUP_DATA_DELETED,
        item.name,
        EventSeverity.CRITICAL,
        f"gone from the vault, though the policy {item.policy_name} still keeps them: "
        + "; ".join(parts),
        "find out who deleted them, and bring them back from the trash or a copy of the vault; "
        f"what can still be restored: sqlbak windows {item.name}",
        now,
        max(one.id for one in lost.data) if lost.data else f"{lost.logs[-1]:%Y%m%dT%H%M%SZ}",
    )


def _span(first: str, last: str) -> str:
    return first if first == last else f"from {first} to {last}"
