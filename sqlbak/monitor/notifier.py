"""Letting people know, without ever holding up a backup.

Each receiver has a thread and a bounded box of its own. ``emit`` puts an event into the boxes and
returns at once. A receiver that is away is tried again, for as long as it takes; meanwhile its
notices gather into one letter, and when the box is full the oldest are dropped and counted.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol

import sqlbak
from sqlbak.errors import NotificationFailed, SqlbakError
from sqlbak.monitor.channels import Channel, channel_of
from sqlbak.monitor.events import Event, EventSeverity
from sqlbak.monitor.letter import Letter
from sqlbak.monitor.notices import Ledger, Notice
from sqlbak.policy.notifications import NotificationSettings

__all__ = ["Diary", "Notifier", "Postbox", "postbox_of"]

MOST_WAITING = 500
MOST_IN_A_LETTER = 50
GATHER_SECONDS = 2.0
"""What goes wrong seldom goes wrong alone: what comes within this time goes into one letter."""

FIRST_WAIT_SECONDS = 5.0
LONGEST_WAIT_SECONDS = 300.0


class Diary(Protocol):
    """Where it is said how notices fare; a structlog logger is one."""

    def info(self, event: str, **fields: Any) -> Any:
        """Something went as it should."""

    def warning(self, event: str, **fields: Any) -> Any:
        """Something did not."""


class Postbox:
    """One receiver. Its thread begins with ``start`` and ends with ``close``."""

    def __init__(self, name: str, channel: Channel, ledger: Ledger, diary: Diary) -> None:
        self.name = name
        self._channel = channel
        self._ledger = ledger
        self._diary = diary
        self._waiting: deque[Notice] = deque()
        self._lost = 0
        self._failures = 0
        self._sent = 0
        self._state = threading.Condition()
        self._is_closing = False
        self._thread = threading.Thread(target=self._work, name=f"sqlbak-notify-{name}")

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def put(self, event: Event) -> None:
        """Take one event; never waits for anything but other callers of this very method."""
        with self._state:
            if self._is_closing:
                return
            notice = self._ledger.take(event)
            if notice is None:
                return
            if len(self._waiting) >= MOST_WAITING:
                self._waiting.popleft()
                self._lost += 1
            self._waiting.append(notice)
            self._state.notify()

    def request_stop(self) -> None:
        """Ask the thread to end after one last try; ``close`` waits for it."""
        with self._state:
            self._is_closing = True
            self._state.notify()

    def close(self) -> None:
        """Try once more to send what waits, and end: within a few timeouts of the channel."""
        self.request_stop()
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Whether its thread has not ended."""
        return self._thread.is_alive()

    @property
    def counts(self) -> Mapping[str, int]:
        """Letters ``sent``, tries that ``failed`` since the last one, notices ``lost`` since then
        and ``waiting``."""
        with self._state:
            return {
                "sent": self._sent,
                "failed": self._failures,
                "lost": self._lost,
                "waiting": len(self._waiting),
            }

    def _work(self) -> None:
        wait = FIRST_WAIT_SECONDS
        while self._gathered():
            with self._state:
                is_last = self._is_closing
                letter = self._letter()
            try:
                remark = self._send(letter)
            except SqlbakError as error:
                self._failed(error, wait, is_last=is_last)
                if is_last:
                    return
                with self._state:
                    self._state.wait_for(lambda: self._is_closing, wait)
                wait = min(2 * wait, LONGEST_WAIT_SECONDS)
                continue
            wait = FIRST_WAIT_SECONDS
            self._delivered(letter, remark)

    def _send(self, letter: Letter) -> str:
        try:
            return self._channel.send(letter)
        except SqlbakError:
            raise
        except Exception as error:
            # A defect in a channel must not silence it for good; its words may hold a secret.
            raise NotificationFailed(
                f"{self.name}: a defect while sending: {type(error).__name__}",
                hint="please report it",
            ) from error

    def _gathered(self) -> bool:
        """Wait until there is something to send, and a moment more; False: there is nothing, and
        the thread ends."""
        with self._state:
            self._state.wait_for(lambda: self._waiting or self._is_closing)
            self._state.wait_for(lambda: self._is_closing, GATHER_SECONDS)
            return bool(self._waiting)

    def _letter(self) -> Letter:
        notices = [
            self._waiting[index] for index in range(min(len(self._waiting), MOST_IN_A_LETTER))
        ]
        return Letter(notices, socket.gethostname(), sqlbak.__version__, self._lost)

    def _delivered(self, letter: Letter, remark: str) -> None:
        told = {id(notice) for notice in letter.notices}
        with self._state:
            # The oldest may have been dropped meanwhile.
            while self._waiting and id(self._waiting[0]) in told:
                self._waiting.popleft()
            self._lost -= letter.lost
            self._failures = 0
            self._sent += 1
        self._diary.info("notice sent", to=self.name, notices=len(letter.notices))
        if remark:
            self._diary.warning("notice sent in part", to=self.name, error=remark)

    def _failed(self, error: SqlbakError, wait: float, *, is_last: bool) -> None:
        with self._state:
            self._failures += 1
            waiting = len(self._waiting)
        self._diary.warning(
            "notice not sent",
            to=self.name,
            code=error.code,
            error=error.message,
            hint=error.hint,
            waiting=waiting,
            next_try_seconds=None if is_last else round(wait),
        )


class Notifier:
    """All receivers together: an EventSink whose receivers may change while it runs. ``use`` and
    ``close`` are called from one thread."""

    def __init__(self, diary: Diary) -> None:
        self._diary = diary
        self._boxes: Mapping[str, Postbox] = {}
        self._settings: Mapping[str, NotificationSettings] = {}
        self._leaving: list[Postbox] = []

    @property
    def boxes(self) -> Sequence[Postbox]:
        """The receivers."""
        return tuple(self._boxes.values())

    def use(self, settings: Mapping[str, NotificationSettings]) -> None:
        """Tell exactly these from now on. Never waits: receivers that are gone, or are to be told
        in another way, send what they have and end by themselves."""
        boxes: dict[str, Postbox] = {}
        for name, wanted in settings.items():
            if name in self._boxes and self._settings.get(name) == wanted:
                boxes[name] = self._boxes[name]
                continue
            try:
                boxes[name] = postbox_of(name, wanted, self._diary)
            except SqlbakError as error:
                self._diary.warning(
                    "receiver not used",
                    to=name,
                    code=error.code,
                    error=error.message,
                    hint=error.hint,
                )
                continue
            boxes[name].start()
        before, self._boxes, self._settings = self._boxes, boxes, dict(settings)
        self._leaving = [box for box in self._leaving if box.is_alive]
        for name, box in before.items():
            if boxes.get(name) is not box:
                box.request_stop()
                self._leaving.append(box)

    def emit(self, event: Event) -> None:
        """Tell whoever wants to know. Never waits, never raises."""
        for box in self.boxes:
            box.put(event)

    def close(self) -> None:
        """End all threads, after one last try each, at the same time."""
        leaving = [*self._leaving, *self.boxes]
        for box in leaving:
            box.request_stop()
        for box in leaving:
            box.close()
        self._leaving = []


def postbox_of(name: str, settings: NotificationSettings, diary: Diary) -> Postbox:
    """The receiver that the settings describe. FeatureUnsupported."""
    ledger = Ledger(
        severity=EventSeverity(settings.severity),
        items=settings.items,
        repeat=timedelta(days=settings.repeat.shortest_days),
    )
    return Postbox(name, channel_of(settings), ledger, diary)
