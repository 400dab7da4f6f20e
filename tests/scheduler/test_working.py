"""What is told and recorded of one due backup."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from sqlbak.errors import BackupPaused, Cancelled, Interrupted, LeaseHeld, ServerUnreachable
from sqlbak.fleet import Fleet
from sqlbak.jobs.backup import Around, BackupOutcome
from sqlbak.model import EngineName, Item, Note, NoteCode, Point, PointType
from sqlbak.monitor.events import Event, EventKind
from sqlbak.policy.hook_settings import Hook, Hooks
from sqlbak.policy.loading import load_configuration
from sqlbak.scheduler import working
from sqlbak.scheduler.due import DueJob, Protected, due
from sqlbak.scheduler.logs import event_log
from sqlbak.scheduler.working import Ending, Work
from sqlbak.stopping import StopSignal
from sqlbak.stored_item import Served
from sqlbak.vault.cancelled_slots import TypeSlot
from sqlbak.vault.job_records import JobOutcome, list_jobs

NOW = datetime(2026, 11, 22, 12, 1, tzinfo=UTC)
ITEM = Item("orders-0123456789abcdef", EngineName.POSTGRES, "orders", None, "7")
FULL, LOG = PointType.FULL, PointType.LOG


def point(kind: PointType, at: datetime) -> Point:
    return Point(f"{at:%Y%m%dT%H%M%SZ}-aaaaaaaaaa", kind, "1", 0, 9, at, at)


class Heard:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)


class Stage:
    """One item whose backup is a function of the test."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = folder / "policies.yaml"
        file.write_text(
            f'vaults: {{main: {{url: "file://{folder}/vault", redundancy: local}}}}\n'
            "policies: {gold: {vault: main, full: 0 1 * * *, log: 15m}}\n"
            'instances: {orders: {engine: postgres, dsn: "host=a"}}\n'
        )
        self.fleet = Fleet(load_configuration(file).configuration)
        self.heard = Heard()
        self.diary = StringIO()
        self.work = Work(event_log(self.diary, as_json=True), StopSignal(), lambda: NOW, self.heard)
        self._monkeypatch = monkeypatch

    def take(self, backup: Callable[[], BackupOutcome], *, hours: float = 0.25) -> Any:
        """``hours``: how long ago the last log was taken."""

        def back_up(*_words: Any, around: Around, **_more: Any) -> BackupOutcome:
            return around(backup)

        self._monkeypatch.setattr(working, "back_up", back_up)
        return self.work.take(self.fleet, self.job(hours))

    def job(self, hours: float) -> DueJob:
        points = (
            point(FULL, NOW - timedelta(hours=11)),
            point(LOG, NOW - timedelta(hours=hours)),
        )
        (job,) = due([Protected("orders", self.fleet.policy("orders"), points)], NOW)
        return job

    def kinds(self) -> list[tuple[EventKind, bool]]:
        return [(event.kind, event.is_over) for event in self.heard.events]

    def log(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.diary.getvalue().splitlines()]
        return [line for line in lines if line["event"] == event]


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    made = Stage(tmp_path, monkeypatch)
    yield made
    made.fleet.close()


def done(*kinds: PointType, notes: tuple[Note, ...] = ()) -> BackupOutcome:
    return BackupOutcome(ITEM, tuple(point(kind, NOW) for kind in kinds), notes)


def test_missed_log_slots_are_told_recorded_once_and_over_with_the_catch_up(stage: Stage) -> None:
    ended = stage.take(lambda: done(LOG), hours=3)
    assert ended.ending is Ending.DONE
    kinds = stage.kinds()
    assert kinds[0] == (EventKind.RPO_BREACHED, False)
    assert (EventKind.RPO_BREACHED, True) in kinds
    (record,) = list_jobs(stage.fleet.vault("orders").store, ITEM.id, limit=9)
    assert (record.outcome, record.type, record.error_code) == (
        JobOutcome.SKIPPED,
        "log",
        "slots_missed",
    )
    assert record.slot == NOW.replace(hour=9, minute=15)
    assert record.error_message is not None
    assert record.error_message.startswith("11 slots were missed")


def test_a_hook_that_failed_is_told_and_its_end_too(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "mended"
    hook = Hook(command=("/bin/sh", "-c", f"test -e {mark}"), on_failure="continue")
    settings = stage.fleet.configuration.instances["orders"]
    mended = settings.model_copy(update={"hooks": Hooks(post=hook)})
    monkeypatch.setitem(stage.fleet.configuration.instances, "orders", mended)
    stage.take(lambda: done(LOG))
    mark.touch()
    stage.take(lambda: done(LOG))
    told = [event for event in stage.heard.events if event.kind is EventKind.HOOK_FAILED]
    assert [event.is_over for event in told] == [False, True]
    assert told[0].key == told[1].key


def test_a_backup_in_time_misses_nothing(stage: Stage) -> None:
    stage.take(lambda: done(LOG))
    assert EventKind.RPO_BREACHED not in [kind for kind, _ in stage.kinds()]
    assert list_jobs(stage.fleet.vault("orders").store, ITEM.id, limit=9) == []


def test_a_log_that_became_something_else_is_a_broken_chain(stage: Stage) -> None:
    text = "a full was taken instead of a log: the slot is gone"
    note = Note(NoteCode.TAKEN_INSTEAD, text, {"asked": "log", "taken": "full"})
    stage.take(lambda: done(FULL, notes=(note,)))
    (event,) = [one for one in stage.heard.events if one.kind is EventKind.CHAIN_BROKEN]
    assert "the slot is gone" in event.what


def raising(error: Exception) -> Callable[[], BackupOutcome]:
    def backup() -> BackupOutcome:
        raise error

    return backup


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (LeaseHeld("held"), Ending.LEFT),
        (BackupPaused("simple recovery"), Ending.PAUSED),
        (Cancelled("by ops"), Ending.CANCELLED),
        (Interrupted("stopping"), Ending.INTERRUPTED),
        (ServerUnreachable("away"), Ending.FAILED),
    ],
)
def test_each_end_of_a_backup_has_its_name(stage: Stage, error: Exception, ending: Ending) -> None:
    ended = stage.take(raising(error))
    assert ended.ending is ending
    assert ended.error is error


def test_what_somebody_cancelled_elsewhere_is_told_from_what_another_had_taken(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = stage.job(0.25)
    assert job.slot is not None
    points = (point(FULL, NOW - timedelta(hours=11)), point(LOG, NOW - timedelta(hours=0.25)))
    mark = TypeSlot(LOG, job.slot.instant)
    seen = {
        Ending.CANCELLED: Served(points, (mark,)),
        Ending.NOT_DUE: Served((*points, point(LOG, NOW)), (mark,)),
        Ending.DONE: Served(points, (TypeSlot(LOG, job.slot.instant - timedelta(minutes=15)),)),
    }
    for ending, served in seen.items():

        def back_up(*_words: Any, served: Served = served, **more: Any) -> BackupOutcome:
            return done(LOG) if more["still_due"](served) else done()

        monkeypatch.setattr(working, "back_up", back_up)
        assert stage.work.take(stage.fleet, job).ending is ending


def test_what_another_process_had_taken_is_no_backup_and_no_failure(stage: Stage) -> None:
    assert stage.take(lambda: done()).ending is Ending.NOT_DUE
    assert stage.log("backup not needed any more")
