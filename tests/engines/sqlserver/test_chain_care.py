"""What others do to a database is noticed, named and healed, and no gap stays silent."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from sqlbak.engines.sqlserver import backing
from sqlbak.errors import BackupFailed, BackupPaused, InstantUnreachable, Refused
from sqlbak.model import NoteCode, Point
from tests.engines.sqlserver.site import DIFFERENTIAL, FULL, LOG, Site, site_in


def protected(site: Site, name: str) -> Point:
    """A database with a full and a log behind it."""
    site.simulator.create_database(name, rows=["one"])
    full = site.point(name, FULL)
    site.simulator.insert(name, "two")
    site.point(name, LOG)
    return full


def test_a_foreign_full_is_named_and_a_full_is_taken_instead(site: Site) -> None:
    full = protected(site, "Foreign")
    site.simulator.execute(
        "BACKUP DATABASE Foreign TO DISK = '/var/opt/mssql/backup/theirs.bak' WITH NAME = 'nightly'"
    )
    site.simulator.insert("Foreign", "three")
    outcome = site.backup("Foreign", DIFFERENTIAL)
    assert [point.type for point in outcome.points] == [FULL]
    assert full.id in outcome.notes[0].text
    for told in ("nightly", "sa", "/var/opt/mssql/backup/theirs.bak"):
        assert told in outcome.notes[0].text
    assert site.files() == ["theirs.bak"], "what is not ours stays"
    (site.folder / "theirs.bak").unlink()
    # The log was not touched by it.
    site.simulator.insert("Foreign", "four")
    site.point("Foreign", LOG)
    assert site.restored("Foreign") == ["one", "two", "three", "four"]


def test_a_snapshot_of_the_machine_is_named_as_one(site: Site) -> None:
    protected(site, "Vss")
    site.simulator.snapshot_backup("Vss")
    outcome = site.backup("Vss", DIFFERENTIAL)
    assert [point.type for point in outcome.points] == [FULL]
    assert "snapshot" in outcome.notes[0].text
    assert "VSS" in outcome.notes[0].text


def test_a_foreign_copy_only_full_harms_nothing(site: Site) -> None:
    full = protected(site, "Copied")
    site.simulator.execute("BACKUP DATABASE Copied TO DISK = 'NUL' WITH COPY_ONLY")
    assert site.point("Copied", DIFFERENTIAL).base_id == full.id


def test_where_nothing_is_written_nobody_is_said_to_have_taken_log(site: Site) -> None:
    site.simulator.create_database("Idle", rows=["one"])
    site.backup("Idle", FULL)
    time.sleep(1.1)  # points are listed by the second in which they began
    for _ in range(3):
        outcome = site.backup("Idle", LOG)
        assert [point.type for point in outcome.points] == [LOG]
        assert outcome.notes == ()


def test_log_that_another_took_is_named_and_bridged_by_a_differential(site: Site) -> None:
    protected(site, "Stolen")
    site.simulator.insert("Stolen", "in the stolen log")
    site.simulator.execute("BACKUP LOG Stolen TO DISK = 'NUL' WITH NAME = 'shipping'")
    site.simulator.insert("Stolen", "three")
    outcome = site.backup("Stolen", LOG)
    assert [point.type for point in outcome.points] == [DIFFERENTIAL]
    assert "shipping" in outcome.notes[-1].text
    assert "NUL" in outcome.notes[-1].text
    site.simulator.insert("Stolen", "four")
    last = site.point("Stolen", LOG)
    rows = ["one", "two", "in the stolen log", "three", "four"]
    assert site.restored("Stolen") == rows
    assert site.restored("Stolen", last.id) == rows
    # What lies in the gap is refused, and not restored to something else.
    logs = [point for point in site.points("Stolen") if point.type is LOG]
    covered = logs[0].covers_until
    assert covered is not None
    gap = covered + (outcome.points[0].started_at - covered) / 2
    with pytest.raises(InstantUnreachable):
        site.restored("Stolen", gap.isoformat())


def test_stolen_log_that_a_differential_bridged_already_is_told_too(site: Site) -> None:
    protected(site, "Bridged")
    site.simulator.insert("Bridged", "three")
    site.simulator.execute("BACKUP LOG Bridged TO DISK = 'NUL' WITH NAME = 'shipping'")
    site.point("Bridged", DIFFERENTIAL)
    site.simulator.insert("Bridged", "four")
    outcome = site.backup("Bridged", LOG)
    assert [point.type for point in outcome.points] == [LOG]
    assert "shipping" in outcome.notes[0].text
    assert "is missing" in outcome.notes[0].text
    site.simulator.insert("Bridged", "five")
    assert site.backup("Bridged", LOG).notes == ()
    assert site.restored("Bridged") == ["one", "two", "three", "four", "five"]


def test_stolen_log_and_a_foreign_full_together_need_a_full(site: Site) -> None:
    protected(site, "Twice")
    site.simulator.execute("BACKUP DATABASE Twice TO DISK = 'NUL'")
    site.simulator.execute("BACKUP LOG Twice TO DISK = 'NUL'")
    site.simulator.insert("Twice", "three")
    outcome = site.backup("Twice", LOG)
    assert [point.type for point in outcome.points] == [FULL]
    site.simulator.insert("Twice", "four")
    site.point("Twice", LOG)
    assert site.restored("Twice") == ["one", "two", "three", "four"]


def test_a_switch_to_simple_and_back_is_bridged(site: Site) -> None:
    protected(site, "Flipped")
    site.simulator.execute("ALTER DATABASE Flipped SET RECOVERY SIMPLE")
    site.simulator.insert("Flipped", "unlogged")
    site.simulator.execute("ALTER DATABASE Flipped SET RECOVERY FULL")
    outcome = site.backup("Flipped", LOG)
    assert [point.type for point in outcome.points] == [DIFFERENTIAL]
    assert "SIMPLE" in outcome.notes[-1].text
    site.simulator.insert("Flipped", "three")
    site.point("Flipped", LOG)
    assert site.restored("Flipped") == ["one", "two", "unlogged", "three"]


def test_a_restore_over_the_database_begins_another_lineage_with_a_full(site: Site) -> None:
    protected(site, "Over")
    site.simulator.execute(
        "BACKUP DATABASE Over TO DISK = '/var/opt/mssql/backup/x' WITH COPY_ONLY"
    )
    site.simulator.insert("Over", "lost")
    site.point("Over", LOG)
    site.simulator.execute(
        "RESTORE DATABASE Over FROM DISK = '/var/opt/mssql/backup/x' WITH REPLACE, RECOVERY"
    )
    (site.folder / "x").unlink()
    site.simulator.insert("Over", "after")
    outcome = site.backup("Over", LOG)
    assert [point.type for point in outcome.points] == [FULL]
    assert "restored" in " ".join(map(str, outcome.notes))
    site.simulator.insert("Over", "later")
    last = site.point("Over", LOG)
    assert site.restored("Over", last.id) == ["one", "two", "after", "later"]
    before = next(point for point in reversed(site.points("Over")) if point.lineage != last.lineage)
    assert site.restored("Over", before.id) == ["one", "two", "lost"]


def test_a_differential_after_a_restore_over_becomes_a_full(site: Site) -> None:
    protected(site, "Over2")
    site.simulator.execute(
        "BACKUP DATABASE Over2 TO DISK = '/var/opt/mssql/backup/y' WITH COPY_ONLY"
    )
    site.simulator.execute(
        "RESTORE DATABASE Over2 FROM DISK = '/var/opt/mssql/backup/y' WITH REPLACE, RECOVERY"
    )
    (site.folder / "y").unlink()
    outcome = site.backup("Over2", DIFFERENTIAL)
    assert [point.type for point in outcome.points] == [FULL]


def test_a_database_made_again_under_its_name_is_another_item(site: Site) -> None:
    protected(site, "Again")
    site.simulator.execute("DROP DATABASE Again")
    site.simulator.create_database("Again", rows=["new"])
    outcome = site.backup("Again", LOG)
    assert [point.type for point in outcome.points] == [FULL]
    assert len(site.stored("Again")) == 2
    assert site.restored("Again", outcome.points[0].id) == ["new"]


def test_a_renamed_database_keeps_its_recovery_points(site: Site) -> None:
    full = protected(site, "Old")
    site.simulator.execute("ALTER DATABASE Old MODIFY NAME = New")
    site.simulator.insert("New", "three")
    outcome = site.backup("New", LOG)
    assert [point.type for point in outcome.points] == [LOG]
    assert [stored.item.name for stored in site.stored("New")] == ["erp/Old"]
    assert full.id in [point.id for point in site.points("New")]
    with site.fleet() as fleet:
        assert full.id in [point.id for point in fleet.points("erp/New")]
    assert site.restored("New") == ["one", "two", "three"]


def test_a_copy_beside_its_original_is_an_item_of_its_own(site: Site) -> None:
    protected(site, "Original")
    site.simulator.execute(
        "BACKUP DATABASE Original TO DISK = '/var/opt/mssql/backup/c' WITH COPY_ONLY"
    )
    site.simulator.execute(
        "RESTORE DATABASE TheCopy FROM DISK = '/var/opt/mssql/backup/c' WITH "
        "MOVE 'Original' TO '/var/opt/mssql/data/c.mdf', "
        "MOVE 'Original_log' TO '/var/opt/mssql/data/c.ldf'"
    )
    (site.folder / "c").unlink()
    site.simulator.insert("TheCopy", "of the copy")
    with site.fleet() as fleet:
        assert {"erp/Original", "erp/TheCopy"} <= set(fleet.item_names("erp"))
    outcome = site.backup("TheCopy", LOG)
    assert [point.type for point in outcome.points] == [FULL]
    assert site.stored("TheCopy")[0].item.id != site.stored("Original")[0].item.id
    site.point("Original", LOG)
    assert site.restored("Original") == ["one", "two"]


def test_a_server_that_was_set_back_goes_on_as_a_new_item(tmp_path: Path) -> None:
    with site_in(tmp_path / "site") as site:
        protected(site, "Rolled")
        database = site.simulator.database("Rolled")
        site.simulator.insert("Rolled", "three")
        site.point("Rolled", LOG)
        # As a snapshot of the virtual machine would: the log goes on from an older position.
        with site.simulator.lock:
            first = min(p.last_lsn for p in site.points("Rolled") if p.type is LOG)
            database.last_log_backup_lsn = first
        outcome = site.backup("Rolled", LOG)
        assert [point.type for point in outcome.points] == [FULL]
        assert "set back" in " ".join(map(str, outcome.notes))
        assert len(site.stored("Rolled")) == 2


def test_a_bulk_logged_log_is_marked_and_nothing_stops_inside_it(site: Site) -> None:
    protected(site, "Bulk")
    site.simulator.execute("ALTER DATABASE Bulk SET RECOVERY BULK_LOGGED")
    site.simulator.bulk_insert("Bulk", "loaded")
    log = site.point("Bulk", LOG)
    assert log.has_bulk_logged
    site.simulator.insert("Bulk", "after")
    site.point("Bulk", LOG)
    assert site.restored("Bulk")[-2:] == ["loaded", "after"]
    inside = log.started_at - (log.started_at - site.points("Bulk")[1].started_at) / 2
    with pytest.raises(Refused):
        site.restored("Bulk", inside.isoformat())


def test_a_read_only_database_has_its_log_backed_up_once(site: Site) -> None:
    protected(site, "Still")
    site.simulator.insert("Still", "three")
    site.simulator.execute("ALTER DATABASE Still SET READ_ONLY")
    database = site.simulator.database("Still")
    begin = database.last_log_backup_lsn
    site.point("Still", LOG)
    with site.simulator.lock:
        # Message 4217: a read-only database cannot note how far its log was backed up.
        database.last_log_backup_lsn = begin
    with pytest.raises(BackupPaused, match="read-only"):
        site.backup("Still", LOG)
    assert site.restored("Still") == ["one", "two", "three"]


@pytest.mark.parametrize("severity", [10, 16])
def test_a_history_that_the_server_cannot_write_costs_no_backup(site: Site, severity: int) -> None:
    name = f"Forgotten {severity}"
    protected(site, name)
    site.simulator.faults.msdb_fails = True
    site.simulator.faults.msdb_failure_severity = severity
    try:
        outcomes = [site.backup(name, kind) for kind in (LOG, DIFFERENTIAL)]
    finally:
        site.simulator.faults.clear()
    for outcome, kind in zip(outcomes, (LOG, DIFFERENTIAL), strict=True):
        assert [point.type for point in outcome.points] == [kind]
        (note,) = outcome.notes
        assert "DBCC CHECKDB (msdb)" in note.text


def test_purged_history_costs_names_only(site: Site) -> None:
    protected(site, "Purged")
    site.simulator.execute("BACKUP DATABASE Purged TO DISK = 'NUL'")
    site.simulator.instance.history.purge()
    outcome = site.backup("Purged", DIFFERENTIAL)
    assert [point.type for point in outcome.points] == [FULL]
    assert "msdb does not tell" in outcome.notes[0].text


def meanwhile(monkeypatch: pytest.MonkeyPatch, site: Site, statement: str) -> None:
    """Somebody runs ``statement`` after sqlbak has looked and before its BACKUP begins."""
    execute = backing.execute_backup

    def first_theirs(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(backing, "execute_backup", execute)
        site.simulator.execute(statement)
        return execute(*arguments, **options)

    monkeypatch.setattr(backing, "execute_backup", first_theirs)


def test_a_foreign_full_at_the_last_moment_is_found_in_the_header(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    protected(site, "Race1")
    meanwhile(monkeypatch, site, "BACKUP DATABASE Race1 TO DISK = 'NUL' WITH NAME = 'theirs'")
    outcome = site.backup("Race1", DIFFERENTIAL)
    assert [point.type for point in outcome.points] == [FULL]
    assert "theirs" in outcome.notes[0].text
    assert len(site.points("Race1")) == 3
    assert site.files() == []


def test_log_stolen_at_the_last_moment_is_found_in_the_header(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    protected(site, "Race2")
    site.simulator.insert("Race2", "three")
    meanwhile(monkeypatch, site, "BACKUP LOG Race2 TO DISK = 'NUL' WITH NAME = 'theirs'")
    outcome = site.backup("Race2", LOG)
    assert [point.type for point in outcome.points] == [DIFFERENTIAL]
    # Our own log backup, which came too late, is nobody else's.
    (foreign,) = [note for note in outcome.notes if note.code is NoteCode.FOREIGN_BACKUP]
    assert foreign.facts["name"] == "theirs"
    assert "theirs" in outcome.notes[-1].text
    assert site.files() == []
    site.simulator.insert("Race2", "four")
    site.point("Race2", LOG)
    assert site.restored("Race2") == ["one", "two", "three", "four"]


def test_a_database_replaced_at_the_last_moment_is_not_taken_for_the_other(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    protected(site, "Race3")
    meanwhile(monkeypatch, site, "DROP DATABASE Race3; CREATE DATABASE Race3")
    with pytest.raises(BackupFailed, match="another database"):
        site.backup("Race3", FULL)
    assert len(site.points("Race3")) == 2
    assert site.files() == []
