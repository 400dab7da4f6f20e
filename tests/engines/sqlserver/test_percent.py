"""How far a backup is: the server's messages tell it, and between them a second session."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sqlbak.engines.sqlserver import percent
from tests.engines.sqlserver.site import FULL, Site, site_in


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(percent, "_FIRST_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(percent, "_INTERVAL_SECONDS", 0.05)
    with site_in(tmp_path / "site", databases=["Large"]) as site:
        yield site


class Shown:
    """What a person would see, until files are shipped."""

    def __init__(self) -> None:
        self.total = 0
        self.done = 0

    def phase(self, name: str, total_bytes: int | None = None) -> None:
        if name.startswith("backing up"):
            self.total, self.done = total_bytes or 0, 0
        else:
            self.total = -abs(self.total)

    def advance(self, size_bytes: int) -> None:
        if self.total > 0:
            self.done += size_bytes

    def is_at(self, percent: int) -> bool:
        return self.total > 0 and self.done == self.total * percent // 100


def shown_while_held(site: Site, login_sees_others: bool) -> tuple[bool, bool]:
    """Whether it is seen where the last message was, and where the server really is."""
    fault = site.simulator.faults.add(
        "hold", at_percent=43, command="BACKUP DATABASE", database="Large"
    )
    shown, seen = Shown(), [False, False]

    def look() -> None:
        assert fault.reached.wait(30)
        until = time.monotonic() + (20 if login_sees_others else 0.5)
        while time.monotonic() < until and not seen[1]:
            seen[0] |= shown.is_at(42)
            seen[1] |= shown.is_at(43)
            time.sleep(0.01)
        fault.released.set()

    looking = threading.Thread(target=look)
    looking.start()
    site.backup("Large", FULL, progress=shown)
    looking.join()
    assert shown.done == -shown.total
    return seen[0], seen[1]


def test_between_two_messages_the_servers_own_figure_is_shown(site: Site) -> None:
    assert shown_while_held(site, login_sees_others=True)[1]


def test_without_a_second_session_the_messages_have_to_do(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(percent, "_FIRST_LOOK_SECONDS", 3600)
    assert shown_while_held(site, login_sees_others=False) == (True, False)
