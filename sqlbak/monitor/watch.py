"""Looking at the whole fleet again and again, beside the scheduler and independent of it: what is
missing is noticed even where nothing fails.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlbak.errors import SqlbakError
from sqlbak.fleet import Fleet
from sqlbak.monitor.changes import changes, unprotected
from sqlbak.monitor.deletions import deletions
from sqlbak.monitor.events import Event, EventSink
from sqlbak.monitor.gathering import Gatherer
from sqlbak.monitor.holdings import Holdings
from sqlbak.monitor.notifier import Diary
from sqlbak.monitor.status import ItemStatus, status_of
from sqlbak.monitor.teller import Teller
from sqlbak.policy.schema import Configuration
from sqlbak.stopping import StopSignal
from sqlbak.vault.retry import RetryPolicy

__all__ = ["Sight", "Watch", "pause_after"]

EVERY_SECONDS = 60.0
_SHARE = 4
"""A look that takes long is followed by a pause so many times as long: watching must not crowd out
the work."""
_LONGEST_PAUSE_SECONDS = 120.0
"""But no longer: a look may take long because everything was away, and that it is back is news."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What one look saw, when (aware), and how long it took."""

    statuses: tuple[ItemStatus, ...]
    taken_at: datetime
    seconds: float


def pause_after(look_seconds: float, every_seconds: float) -> float:
    """How long to wait after a look that took so long, where there is to be one so often."""
    return max(every_seconds, min(_SHARE * look_seconds, _LONGEST_PAUSE_SECONDS))


class _View:
    """One set of policies, with all that is needed to look at it."""

    def __init__(self, configuration: Configuration, stop: StopSignal) -> None:
        # It looks again soon anyway, so it asks a store twice at most.
        self._fleet = Fleet(configuration, retries=RetryPolicy(attempts=2), stop=stop)
        self.gatherer = Gatherer(self._fleet, remembers=True)
        # Who has nobody to tell leaves it to others.
        self._teller = Teller(self._fleet) if configuration.notifications else None

    def is_ours_to_tell(self) -> bool:
        """Whether this process tells what all schedulers see."""
        return self._teller is None or self._teller.is_ours_to_tell()

    def close(self) -> None:
        """Give the lease back, and close the connections."""
        if self._teller is not None:
            self._teller.close()
        self._fleet.close()


class Watch:
    """Looks from a thread of its own between ``start`` and ``close``. Of several schedulers one
    tells what is seen; the others tell only what is over, to whom they had told that it began."""

    def __init__(
        self,
        events: EventSink,
        diary: Diary,
        *,
        every_seconds: float = EVERY_SECONDS,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._events = events
        self._diary = diary
        self._every = every_seconds
        self._now = now
        self._stop = StopSignal()
        self._thread = threading.Thread(target=self._work, name="sqlbak-watch")
        self._state = threading.Condition()
        self._wanted: Configuration | None = None
        self._sight: Sight | None = None
        self._is_telling = True
        self._holding: dict[str, Event] = {}
        self._stored: dict[str, Holdings] = {}

    def start(self) -> None:
        """Begin to look, as soon as there is something to look at."""
        self._thread.start()

    def use(self, configuration: Configuration) -> None:
        """Look at this from now on, and at once."""
        with self._state:
            self._wanted = configuration
            self._state.notify()

    @property
    def sight(self) -> Sight | None:
        """What the last look saw; None: there was none yet."""
        with self._state:
            return self._sight

    @property
    def is_telling(self) -> bool:
        """Whether this is the scheduler that tells; True until it is known."""
        with self._state:
            return self._is_telling

    def close(self) -> None:
        """End, after the look under way."""
        with self._state:
            self._stop.request("the service is stopping")
            self._state.notify()
        if self._thread.ident is not None:
            self._thread.join()

    def _work(self) -> None:
        view: _View | None = None
        pause: float | None = None
        try:
            while True:
                with self._state:
                    self._state.wait_for(self._is_called, pause)
                    wanted, self._wanted = self._wanted, None
                if self._stop.is_requested:
                    return
                if wanted is not None:
                    if view is not None:
                        view.close()
                    view = _View(wanted, self._stop)
                began = time.monotonic()
                if view is not None:
                    self._look(view)
                pause = pause_after(time.monotonic() - began, self._every)
        finally:
            if view is not None:
                view.close()

    def _is_called(self) -> bool:
        return self._stop.is_requested or self._wanted is not None

    def _look(self, view: _View) -> None:
        began = time.monotonic()
        try:
            gathered = view.gatherer.gather(None, self._now)
            is_telling = view.is_ours_to_tell()
        except SqlbakError as error:
            if not self._stop.is_requested:
                self._diary.warning(
                    "status not seen", code=error.code, error=error.message, hint=error.hint
                )
            return
        except Exception as error:  # noqa: BLE001 - a defect must not end the watch for good
            self._diary.warning("status not seen, by a defect", error=repr(error))
            return
        moment = self._now()
        statuses = tuple(status_of(watched, moment) for watched in gathered.items)
        told, self._holding = changes(
            self._holding,
            statuses,
            moment,
            [unprotected(name, moment) for name in gathered.left_out],
        )
        gone, self._stored = deletions(self._stored, gathered.items, moment)
        with self._state:
            self._sight = Sight(statuses, moment, time.monotonic() - began)
            self._is_telling = is_telling
        for event in [*told, *gone]:
            if is_telling or event.is_over:
                self._events.emit(event)
