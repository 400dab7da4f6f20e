"""Statements as text: every legal name and path stands in them as it is, and nothing else does."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlbak.engines.sqlserver.statements import (
    BackupStatement,
    Compression,
    Device,
    DeviceKind,
    backup_statement,
    devices_clause,
    file_list_statement,
    header_statement,
    identifier,
    label_statement,
    literal,
    verify_statement,
)
from sqlbak.errors import UsageError

NAMES = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=60
)
A_FILE = Device(DeviceKind.DISK, "/backup/a.bak")


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        ("Sales", "[Sales]"),
        ("a]b", "[a]]b]"),
        ("]]", "[]]]]]"),
        ("O'Brien", "[O'Brien]"),
        (" leading", "[ leading]"),
        ("[x]; DROP DATABASE y --", "[[x]]; DROP DATABASE y --]"),
        ("x" * 128, f"[{'x' * 128}]"),
        ("😀" * 64, f"[{'😀' * 64}]"),
    ],
)
def test_an_identifier_is_quoted_whatever_it_holds(name: str, quoted: str) -> None:
    assert identifier(name) == quoted


@pytest.mark.parametrize("name", ["", "x" * 129, "😀" * 65, "a\0b", "half \ud800"])
def test_what_is_no_legal_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        identifier(name)


@given(NAMES)
def test_quoting_can_be_undone_and_leaves_nothing_outside(name: str) -> None:
    inner = re.fullmatch(r"\[((?:[^\]]|\]\])*)\]", identifier(name), re.DOTALL)
    assert inner is not None
    assert inner[1].replace("]]", "]") == name
    text = re.fullmatch(r"N'((?:[^']|'')*)'", literal(name), re.DOTALL)
    assert text is not None
    assert text[1].replace("''", "'") == name


def test_a_literal_with_a_nul_is_refused_since_the_driver_would_cut_the_statement_there() -> None:
    with pytest.raises(UsageError):
        literal("/backup/a\0.bak")


def test_a_full_is_one_new_media_set_with_checksums() -> None:
    assert backup_statement(
        BackupStatement("Sales", (A_FILE,), "sqlbak 1", compression=Compression.DEFAULT)
    ) == (
        "BACKUP DATABASE [Sales] TO DISK = N'/backup/a.bak' WITH FORMAT, CHECKSUM, STOP_ON_ERROR, "
        "COMPRESSION, NAME = N'sqlbak 1', STATS = 1"
    )


def test_every_kind_of_backup_says_what_it_is() -> None:
    full = backup_statement(BackupStatement("a]b", (A_FILE,), "n", is_copy_only=True))
    differential = backup_statement(BackupStatement("a]b", (A_FILE,), "n", is_differential=True))
    log = backup_statement(
        BackupStatement("a]b", (A_FILE,), "n", is_log=True, compression=Compression.ZSTD)
    )
    assert full.startswith("BACKUP DATABASE [a]]b] TO DISK = N'/backup/a.bak' WITH COPY_ONLY,")
    assert differential.startswith("BACKUP DATABASE [a]]b] TO ")
    assert "WITH DIFFERENTIAL, FORMAT" in differential
    assert log.startswith("BACKUP LOG [a]]b] TO ")
    assert "COMPRESSION (ALGORITHM = ZSTD)" in log


def test_combinations_that_sql_server_would_pass_over_in_silence_are_refused() -> None:
    for wrong in (
        BackupStatement("x", (A_FILE,), "n", is_differential=True, is_copy_only=True),
        BackupStatement("x", (A_FILE,), "n", is_log=True, is_copy_only=True),
        BackupStatement("x", (A_FILE,), "n", is_log=True, is_differential=True),
        BackupStatement("x", (A_FILE,), "n" * 129),
        BackupStatement("x", (A_FILE,), ""),
        BackupStatement("x", (), "n"),
    ):
        with pytest.raises(UsageError):
            backup_statement(wrong)


def test_devices_are_counted_and_measured_before_the_server_is_asked() -> None:
    many = [Device(DeviceKind.DISK, f"/b/{number}") for number in range(64)]
    assert devices_clause(many).count("DISK = ") == 64
    with pytest.raises(UsageError):
        devices_clause([*many, A_FILE])
    with pytest.raises(UsageError):
        devices_clause([Device(DeviceKind.DISK, "/" + "x" * 259)])


def test_looking_into_a_backup_changes_nothing() -> None:
    stripes = [Device(DeviceKind.DISK, "C:\\b\\it's 1"), Device(DeviceKind.DISK, "C:\\b\\2")]
    clause = "DISK = N'C:\\b\\it''s 1', DISK = N'C:\\b\\2'"
    assert header_statement(stripes) == f"RESTORE HEADERONLY FROM {clause}"
    assert file_list_statement(stripes) == f"RESTORE FILELISTONLY FROM {clause}"
    assert label_statement(stripes[1]) == "RESTORE LABELONLY FROM DISK = N'C:\\b\\2'"
    assert verify_statement(stripes).startswith(f"RESTORE VERIFYONLY FROM {clause} WITH CHECKSUM")
