"""Recovery points that are gone although the policy still keeps them. Pure.

What retention lets go is no news. Anything else that makes a full or differential disappear is
told, whoever did it and with whatever tool: a person, a lifecycle rule of the bucket, an attacker.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from sqlbak.model import Point
from sqlbak.monitor.events import Event, EventKind, EventSeverity
from sqlbak.monitor.watched import Watched
from sqlbak.policy.retention import reasons_to_keep

__all__ = ["deletions"]


def deletions(
    before: Mapping[str, tuple[Point, ...]], items: Iterable[Watched], now: datetime
) -> tuple[list[Event], dict[str, tuple[Point, ...]]]:
    """The events to emit now, and the fulls and differentials that are there, by item: ``before``
    of the next time. Items whose vault does not answer are left as they were."""
    told: list[Event] = []
    there: dict[str, tuple[Point, ...]] = {}
    for item in items:
        known = before.get(item.name, ())
        if item.vault_error is not None:
            there[item.name] = known
            continue
        there[item.name] = item.holdings.data
        ids = {point.id for point in item.holdings.data}
        gone = [point for point in known if point.id not in ids]
        # Where the name stands for another server now, the old one's points are still stored.
        if not gone or _is_another(known, item):
            continue
        kept = reasons_to_keep(known, item.policy.retention, item.policy.zone, now)
        lost = [point for point in gone if point.id in kept]
        if lost:
            told.append(_event(item, lost, now))
    return told, there


def _is_another(known: tuple[Point, ...], item: Watched) -> bool:
    ids = {point.id for point in known}
    return (
        item.item_id is not None
        and bool(item.holdings.data)
        and not any(point.id in ids for point in item.holdings.data)
    )


def _event(item: Watched, lost: list[Point], now: datetime) -> Event:
    what = "1 full or differential" if len(lost) == 1 else f"{len(lost)} fulls and differentials"
    oldest, newest = min(point.id for point in lost), max(point.id for point in lost)
    named = oldest if len(lost) == 1 else f"from {oldest} to {newest}"
    return Event(
        EventKind.BACKUP_DATA_DELETED,
        item.name,
        EventSeverity.CRITICAL,
        f"gone from the vault, though the policy {item.policy_name} still keeps them: {what} of "
        f"{item.name}, {named}",
        "find out who deleted them, and bring them back from the trash or a copy of the vault; "
        f"what can still be restored: sqlbak windows {item.name}",
        now,
        newest,
    )
