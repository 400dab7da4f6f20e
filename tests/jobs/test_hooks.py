"""Hooks around a backup: what they get, when they run, and that nothing of them is left."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sqlbak.errors import BackupFailed, HookFailed, Interrupted
from sqlbak.jobs.backup import BackupOutcome
from sqlbak.jobs.hooks import around
from sqlbak.model import EngineName, Item, Point, PointType
from sqlbak.policy.calendar import Slot
from sqlbak.policy.hook_settings import Hook, Hooks
from sqlbak.stopping import StopSignal

AT = datetime(2026, 11, 22, 1, tzinfo=UTC)
SLOT = Slot(PointType.FULL, AT, AT.date(), "full@2026-11-22T01:00")
POINT = Point("20261122T010000Z-aaaaaaaaaa", PointType.FULL, "1", 1, 2, AT, AT)
OUTCOME = BackupOutcome(Item("i", EngineName.POSTGRES, "orders", None, "7"), (POINT,))


def hook(script: str, **more: Any) -> Hook:
    return Hook(command=(sys.executable, "-S", "-c", script), **more)


def diary(path: Path) -> str:
    return (
        "import os, json\n"
        f"with open({str(path)!r}, 'a') as f:\n"
        "    f.write(json.dumps(dict(os.environ)) + '\\n')\n"
    )


def read(path: Path) -> list[dict[str, str]]:
    import json

    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


class Ran:
    """A run with hooks; what was told of failures."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.taken = 0

    def end(self, name: str, error: HookFailed | None) -> None:
        if error is not None:
            self.told.append((name, error.message))

    def run(
        self,
        hooks: Hooks,
        take: Callable[[], BackupOutcome] | None = None,
        kind: PointType = PointType.FULL,
        stop: StopSignal | None = None,
    ) -> BackupOutcome:
        def took() -> BackupOutcome:
            self.taken += 1
            return OUTCOME if take is None else take()

        return around(
            hooks,
            "orders",
            kind,
            SLOT,
            took,
            on_end=self.end,
            stop=StopSignal() if stop is None else stop,
        )


def test_both_are_told_what_the_backup_is_and_post_how_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORDERS_DSN", "password=secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    file = tmp_path / "diary"
    ran = Ran()
    assert ran.run(Hooks(pre=hook(diary(file)), post=hook(diary(file)))) is OUTCOME
    before, after = read(file)
    assert before["SQLBAK_HOOK"] == "pre"
    assert before["SQLBAK_ITEM"] == "orders"
    assert before["SQLBAK_TYPE"] == "full"
    assert before["SQLBAK_SLOT"] == AT.isoformat()
    assert after["SQLBAK_OUTCOME"] == "succeeded"
    assert after["SQLBAK_POINTS"] == POINT.id
    assert "secret" not in str((before, after))
    assert ran.told == []


def test_a_pre_hook_that_fails_stops_the_backup_and_post_still_runs(tmp_path: Path) -> None:
    file = tmp_path / "diary"
    ran = Ran()
    with pytest.raises(HookFailed, match="exit code 3: not now"):
        ran.run(Hooks(pre=hook("print('not now'); raise SystemExit(3)"), post=hook(diary(file))))
    assert ran.taken == 0
    assert [name for name, _ in ran.told] == ["pre"]
    (after,) = read(file)
    assert (after["SQLBAK_OUTCOME"], after["SQLBAK_ERROR"]) == ("failed", "hook_failed")


def test_a_pre_hook_may_be_allowed_to_fail(tmp_path: Path) -> None:
    ran = Ran()
    assert ran.run(Hooks(pre=hook("raise SystemExit(1)", on_failure="continue"))) is OUTCOME
    assert ran.taken == 1
    assert len(ran.told) == 1


def test_post_runs_after_a_failure_and_after_a_stop_and_hides_neither(tmp_path: Path) -> None:
    for error, word in ((BackupFailed("no"), "failed"), (Interrupted(), "interrupted")):
        file = tmp_path / word
        stop = StopSignal()

        def take(error: Exception = error, stop: StopSignal = stop) -> BackupOutcome:
            stop.request()
            raise error

        with pytest.raises(type(error)):
            Ran().run(Hooks(post=hook(diary(file) + "raise SystemExit(1)")), take, stop=stop)
        assert read(file)[0]["SQLBAK_OUTCOME"] == word


def test_a_post_hook_that_fails_makes_the_run_a_failed_one_unless_it_may(tmp_path: Path) -> None:
    with pytest.raises(HookFailed, match="post"):
        Ran().run(Hooks(post=hook("raise SystemExit(1)")))
    ran = Ran()
    assert ran.run(Hooks(post=hook("raise SystemExit(1)", on_failure="continue"))) is OUTCOME
    assert [name for name, _ in ran.told] == ["post"]


def test_hooks_run_for_the_types_that_they_name(tmp_path: Path) -> None:
    file = tmp_path / "diary"
    hooks = Hooks(pre=hook(diary(file), types=("full",)), post=hook(diary(file), types=("log",)))
    Ran().run(hooks, kind=PointType.DIFFERENTIAL)
    assert read(file) == []
    Ran().run(hooks, kind=PointType.LOG)
    assert [one["SQLBAK_HOOK"] for one in read(file)] == ["post"]


def test_a_program_that_is_not_there_is_a_failure_with_a_name() -> None:
    with pytest.raises(HookFailed, match="/no/such/program cannot be run"):
        Ran().run(Hooks(pre=Hook(command=("/no/such/program",))))


def test_no_shell_reads_the_arguments(tmp_path: Path) -> None:
    file = tmp_path / "said"
    script = f"import sys; open({str(file)!r}, 'w').write(sys.argv[1])"
    command = (sys.executable, "-S", "-c", script, "$(id); `id` * ~")
    Ran().run(Hooks(pre=Hook(command=command)))
    assert file.read_text() == "$(id); `id` * ~"


def gone(pid: int) -> bool:
    """Whether the process is gone, or goes at once: a kill is carried out a moment later."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state in "ZX":
            return True
        time.sleep(0.02)
    return False


WITH_CHILD = (
    "import subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(600)'])\n"
    "open({path!r}, 'w').write(str(child.pid))\n"
)


def test_what_takes_too_long_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    script = WITH_CHILD.format(path=str(file)) + "time.sleep(600)"
    with pytest.raises(HookFailed, match="more than 1 s"):
        Ran().run(Hooks(pre=hook(script, timeout=1)))
    assert gone(int(file.read_text()))


def test_what_a_hook_leaves_behind_ends_with_it_and_holds_nothing_up(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    Ran().run(Hooks(pre=hook(WITH_CHILD.format(path=str(file)))))
    assert gone(int(file.read_text()))


def test_a_stop_ends_a_pre_hook(tmp_path: Path) -> None:
    stop = StopSignal()
    threading.Timer(0.3, stop.request).start()
    begun = time.monotonic()
    ran = Ran()
    with pytest.raises(Interrupted):
        ran.run(Hooks(pre=hook("import time; time.sleep(600)")), stop=stop)
    assert time.monotonic() - begun < 60
    assert ran.taken == 0


def test_all_that_a_hook_prints_is_bounded(tmp_path: Path) -> None:
    with pytest.raises(HookFailed) as caught:
        Ran().run(Hooks(pre=hook("print('x' * 100000); raise SystemExit(1)")))
    assert len(caught.value.message) < 2500
