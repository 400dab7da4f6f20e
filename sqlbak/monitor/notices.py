"""Which events people are told, and when: each condition once when it begins, again now and then
while it lasts, and once when it is over. Pure; its clock is the events' own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase

from sqlbak.monitor.events import Event, EventKind, EventSeverity

__all__ = ["Ledger", "Notice", "NoticeState"]

_HAPPENINGS = frozenset(kind.value for kind in EventKind if kind.is_happening)

_CLOCKS_DIFFER = timedelta(minutes=5)
"""Events of several threads may come out of order, but by no more."""

_ORDER = (EventSeverity.NOTICE, EventSeverity.WARNING, EventSeverity.CRITICAL)


class NoticeState(StrEnum):
    """NEW: not told before, or it got worse. AGAIN: it still lasts. OVER: it is over."""

    NEW = "new"
    AGAIN = "again"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to tell now. ``since``: when it was seen first; ``seen``: how often since then."""

    state: NoticeState
    event: Event
    since: datetime
    seen: int


@dataclass(slots=True)
class _Known:
    since: datetime
    told_at: datetime
    worst: EventSeverity
    seen: int = 1


@dataclass(slots=True)
class Ledger:
    """What one receiver was told. ``severity``: the least that it wants; ``items``: patterns of
    names; ``repeat``: how long something lasts before it is told again. For one thread."""

    severity: EventSeverity = EventSeverity.WARNING
    items: Sequence[str] = ("*",)
    repeat: timedelta = timedelta(days=1)
    _known: dict[str, _Known] = field(default_factory=dict)

    def take(self, event: Event) -> Notice | None:
        """What to tell because of ``event``; None: nothing."""
        if not any(fnmatchcase(event.item, pattern) for pattern in self.items):
            return None
        known = self._known.get(event.key)
        if event.is_over:
            if known is None:
                return None  # what nobody was told needs no end
            del self._known[event.key]
            return Notice(NoticeState.OVER, event, known.since, known.seen)
        if _ORDER.index(event.severity) < _ORDER.index(self.severity):
            return None
        if known is None or (event.kind.is_happening and self._is_old(known, event)):
            self._forget_happenings(event.occurred_at)
            self._known[event.key] = _Known(event.occurred_at, event.occurred_at, event.severity)
            return Notice(NoticeState.NEW, event, event.occurred_at, 1)
        known.seen += 1
        is_worse = _ORDER.index(event.severity) > _ORDER.index(known.worst)
        if not is_worse and (event.kind.is_happening or not self._is_old(known, event)):
            return None
        known.told_at = event.occurred_at
        known.worst = event.severity if is_worse else known.worst
        state = NoticeState.NEW if is_worse else NoticeState.AGAIN
        return Notice(state, event, known.since, known.seen)

    def _is_old(self, known: _Known, event: Event) -> bool:
        """Also what was told at a time that is yet to come, by a clock that was set back since."""
        since = event.occurred_at - known.told_at
        return since >= self.repeat or since < -_CLOCKS_DIFFER

    def _forget_happenings(self, now: datetime) -> None:
        """What happened long ago is told anew if it happens again; conditions are kept until they
        are over. So this grows with what is wrong, not with time."""
        for key, known in list(self._known.items()):
            if key.partition(":")[0] in _HAPPENINGS and now - known.told_at >= self.repeat:
                del self._known[key]
