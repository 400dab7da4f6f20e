"""Statements of a restore: every legal name and path, and never RECOVERY in a step."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlbak.engines.sqlserver.restoring_statements import (
    DataRestore,
    LogRestore,
    data_statement,
    log_statement,
    recover_statement,
)
from sqlbak.engines.sqlserver.statements import Device, DeviceKind
from sqlbak.errors import UsageError

FILE = (Device(DeviceKind.DISK, "/b/it's.bak"),)
NAMES = st.text(
    st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1, max_size=60
)


def test_a_full_is_restored_without_recovery_and_with_its_checksums() -> None:
    statement = data_statement(
        DataRestore("a]b", FILE, moves={"O'Brien": "D:\\x\\y.mdf"}, replaces=True)
    )
    assert statement == (
        "RESTORE DATABASE [a]]b] FROM DISK = N'/b/it''s.bak' WITH NORECOVERY, REPLACE, "
        "MOVE N'O''Brien' TO N'D:\\x\\y.mdf', CHECKSUM, STOP_ON_ERROR, STATS = 5"
    )


def test_a_log_stops_at_an_instant_or_before_a_position_and_not_both() -> None:
    at = log_statement(LogRestore("Sales", FILE, stop_at="2026-05-01T10:22:13.000"))
    assert "NORECOVERY, STOPAT = N'2026-05-01T10:22:13.000', " in at
    before = log_statement(LogRestore("Sales", FILE, stop_before=39000000112000001))
    assert "NORECOVERY, STOPBEFOREMARK = N'lsn:39000000112000001', " in before
    with pytest.raises(UsageError):
        log_statement(LogRestore("Sales", FILE, stop_at="x", stop_before=1))


def test_a_position_on_its_media_is_written_only_where_there_are_several_sets() -> None:
    assert "FILE =" not in log_statement(LogRestore("Sales", FILE))
    assert "WITH FILE = 3, NORECOVERY" in log_statement(LogRestore("Sales", FILE, position=3))


def test_a_backup_without_checksums_is_not_asked_for_them() -> None:
    assert "CHECKSUM" not in data_statement(DataRestore("Sales", FILE, has_checksums=False))


@given(NAMES, NAMES, NAMES)
def test_no_name_or_path_ends_its_quotes(database: str, logical: str, path: str) -> None:
    statement = data_statement(
        DataRestore(database, (Device(DeviceKind.DISK, path),), moves={logical: path})
    )
    outside = statement
    for quoted in (f"N'{path.replace(chr(39), chr(39) * 2)}'",) * 2:
        outside = outside.replace(quoted, "", 1)
    outside = outside.replace(f"N'{logical.replace(chr(39), chr(39) * 2)}'", "", 1)
    outside = outside.replace(f"[{database.replace(']', ']]')}]", "", 1)
    assert "'" not in outside
    assert "NORECOVERY" in outside


def test_only_recovering_opens_the_database() -> None:
    assert recover_statement("O'Brien") == "RESTORE DATABASE [O'Brien] WITH RECOVERY"
