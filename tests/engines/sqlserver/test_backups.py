"""Backups of one database against the simulated server: what is taken, kept, told and restored."""

from __future__ import annotations

from pathlib import Path

import pytest

from sqlbak.engines.sqlserver import delivery
from sqlbak.errors import BackupFailed, BackupPaused, ServerNotReady
from tests.engines.sqlserver.site import DIFFERENTIAL, FULL, LOG, Site, site_in


def test_full_differential_and_logs_restore_to_what_was_committed(site: Site) -> None:
    site.simulator.create_database("Sales", rows=["before"])
    full = site.point("Sales", FULL)
    site.simulator.insert("Sales", "in the first log")
    first = site.point("Sales", LOG)
    site.simulator.insert("Sales", "in the differential")
    differential = site.point("Sales", DIFFERENTIAL)
    site.simulator.insert("Sales", "in the last log")
    last = site.point("Sales", LOG)
    everything = ["before", "in the first log", "in the differential", "in the last log"]
    assert site.restored("Sales") == everything
    assert site.restored("Sales", first.id) == everything[:2]
    assert site.restored("Sales", differential.id) == everything[:3]
    assert site.restored("Sales", full.id) == everything[:1]
    assert differential.base_id == full.id
    assert first.first_lsn <= full.last_lsn
    assert last.first_lsn == first.last_lsn
    assert site.files() == []


def test_every_legal_name_is_backed_up_and_restored(tmp_path: Path) -> None:
    names = ["a]b", "O'Brien", " leading", "per/cent%20", "x" * 123, "[brackets]", "数据库"]
    with site_in(tmp_path / "site", databases=names) as site:
        with site.fleet() as fleet:
            assert set(fleet.item_names("erp")) == {f"erp/{name}" for name in names}
        for name in names:
            site.simulator.insert(name, f"of {name[:50]}")
            site.point(name, FULL)
        for name in names:
            assert site.restored(name, site.points(name)[0].id) == [f"of {name[:50]}"]
        assert len({stored.item.id for name in names for stored in site.stored(name)}) == 7


def test_what_the_manifest_says_of_a_backup(site: Site) -> None:
    site.simulator.create_database("Facts")
    point = site.point("Facts", FULL)
    facts = site.manifest("Facts", point).facts
    assert facts is not None
    assert facts["delivery"] == "disk"
    assert facts["streams"] == ["media-1"]
    assert facts["recovery_model"] == "FULL"
    assert facts["owner"] == "sa"
    assert facts["server"]["version"].startswith("16.")
    assert facts["server"]["utc_offset_minutes"] == 0
    assert facts["server"]["time_zone"] == "UTC"
    header = facts["header"]
    assert len(header) == 59
    assert header["HasBackupChecksums"] is True
    assert header["BackupName"] == facts["set_name"]
    assert facts["set_name"].startswith(f"sqlbak {point.id}")
    assert int(header["FirstLSN"]) == point.first_lsn
    assert header["RecoveryForkID"] == point.lineage == point.lineage.lower()
    assert facts["msdb"]["backup_set_uuid"] == header["BackupSetGUID"]
    assert {row["Type"] for row in facts["file_list"]} == {"D", "L"}


def test_times_are_utc_whatever_the_servers_zone(tmp_path: Path) -> None:
    with site_in(tmp_path / "site", databases=["Sales"], zone="America/New_York") as site:
        full = site.point("Sales", FULL)
        site.simulator.insert("Sales", "row")
        log = site.point("Sales", LOG)
        facts = site.manifest("Sales", log).facts
        assert facts is not None
        assert facts["server"]["utc_offset_minutes"] in (-240, -300)
        assert abs((log.started_at - full.finished_at).total_seconds()) < 600
        assert log.covers_until is not None
        assert log.covers_until <= log.started_at
        assert full.reachable_from is not None
        assert full.reachable_from >= full.started_at


@pytest.mark.parametrize("year", [2016, 2019, 2025])
def test_other_versions_are_backed_up_too(tmp_path: Path, year: int) -> None:
    with site_in(tmp_path / "site", databases=["Sales"], year=year) as site:
        site.simulator.insert("Sales", "row")
        full = site.point("Sales", FULL)
        site.simulator.insert("Sales", "row 2")
        site.point("Sales", LOG)
        assert site.restored("Sales", site.points("Sales")[1].id) == ["row", "row 2"]
        facts = site.manifest("Sales", full).facts
        assert facts is not None
        assert len(facts["header"]) == (59 if year >= 2022 else 56)
        if year == 2025:
            assert facts["header"]["CompressionAlgorithm"] == "ZSTD"


@pytest.mark.parametrize(("year", "is_told"), [(2016, True), (2019, True), (2022, False)])
def test_encrypted_databases_are_compressed_on_old_servers_too(
    tmp_path: Path, year: int, is_told: bool
) -> None:
    with site_in(tmp_path / "site", databases=["Secret"], year=year) as site:
        site.simulator.database("Secret").tde_thumbprint = b"\x01" * 20
        site.point("Secret", FULL)
        (sent,) = [
            batch for batch in site.simulator.instance.statements if batch.startswith("BACKUP ")
        ]
        assert ("MAXTRANSFERSIZE = 131072" in sent) is is_told


def test_editions_that_cannot_compress_are_backed_up_without(tmp_path: Path) -> None:
    with site_in(tmp_path / "site", databases=["Sales"], edition="Web Edition (64-bit)") as site:
        facts = site.manifest("Sales", site.point("Sales", FULL)).facts
        assert facts is not None
        assert facts["header"]["Compressed"] == 0


