"""From one look to the next: which events tell what began and what is over. Pure.

What could not be looked at this time is neither over nor new: an item whose vault does not answer
keeps the concerns that it had.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from sqlbak.monitor.events import Event, EventKind, EventSeverity
from sqlbak.monitor.status import ItemStatus

__all__ = ["changes"]

_BY_SERVER = (EventKind.SERVER_PROBLEM, EventKind.SLOT_NEAR_LOST)
"""What only the server tells, of all items of an instance at once."""


def changes(
    before: Mapping[str, Event], statuses: Iterable[ItemStatus], now: datetime
) -> tuple[list[Event], dict[str, Event]]:
    """The events to emit now, and the conditions that hold, by key: ``before`` of the next time.

    Every condition that holds is told each time; who listens tells people once. Notices are left
    out: they are for those who look.
    """
    holding: dict[str, Event] = {}
    blind: set[str] = set()
    deaf: set[str] = set()
    known: set[str] = set()
    for status in statuses:
        instance = status.name.partition("/")[0]
        known |= {status.name, instance, status.vault_name}
        kinds = {concern.kind for concern in status.concerns}
        if EventKind.VAULT_UNREACHABLE in kinds:
            blind.add(status.name)
        if EventKind.SERVER_UNREACHABLE in kinds or not status.server_was_asked:
            deaf.add(instance)
        for concern in status.concerns:
            if concern.severity is not EventSeverity.NOTICE:
                event = concern.event(_subject(concern.kind, status), now)
                holding.setdefault(event.key, event)
    told = list(holding.values())
    for key, event in before.items():
        if key in holding:
            continue
        if event.item in blind or (event.item in deaf and event.kind in _BY_SERVER):
            holding[key] = event
        elif event.item in known:
            told.append(event.over(f"it is over: {event.what}", now))
        else:
            told.append(event.over(f"it is not watched any more: {event.what}", now))
    return told, holding


def _subject(kind: EventKind, status: ItemStatus) -> str:
    if kind is EventKind.VAULT_UNREACHABLE:
        return status.vault_name
    if kind in (EventKind.SERVER_UNREACHABLE, *_BY_SERVER):
        return status.name.partition("/")[0]
    return status.name
