"""A SQL Server instance is watched: each database by itself, and those that nobody protects."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from io import StringIO

import pytest

from sqlbak.cli.main import main
from sqlbak.fleet import Fleet
from sqlbak.model import NoteCode, PointType
from sqlbak.monitor.events import Event, EventKind
from sqlbak.monitor.gathering import Gatherer
from sqlbak.monitor.status import Health, ItemStatus, status_of
from sqlbak.scheduler.due import DueJob
from sqlbak.scheduler.logs import event_log
from sqlbak.scheduler.working import Ending, Work
from sqlbak.stopping import NEVER
from sqlbak.vault.job_records import list_jobs
from tests.engines.sqlserver.site import DIFFERENTIAL, FULL, LOG, Site


class Heard:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)


def taken(site: Site, database: str, kind: PointType) -> list[Event]:
    """What is told while the scheduler takes one backup of ``erp/database``."""
    heard = Heard()
    with site.fleet() as fleet:
        work = Work(event_log(StringIO()), NEVER, utc_now, heard, lambda _items, _now: [job])
        job = DueJob(f"erp/{database}", kind, None, "the test says so")
        assert work.take(fleet, job).ending is Ending.DONE
    return [event for event in heard.events if not event.is_over]


def utc_now() -> datetime:
    return datetime.now(UTC)


def statuses(site: Site) -> tuple[dict[str, ItemStatus], tuple[str, ...]]:
    with site.fleet() as fleet:
        found = Gatherer(fleet).gather(None, utc_now)
    return {one.name: status_of(one, utc_now()) for one in found.items}, found.left_out


def test_each_database_has_its_own_health_and_what_nobody_protects_is_named(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("Sales", "Plain", "Fresh", "Other"):
        site.simulator.create_database(name, model="SIMPLE" if name == "Plain" else "FULL")
    site.databases = {"include": ["Sales", "Plain", "Fresh"]}
    site.write_policies()
    for name in ("Sales", "Plain"):
        site.point(name, FULL)
    site.point("Sales", LOG)
    found, left_out = statuses(site)
    assert {name: status.health for name, status in found.items()} == {
        "erp/Sales": Health.HEALTHY,
        "erp/Plain": Health.HEALTHY,
        "erp/Fresh": Health.UNPROTECTED,
    }
    assert left_out == ("erp/Other",)
    # What its owner chose is told, and measured by what can be done.
    assert "log_paused" in {one.detail for one in found["erp/Plain"].concerns}
    assert "log_paused" not in {one.detail for one in found["erp/Sales"].concerns}
    assert found["erp/Plain"].promise.target > found["erp/Sales"].promise.target

    with pytest.raises(SystemExit) as ended:
        main(["--config", str(site.policies), "status", "erp/Sales", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert (ended.value.code, document["at_risk"]) == (0, False)
    assert [item["item"] for item in document["items"]] == ["erp/Sales"]
    with pytest.raises(SystemExit) as ended:
        main(["--config", str(site.policies), "status", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert (ended.value.code, document["unprotected_databases"]) == (4, ["erp/Other"])


def test_the_vault_alone_tells_of_the_databases_that_it_has(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.databases = {}
    site.write_policies()
    site.simulator.create_database("Kept")
    site.point("Kept", FULL)

    def refuse(_fleet: Fleet, _name: str) -> None:
        raise AssertionError("the server was asked")

    monkeypatch.setattr(Fleet, "inspect", refuse)
    monkeypatch.setattr(Fleet, "item_names", refuse)
    with site.fleet() as fleet:
        found = Gatherer(fleet).gather("erp", utc_now, asks_servers=False)
    (kept,) = [one for one in found.items if one.name == "erp/Kept"]
    assert status_of(kept, utc_now()).newest_restorable is not None


def test_backups_of_other_tools_are_told_by_name(site: Site) -> None:
    site.databases = {}
    site.write_policies()
    site.simulator.create_database("Shared", rows=["one"])
    site.point("Shared", FULL)
    site.simulator.insert("Shared", "two")
    site.simulator.execute("BACKUP LOG Shared TO DISK = 'NUL' WITH NAME = 'theirs'")
    site.simulator.insert("Shared", "three")
    told = {event.kind: event.what for event in taken(site, "Shared", LOG)}
    assert "'theirs' by sa" in told[EventKind.FOREIGN_BACKUP]
    assert "'theirs' by sa" in told[EventKind.CHAIN_BROKEN]

    # The record of the run keeps it, for whoever asks later.
    with site.fleet() as fleet:
        (stored,) = fleet.stored_items("erp/Shared")
        records = list_jobs(stored.vault.store, stored.item.id, limit=9)
    notes = {note.code: note.facts for record in records for note in record.notes}
    assert notes[NoteCode.TAKEN_INSTEAD] == {"asked": "log", "taken": "differential"}
    facts = notes[NoteCode.FOREIGN_BACKUP]
    assert (facts["kind"], facts["name"], facts["login"]) == ("log", "theirs", "sa")
    assert (facts["device"], facts["device_kind"]) == ("NUL", "file")
    seen = statuses(site)[0]["erp/Shared"]
    (concern,) = [one for one in seen.concerns if one.kind is EventKind.FOREIGN_BACKUP]
    assert "'theirs' by sa" in concern.what
    assert seen.health is Health.HEALTHY

    site.simulator.execute("BACKUP DATABASE Shared TO DISK = 'NUL' WITH NAME = 'theirs too'")
    told = {event.kind: event.what for event in taken(site, "Shared", DIFFERENTIAL)}
    assert "theirs too" in told[EventKind.FOREIGN_BACKUP]
