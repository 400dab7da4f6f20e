"""Which databases are meant, what may be taken of each, and how headers and servers are read."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlbak.discovery import Discovery, NamesInUse
from sqlbak.engines.port import DiscoveredItem
from sqlbak.engines.registry import InstanceView
from sqlbak.engines.sqlserver.databases import Database, Replica, selected
from sqlbak.engines.sqlserver.delivery import (
    BYTES_A_STRIPE,
    DiskFolder,
    database_key,
    stripe_count,
)
from sqlbak.engines.sqlserver.headers import read_header
from sqlbak.engines.sqlserver.rows import document_of
from sqlbak.engines.sqlserver.server import Server
from sqlbak.engines.sqlserver.statements import Compression
from sqlbak.errors import BackupFailed, FeatureUnsupported, ServerUnreachable
from sqlbak.jobs.log_chain import is_set_back, next_log_start
from sqlbak.model import LogPosition, Point, PointType
from sqlbak.restore.headers import read_headers

FULL, DIFFERENTIAL, LOG = PointType.FULL, PointType.DIFFERENTIAL, PointType.LOG
SALES = Database("Sales", 5, "ONLINE", "FULL")
EXPRESS = Server("S", "16.0.1", "Express Edition", 4, "Linux", "Latin1_General_CI_AS", False)
NOW = datetime(2026, 11, 22, tzinfo=UTC)


def names(*databases: str, include: list[str], exclude: list[str], cs: bool = False) -> list[str]:
    found = [replace(SALES, name=name) for name in databases]
    chosen = selected(found, include=include, exclude=exclude, is_case_sensitive=cs)
    return [one.name for one in chosen]


def test_patterns_choose_databases_and_tempdb_is_never_one() -> None:
    everything = ("Sales", "sales_old", "HR", "tempdb", "a[b]c", "a*b")
    assert names(*everything, include=["*"], exclude=[]) == [
        "Sales",
        "sales_old",
        "HR",
        "a[b]c",
        "a*b",
    ]
    assert names(*everything, include=["SALES*"], exclude=["*_old"]) == ["Sales"]
    assert names(*everything, include=["a[b]c"], exclude=[]) == ["a[b]c"]
    assert names("Sales", "sales", include=["Sales"], exclude=[], cs=True) == ["Sales"]
    assert names("Sales", "sales", include=["*"], exclude=["sales"], cs=True) == ["Sales"]
    assert names("Sales", include=["Hr"], exclude=[]) == []


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20))
def test_a_name_always_fits_itself_and_the_star(name: str) -> None:
    if name.lower() != "tempdb" and "*" not in name:
        assert names(name, include=[name], exclude=[]) == [name]
        assert names(name, include=["*"], exclude=[name]) == []


def test_a_snapshot_is_never_backed_up() -> None:
    snapshot = replace(SALES, is_snapshot=True)
    assert selected([snapshot], include=["*"], exclude=[], is_case_sensitive=False) == []


@pytest.mark.parametrize(
    ("database", "paused"),
    [
        (SALES, set()),
        (replace(SALES, recovery_model="SIMPLE"), {LOG}),
        (replace(SALES, recovery_model="BULK_LOGGED"), set()),
        (replace(SALES, name="master", recovery_model="SIMPLE"), {LOG, DIFFERENTIAL}),
        (replace(SALES, state="OFFLINE"), {FULL, DIFFERENTIAL, LOG}),
        (replace(SALES, state="RESTORING"), {FULL, DIFFERENTIAL, LOG}),
        (replace(SALES, is_in_standby=True), {FULL, DIFFERENTIAL, LOG}),
        (replace(SALES, is_read_only=True), set()),
        (replace(SALES, replica=Replica(is_primary=True, is_preferred=True)), set()),
        (replace(SALES, replica=Replica(is_primary=True, is_preferred=False)), {LOG}),
        (
            replace(SALES, replica=Replica(is_primary=False, is_preferred=True)),
            {FULL, DIFFERENTIAL, LOG},
        ),
        (
            replace(SALES, replica=Replica(is_primary=False, is_preferred=False)),
            {FULL, DIFFERENTIAL, LOG},
        ),
        (replace(SALES, state="SUSPECT"), set()),
    ],
)
def test_what_may_be_taken_of_a_database(database: Database, paused: set[PointType]) -> None:
    assert set(database.paused()) == paused
    assert all(reason for reason in database.paused().values())


def test_compression_is_what_the_server_can() -> None:
    newest = replace(EXPRESS, version="17.0.1", engine_edition=3)
    older = replace(newest, version="13.0.5")
    assert EXPRESS.compression("auto") is Compression.NONE
    assert newest.compression("auto") is Compression.ZSTD
    assert newest.compression("ms_xpress") is Compression.DEFAULT
    assert older.compression("auto") is Compression.DEFAULT
    assert older.compression("none") is Compression.NONE
    for server, wanted in ((EXPRESS, "zstd"), (EXPRESS, "ms_xpress"), (older, "zstd")):
        with pytest.raises(FeatureUnsupported):
            server.compression(wanted)


def test_stripes_go_by_size_or_as_asked_for() -> None:
    assert stripe_count(0, None) == 1
    assert stripe_count(BYTES_A_STRIPE, None) == 1
    assert stripe_count(BYTES_A_STRIPE + 1, None) == 2
    assert stripe_count(1 << 60, None) == 64
    assert stripe_count(1 << 60, 3) == 3


ROW = {
    "BackupName": "sqlbak x",
    "BackupDescription": None,
    "BackupType": 5,
    "DatabaseName": "Sales",
    "FirstLSN": Decimal(39000000112000001),
    "LastLSN": Decimal(39000000114400001),
    "CheckpointLSN": Decimal(39000000112000001),
    "DatabaseBackupLSN": Decimal(39000000099200001),
    "BackupStartDate": datetime(2026, 11, 22, 10, 0, 0),  # noqa: DTZ001 - as headers are
    "BackupFinishDate": datetime(2026, 11, 22, 10, 0, 5),  # noqa: DTZ001
    "RecoveryForkID": UUID("AAAAAAAA-0000-0000-0000-000000000001"),
    "FirstRecoveryForkID": UUID("AAAAAAAA-0000-0000-0000-000000000001"),
    "FamilyGUID": UUID("AAAAAAAA-0000-0000-0000-000000000002"),
    "BackupSetGUID": UUID("AAAAAAAA-0000-0000-0000-000000000003"),
    "DifferentialBaseGUID": UUID("AAAAAAAA-0000-0000-0000-000000000004"),
    "HasBackupChecksums": True,
    "CompressedBackupSize": 1000,
    "EncryptorThumbprint": b"\x01\xff",
}


def test_a_header_is_read_alike_from_the_wire_and_from_the_manifest() -> None:
    live, kept = read_header(ROW), read_header(document_of(ROW))
    assert live == kept
    assert live.type is DIFFERENTIAL
    assert live.set_guid == "aaaaaaaa-0000-0000-0000-000000000003"
    assert live.first_lsn == 39000000112000001
    assert document_of(ROW)["EncryptorThumbprint"] == "0x01ff"
    assert document_of(ROW)["FirstLSN"] == "39000000112000001"


def test_the_offline_planner_reads_the_same_header_alike() -> None:
    (point,) = read_headers([document_of(ROW)]).catalog.points
    header = read_header(ROW)
    assert (point.type, point.first_lsn, point.last_lsn) == (
        header.type,
        header.first_lsn,
        header.last_lsn,
    )
    assert point.lineage == header.fork
    assert point.base_id == header.base_guid


@pytest.mark.parametrize("column", ["BackupSetGUID", "LastLSN", "FamilyGUID", "BackupType"])
def test_a_header_without_what_every_version_has_is_refused(column: str) -> None:
    with pytest.raises(BackupFailed, match=column):
        read_header({name: value for name, value in ROW.items() if name != column})


def test_only_files_with_our_own_names_are_ours(tmp_path: Path) -> None:
    folder = DiskFolder("/b", tmp_path, "owner1")
    key, other = database_key("A" * 36), database_key("B" * 36)
    mine = folder.files(key, FULL, "20260101T000000Z-abcdefghij", 2)
    for files in (
        mine,
        folder.files(other, FULL, "20260101T000000Z-abcdefghij", 1),
        folder.files(key, LOG, "20260101T000000Z-abcdefghij", 1),
        DiskFolder("/b", tmp_path, "owner2").files(key, FULL, "20260101T000000Z-abcdefghij", 1),
    ):
        for path in files.local:
            path.write_bytes(b"x")
    (tmp_path / "sqlbak-mine.bak").write_bytes(b"x")
    (found,) = folder.leftovers(key, (FULL, DIFFERENTIAL))
    assert found == mine
    found.remove()
    assert len(list(tmp_path.iterdir())) == 4
    assert database_key("a" * 36) == key, "a GUID's case means nothing"


def point(kind: PointType, first: int, last: int, lineage: str = "f1") -> Point:
    return Point(f"p{first}", kind, lineage, first, last, NOW, NOW + timedelta(seconds=last))


def test_log_goes_on_from_a_differential_where_the_engine_says_so() -> None:
    points = [point(FULL, 10, 20), point(LOG, 10, 30), point(DIFFERENTIAL, 50, 60)]
    stolen = LogPosition("f1", 40)
    assert next_log_start(points, stolen) is None
    assert next_log_start(points, stolen, after_differentials=True) == LogPosition("f1", 60)
    assert next_log_start(points, LogPosition("f1", 30), after_differentials=True) == LogPosition(
        "f1", 30
    )


def test_a_server_that_gives_log_out_again_was_set_back() -> None:
    points = [point(FULL, 10, 20), point(LOG, 10, 30), point(LOG, 5, 90, "f2")]
    assert is_set_back(points, "f1", 25)
    assert not is_set_back(points, "f1", 30)
    assert not is_set_back(points, "f1", 40)
    assert not is_set_back(points, "f1", None)
    assert not is_set_back(points, None, 5)


def test_names_in_use_are_those_of_databases_that_are_there() -> None:
    item = DiscoveredItem("family", "Sales", None)
    view = InstanceView(frozenset({"Sales", "tempdb"}), {"Sales": item})
    used = NamesInUse(frozenset({"orders", "erp", "crm"}), {"erp": view, "crm": None})
    assert "erp/Sales" in used
    assert "erp/tempdb" in used
    assert "erp/Gone" not in used
    assert "orders" in used
    assert "crm/Anything" in used, "it was not asked"
    assert set(used) == {"orders", "erp", "crm", "erp/Sales", "erp/tempdb"}


def test_an_instance_is_asked_once_for_many_databases() -> None:
    asked: list[str] = []

    def look(instance: str) -> InstanceView:
        asked.append(instance)
        if instance == "down":
            raise ServerUnreachable("down")
        items = {name: DiscoveredItem(name, name, None) for name in ("a", "b")}
        return InstanceView(frozenset(items), items)

    discovery = Discovery(look)
    for _ in range(10):
        assert discovery.item("erp", "a") is not None
        assert discovery.item("erp", "none") is None
    assert asked == ["erp"]
    assert discovery.known("other") is None
    for _ in range(2):
        with pytest.raises(ServerUnreachable):
            discovery.view("down")
    assert asked == ["erp", "down", "down"]
