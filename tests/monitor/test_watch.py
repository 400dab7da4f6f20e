"""The watch beside the scheduler: it looks, tells, and follows the policies."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest

from sqlbak.monitor import watch as watch_module
from sqlbak.monitor.attendant import Attendant, WorkersNews
from sqlbak.monitor.events import Event, EventKind
from sqlbak.monitor.metrics import Tally, Vitals
from sqlbak.monitor.watch import Watch, pause_after
from sqlbak.scheduler.logs import event_log
from sqlbak.vault.layout import points_prefix
from tests.monitor.fleets import Place
from tests.monitor.test_notices import event
from tests.monitor.watching import NOON, served

PATIENCE_SECONDS = 60.0
TOLD = "notifications:\n  a: {webhook: {url: env:NOT_SET}}\n"


class Heard:
    """An EventSink that keeps what it hears."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._came = threading.Condition()

    def emit(self, event: Event) -> None:
        with self._came:
            self.events.append(event)
            self._came.notify_all()

    def wait_for(self, done: Callable[[], bool]) -> None:
        with self._came:
            assert self._came.wait_for(done, PATIENCE_SECONDS), self.events

    def has(self, kind: str, item: str, *, is_over: bool = False) -> bool:
        return any(
            (one.kind.value, one.item, one.is_over) == (kind, item, is_over) for one in self.events
        )


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_it_tells_what_is_wrong_and_that_what_is_configured_no_more_is_over(
    tmp_path: Path,
) -> None:
    place = Place(tmp_path)
    place.add("orders", served(NOON))
    heard = Heard()
    watch = Watch(heard, event_log(StringIO()), every_seconds=0.05, now=lambda: NOON)
    watch.start()
    try:
        watch.use(place.write("orders", "fresh"))
        heard.wait_for(lambda: heard.has("server_unreachable", "orders"))
        assert heard.has("backup_missing", "fresh")
        assert watch.sight is not None
        assert [status.name for status in watch.sight.statuses] == ["fresh", "orders"]
        watch.use(place.write("orders"))
        heard.wait_for(lambda: heard.has("backup_missing", "fresh", is_over=True))
        assert not heard.has("server_unreachable", "orders", is_over=True)
    finally:
        watch.close()


def test_looks_leave_room_for_work_but_an_outage_blinds_nobody_for_long() -> None:
    assert pause_after(2, 60) == 60
    assert pause_after(20, 60) == 80
    assert pause_after(900, 60) == 120


def test_a_log_that_somebody_deletes_is_told_once(tmp_path: Path) -> None:
    place, heard = Place(tmp_path), Heard()
    item = place.add("orders", served(NOON))
    watch = Watch(heard, event_log(StringIO()), every_seconds=0.02, now=lambda: NOON)
    watch.start()
    try:
        watch.use(place.write("orders", more=TOLD))
        until(lambda: watch.sight is not None)
        logs = sorted((tmp_path / "vault" / points_prefix(item.id)).glob("*_tl_*"))
        logs[5].unlink()
        heard.wait_for(lambda: heard.has("backup_data_deleted", "orders"))
        (told,) = [one for one in heard.events if one.kind is EventKind.BACKUP_DATA_DELETED]
        assert "1 log of orders" in told.what
    finally:
        watch.close()


def test_of_two_schedulers_one_tells_and_the_other_takes_over(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.add("orders", served(NOON))
    configuration = place.write("orders", "fresh", more=TOLD)
    first, second = Heard(), Heard()
    log = event_log(StringIO())
    one = Watch(first, log, every_seconds=0.05, now=lambda: NOON)
    other = Watch(second, log, every_seconds=0.05, now=lambda: NOON)
    for watch, heard in ((one, first), (other, second)):
        watch.start()
        watch.use(configuration)
        if heard is first:
            heard.wait_for(lambda: first.has("backup_missing", "fresh"))
    try:
        until(lambda: other.sight is not None and not other.is_telling)
        assert second.events == []
        # What is over is told by whoever had told that it began.
        other.use(place.write("orders", more=TOLD))
        second.wait_for(lambda: second.has("backup_missing", "fresh", is_over=True))
        assert all(event.is_over for event in second.events)
        one.close()
        second.wait_for(lambda: second.has("server_unreachable", "orders"))
        assert other.is_telling
    finally:
        one.close()
        other.close()


def test_a_vault_that_is_away_keeps_nobody_from_telling(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.add("orders", served(NOON))
    (tmp_path / "vault" / "vault.json").write_text("{")
    heard = [Heard(), Heard()]
    watches = [Watch(one, event_log(StringIO()), now=lambda: NOON) for one in heard]
    try:
        for watch in watches:
            watch.start()
            watch.use(place.write("orders", more=TOLD))
        for one in heard:
            one.wait_for(lambda one=one: one.has("vault_unreachable", "main"))  # type: ignore[misc]
    finally:
        for watch in watches:
            watch.close()


def test_a_defect_in_one_look_is_said_and_the_next_look_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    gather = watch_module.Gatherer.gather

    def failing(self, *arguments, **options):  # type: ignore[no-untyped-def]
        looks.append(1)
        if len(looks) == 1:
            raise KeyError("a defect")
        return gather(self, *arguments, **options)

    monkeypatch.setattr(watch_module.Gatherer, "gather", failing)
    diary, heard = StringIO(), Heard()
    watch = Watch(heard, event_log(diary, as_json=True), every_seconds=0.05, now=lambda: NOON)
    watch.start()
    try:
        watch.use(Place(tmp_path).write("fresh"))
        heard.wait_for(lambda: heard.has("backup_missing", "fresh"))
    finally:
        watch.close()
    assert "status not seen, by a defect" in diary.getvalue()


def test_nothing_is_looked_at_where_nobody_asked_for_pages_or_notices(tmp_path: Path) -> None:
    before = threading.active_count()
    with Attendant(event_log(StringIO()), lambda: Vitals((), 0.0)) as attendant:
        attendant.use(Place(tmp_path).write("fresh"))
        assert threading.active_count() == before
        attendant.use(Place(tmp_path).write("fresh", more=TOLD))
        assert threading.active_count() == before + 2
    assert threading.active_count() == before


def test_a_worker_leaves_to_the_schedulers_what_the_vault_shows_them() -> None:
    heard = Heard()
    news = WorkersNews(heard)
    news.emit(event(kind=EventKind.BACKUP_FAILED))
    news.emit(event(kind=EventKind.CHAIN_BROKEN))
    assert [one.kind for one in heard.events] == [EventKind.CHAIN_BROKEN]


def test_a_condition_is_counted_once_for_each_time_that_it_begins() -> None:
    tally = Tally()
    for minute in range(3):
        tally.emit(event(minute))
    tally.emit(event(3).over("fine", NOON))
    tally.emit(event(4))
    assert list(tally.counts().values()) == [2]
    assert tally.lasting() == {EventKind.BACKUP_FAILED: 1}
