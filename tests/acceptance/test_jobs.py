"""A job that runs is seen, followed and ended from another process that only reaches the vault."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import pytest

from sqlbak.cli.main import main
from sqlbak.errors import Cancelled
from sqlbak.fleet import Fleet
from sqlbak.jobs import pulse, taking
from sqlbak.jobs.backup import back_up
from sqlbak.model import PointType
from sqlbak.policy.loading import load_configuration
from tests.acceptance.site import Answer, Site, kill_hard

pytestmark = pytest.mark.postgres

PATIENCE_SECONDS = 120.0


class Standing:
    """A progress that keeps its job at the first byte until ``goes_on`` says so."""

    def __init__(self, goes_on: Callable[[], bool]) -> None:
        self._goes_on = goes_on
        self.stands = threading.Event()

    def phase(self, name: str, total_bytes: int | None = None) -> None:
        pass

    def advance(self, size_bytes: int) -> None:
        self.stands.set()
        until(self._goes_on)


def until(done: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def standing_full(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[threading.Thread, list[BaseException]]]:
    """A full backup in a thread of this process; it goes on when it is asked to stop."""
    pulses: list[pulse.Pulse] = []

    class Seen(pulse.Pulse):
        def __enter__(self) -> Self:
            pulses.append(self)
            super().__enter__()
            return self

    monkeypatch.setattr(pulse, "LOOK_EVERY_SECONDS", 0.05)
    monkeypatch.setattr(taking, "Pulse", Seen)
    monkeypatch.setenv("ORDERS_DSN", site.dsn)
    over = threading.Event()
    shown = Standing(lambda: over.is_set() or any(one._stop.is_requested for one in pulses))
    errors: list[BaseException] = []

    def work() -> None:
        with Fleet(load_configuration(site.config).configuration) as fleet:
            try:
                back_up(fleet, "orders", PointType.FULL, progress=shown)
            except BaseException as error:  # the test looks at it
                errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert shown.stands.wait(PATIENCE_SECONDS)
        yield thread, errors
    finally:
        over.set()
        thread.join()


def asked(capsys: pytest.CaptureFixture[str], *words: str) -> Answer:
    """One run of ``sqlbak jobs`` in this process."""
    with pytest.raises(SystemExit) as ended:
        main(["jobs", *words, "--json"])
    printed = capsys.readouterr()
    return Answer(int(ended.value.code or 0), printed.out, printed.err)


def test_a_running_full_is_seen_followed_and_ended_from_elsewhere_and_leaves_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ORDERS_DSN", site.dsn)
    monkeypatch.setenv("SQLBAK_CONFIG", str(site.config))
    with Fleet(load_configuration(site.config).configuration) as fleet:
        back_up(fleet, "orders", PointType.FULL)
    before = sorted(site.root.glob("vault/items/*/data/*"))
    follower = site.start("jobs", "--follow", "--every", "0.2", "--json")
    try:
        assert follower.stdout is not None
        with standing_full(site, monkeypatch) as (thread, errors):
            told = json.loads(follower.stdout.readline())
            assert (told["event"], told["type"]) == ("running", "full")

            shown = asked(capsys).ok()
            (running,) = shown["running"]
            assert (running["item"], running["state"]) == ("orders", "running")
            assert running["id"] == told["id"]
            assert [job["outcome"] for job in shown["jobs"]] == ["succeeded"]

            wish = asked(capsys, "--cancel", running["id"]).ok()
            assert wish["cancelled"]["id"] == running["id"]
            thread.join()
        (error,) = errors
        assert isinstance(error, Cancelled)
        while told["event"] != "ended":
            told = json.loads(follower.stdout.readline())
        assert (told["id"], told["outcome"]) == (running["id"], "cancelled")
    finally:
        kill_hard(follower)

    assert not list(site.root.glob("vault/items/*/running/*"))
    assert sorted(site.root.glob("vault/items/*/data/*")) == before
    after = asked(capsys, "orders", "--failed").ok()
    assert after["running"] == []
    (failed,) = after["jobs"]
    assert (failed["id"], failed["outcome"]) == (running["id"], "cancelled")
    assert failed["error"]["code"] == "cancelled"

    again = asked(capsys, "--cancel", running["id"])
    assert again.code == 2
    assert again.document["error"]["code"] == "unknown_name"
