"""Every number that a user of backups and restores can meet has a clear message and a remedy."""

from __future__ import annotations

import re

import pytest

from sqlbak.engines.sqlserver.failures import (
    KNOWN_NUMBERS,
    as_restore_failure,
    explain_connection_failure,
    explain_failure,
    is_good_all_the_same,
    is_left_restoring,
    number_meaning,
    remark_of,
    server_text,
)
from sqlbak.errors import (
    BackupFailed,
    BaseUnusable,
    LogChainBroken,
    RestoreFailed,
    ServerRefused,
    ServerUnreachable,
    TargetNotUsable,
)

WHERE = "erp/Sales"


def explained(number: int, *texts: str, failed=BackupFailed):
    return explain_failure(number, texts, where=WHERE, doing="backing up", failed=failed)


@pytest.mark.parametrize("number", sorted(KNOWN_NUMBERS))
def test_every_known_number_says_what_where_and_what_to_do(number: int) -> None:
    error = explained(number, "The server's own words. Operating system error 5(Access denied.).")
    meaning = number_meaning(number)
    assert meaning is not None
    assert WHERE in error.message
    assert meaning[0] in error.message
    assert f"error {number}" in error.message
    assert "The server's own words." in error.message
    assert error.hint


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (4214, LogChainBroken),
        (4208, LogChainBroken),
        (3035, BaseUnusable),
        (916, ServerRefused),
        (3169, TargetNotUsable),
        (3154, TargetNotUsable),
        (3101, TargetNotUsable),
        (3023, BackupFailed),
    ],
)
def test_the_kind_of_error_tells_a_program_what_to_do(number: int, kind: type) -> None:
    assert type(explained(number, "words")) is kind


def test_a_number_without_a_kind_of_its_own_is_the_failure_of_what_was_done() -> None:
    assert type(explained(3204, "aborted", failed=RestoreFailed)) is RestoreFailed
    assert type(explained(3204, "aborted", failed=BackupFailed)) is BackupFailed


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Operating system error 5(Access is denied.).", "rights"),
        ("Operating system error 2(The system cannot find the file specified.).", "same folder"),
        ("Operating system error 12175(failed to retrieve text).", "restart SQL Server"),
        ("Operating system error 50(The request is not supported.).", "CREATE CREDENTIAL"),
        ("Operating system error 4711(?).", "look at the path"),
        ("device 's3://h/b/x'. Operating system error 5(Access is denied.).", "the clocks"),
        ("device 's3://h/b/x'. Operating system error 2(?).", "delivery.url"),
        ("device 's3://h/b/x'. Operating system error 50(?).", "<AccessKeyID>:<SecretKeyID>"),
        ("device 's3://h/b/x'. Operating system error 12175(?).", "restart SQL Server"),
        ('Write on "s3://h/b/x" failed: 87(The parameter is incorrect.)', "object lock"),
        ('Write on "s3://h/b/x" failed: 1117(?)', "more stripes"),
    ],
)
def test_the_operating_systems_reason_decides_the_remedy_of_a_device(
    text: str, expected: str
) -> None:
    error = explained(3201, f"Cannot open backup device '/b/x.bak'. {text}")
    assert expected in error.hint


def test_a_full_disk_under_a_backup_is_told() -> None:
    text = 'Write on "/b/x.bak" failed: 112(There is not enough space on the disk.)'
    assert "free space" in explained(3202, text).hint


def test_what_the_driver_appends_is_cut_off() -> None:
    raw = (
        b"Cannot open backup device.DB-Lib error message 20018, severity 16:\n"
        b"General SQL Server error: Check messages from the SQL Server\n"
    )
    assert server_text(raw) == "Cannot open backup device."


def test_an_unknown_number_is_shown_as_it_is() -> None:
    error = explained(49999, "Something new.")
    assert "Something new. (error 49999)" in error.message
    assert error.hint


def test_a_lost_connection_says_that_the_outcome_is_unknown() -> None:
    error = explained(20017, "Unexpected EOF from the server", failed=RestoreFailed)
    assert isinstance(error, RestoreFailed)
    assert "connection was lost" in error.message
    assert "unknown" in error.hint


def test_the_warning_that_raises_nothing_is_recognized_by_its_words() -> None:
    warning = (
        "This backup set contains records that were logged before the designated point in time. "
        "The database is being left in the restoring state so that more roll forward can be "
        "performed."
    )
    assert is_left_restoring([warning])
    assert not is_left_restoring(["RESTORE LOG successfully processed 0 pages in 0.010 seconds"])


def test_what_the_server_remarks_of_a_good_backup_is_told_with_its_remedy() -> None:
    remark = remark_of(
        "The log was not truncated because records at the beginning of the log are pending "
        "replication or Change Data Capture."
    )
    assert remark is not None
    assert "log_reuse_wait_desc" in remark
    assert remark_of("Processed 2 pages for database 'x', file 'x_log' on file 1.") is None
    lost = "Could not insert a backup or restore history/detail record in the msdb database."
    assert is_good_all_the_same(3009, [lost])
    assert not is_good_all_the_same(3009, [lost, "BACKUP LOG is terminating abnormally."])
    assert not is_good_all_the_same(3202, ["Write failed"])


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        (
            "DB-Lib error message 20009, severity 9:\nUnable to connect",
            ServerUnreachable,
            "nothing",
        ),
        ("Login failed for user 'sa'.DB-Lib error message 20018", ServerRefused, "refused"),
        ("DB-Lib error message 20018, severity 14:\nGeneral", ServerRefused, "refused"),
        ("DB-Lib error message 20003, severity 6:", ServerUnreachable, "in time"),
        ("DB-Lib error message 20002, severity 9:", ServerUnreachable, "broken off"),
        ("something else", ServerUnreachable, "something else"),
    ],
)
def test_a_connection_that_fails_is_told_by_its_text_not_by_a_stale_number(
    text: str, kind: type, expected: str
) -> None:
    error = explain_connection_failure(18456, text, where="erp.example.com:1433", login="sqlbak")
    assert type(error) is kind
    assert expected in error.message
    assert error.hint


def test_once_a_target_was_touched_a_refusal_is_a_failed_restore() -> None:
    refusal = explained(3101, "in use")
    failure = as_restore_failure(refusal)
    assert isinstance(failure, RestoreFailed)
    assert failure.message == refusal.message
    assert failure.hint == refusal.hint


def test_no_remedy_names_a_person_or_a_place_of_the_makers() -> None:
    for number in KNOWN_NUMBERS:
        meaning = number_meaning(number)
        assert meaning is not None
        assert not re.search(r"/work|localhost|example", " ".join(meaning))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("CREATE DATABASE permission denied in database 'master'.", "CREATE ANY DATABASE"),
        ("User does not have permission to RESTORE database 'x'.", "dbcreator"),
        ("Database 'x' cannot be opened. It is in the middle of a restore.", "WITH RECOVERY"),
    ],
)
def test_an_error_of_lower_severity_is_found_behind_the_one_that_ends_the_statement(
    text: str, expected: str
) -> None:
    error = explained(3013, text, "RESTORE DATABASE is terminating abnormally.")
    assert expected in error.hint
    assert text in error.message