def test_stripes_are_streams_of_their_own_and_restore_together(tmp_path: Path) -> None:
    with site_in(tmp_path / "site", databases=["Big"], settings={"stripes": 3}) as site:
        site.simulator.insert("Big", "row")
        point = site.point("Big", FULL)
        facts = site.manifest("Big", point).facts
        assert facts is not None
        assert facts["streams"] == ["media-1", "media-2", "media-3"]
        assert site.restored("Big", point.id) == ["row"]
        assert site.files() == []


def test_windows_paths_are_joined_as_windows_does(tmp_path: Path) -> None:
    with site_in(
        tmp_path / "site", databases=["Sales"], server_path="D:\\Backup", platform="Windows"
    ) as site:
        site.simulator.insert("Sales", "row")
        point = site.point("Sales", FULL)
        assert site.restored("Sales", point.id) == ["row"]
        seen = [text for text in site.simulator.instance.statements if text.startswith("BACKUP")]
        assert "DISK = N'D:\\Backup\\sqlbak-" in seen[0]


def test_a_copy_only_full_is_never_the_base_of_a_differential(site: Site) -> None:
    site.simulator.create_database("Copy")
    full = site.point("Copy", FULL)
    copy = site.point("Copy", FULL, is_copy_only=True)
    assert copy.is_copy_only
    facts = site.manifest("Copy", copy).facts
    assert facts is not None
    assert facts["header"]["IsCopyOnly"] is True
    assert site.point("Copy", DIFFERENTIAL).base_id == full.id


def test_the_log_of_a_simple_database_is_paused_until_its_model_changes(site: Site) -> None:
    site.simulator.create_database("Simple", model="SIMPLE")
    site.point("Simple", FULL)
    site.point("Simple", DIFFERENTIAL)
    with pytest.raises(BackupPaused, match="SIMPLE recovery model"):
        site.backup("Simple", LOG)
    with site.fleet() as fleet:
        problems = {one.code: one for one in fleet.inspect("erp/Simple").problems}
    assert problems["log_paused"].remedy == "ALTER DATABASE [Simple] SET RECOVERY FULL"
    site.simulator.execute("ALTER DATABASE Simple SET RECOVERY FULL")
    outcome = site.backup("Simple", LOG)
    assert [point.type for point in outcome.points] == [DIFFERENTIAL]
    site.simulator.insert("Simple", "row")
    site.point("Simple", LOG)
    assert site.restored("Simple") == ["row"]


def test_master_gets_fulls_only(tmp_path: Path) -> None:
    with site_in(tmp_path / "site") as site:
        site.databases = {"exclude": []}
        site.write_policies()
        with site.fleet() as fleet:
            assert fleet.item_names("erp") == ("erp/master", "erp/model", "erp/msdb")
        assert site.point("master", FULL)
        for kind in (DIFFERENTIAL, LOG):
            with pytest.raises(BackupPaused, match="full backups only"):
                site.backup("master", kind)


@pytest.mark.parametrize(
    ("statement", "error", "text"),
    [
        ("ALTER DATABASE {} SET OFFLINE", BackupPaused, "offline"),
        ("BACKUP LOG {} TO DISK = 'NUL' WITH NORECOVERY", BackupPaused, "RESTORING"),
    ],
)
def test_a_database_that_is_set_aside_is_paused_with_the_reason(
    site: Site, statement: str, error: type[Exception], text: str
) -> None:
    name = f"aside{len(statement)}"
    site.simulator.create_database(name)
    site.point(name, FULL)
    site.simulator.execute(statement.format(name))
    for kind in (FULL, DIFFERENTIAL, LOG):
        with pytest.raises(error, match=text):
            site.backup(name, kind)


def test_a_suspect_database_is_an_error_and_no_pause(site: Site) -> None:
    database = site.simulator.create_database("Broken")
    with site.simulator.lock:
        database.state = "SUSPECT"
    with pytest.raises(ServerNotReady, match="SUSPECT"):
        site.backup("Broken", FULL)


def test_a_damaged_page_fails_the_backup_and_leaves_nothing(site: Site) -> None:
    site.simulator.create_database("Torn", filler_bytes=200_000)
    site.simulator.faults.add("damage", at_percent=50, command="BACKUP DATABASE", database="Torn")
    with pytest.raises(BackupFailed, match="3043"):
        site.backup("Torn", FULL)
    assert site.points("Torn") == []
    assert site.files() == []


def test_a_full_disk_of_the_server_is_named(site: Site) -> None:
    site.simulator.create_database("Wide", filler_bytes=200_000)
    site.simulator.faults.add("write", at_percent=30, command="BACKUP DATABASE", database="Wide")
    with pytest.raises(BackupFailed, match="not enough space"):
        site.backup("Wide", FULL)
    assert site.points("Wide") == []
    assert site.files() == []


def test_paths_that_are_not_one_folder_are_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with site_in(tmp_path / "site", databases=["Sales"]) as site:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        site.settings["delivery"] = {
            "disk": {"server_path": "/var/opt/mssql/backup", "local_path": str(elsewhere)}
        }
        site.write_policies()
        monkeypatch.setattr(delivery, "_APPEARS_SECONDS", 0.1)
        with pytest.raises(BackupFailed, match="there is no"):
            site.backup("Sales", FULL)
        assert site.points("Sales") == []
