"""Backups that other tools took become recovery points, and restore to the second."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from sqlbak.errors import InputUnreadable
from sqlbak.jobs.adopt import Adoption, adopt
from sqlbak.jobs.adoptable_files import BucketPlace, FolderPlace
from sqlbak.vault.memory_store import MemoryStore
from tests.sqlserver.site import INSTANCE, SERVER_FOLDER, Site, said


def foreign(site: Site, kind: str, *names: str, options: str = "", database: str = "Sales") -> None:
    """A backup as another tool takes it, into the folder that the server sees."""
    devices = ", ".join(f"DISK = N'{SERVER_FOLDER}/{name}'" for name in names)
    verb = "LOG" if kind == "log" else "DATABASE"
    more = ["DIFFERENTIAL"] if kind == "differential" else []
    with_ = ", ".join([*more, "CHECKSUM", *([options] if options else [])])
    site.simulator.execute(f"BACKUP {verb} [{database}] TO {devices} WITH {with_}")


def others_took(site: Site) -> None:
    site.simulator.create_database("Sales")
    site.insert("Sales", "first")
    site.advance(minutes=1)
    foreign(site, "full", "a.bak", "b.bak", options="FORMAT")
    for number in range(3):
        site.advance(minutes=5)
        site.insert("Sales", f"row {number}")
        site.advance(minutes=5)
        foreign(site, "log", f"log{number}.trn")
        if number == 1:
            foreign(site, "differential", "diff.bak")


def elsewhere(site: Site, folder: Path) -> Path:
    """The files moved to where only sqlbak sees them."""
    folder.mkdir()
    for path in list(site.delivery.iterdir()):
        shutil.move(path, folder / path.name)
    return folder


def adopted(site: Site, folder: Path, **options) -> Adoption:
    with site.fleet() as fleet:
        return adopt(
            fleet, INSTANCE, FolderPlace(folder), zone=fleet.policy(INSTANCE).zone, **options
        )


def test_a_chain_of_another_tool_is_restored_to_the_second(site: Site, tmp_path: Path) -> None:
    others_took(site)
    folder = elsewhere(site, tmp_path / "theirs")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    found = adopted(site, folder)
    assert [each.type.value for each in found.sets if each.type] == [
        "full",
        "differential",
        "log",
        "log",
        "log",
    ]
    assert all(each.point is not None for each in found.sets)
    target = site.commits["Sales"][-1][0]
    for instant in (target - timedelta(seconds=1), target):
        site.restore("Sales", instant, f"At{instant:%S}")
        assert site.rows(f"At{instant:%S}") == site.rows_at("Sales", instant)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert site.leftovers() == []


def test_adopting_again_adds_only_what_is_new(site: Site, tmp_path: Path) -> None:
    others_took(site)
    folder = elsewhere(site, tmp_path / "theirs")
    first = adopted(site, folder)
    again = adopted(site, folder)
    assert [each.reason for each in again.sets] == ["it is in the vault already"] * len(first.sets)
    with site.fleet() as fleet:
        assert len(fleet.stored_items(f"{INSTANCE}/Sales")[0].points()) == len(first.sets)


def test_it_is_the_same_item_that_sqlbak_goes_on_with(site: Site, tmp_path: Path) -> None:
    others_took(site)
    adopted(site, elsewhere(site, tmp_path / "theirs"))
    site.advance(minutes=5)
    at = site.insert("Sales", "ours")
    site.advance(minutes=5)
    outcome = site.backup_outcome("Sales", "log")
    assert [point.type.value for point in outcome.points] == ["log"]
    site.restore("Sales", at)
    assert site.rows("Copy") == site.rows_at("Sales", at)


def test_a_dry_run_shows_the_chain_and_writes_nothing(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others_took(site)
    folder = elsewhere(site, tmp_path / "theirs")
    assert site.program("adopt", "erp/Sales", str(folder), "--dry-run", "--json") == 0
    document, _ = said(capsys)
    assert document["dry_run"] is True
    assert document["adopted"] == []
    assert [each["reason"] for each in document["sets"]] == [None] * 5
    with site.fleet() as fleet:
        assert fleet.stored_items(None) == []
    assert site.program("adopt", "erp", str(folder)) == 0
    out = capsys.readouterr().out
    assert "erp/Sales" in out
    assert "log2.trn" in out


def test_files_in_the_delivery_folder_are_read_where_they_are(site: Site) -> None:
    others_took(site)
    before = site.leftovers()
    assert len(adopted(site, site.delivery).sets) == 5
    assert site.leftovers() == before


def test_a_missing_stripe_a_strange_file_and_a_lost_full_are_named(
    site: Site, tmp_path: Path
) -> None:
    others_took(site)
    folder = elsewhere(site, tmp_path / "theirs")
    (folder / "b.bak").unlink()
    (folder / "notes.bak").write_text("no backup at all")
    found = adopted(site, folder)
    assert "1 of the 2 files" in found.unreadable["a.bak"]
    assert "incorrectly formed" in found.unreadable["notes.bak"]
    reasons = {each.type.value: each.reason for each in found.sets if each.type and each.reason}
    assert "the full that it builds on" in reasons["differential"]
    assert sum(each.point is not None for each in found.sets) == 3


def test_several_sets_on_one_media_are_each_restored(site: Site, tmp_path: Path) -> None:
    site.simulator.create_database("Sales", rows=["one"])
    site.advance(minutes=1)
    foreign(site, "full", "all.bak", options="FORMAT")
    site.advance(minutes=1)
    at = site.insert("Sales", "two")
    site.advance(minutes=1)
    foreign(site, "log", "all.bak", options="NOINIT")
    adopted(site, elsewhere(site, tmp_path / "theirs"))
    site.restore("Sales", at)
    assert site.rows("Copy") == ["one", "two"]


def test_the_tail_of_a_lost_server_is_adopted_and_restored_to_its_last_commit(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    site.write_history("Sales")
    kept = site.rows("Sales")
    site.advance(minutes=2)
    last = site.insert("Sales", "after the last log backup")
    site.advance(minutes=2)
    with site.simulator.lock:
        site.simulator.database("Sales").state = "SUSPECT"
    words = ("--to", "latest", "--overwrite", "--tail", "backup")
    assert site.program("restore", f"{INSTANCE}/Sales", *words) == 3
    assert "save the end of its log" in capsys.readouterr().err
    foreign(site, "log", "tail.trn", options="NO_TRUNCATE")
    folder = elsewhere(site, tmp_path / "rescued")
    (tail,) = adopted(site, folder).sets
    assert tail.point is not None
    assert site.program("list", f"{INSTANCE}/Sales") == 0
    assert "copy-only log" in capsys.readouterr().out
    site.restore("Sales", last, "ToTheInstant")
    site.restore("Sales", "latest", "Latest")
    site.restore("Sales", tail.point.id, "Whole")
    site.drop("Sales")
    site.restore("Sales", tail.point.id, "Sales")
    everything = [*kept, "after the last log backup"]
    names = ("ToTheInstant", "Latest", "Whole", "Sales")
    assert [site.rows(name) for name in names] == [everything] * 4
    again = site.backup_outcome("Sales", "log")
    assert [point.type.value for point in again.points] == ["full"]


def test_a_copy_only_log_of_others_leaves_the_chain_as_it_is(site: Site, tmp_path: Path) -> None:
    site.write_history("Sales")
    site.advance(minutes=2)
    between = site.insert("Sales", "in the copy")
    site.advance(minutes=2)
    foreign(site, "log", "copy.trn", options="COPY_ONLY")
    (copy,) = adopted(site, elsewhere(site, tmp_path / "theirs")).sets
    site.advance(minutes=2)
    site.insert("Sales", "behind it")
    site.advance(minutes=2)
    outcome = site.backup_outcome("Sales", "log")
    assert [point.type.value for point in outcome.points] == ["log"]
    assert copy.point is not None
    assert outcome.points[0].first_lsn == copy.point.first_lsn
    with site.fleet() as fleet:
        assert len(fleet.stored_items(f"{INSTANCE}/Sales")) == 1
    site.restore("Sales", outcome.points[0].id, "Whole")
    assert site.rows("Whole") == site.rows("Sales")
    site.restore("Sales", between, "Between")
    assert site.rows("Between") == site.rows("Sales")[:-1]


def test_one_database_of_several_can_be_chosen(site: Site, tmp_path: Path) -> None:
    others_took(site)
    site.simulator.create_database("Other", rows=["x"])
    foreign(site, "full", "other.bak", database="Other")
    folder = elsewhere(site, tmp_path / "theirs")
    assert {each.database for each in adopted(site, folder, database="other").sets} == {"Other"}
    with pytest.raises(InputUnreadable, match="no backup of Nothing"):
        adopted(site, folder, database="Nothing")


def test_in_another_zone_the_instants_are_those_of_the_server(make_site, tmp_path: Path) -> None:
    site = make_site("America/New_York")
    others_took(site)
    adopted(site, elsewhere(site, tmp_path / "theirs"))
    at = site.commits["Sales"][-2][0]
    site.restore("Sales", at)
    assert site.rows("Copy") == site.rows_at("Sales", at)


def test_a_folder_that_is_none_is_said(site: Site, tmp_path: Path) -> None:
    with pytest.raises(InputUnreadable, match="no folder"):
        adopted(site, tmp_path / "nothing")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert adopted(site, empty).sets == ()
    assert json.dumps(adopted(site, empty).unreadable) == "{}"


def test_backups_in_a_bucket_are_read_through_the_delivery_folder(
    site: Site, tmp_path: Path
) -> None:
    others_took(site)
    folder = elsewhere(site, tmp_path / "theirs")
    store = MemoryStore()
    for path in folder.iterdir():
        store.put(f"erp/{path.name}", path.read_bytes())
    store.put("erp/readme.txt", b"no backup")
    with site.fleet() as fleet:
        found = adopt(fleet, INSTANCE, BucketPlace(store), zone=fleet.policy(INSTANCE).zone)
    assert sum(each.point is not None for each in found.sets) == 5
    assert site.leftovers() == []
    at = site.commits["Sales"][-1][0]
    site.restore("Sales", at)
    assert site.rows("Copy") == site.rows_at("Sales", at)
