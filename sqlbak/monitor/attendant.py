"""Everything that watches one running service, put together: looking, counting, telling, and the
pages. It costs nothing where nobody asked for pages or notices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from sqlbak.monitor.events import Event, EventKind, EventSink
from sqlbak.monitor.metrics import FleetCollector, Tally, Vitals
from sqlbak.monitor.notifier import Diary, Notifier
from sqlbak.monitor.watch import EVERY_SECONDS, Watch
from sqlbak.monitor.web import Address, Pages, WebServer
from sqlbak.policy.schema import Configuration

__all__ = ["Attendant", "WorkersNews"]

_DEAD_AFTER_SECONDS = 120.0
"""A scheduler loop that stands still for so long counts as dead: a tick never waits for anything
that may take longer."""


_SEEN_BY_ALL = (EventKind.BACKUP_FAILED, EventKind.RPO_BREACHED)
"""What the vault shows to every scheduler, wherever it happened."""


@dataclass(frozen=True, slots=True)
class _Told:
    """Where the watch's events go."""

    tally: Tally
    notifier: Notifier

    def emit(self, event: Event) -> None:
        """Count and tell."""
        self.tally.emit(event)
        self.notifier.emit(event)


@dataclass(frozen=True, slots=True)
class WorkersNews:
    """An EventSink for a worker of a queue. What the vault shows to the schedulers is left for them
    to tell: the next try, which may end it, is perhaps another worker's."""

    notifier: EventSink

    def emit(self, event: Event) -> None:
        """Tell what only this worker knows."""
        if event.kind is not EventKind.BACKUP_FAILED:
            self.notifier.emit(event)


class Attendant:
    """An EventSink; use it in a ``with`` block. ``use`` is called from one thread.

    ``vitals``: how the scheduler is now. ``address``: where pages are served; None: nowhere.
    """

    def __init__(
        self,
        diary: Diary,
        vitals: Callable[[], Vitals],
        *,
        address: Address | None = None,
        every_seconds: float = EVERY_SECONDS,
    ) -> None:
        self._diary = diary
        self._vitals = vitals
        self._tally = Tally()
        self._notifier = Notifier(diary)
        self._watch = Watch(_Told(self._tally, self._notifier), diary, every_seconds=every_seconds)
        self._is_watching = False
        self._web: WebServer | None = None
        if address is not None:
            collector = FleetCollector(
                lambda: self._watch.sight, vitals, lambda: self._notifier.boxes, self._tally
            )
            self._web = WebServer(
                address, Pages(collector, self._not_alive, self._not_ready), diary
            )

    def __enter__(self) -> Self:
        if self._web is not None:
            self._web.start()
            where = self._web.address
            self._diary.info("listening", host=where.host, port=where.port)
        return self

    def __exit__(self, kind: object, value: object, traceback: object) -> None:
        if self._is_watching:
            self._watch.close()
        if self._web is not None:
            self._web.close()
        self._notifier.close()

    def use(self, configuration: Configuration) -> None:
        """Watch this from now on. Never waits."""
        self._notifier.use(configuration.notifications)
        if self._web is None and not configuration.notifications and not self._is_watching:
            return
        self._watch.use(configuration)
        if not self._is_watching:
            self._is_watching = True
            self._watch.start()

    def emit(self, event: Event) -> None:
        """Count it, and tell whoever wants to know. Never waits, never raises. What another
        scheduler sees too, and tells, is only counted here."""
        self._tally.emit(event)
        if event.is_over or event.kind not in _SEEN_BY_ALL or self._watch.is_telling:
            self._notifier.emit(event)

    def _not_alive(self) -> str | None:
        idle = self._vitals().idle_seconds
        if idle > _DEAD_AFTER_SECONDS:
            return f"the scheduler has not looked at what is due for {idle:.0f} seconds"
        return None

    def _not_ready(self) -> str | None:
        return None if self._watch.sight is not None else "the fleet was not looked at yet"
