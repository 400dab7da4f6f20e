"""Receivers that are away, slow or broken hold up nobody, and get what they missed."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO

import pytest

from sqlbak.errors import NotificationFailed
from sqlbak.monitor import notifier
from sqlbak.monitor.events import Event, EventKind, EventSeverity
from sqlbak.monitor.letter import Letter
from sqlbak.monitor.notifier import Notifier
from sqlbak.policy.notifications import NotificationSettings
from sqlbak.scheduler.logs import event_log
from tests.monitor.watching import MINUTE, NOON

PATIENCE_SECONDS = 60.0


class Recorded:
    """A channel that does ``then`` with each letter and keeps those that got through."""

    def __init__(self, then: Callable[[Letter], object] = lambda _letter: None) -> None:
        self.letters: list[Letter] = []
        self.tries = 0
        self._then = then
        self._came = threading.Condition()

    def send(self, letter: Letter) -> str:
        with self._came:
            self.tries += 1
            self._came.notify_all()
        self._then(letter)
        with self._came:
            self.letters.append(letter)
            self._came.notify_all()
        return ""

    def wait_for(self, done: Callable[[], bool]) -> None:
        with self._came:
            assert self._came.wait_for(done, PATIENCE_SECONDS)

    def items(self) -> list[str]:
        return [notice.event.item for letter in self.letters for notice in letter.notices]


@pytest.fixture(autouse=True)
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifier, "GATHER_SECONDS", 0.01)
    monkeypatch.setattr(notifier, "FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(notifier, "LONGEST_WAIT_SECONDS", 0.02)


@contextmanager
def telling(*recorded: Recorded) -> Iterator[tuple[Notifier, StringIO]]:
    diary = StringIO()
    log = event_log(diary, as_json=True)
    ways = {f"env:R{n}": one for n, one in enumerate(recorded)}
    told = Notifier(log)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(notifier, "channel_of", lambda settings: ways[str(settings.apprise)])
        told.use({way: NotificationSettings.model_validate({"apprise": way}) for way in ways})
    try:
        yield told, diary
    finally:
        told.close()


def event(item: str, minutes: int = 0) -> Event:
    return Event(
        EventKind.BACKUP_FAILED,
        item,
        EventSeverity.WARNING,
        "failed",
        "mend",
        NOON + minutes * MINUTE,
    )


def test_a_receiver_that_hangs_holds_up_neither_who_emits_nor_another_receiver() -> None:
    goes_on = threading.Event()
    hanging, well = Recorded(lambda _letter: goes_on.wait(PATIENCE_SECONDS)), Recorded()
    with telling(hanging, well) as (told, _):
        told.emit(event("a"))
        hanging.wait_for(lambda: hanging.tries == 1)
        for number in range(2000):
            told.emit(event(f"b{number}"))
        well.wait_for(lambda: "b1999" in well.items())
        assert hanging.letters == []
        waiting = told.boxes[0].counts
        assert waiting["waiting"] == notifier.MOST_WAITING
        goes_on.set()
        hanging.wait_for(lambda: "b1999" in hanging.items())
    # What did not fit was the oldest, and its number is told.
    assert sum(letter.lost for letter in hanging.letters) == 2001 - notifier.MOST_WAITING - 1 + 1
    assert hanging.items()[-notifier.MOST_WAITING :][0] == "b1500"


def test_a_receiver_that_fails_is_tried_until_it_takes_everything_once() -> None:
    failures = iter([NotificationFailed("away", hint="wait"), ValueError("a defect: s3cr3t")])

    def fail(_letter: Letter) -> None:
        for error in failures:
            raise error

    recorded = Recorded(fail)
    with telling(recorded) as (told, diary):
        told.emit(event("a"))
        recorded.wait_for(lambda: recorded.tries == 1)
        told.emit(event("b"))
        told.emit(event("a", 1))
        recorded.wait_for(lambda: sorted(recorded.items()) == ["a", "b"])
    assert told.boxes[0].counts == {
        "sent": len(recorded.letters),
        "failed": 0,
        "lost": 0,
        "waiting": 0,
    }
    said = diary.getvalue()
    assert said.count('"notice not sent"') == 2
    assert '"hint": "wait"' in said
    assert "s3cr3t" not in said


def test_what_waits_at_the_end_is_tried_once_more_and_then_given_up() -> None:
    def fail(_letter: Letter) -> None:
        raise NotificationFailed("away")

    recorded = Recorded(fail)
    with telling(recorded) as (told, _):
        told.emit(event("a"))
    assert recorded.tries >= 1
    assert told.boxes[0].counts["waiting"] == 1
    told.emit(event("b"))
    assert told.boxes[0].counts["waiting"] == 1


def test_what_comes_together_is_told_together() -> None:
    goes_on = threading.Event()
    recorded = Recorded(lambda _letter: goes_on.wait(PATIENCE_SECONDS))
    with telling(recorded) as (told, _):
        told.emit(event("a"))
        recorded.wait_for(lambda: recorded.tries == 1)
        for number in range(notifier.MOST_IN_A_LETTER + 10):
            told.emit(event(f"b{number}"))
        goes_on.set()
    assert [len(letter.notices) for letter in recorded.letters] == [
        1,
        notifier.MOST_IN_A_LETTER,
        10,
    ]


def test_receivers_change_while_it_runs_and_those_that_stay_remember(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stays, leaves, comes = Recorded(), Recorded(), Recorded()
    ways = {"env:STAYS": stays, "env:LEAVES": leaves, "env:COMES": comes}
    monkeypatch.setattr(notifier, "channel_of", lambda settings: ways[str(settings.apprise)])

    def settings(*names: str) -> dict[str, NotificationSettings]:
        made = NotificationSettings.model_validate
        return {name: made({"apprise": f"env:{name.upper()}"}) for name in names}

    told = Notifier(event_log(StringIO(), as_json=True))
    try:
        told.use(settings("stays", "leaves"))
        told.emit(event("a"))
        told.use(settings("stays", "comes"))
        told.emit(event("a"))
        told.emit(event("b"))
    finally:
        told.close()
    assert (stays.items(), leaves.items(), comes.items()) == (["a", "b"], ["a"], ["a", "b"])


def test_a_receiver_that_cannot_be_used_is_said_and_keeps_no_other_from_being_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    diary = StringIO()
    told = Notifier(event_log(diary, as_json=True))
    hook = {"webhook": {"url": "env:NOT_SET"}}
    told.use(
        {
            "chat": NotificationSettings.model_validate({"apprise": "env:CHAT"}),
            "hook": NotificationSettings.model_validate(hook),
        }
    )
    told.close()
    assert [box.name for box in told.boxes] == ["hook"]
    assert "sqlbak[apprise]" in diary.getvalue()
