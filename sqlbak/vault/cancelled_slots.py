"""Slots that somebody cancelled: whoever ends a running backup means that it is not begun again for
the same slot, by no scheduler.

One small object for each type of backup and slot, written once and never removed; its name says all
that is decided by it, so that one listing tells. Whoever asks a job to end writes it, and so does
the job when it ends for that, before it lets go of its lease: if either is killed, the other's is
there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlbak.model import PointType
from sqlbak.vault.documents import encode, instant_text, same_or_put
from sqlbak.vault.layout import cancelled_prefix
from sqlbak.vault.store import ObjectStore

__all__ = ["TypeSlot", "cancel_slots", "list_cancelled_slots"]

_TIME = "%Y%m%dT%H%M%S.%fZ"
_NAME = re.compile(r"([a-z]+)-([0-9]{8}T[0-9]{6}\.[0-9]{6}Z)\.json", re.ASCII)


@dataclass(frozen=True, slots=True)
class TypeSlot:
    """A slot of one type of backup. ``instant``: when it was scheduled for, or, of a first full
    before any slot, when that began."""

    type: PointType
    instant: datetime


def cancel_slots(
    store: ObjectStore,
    item_id: str,
    slots: Iterable[TypeSlot],
    *,
    asked_at: datetime,
    asked_by: str,
) -> None:
    """Record that nothing is taken for ``slots`` any more. When and by whom it was asked for is
    for people; the first one's word stays."""
    for slot in slots:
        document = {
            "kind": "cancelled slot",
            "type": slot.type.value,
            "slot": instant_text(slot.instant),
            "asked_at": instant_text(asked_at),
            "asked_by": asked_by,
        }
        name = f"{slot.type.value}-{slot.instant.astimezone(UTC):{_TIME}}.json"
        same_or_put(store, cancelled_prefix(item_id) + name, encode(document))


def list_cancelled_slots(store: ObjectStore, item_id: str) -> tuple[TypeSlot, ...]:
    """All that were ever cancelled, by one listing."""
    prefix = cancelled_prefix(item_id)
    found = (_slot(info.key.removeprefix(prefix)) for info in store.list(prefix))
    return tuple(slot for slot in found if slot is not None)


def _slot(name: str) -> TypeSlot | None:
    """None for somebody else's file."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    try:
        instant = datetime.strptime(match[2], _TIME).replace(tzinfo=UTC)
        return TypeSlot(PointType(match[1]), instant)
    except ValueError:
        return None
