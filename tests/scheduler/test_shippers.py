"""The scheduler's shipping threads: one an item, patient, told about once, and joined."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sqlbak.errors import Interrupted, LeaseHeld, ServerUnreachable
from sqlbak.fleet import Fleet
from sqlbak.model import LogPosition
from sqlbak.policy.loading import load_configuration
from sqlbak.scheduler import shippers as shippers_module
from sqlbak.scheduler.logs import event_log
from sqlbak.scheduler.shippers import Shippers
from sqlbak.stopping import StopSignal

POLICIES = """\
vaults:
  main: {url: "file:///nowhere/vault", redundancy: local}
policies:
  quick: {vault: main, full: "0 1 * * *", log: 15m, log_shipping: continuous}
  plain: {vault: main, full: "0 1 * * *", log: 15m}
instances:
  one: {engine: postgres, dsn: "host=a", policy: quick}
  two: {engine: postgres, dsn: "host=b", policy: quick}
  three: {engine: postgres, dsn: "host=c", policy: plain}
"""

Ship = Callable[[str, StopSignal], None]


class Stage:
    """Shippers whose shipping is a function of the test."""

    def __init__(self, ship: Ship, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.out = io.StringIO()
        self.shippers = Shippers(event_log(self.out, as_json=True))
        self.calls: list[str] = []
        (folder / "policies.yaml").write_text(POLICIES)
        self._folder = folder

        def ship_log(
            _fleet: Fleet,
            instance: str,
            *,
            interval_seconds: float,
            stop: StopSignal,
            on_start: Callable[[LogPosition], None],
            **_: Any,
        ) -> None:
            assert interval_seconds == 5
            self.calls.append(instance)
            on_start(LogPosition("1", 7))
            ship(instance, stop)

        monkeypatch.setattr(shippers_module, "ship_log", ship_log)
        monkeypatch.setattr(shippers_module, "FIRST_WAIT_SECONDS", 0.01)
        monkeypatch.setattr(shippers_module, "LONGEST_WAIT_SECONDS", 0.05)

    def fleet(self) -> Fleet:
        return Fleet(load_configuration(self._folder).configuration)

    def events(self, name: str) -> list[dict[str, Any]]:
        events = [json.loads(line) for line in self.out.getvalue().splitlines()]
        return [event for event in events if event["event"] == name]

    def until(self, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not done():
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.fixture
def staged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[Ship], Stage]]:
    stages: list[Stage] = []

    def make(ship: Ship) -> Stage:
        stages.append(Stage(ship, monkeypatch, tmp_path))
        return stages[-1]

    yield make
    for stage in stages:
        stage.shippers.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ship-")]


def until_stopped(_instance: str, stop: StopSignal) -> None:
    stop.wait(60)
    raise Interrupted


def test_items_whose_policy_asks_for_it_are_shipped_until_the_end(
    staged: Callable[[Ship], Stage],
) -> None:
    stage = staged(until_stopped)
    fleet = stage.fleet()
    for _ in range(3):
        stage.shippers.serve(fleet)
    stage.until(lambda: len(stage.calls) == 2)
    assert sorted(stage.calls) == ["one", "two"]
    stage.shippers.close()
    assert len(stage.events("log shipping started")) == 2


def test_other_policies_replace_the_threads(staged: Callable[[Ship], Stage]) -> None:
    stage = staged(until_stopped)
    stage.shippers.serve(stage.fleet())
    stage.until(lambda: len(stage.calls) == 2)
    stage.shippers.serve(stage.fleet())
    stage.until(lambda: len(stage.calls) == 4)
    stage.until(
        lambda: sum(thread.name.startswith("ship-") for thread in threading.enumerate()) == 2
    )


def test_what_stands_in_the_way_is_told_once_and_tried_again_for_ever(
    staged: Callable[[Ship], Stage],
) -> None:
    def ship(instance: str, _stop: StopSignal) -> None:
        raise LeaseHeld("held") if instance == "one" else ServerUnreachable("away")

    stage = staged(ship)
    stage.shippers.serve(stage.fleet())
    stage.until(lambda: min(stage.calls.count("one"), stage.calls.count("two")) > 5)
    stage.shippers.close()
    (left,) = stage.events("log shipping left to another")
    (interrupted,) = stage.events("log shipping interrupted")
    assert (left["item"], interrupted["item"]) == ("one", "two")
    assert interrupted["code"] == "server_unreachable"


def test_a_defect_ends_neither_the_thread_nor_the_service(staged: Callable[[Ship], Stage]) -> None:
    def ship(_instance: str, _stop: StopSignal) -> None:
        raise RuntimeError("a defect")

    stage = staged(ship)
    stage.shippers.serve(stage.fleet())
    stage.until(lambda: stage.calls.count("one") > 2)
    stage.shippers.close()
    assert stage.events("log shipping failed by a defect")
