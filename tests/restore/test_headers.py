"""Planning from exported SQL Server headers, as the tools that people have write them."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from sqlbak.errors import (
    InputUnreadable,
    InstantAmbiguous,
    InstantNonexistent,
    InstantUnreachable,
    LineageAmbiguous,
    NameNeeded,
    NothingToRestore,
    UnknownName,
    UsageError,
)
from sqlbak.restore.explanation import explain
from sqlbak.restore.headers import plan_headers, read_headers
from sqlbak.restore.planner import RestorePlan, plan_document

FULL = "EFC40A6A-0000-4000-8000-000000000001"
DIFFERENTIAL = "EFC40A6A-0000-4000-8000-000000000002"
LOGS = [f"EFC40A6A-0000-4000-8000-0000000000{n}" for n in (10, 11, 12, 13)]
FAMILY = "11111111-0000-4000-8000-000000000000"
FORK = "22222222-0000-4000-8000-000000000000"
OTHER_FORK = "33333333-0000-4000-8000-000000000000"
FIRST_LSN = 39_000_000_055_200_001


def lsn(block: int) -> int:
    return 39 * 10**15 + block * 10**5 + 1


def row(kind: int, guid: str, first: int, last: int, start: str, end: str, **more: object) -> dict:
    return {
        "BackupType": kind,
        "DatabaseName": "erp",
        "BackupSize": 5000,
        "CompressedBackupSize": {1: 1000, 2: 10, 5: 100}.get(kind, 1),
        "FirstLSN": first,
        "LastLSN": last,
        "CheckpointLSN": first,
        "DatabaseBackupLSN": lsn(992),
        "BackupStartDate": start,
        "BackupFinishDate": end,
        "RecoveryForkID": FORK,
        "FamilyGUID": FAMILY,
        "HasBulkLoggedData": False,
        "IsSnapshot": False,
        "IsDamaged": False,
        "IsCopyOnly": False,
        "FirstRecoveryForkID": FORK,
        "ForkPointLSN": None,
        "DifferentialBaseGUID": None,
        "BackupSetGUID": guid,
    } | more


def day() -> list[dict]:
    """A full at 01:00, a differential at 09:00, logs at 08:00, 10:00, 11:00 and 12:00."""
    return [
        row(1, FULL, lsn(992), lsn(1016), "2024-05-01T01:00:00", "2024-05-01T01:05:00"),
        row(
            5,
            DIFFERENTIAL,
            lsn(1120),
            lsn(1144),
            "2024-05-01T09:00:00",
            "2024-05-01T09:01:00",
            DifferentialBaseGUID=FULL,
        ),
        row(2, LOGS[0], lsn(552), lsn(1100), "2024-05-01T08:00:00", "2024-05-01T08:00:02"),
        row(2, LOGS[1], lsn(1100), lsn(1200), "2024-05-01T10:00:00", "2024-05-01T10:00:02"),
        row(2, LOGS[2], lsn(1200), lsn(1300), "2024-05-01T11:00:00", "2024-05-01T11:00:02"),
        row(2, LOGS[3], lsn(1300), lsn(1400), "2024-05-01T12:00:00", "2024-05-01T12:00:02"),
    ]


def steps(plan: RestorePlan) -> list[str]:
    return [step.id for step in plan.steps]


def reasons(plan: RestorePlan) -> dict[str, str]:
    return {rejection.point_id: rejection.reason for rejection in plan.rejected}


def test_the_document_names_backup_sets_as_the_rows_do() -> None:
    rows = day()
    rows[1]["CompressedBackupSize"] = 5
    document = plan_document(plan_headers(rows, "2024-05-01T10:22:13"))
    assert document["steps"] == [
        {"point": FULL, "type": "full"},
        {"point": DIFFERENTIAL, "type": "differential"},
        {"point": LOGS[1], "type": "log"},
        {"point": LOGS[2], "type": "log"},
    ]
    assert document["bytes"] == 1000 + 5 + 10 + 10
    assert document["stop_at"] == "2024-05-01T10:22:13"
    assert document["item"] == "erp"
    assert document["certainty"] == "proven"
    assert document["notes"] == []
    rejected = {each["point"]: each["reason"] for each in document["rejected"]}
    assert rejected[LOGS[0]] == "ends before the differential that the logs follow"
    assert rejected[LOGS[3]] == "begins after the instant asked for"


def test_the_first_log_whose_start_is_not_before_the_instant_is_the_last_one() -> None:
    assert steps(plan_headers(day(), "2024-05-01T11:00:00"))[-1] == LOGS[2]
    assert steps(plan_headers(day(), "2024-05-01T11:00:01"))[-1] == LOGS[3]


def test_between_start_and_end_of_the_last_log_a_plan_is_only_probable() -> None:
    found = plan_headers(day(), "2024-05-01T12:00:02")
    assert steps(found)[-1] == LOGS[3]
    assert found.certainty == "probable"
    assert "probable, not proven" in found.notes[0]
    assert "2024-05-01T12:00:02" in explain(found)


def test_latest_is_the_last_instant_that_is_proven() -> None:
    for text in (None, "latest"):
        document = plan_document(plan_headers(day(), text))
        assert document["stop_at"] == "2024-05-01T12:00:00"
        assert document["steps"][-1]["point"] == LOGS[3]


def test_a_lone_full_is_its_own_latest() -> None:
    document = plan_document(plan_headers(day()[:1], None))
    assert document["steps"] == [{"point": FULL, "type": "full"}]
    assert document["certainty"] == "probable"


@pytest.mark.parametrize("to", ["2024-05-01T01:05:00", "2024-04-30", "2024-05-01T12:00:04"])
def test_outside_of_what_is_covered_is_refused_in_the_headers_own_clock(to: str) -> None:
    with pytest.raises(InstantUnreachable) as refused:
        plan_headers(day(), to)
    assert refused.value.nearest
    assert "+00:00" not in refused.value.message


def test_a_missing_log_is_bridged_by_the_differential() -> None:
    rows = day()
    del rows[2]
    found = plan_headers(rows, "2024-05-01T10:30:00")
    assert steps(found) == [FULL, DIFFERENTIAL, LOGS[1], LOGS[2]]


def test_a_missing_log_that_nothing_bridges_is_refused_with_its_lsns() -> None:
    rows = day()
    del rows[4]
    with pytest.raises(InstantUnreachable, match=f"log {lsn(1200)}..{lsn(1300)} is missing") as gap:
        plan_headers(rows, "2024-05-01T11:30:00")
    assert "2024-05-01T10:00:00" in gap.value.hint


def test_a_log_must_begin_exactly_where_the_log_before_it_ended() -> None:
    rows = day()
    rows[4]["FirstLSN"] = lsn(1190)
    with pytest.raises(InstantUnreachable):
        plan_headers(rows, "2024-05-01T10:30:00")


def test_nothing_can_stop_inside_a_bulk_logged_log() -> None:
    rows = day()
    rows[4]["HasBulkLoggedData"] = 1
    with pytest.raises(InstantUnreachable, match=f"bulk-logged log {LOGS[2]}"):
        plan_headers(rows, "2024-05-01T10:30:00")
    assert LOGS[2] in steps(plan_headers(rows, "2024-05-01T11:00:03"))


def test_rows_that_no_chain_can_use_are_rejected_with_the_reason() -> None:
    rows = day()
    rows.append(row(4, "file", 0, 0, "x", "y"))
    rows.append(row(7, "partial", 0, 0, "x", "y"))
    rows.append(row(1, "torn", lsn(1), lsn(2), "x", "y", IsDamaged=True))
    rows.append(row(1, "snap", lsn(1), lsn(2), "x", "y", IsSnapshot="1"))
    copy = row(2, "aside", lsn(1200), lsn(1250), "2024-05-01T10:40:00", "2024-05-01T10:40:01")
    rows.append(copy | {"IsCopyOnly": True})
    idle = row(2, "idle", lsn(1200), lsn(1200), "2024-05-01T10:20:00", "2024-05-01T10:20:01")
    rows.append(idle)
    why = reasons(plan_headers(rows, "2024-05-01T10:30:00"))
    assert why["file"].startswith("a file backup")
    assert why["partial"].startswith("a partial backup")
    assert why["torn"].startswith("damaged")
    assert why["snap"].startswith("a snapshot")
    assert why["aside"] == "copy-only log"
    assert why["idle"] == "empty"


def test_stripes_and_mirrors_of_one_backup_set_are_one_point() -> None:
    rows = day()
    assert steps(plan_headers([*rows, *rows], None)) == steps(plan_headers(rows, None))


def test_a_copy_only_full_is_no_base_of_a_differential() -> None:
    rows = day()
    rows[0]["IsCopyOnly"] = True
    found = plan_headers(rows, "2024-05-01T10:30:00")
    assert DIFFERENTIAL not in steps(found)
    assert reasons(found)[DIFFERENTIAL] == "its full is copy-only"


def test_a_differential_of_another_full_is_rejected() -> None:
    rows = day()
    rows[1]["DifferentialBaseGUID"] = "99999999-0000-4000-8000-000000000000"
    assert reasons(plan_headers(rows, "2024-05-01T10:30:00"))[DIFFERENTIAL] == "its full is missing"


def test_without_guids_the_full_is_found_by_its_checkpoint_and_a_note_says_so() -> None:
    rows = day()
    for each in rows:
        for column in ("BackupSetGUID", "DifferentialBaseGUID", "FamilyGUID"):
            del each[column]
    del rows[2]
    found = plan_headers(rows, "2024-05-01T10:30:00")
    assert [step.type.value for step in found.steps] == ["full", "differential", "log", "log"]
    assert steps(found)[0].startswith(f"full-{lsn(992)}-{lsn(1016)}")
    assert any("BackupSetGUID is missing" in note for note in found.notes)
    assert any("DifferentialBaseGUID is missing" in note for note in found.notes)


def forked() -> list[dict]:
    """Restored in place to LSN 1250, inside the 11:00 log; then the LSNs repeat on a new fork."""
    rows = day()
    rows.append(
        row(
            2,
            "after",
            lsn(1250),
            lsn(1350),
            "2024-05-01T14:00:00",
            "2024-05-01T14:00:01",
            FirstRecoveryForkID=FORK,
            RecoveryForkID=OTHER_FORK,
            ForkPointLSN=lsn(1250),
        )
    )
    return rows


def test_lsns_that_repeat_on_another_fork_are_not_mixed() -> None:
    found = plan_headers(forked(), "2024-05-01T13:30:00")
    assert found.lineage == OTHER_FORK
    assert steps(found)[-2:] == [LOGS[2], "after"]
    assert LOGS[3] in reasons(found)
    document = plan_document(found)
    assert document["steps"][-2]["stop_lsn"] == lsn(1250)
    assert any(f"lsn:{lsn(1250)}" in note for note in document["notes"])


def test_an_instant_that_two_forks_hold_needs_a_choice() -> None:
    with pytest.raises(LineageAmbiguous) as refused:
        plan_headers(forked(), "2024-05-01T11:30:00")
    assert FORK in refused.value.message
    found = plan_headers(forked(), "2024-05-01T11:30:00", lineage=FORK)
    assert steps(found)[-1] == LOGS[3]
    assert plan_headers(forked(), "2024-05-01T10:00:00").lineage == OTHER_FORK


def test_overlapping_logs_without_fork_ids_are_refused() -> None:
    rows = forked()
    for each in rows:
        for column in ("RecoveryForkID", "FirstRecoveryForkID", "ForkPointLSN"):
            del each[column]
    with pytest.raises(LineageAmbiguous, match="different recovery forks"):
        plan_headers(rows, "2024-05-01T10:30:00")


def test_several_databases_need_a_name() -> None:
    other = [
        each
        | {
            "DatabaseName": "Shop",
            "FamilyGUID": OTHER_FORK,
            "BackupSetGUID": f"shop-{each['BackupSetGUID']}",
            "DifferentialBaseGUID": f"shop-{FULL}",
        }
        for each in day()
    ]
    rows = day() + other
    with pytest.raises(NameNeeded) as needed:
        plan_headers(rows, None)
    assert "Shop, erp" in needed.value.hint
    found = plan_headers(rows, None, item="shop")
    assert steps(found)[0] == f"shop-{FULL}"
    assert reasons(found)[FULL] == "another database (erp)"
    with pytest.raises(UnknownName):
        plan_headers(rows, None, item="tempdb")


def test_a_database_recreated_under_its_name_is_another_one() -> None:
    rows = day() + [
        each | {"FamilyGUID": OTHER_FORK, "BackupSetGUID": f"new-{each['BackupSetGUID']}"}
        for each in day()
    ]
    with pytest.raises(NameNeeded, match="database") as needed:
        plan_headers(rows, None)
    assert f"erp ({OTHER_FORK})" in needed.value.hint
    assert steps(plan_headers(rows, None, item=FAMILY))[0] == FULL


def test_rows_of_msdb_are_read() -> None:
    names = {
        "BackupType": "type",
        "DatabaseName": "database_name",
        "BackupSize": "backup_size",
        "CompressedBackupSize": "compressed_backup_size",
        "FirstLSN": "first_lsn",
        "LastLSN": "last_lsn",
        "CheckpointLSN": "checkpoint_lsn",
        "DatabaseBackupLSN": "database_backup_lsn",
        "BackupStartDate": "backup_start_date",
        "BackupFinishDate": "backup_finish_date",
        "RecoveryForkID": "last_recovery_fork_guid",
        "FirstRecoveryForkID": "first_recovery_fork_guid",
        "ForkPointLSN": "fork_point_lsn",
        "FamilyGUID": "family_guid",
        "HasBulkLoggedData": "has_bulk_logged_data",
        "IsDamaged": "is_damaged",
        "IsSnapshot": "is_snapshot",
        "IsCopyOnly": "is_copy_only",
        "DifferentialBaseGUID": "differential_base_guid",
        "BackupSetGUID": "backup_set_uuid",
    }
    letters = {1: "D", 2: "L", 5: "I"}
    rows = [
        {names[column]: value for column, value in each.items()}
        | {"type": letters[each["BackupType"]], "backup_set_id": number}
        for number, each in enumerate(day())
    ]
    assert plan_document(plan_headers(rows, None)) == plan_document(plan_headers(day(), None))


def dbatools(each: dict) -> dict:
    start, end = (
        f"/Date({int(datetime.fromisoformat(each[c] + '+00:00').timestamp() * 1000)})/"
        for c in ("BackupStartDate", "BackupFinishDate")
    )
    return {
        "Database": each["DatabaseName"],
        "Start": {"value": start, "DisplayHint": 2, "DateTime": "Wednesday, May 1, 2024"},
        "End": end,
        "Type": {1: "Full", 2: "Log", 5: "Differential"}[each["BackupType"]],
        "TotalSize": {"Byte": 5000, "Kilobyte": 4.9},
        "CompressedBackupSize": {"Byte": each["CompressedBackupSize"]},
        "BackupSetID": each["BackupSetGUID"],
        "FirstLsn": str(each["FirstLSN"]),
        "LastLsn": {"value": each["LastLSN"]},
        "CheckpointLsn": each["CheckpointLSN"],
        "DatabaseBackupLsn": each["DatabaseBackupLSN"],
        "LastRecoveryForkGUID": FORK,
        "IsCopyOnly": "False",
        "FileList": [{"LogicalName": "erp"}],
    }


def test_the_output_of_dbatools_is_read_with_its_dates_in_utc() -> None:
    rows = {"value": [dbatools(each) for each in day()], "Count": 6}
    found = plan_headers(rows, "2024-05-01T12:22:13+02:00")
    assert plan_document(found)["stop_at"] == "2024-05-01T10:22:13+00:00"
    expected = plan_headers(day(), "2024-05-01T10:22:13")
    assert [step.id for step in found.steps] == steps(expected)
    assert steps(plan_headers(dbatools(day()[0]), None)) == [FULL]


@pytest.mark.parametrize(
    "written",
    ["39:1016:1", "00000027:000003F8:0001", "0000000039000000101600001", "39000000101600001.0"],
)
def test_every_spelling_of_an_lsn_is_one_number(written: str) -> None:
    rows = day()
    rows[0]["LastLSN"] = written
    assert read_headers(rows).catalog.points[0].last_lsn == lsn(1016)


def test_all_that_is_wrong_is_said_at_once_with_row_and_column() -> None:
    rows = day()
    rows[0]["LastLSN"] = 3.90000001016e16
    rows[1]["FirstLSN"] = "3.9E16"
    rows[2]["BackupFinishDate"] = "5/1/2024 8:00:02 AM"
    rows[3]["BackupType"] = 99
    rows[4]["LastLSN"] = None
    rows[5]["IsCopyOnly"] = "perhaps"
    with pytest.raises(InputUnreadable) as unreadable:
        plan_headers(rows, None)
    lines = unreadable.value.message.splitlines()[1:]
    for number, (line, column) in enumerate(
        zip(
            lines,
            ["LastLSN", "FirstLSN", "BackupFinishDate", "BackupType", "LastLSN", "IsCopyOnly"],
            strict=True,
        ),
        1,
    ):
        assert line.startswith(f"  row {number}: {column} ")


def test_at_most_twenty_problems_are_listed() -> None:
    rows = [{"BackupType": 1}] * 30
    with pytest.raises(InputUnreadable, match=r"… and 70 more"):
        plan_headers(rows, None)


@pytest.mark.parametrize("document", [[], {}, "text", 7, None, [1, 2], {"value": []}])
def test_what_holds_no_rows_is_unreadable(document: object) -> None:
    with pytest.raises(InputUnreadable):
        plan_headers(document, None)


def test_two_different_backups_under_one_id_are_unreadable() -> None:
    rows = day()
    rows.append(rows[3] | {"LastLSN": lsn(1201)})
    with pytest.raises(InputUnreadable, match="row 7: another backup than row 4"):
        plan_headers(rows, None)


def test_only_logs_are_nothing_to_restore() -> None:
    with pytest.raises(NothingToRestore, match="no full backup"):
        plan_headers(day()[2:], None)
    with pytest.raises(NothingToRestore):
        plan_headers([row(4, "file", 0, 0, "", "")], None)


def test_an_instant_that_is_none_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="yesterday"):
        plan_headers(day(), "yesterday")


def test_with_the_servers_zone_instants_with_an_offset_become_its_wall_clock() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    document = plan_document(plan_headers(day(), "2024-05-01T08:22:13Z", zone=berlin))
    assert document["stop_at"] == "2024-05-01T10:22:13+02:00"
    naive = plan_document(plan_headers(day(), "2024-05-01T10:22:13", zone=berlin))
    assert naive == document


def test_logs_may_name_their_own_offset() -> None:
    rows = [each | {"TimeZone": -12 if each["BackupType"] == 2 else 120} for each in day()]
    document = plan_document(plan_headers(rows, "2024-05-01T13:22:13Z"))
    assert document["stop_at"] == "2024-05-01T10:22:13-03:00"
    assert plan_document(plan_headers(rows, "2024-05-01T10:22:13"))["stop_at"] == (
        "2024-05-01T10:22:13"
    )


def autumn() -> list[dict]:
    """The wall clock goes from UTC+2 to UTC+1 at 03:00, between the second log and the third."""
    times = [("01:10:00", 8), ("02:10:00", 8), ("02:05:00", 4), ("03:35:00", 4)]
    rows = day()[:1] + day()[2:]
    rows[0] |= {"BackupStartDate": "2024-10-26T01:00:00", "BackupFinishDate": "2024-10-26T01:05:00"}
    for each, (time, quarters) in zip(rows[1:], times, strict=True):
        moment = f"2024-10-27T{time}"
        each |= {"BackupStartDate": moment, "BackupFinishDate": moment, "TimeZone": quarters}
    return rows


def test_the_second_pass_of_a_repeated_hour_is_refused_by_the_logs_own_offsets() -> None:
    assert steps(plan_headers(autumn(), "2024-10-27T00:05:00Z"))[-1] == LOGS[1]
    with pytest.raises(InstantUnreachable, match="second pass"):
        plan_headers(autumn(), "2024-10-27T01:20:00Z")
    with pytest.raises(InstantUnreachable):
        plan_headers(autumn(), "2024-10-27T00:30:00Z")
    assert steps(plan_headers(autumn(), "2024-10-27T02:30:00Z"))[-1] == LOGS[3]


def test_between_logs_of_different_offsets_a_wall_time_is_asked_for() -> None:
    rows = day()
    for each, quarters in zip(rows[2:], (4, 4, 8, 8), strict=True):
        each["TimeZone"] = quarters
    rows[4] |= {"BackupStartDate": "2024-05-01T11:30:00", "BackupFinishDate": "2024-05-01T11:30:00"}
    with pytest.raises(InstantUnreachable, match="offsets from UTC differ") as refused:
        plan_headers(rows, "2024-05-01T09:15:00Z")
    assert "wall clock" in refused.value.hint


def test_an_offset_against_headers_of_unknown_zone_is_read_in_utc_and_noted() -> None:
    rows = [each | {"TimeZone": 127} for each in day()]
    found = plan_headers(rows, "2024-05-01T10:22:13Z")
    assert plan_document(found)["stop_at"] == "2024-05-01T10:22:13+00:00"
    assert any("read as UTC" in note for note in found.notes)


def test_wall_times_that_are_never_or_twice_are_refused() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    with pytest.raises(InstantNonexistent):
        plan_headers(day(), "2024-03-31T02:30:00", zone=berlin)
    with pytest.raises(InstantAmbiguous) as twice:
        plan_headers(day(), "2024-10-27T02:30:00", zone=berlin)
    assert twice.value.nearest[1] - twice.value.nearest[0] == timedelta(hours=1)
    with pytest.raises(InstantUnreachable, match="second pass"):
        plan_headers(day(), "2024-10-27T01:30:00Z", zone=berlin)


def test_when_the_wall_clock_went_back_the_first_occurrence_is_planned_and_noted() -> None:
    rows = day()
    rows[4] |= {"BackupStartDate": "2024-05-01T09:30:00", "BackupFinishDate": "2024-05-01T09:30:01"}
    found = plan_headers(rows, "2024-05-01T09:45:00")
    assert steps(found)[-1] == LOGS[1]
    assert any("first occurrence" in note for note in found.notes)


def test_dates_with_and_without_offsets_cannot_be_compared() -> None:
    rows = day()
    rows[0]["BackupFinishDate"] += "Z"
    with pytest.raises(InputUnreadable, match="carry an offset"):
        plan_headers(rows, None)
    assert plan_headers(rows, None, zone=ZoneInfo("Etc/UTC")).steps
