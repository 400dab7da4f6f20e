"""Every statement that is sent means what was meant: Microsoft's own parser is the judge."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from sqlbak.engines.sqlserver import databases, foreign, groups, server, target
from sqlbak.engines.sqlserver.restoring_statements import (
    DataRestore,
    LogRestore,
    data_statement,
    disconnect_statement,
    log_statement,
    multi_user_statement,
    recover_statement,
)
from sqlbak.engines.sqlserver.statements import (
    BackupStatement,
    Compression,
    Device,
    DeviceKind,
    backup_statement,
    file_list_statement,
    header_statement,
    identifier,
    label_statement,
    literal,
    verify_statement,
)
from tests.engines.sqlserver.site import DIFFERENTIAL, FULL, LOG, site_in
from tests.engines.sqlserver.tsql_oracle import meaning, needs_oracle, parse

pytestmark = needs_oracle

NASTY = [
    "Sales",
    "a]b",
    "]]",
    "O'Brien",
    " leading",
    "x'; DROP DATABASE y; --",
    "[x] TO DISK = N'/y' --",
    "tab\tname",
    "line\nbreak",
    "/* open",
    "ünïcödé 数据库",
    "😀" * 64,
    "x" * 128,
    "100%s %d {0}",
]
PATHS = [
    "/backup/a.bak",
    "C:\\Backup\\it's [here]\\a.bak",
    "\\\\server\\share\\b c.trn",
    "/b/x', DISK = N'/etc/passwd",
]


def some_name(chance: random.Random) -> str:
    if chance.random() < 0.5:
        return chance.choice(NASTY)
    letters = "abcXYZ]['\"-;/*\\ .%数😀\n\t"
    return "".join(chance.choice(letters) for _ in range(chance.randint(1, 40)))


def some_devices(chance: random.Random) -> tuple[Device, ...]:
    count = chance.choice([1, 1, 1, 2, 5])
    if chance.random() < 0.3:
        region = chance.choice([None, "eu-x-1"])
        return tuple(
            Device(DeviceKind.URL, f"s3://s3.example.com:9000/b/it's/{number}of{count}.bak", region)
            for number in range(1, count + 1)
        )
    return tuple(
        Device(DeviceKind.DISK, f"{chance.choice(PATHS)}.{number}") for number in range(count)
    )


def meant_devices(devices: tuple[Device, ...]) -> tuple[tuple[str, str], ...]:
    return tuple(("Disk", device.name) for device in devices)


def test_backups_say_exactly_what_was_meant() -> None:
    chance = random.Random(7)
    wanted = []
    for _ in range(60):
        kind = chance.choice(["full", "copy", "differential", "log", "tail"])
        wanted.append(
            BackupStatement(
                database=some_name(chance),
                devices=some_devices(chance),
                name=f"sqlbak {some_name(chance)[:60]}",
                is_log=kind in ("log", "tail"),
                is_differential=kind == "differential",
                is_copy_only=kind == "copy",
                leaves_restoring=kind == "tail",
                compression=chance.choice(list(Compression)),
                description=chance.choice(["", "it's taken after 2026-11-22T10:00:00+00:00 60"]),
                max_transfer_bytes=chance.choice([None, 131072]),
                stats_percent=chance.choice([1, 5]),
            )
        )
    for backup, (errors, node) in zip(
        wanted, parse([backup_statement(one) for one in wanted]), strict=True
    ):
        assert errors == [], backup
        said = meaning(node)
        assert said.kind == (
            "BackupTransactionLogStatement" if backup.is_log else "BackupDatabaseStatement"
        )
        assert said.database == backup.database
        assert said.devices == meant_devices(backup.devices)
        expected = {"Format": None, "Checksum": None, "StopOnError": None, "Name": backup.name}
        expected["Stats"] = str(backup.stats_percent)
        is_compressed = backup.compression is not Compression.NONE
        expected["Compression" if is_compressed else "NoCompression"] = None
        if backup.is_differential:
            expected["Differential"] = None
        if backup.is_copy_only:
            expected["CopyOnly"] = None
        if backup.leaves_restoring:
            expected["NoRecovery"] = None
        if backup.description:
            expected["Description"] = backup.description
        if backup.max_transfer_bytes is not None:
            expected["MaxTransferSize"] = str(backup.max_transfer_bytes)
        assert said.options == expected


def test_restores_say_exactly_what_was_meant() -> None:
    chance = random.Random(8)
    wanted: list[DataRestore | LogRestore] = []
    for _ in range(30):
        moves = {some_name(chance) + str(n): f"{chance.choice(PATHS)}{n}" for n in range(3)}
        common = {
            "database": some_name(chance),
            "devices": some_devices(chance),
            "moves": moves,
            "position": chance.choice([1, 3]),
            "has_checksums": chance.random() < 0.5,
        }
        wanted.append(DataRestore(**common, replaces=chance.random() < 0.5))  # type: ignore[arg-type]
        stop = chance.choice(["at", "before", None])
        wanted.append(
            LogRestore(
                **common,  # type: ignore[arg-type]
                stop_at="2026-11-22T10:22:13.997" if stop == "at" else None,
                stop_before=39000000112000001 if stop == "before" else None,
            )
        )
    texts = [
        data_statement(one) if isinstance(one, DataRestore) else log_statement(one)
        for one in wanted
    ]
    for restore, (errors, node) in zip(wanted, parse(texts), strict=True):
        assert errors == [], restore
        said = meaning(node)
        assert said.database == restore.database
        assert said.devices == meant_devices(restore.devices)
        assert said.moves == dict(restore.moves)
        assert "NoRecovery" in said.options
        assert "Recovery" not in said.options
        assert ("Checksum" in said.options) == restore.has_checksums
        assert said.options.get("File") == (str(restore.position) if restore.position > 1 else None)
        if isinstance(restore, DataRestore):
            assert said.kind == "RestoreStatement Database"
            assert ("Replace" in said.options) == restore.replaces
            continue
        assert said.kind == "RestoreStatement TransactionLog"
        assert said.options.get("StopAt") == restore.stop_at
        lsn = None if restore.stop_before is None else f"lsn:{restore.stop_before}"
        stops = [value for name, value in said.options.items() if name.startswith("Stop")]
        assert [value for value in stops if value and value.startswith("lsn")] == (
            [lsn] if lsn else []
        )


@pytest.mark.parametrize(
    "devices",
    [
        (Device(DeviceKind.DISK, PATHS[3]), Device(DeviceKind.DISK, PATHS[1])),
        (Device(DeviceKind.URL, "s3://h/b/x"), Device(DeviceKind.URL, "s3://h/b/y")),
        (Device(DeviceKind.URL, "s3://h/b/x", "eu-x-1"),),
    ],
)
def test_what_only_looks_is_what_it_says(devices: tuple[Device, ...]) -> None:
    texts = {
        "RestoreStatement HeaderOnly": header_statement(devices),
        "RestoreStatement FileListOnly": file_list_statement(devices),
        "RestoreStatement LabelOnly": label_statement(devices[0]),
        "RestoreStatement VerifyOnly": verify_statement(devices),
    }
    for kind, (errors, node) in zip(texts, parse(list(texts.values())), strict=True):
        assert errors == []
        said = meaning(node)
        assert said.kind == kind
        assert said.database is None
        assert said.devices == meant_devices(devices)[: len(said.devices)]


@pytest.mark.parametrize("name", [NASTY[1], NASTY[5]])
def test_statements_about_a_database_name_that_one(name: str) -> None:
    texts = [recover_statement(name), disconnect_statement(name), multi_user_statement(name)]
    (_, recover), (_, disconnect), (_, multi) = parse(texts)
    assert recover["DatabaseName"]["Value"] == name
    assert [option["OptionKind"] for option in recover["Options"]] == ["Recovery"]
    for node in (disconnect, multi):
        assert node["is"] == "AlterDatabaseSetStatement"
        assert node["DatabaseName"]["Value"] == name


def test_questions_are_statements_of_t_sql() -> None:
    name = literal(NASTY[5])
    questions = [
        *(
            text
            for module in (databases, groups, server, foreign, target)
            for text in module_texts(module)
        ),
        f"{databases._QUESTION} WHERE d.name = {name}",
        f"{foreign._SETS} WHERE s.database_name = {name} AND s.type = 'L' ORDER BY s.first_lsn",
        f"SELECT HAS_PERMS_BY_NAME({literal(identifier(NASTY[1]))}, 'DATABASE', 'BACKUP LOG') AS x",
    ]
    assert len(questions) > 8
    for text, (errors, node) in zip(questions, parse(questions), strict=True):
        assert errors == [], text
        assert node["is"] == "SelectStatement"


def test_whatever_a_server_was_really_sent_is_t_sql(tmp_path: Path) -> None:
    with site_in(tmp_path / "site", databases=["a]b"], settings={"stripes": 2}) as site:
        begin = len(site.simulator.instance.statements)
        with site.fleet() as fleet:
            fleet.inspect("erp")
        for kind in (FULL, LOG, DIFFERENTIAL):
            site.point("a]b", kind)
        site.simulator.execute("BACKUP DATABASE [a]]b] TO DISK = 'NUL'")
        site.simulator.execute("BACKUP LOG [a]]b] TO DISK = 'NUL'")
        site.backup("a]b", DIFFERENTIAL)
        site.backup("a]b", LOG)
        seen = list(dict.fromkeys(site.simulator.instance.statements[begin:]))
    assert len(seen) > 20
    for text, (errors, _) in zip(seen, parse(seen), strict=True):
        assert errors == [], text


def module_texts(module: object) -> list[str]:
    """The whole questions among the constants of a module."""
    return [
        value
        for name, value in vars(module).items()
        if name.startswith("_")
        and isinstance(value, str)
        and value.startswith("SELECT ")
        and not value.rstrip().endswith(("=", "WHERE"))
        and "{" not in value
    ]


def test_the_judge_refuses_what_is_wrong() -> None:
    wrong = [
        "BACKUP DATABASE [x] DISK = N'/a'",
        "BACKUP DATABASE [x] TO DISK = N'/a' WITH NOSUCHOPTION",
        "BACKUP DATABASE [x TO DISK = N'/a'",
        "BACKUP LOG [x] TO DISK = N'/a' WITH FORMAT CHECKSUM",
        "RESTORE LOG [x] FROM DISK = N'/a' WITH STOPAT N'2026-11-22'",
        "RESTORE DATABASE [x] FROM DISK = N'/a' WITH MOVE N'a' N'/b'",
    ]
    assert all(errors for errors, _ in parse(wrong))
