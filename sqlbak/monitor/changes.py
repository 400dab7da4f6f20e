"""From one look to the next: which events tell what began and what is over. Pure.

What could not be looked at this time is neither over nor new: an item whose vault does not answer
keeps the concerns that it had.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from sqlbak.monitor.events import Event, EventKind, EventSeverity
from sqlbak.monitor.status import ItemStatus

__all__ = ["changes", "unprotected"]

_BY_SERVER = (
    EventKind.SERVER_PROBLEM,
    EventKind.SLOT_NEAR_LOST,
    EventKind.UNPROTECTED_DATABASE,
)
"""What only the server tells."""


def changes(
    before: Mapping[str, Event],
    statuses: Iterable[ItemStatus],
    now: datetime,
    others: Iterable[Event] = (),
) -> tuple[list[Event], dict[str, Event]]:
    """The events to emit now, and the conditions that hold, by key: ``before`` of the next time.
    ``others``: conditions of things that are no items.

    Every condition that holds is told each time; who listens tells people once. Notices are left
    out: they are for those who look.
    """
    holding: dict[str, Event] = {event.key: event for event in others}
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
                event = concern.event(now)
                holding.setdefault(event.key, event)
    told = list(holding.values())
    for key, event in before.items():
        if key in holding:
            continue
        instance = event.item.partition("/")[0]
        if event.item in blind or (instance in deaf and event.kind in _BY_SERVER):
            holding[key] = event
        elif event.item in known or instance in known:
            told.append(event.over(f"it is over: {event.what}", now))
        else:
            told.append(event.over(f"it is not watched any more: {event.what}", now))
    return told, holding


def unprotected(name: str, now: datetime) -> Event:
    """That a database, ``instance/database``, is neither included nor excluded."""
    return Event(
        EventKind.UNPROTECTED_DATABASE,
        name,
        EventSeverity.WARNING,
        f"the database {name} is protected by no policy",
        "add it to databases.include of its instance, or to databases.exclude to leave it out "
        "knowingly",
        now,
    )
