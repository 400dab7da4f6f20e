"""What the loop knows: read beside it, never held up by one item, and forgotten when it changes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sqlbak.errors import SqlbakError, StoreUnreachable
from sqlbak.fleet import Fleet
from sqlbak.model import EngineName, Item, Point, PointType
from sqlbak.scheduler.catalogs import Catalogs
from sqlbak.vault.cancelled_slots import TypeSlot, cancel_slots
from sqlbak.vault.memory_store import MemoryStore

AT = datetime(2026, 11, 22, 12, tzinfo=UTC)


class View:
    """A fleet with one vault, as far as catalogs use it."""

    def __init__(self) -> None:
        self.id = "vault"
        self.store = MemoryStore()
        self.names = ["a", "b"]
        self.taken: dict[str, list[Point]] = {"a": [], "b": []}
        self.listed = 0
        self.slow: dict[str, threading.Event] = {}
        self.is_closed = False

    def vault(self, name: str) -> View:
        if name in self.slow:
            self.slow[name].wait(60)
            raise StoreUnreachable("slow")
        return self

    def items(self) -> list[Item]:
        self.listed += 1
        return [Item(f"{n}-1", EngineName.POSTGRES, n, None, n) for n in self.names]

    def points(self, item_id: str) -> list[Point]:
        return list(self.taken[item_id.removesuffix("-1")])

    def vault_names(self) -> tuple[str, ...]:
        return ("main",)

    def policy(self, name: str) -> Any:
        return SimpleNamespace(vault="far" if name.startswith("far") else "main")

    def expect_item(self, item_id: str | None) -> None: ...

    def enter(self) -> None: ...

    def leave(self) -> None: ...

    def close_when_idle(self) -> None:
        self.is_closed = True

    def close(self) -> None:
        self.is_closed = True


class Stage:
    def __init__(self) -> None:
        self.view = View()
        self.failed: list[tuple[str, SqlbakError]] = []
        self.catalogs = Catalogs(
            age_seconds=1000.0, on_failure=lambda name, error: self.failed.append((name, error))
        )
        self.use(self.view)

    def use(self, view: View) -> None:
        self.catalogs.use(cast("Fleet", view))

    def until(self, done: Callable[[], Any]) -> None:
        deadline = time.monotonic() + 60
        while not done():
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def points(self, name: str) -> tuple[Point, ...]:
        self.until(lambda: self.catalogs.known(name) is not None)
        known = self.catalogs.known(name)
        assert known is not None
        return known.served.points


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    for slow in made.view.slow.values():
        slow.set()
    made.catalogs.close()
    assert made.view.is_closed


def point() -> Point:
    return Point("20261122T120000Z-aaaaaaaaaa", PointType.FULL, "1", 0, 1, AT, AT)


def test_nothing_is_known_at_first_and_one_listing_of_the_items_serves_all(stage: Stage) -> None:
    assert stage.catalogs.known("a") is None
    assert stage.points("a") == stage.points("b") == ()
    assert stage.view.listed == 1


def test_an_item_that_changed_is_read_again_and_one_that_is_new_is_found(stage: Stage) -> None:
    assert stage.points("a") == ()
    stage.view.taken["a"].append(point())
    assert stage.points("a") == ()
    stage.catalogs.forget("a", "a-1")
    assert stage.points("a") == (point(),)
    assert stage.points("c") == ()
    stage.view.names.append("c")
    stage.view.taken["c"] = [point()]
    stage.catalogs.forget("c")
    assert stage.points("c") == (point(),)


def test_slots_that_somebody_cancelled_are_known(stage: Stage) -> None:
    slot = TypeSlot(PointType.FULL, AT)
    cancel_slots(stage.view.store, "a-1", [slot], asked_at=AT, asked_by="ops")
    assert stage.points("a") == ()
    known = stage.catalogs.known("a")
    assert known is not None
    assert known.served.cancelled == (slot,)


def test_nothing_stays_of_items_that_are_gone_nor_of_vaults(stage: Stage) -> None:
    assert stage.points("a") == stage.points("far") == ()
    stage.catalogs.forget("far")
    assert stage.points("far") == ()
    stage.catalogs.keep(lambda name: name == "a")
    state = stage.catalogs._current()
    assert set(state.known) == {"a"}
    assert set(state.forgotten) == set()
    assert set(stage.catalogs._pools) == {"main", "far"}
    other = View()
    stage.use(other)
    assert set(stage.catalogs._pools) == {"main"}
    assert stage.points("a") == ()
    stage.view = other


def test_a_defect_of_a_reader_is_told(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_item_id: str) -> list[Point]:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(stage.view, "points", broken)
    assert stage.catalogs.known("a") is None
    stage.until(lambda: stage.failed)
    assert "ZeroDivisionError" in stage.failed[0][1].message


def test_a_vault_that_does_not_answer_holds_up_no_other_item(stage: Stage) -> None:
    far = [f"far{number}" for number in range(30)]
    stage.view.slow = {name: threading.Event() for name in far}
    for name in far:
        assert stage.catalogs.known(name) is None
    assert stage.points("b") == ()
    for event in stage.view.slow.values():
        event.set()
    stage.until(lambda: len(stage.failed) == len(far))
    assert {name for name, _ in stage.failed} == set(far)


def test_what_was_read_while_it_changed_is_read_again(stage: Stage) -> None:
    begun, go = threading.Event(), threading.Event()
    before = stage.view.points

    def points(item_id: str) -> list[Point]:
        found = before(item_id)
        begun.set()
        go.wait(60)
        return found

    stage.view.points = points  # type: ignore[method-assign]
    assert stage.catalogs.known("a") is None
    assert begun.wait(60)
    stage.view.taken["a"].append(point())
    stage.catalogs.forget("a", "a-1")
    go.set()
    assert stage.points("a") == (point(),)


def test_other_policies_begin_anew(stage: Stage) -> None:
    assert stage.points("a") == ()
    stage.use(View())
    assert stage.catalogs.known("a") is None
    stage.use(stage.view)
