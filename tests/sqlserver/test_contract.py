"""What sqlbak relies on, over the wire alone: run against the simulator always, and against a real
SQL Server with ``pytest -m sqlserver --sqlserver=container``.

Tests whose name begins with ``test_measured`` print what the server did where its documentation is
silent; the simulator's answer stands beside it as a switch of ``Unknowns``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sqlbak.cli.main import _run as run_program
from tests.sqlserver.servers import FOLDER, INSTANCE, Server, contained, simulated

pytestmark = pytest.mark.sqlserver


@pytest.fixture(scope="module")
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("delivery")
    folder.chmod(0o777)
    kind = request.config.getoption("--sqlserver")
    version = request.config.getoption("--sqlserver-version")
    opened = contained(folder, version) if kind == "container" else simulated(folder)
    with opened as found:
        yield found


@pytest.fixture
def sqlbak(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., dict[str, Any]]:
    """The program: words in, its document out."""
    policy = server.write_policy(tmp_path)

    def call(*words: str) -> dict[str, Any]:
        capsys.readouterr()
        code = run_program(["--config", str(policy), "-q", *words, "--json"])
        out, err = capsys.readouterr()
        assert code == 0, err
        return json.loads(out)

    return call


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str], server: Server) -> Callable[[str], None]:
    def tell(sentence: str) -> None:
        if server.is_real:
            with capsys.disabled():
                print(f"\nthe server: {sentence}")

    return tell


def backup(sqlbak: Callable[..., dict[str, Any]], database: str, kind: str) -> dict[str, Any]:
    # Times that are asked for later have to differ from those of the backup.
    time.sleep(0.05)
    return sqlbak("backup", f"{INSTANCE}/{database}", "--type", kind)["point"]


def test_a_chain_is_restored_to_the_instants_between_commits(server: Server, sqlbak) -> None:
    server.create("Contract")
    backup(sqlbak, "Contract", "full")
    first = server.insert("Contract", "one")
    time.sleep(0.05)
    server.insert("Contract", "two")
    backup(sqlbak, "Contract", "differential")
    third = server.insert("Contract", "three")
    time.sleep(0.05)
    server.insert("Contract", "four")
    backup(sqlbak, "Contract", "log")
    for at, expected in ((first, ["one"]), (third, ["one", "two", "three"])):
        document = sqlbak(
            "restore",
            f"{INSTANCE}/Contract",
            "--to",
            (at + timedelta(milliseconds=20)).isoformat(),
            "--as",
            "Contract_copy",
        )
        assert document["state"] == "ONLINE"
        assert server.values("Contract_copy") == expected
        server.run("DROP DATABASE Contract_copy")


def test_the_tail_is_taken_before_the_original_is_replaced(server: Server, sqlbak) -> None:
    server.create("Tail")
    backup(sqlbak, "Tail", "full")
    kept = server.insert("Tail", "kept")
    time.sleep(0.05)
    server.insert("Tail", "tail")
    backup(sqlbak, "Tail", "log")
    server.insert("Tail", "only in the tail")
    time.sleep(0.05)
    sqlbak(
        "restore", f"{INSTANCE}/Tail", "--to", (kept + timedelta(milliseconds=20)).isoformat(),
        "--overwrite", "--tail", "backup",
    )  # fmt: skip
    assert server.values("Tail") == ["kept"]
    logs = [p for p in sqlbak("list", f"{INSTANCE}/Tail")["points"] if p["type"] == "log"]
    last = max(logs, key=lambda point: point["last_lsn"])
    sqlbak("restore", f"{INSTANCE}/Tail", "--to", last["id"], "--as", "Tail_before")
    assert server.values("Tail_before") == ["kept", "tail", "only in the tail"]


def test_a_restore_goes_on_where_it_was_left(server: Server, sqlbak) -> None:
    server.create("Moved")
    backup(sqlbak, "Moved", "full")
    server.insert("Moved", "one")
    log = backup(sqlbak, "Moved", "log")
    item = f"{INSTANCE}/Moved"
    sqlbak("restore", item, "--to", log["id"], "--as", "Moved_copy", "--norecovery")
    server.insert("Moved", "two")
    log = backup(sqlbak, "Moved", "log")
    document = sqlbak("restore", item, "--to", log["id"], "--as", "Moved_copy", "--resume")
    assert document["resumed_after"] == 2
    assert server.values("Moved_copy") == ["one", "two"]


@pytest.mark.parametrize("name", ["a]b", "O'Brien", " lead"])
def test_strange_names_are_backed_up_and_restored(server: Server, sqlbak, name: str) -> None:
    plain = f"plain{len(server.rows('SELECT name FROM sys.databases'))}"
    server.create(plain)
    server.run(f"ALTER DATABASE {plain} MODIFY NAME = [{name.replace(']', ']]')}]")
    point = backup(sqlbak, name, "full")
    sqlbak("restore", f"{INSTANCE}/{name}", "--to", point["id"], "--as", f"{name} copy")
    names = {row["name"] for row in server.rows("SELECT name FROM sys.databases")}
    assert f"{name} copy" in names


def taken(server: Server, database: str) -> None:
    server.create(database)
    server.run(
        f"BACKUP DATABASE [{database}] TO DISK = N'{FOLDER}/{database}.bak' WITH FORMAT, CHECKSUM"
    )


def restored(server: Server, database: str) -> str:
    """The full of a database, restored beside it and waiting for log."""
    copy = f"{database}_copy"
    files = server.rows(f"RESTORE FILELISTONLY FROM DISK = N'{FOLDER}/{database}.bak'")
    moves = ", ".join(
        f"MOVE N'{row['LogicalName']}' TO N'/var/opt/mssql/data/{copy}_{row['FileId']}'"
        for row in files
    )
    server.run(
        f"RESTORE DATABASE [{copy}] FROM DISK = N'{FOLDER}/{database}.bak' WITH NORECOVERY, {moves}"
    )
    return copy


def test_measured_where_a_database_stands_after_its_full(server: Server, told) -> None:
    """Resuming relies on it: the end of the last backup that was restored whole."""
    taken(server, "Position")
    copy = restored(server, "Position")
    header = server.rows(f"RESTORE HEADERONLY FROM DISK = N'{FOLDER}/Position.bak'")[0]
    files = server.rows(
        "SELECT type_desc, redo_start_lsn FROM sys.master_files "
        f"WHERE database_id = DB_ID(N'{copy}')"
    )
    told(f"a full ends at {header['LastLSN']}, its files then stand at {files}")
    data = [row for row in files if row["type_desc"] == "ROWS"]
    assert all(row["redo_start_lsn"] == header["LastLSN"] for row in data)


def test_measured_what_is_said_when_a_log_ends_before_its_stop(server: Server, told) -> None:
    taken(server, "Short")
    server.insert("Short", "one")
    server.run(f"BACKUP LOG Short TO DISK = N'{FOLDER}/Short.trn' WITH FORMAT")
    copy = restored(server, "Short")
    said = server.heard(
        f"RESTORE LOG [{copy}] FROM DISK = N'{FOLDER}/Short.trn' "
        "WITH NORECOVERY, STOPAT = N'2099-01-01T00:00:00'"
    )
    told(f"a log that ends before STOPAT: {said}")
    state = server.rows(f"SELECT state_desc FROM sys.databases WHERE name = N'{copy}'")
    assert state == [{"state_desc": "RESTORING"}]


def test_measured_an_empty_log_and_the_columns_of_headers(server: Server, told) -> None:
    taken(server, "Empty")
    server.run(f"BACKUP LOG Empty TO DISK = N'{FOLDER}/Empty1.trn' WITH FORMAT")
    server.run(f"BACKUP LOG Empty TO DISK = N'{FOLDER}/Empty2.trn' WITH FORMAT")
    copy = restored(server, "Empty")
    for name in ("Empty1", "Empty2"):
        header = server.rows(f"RESTORE HEADERONLY FROM DISK = N'{FOLDER}/{name}.trn'")[0]
        said = server.heard(
            f"RESTORE LOG [{copy}] FROM DISK = N'{FOLDER}/{name}.trn' WITH NORECOVERY"
        )
        told(f"log {header['FirstLSN']}..{header['LastLSN']}: {said}")
    full = server.rows(f"RESTORE HEADERONLY FROM DISK = N'{FOLDER}/Empty.bak'")[0]
    told(
        f"{len(full)} columns; TimeZone of a full {full.get('TimeZone')}, of a log "
        f"{header.get('TimeZone')}; last commit {header.get('LastValidRestoreTime')}"
    )
    assert {"FirstLSN", "LastLSN", "FamilyGUID", "RecoveryForkID", "BackupSetGUID"} <= set(full)


def test_measured_whether_a_commit_at_the_very_instant_is_kept(server: Server, told) -> None:
    taken(server, "Edge")
    server.insert("Edge", "one")
    time.sleep(0.05)
    server.insert("Edge", "two")
    server.run(f"BACKUP LOG Edge TO DISK = N'{FOLDER}/Edge.trn' WITH FORMAT")
    header = server.rows(f"RESTORE HEADERONLY FROM DISK = N'{FOLDER}/Edge.trn'")[0]
    last = header.get("LastValidRestoreTime")
    if last is None:
        pytest.skip("this version does not tell when the last transaction committed")
    copy = restored(server, "Edge")
    stop = last.isoformat(timespec="milliseconds")
    said = server.heard(
        f"RESTORE LOG [{copy}] FROM DISK = N'{FOLDER}/Edge.trn' WITH NORECOVERY, STOPAT = N'{stop}'"
    )
    server.run(f"RESTORE DATABASE [{copy}] WITH RECOVERY")
    told(f"STOPAT {stop}, the time of the last commit, keeps {server.values(copy)}: {said}")


def test_measured_a_restore_over_one_that_was_left_needs_no_force(server: Server, told) -> None:
    taken(server, "Again")
    copy = restored(server, "Again")
    said = server.heard(
        f"RESTORE DATABASE [{copy}] FROM DISK = N'{FOLDER}/Again.bak' WITH NORECOVERY"
        ", MOVE N'Again' TO N'/var/opt/mssql/data/Again_copy_1'"
        ", MOVE N'Again_log' TO N'/var/opt/mssql/data/Again_copy_2'"
    )
    told(f"a full over a RESTORING database: {said[-1] if said else said}")
    assert not any("terminating abnormally" in text for text in said)
