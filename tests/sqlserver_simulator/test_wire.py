"""Interruptions: cancelling, KILL, dropped connections, logins that fail, many at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymssql
import pytest

from .errors import Message
from .instance import Unknowns
from .simulator import Simulator
from .wireclient import WireClient

Connect = Callable[..., Any]
BACKUP = "BACKUP DATABASE shop TO DISK = N'/backup/f.bak' WITH FORMAT, STATS = 10"


@pytest.fixture(autouse=True)
def shop(simulator: Simulator) -> None:
    simulator.create_database("shop", rows=["a"])


def client(simulator: Simulator) -> WireClient:
    return WireClient(simulator.host, simulator.port, "sa", simulator.sa_password)


def wait_for_no_session(simulator: Simulator) -> None:
    deadline = time.monotonic() + 10
    while simulator.sessions() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert simulator.sessions() == []


def failing(action: Callable[[], Any]) -> tuple[threading.Thread, list[Exception]]:
    """Run in a thread; what it raised."""
    found: list[Exception] = []

    def body() -> None:
        try:
            action()
        except pymssql.Error as error:
            found.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    return thread, found


def test_an_attention_ends_the_reply_and_is_acknowledged_by_itself(
    simulator: Simulator, media: Path
) -> None:
    hold = simulator.faults.add("hold", at_percent=40)
    wire = client(simulator)
    wire.start(BACKUP)
    assert hold.reached.wait(10)
    wire.attention()
    first = wire.parse(wire.receive())
    assert first.info[0][0] == 3211
    assert not first.errors
    acknowledged = wire.parse(wire.receive())
    assert [each.split("/")[1] for each in acknowledged.done] == ["32"]
    assert not (media / "f.bak").exists()
    assert wire.batch("SELECT 1 AS x").rows == [[1]]
    assert simulator.database("shop").data_backup_by is None
    assert simulator.database("shop").differential_base is None
    wire.close()


def test_an_attention_without_a_statement_is_acknowledged(simulator: Simulator) -> None:
    wire = client(simulator)
    wire.attention()
    assert wire.parse(wire.receive()).done[0].startswith("done/32/")
    wire.close()


def test_pymssql_cancels_from_another_thread(simulator: Simulator, connect: Connect) -> None:
    hold = simulator.faults.add("hold", at_percent=40)
    connection = connect()
    thread, found = failing(lambda: connection.cursor().execute(BACKUP))
    assert hold.reached.wait(10)
    time.sleep(0.5)  # the driver's cancel is safe only while its other thread waits for the server
    connection._conn.cancel()
    thread.join(10)
    assert found
    cursor = connection.cursor()
    cursor.execute("SELECT 1")
    assert cursor.fetchall() == [(1,)]


def test_kill_ends_a_statement_and_its_connection(simulator: Simulator, connect: Connect) -> None:
    hold = simulator.faults.add("hold", at_percent=40)
    connection = connect()
    cursor = connection.cursor()
    cursor.execute("SELECT @@SPID")
    number = cursor.fetchall()[0][0]
    thread, found = failing(lambda: cursor.execute(BACKUP))
    assert hold.reached.wait(10)
    other = connect().cursor()
    other.execute(f"KILL {number}")
    thread.join(10)
    assert found[0].args[0] == 596
    with pytest.raises(pymssql.Error):
        connection.cursor().execute("SELECT 1")


def test_kill_closes_an_idle_connection(simulator: Simulator, connect: Connect) -> None:
    connection = connect()
    cursor = connection.cursor()
    cursor.execute("SELECT @@SPID")
    simulator.kill(cursor.fetchall()[0][0])
    with pytest.raises(pymssql.Error):
        cursor.execute("SELECT 1")
    wait_for_no_session(simulator)


def test_a_killed_restore_leaves_the_database_restoring(
    simulator: Simulator, connect: Connect
) -> None:
    simulator.execute(BACKUP)
    simulator.faults.add("kill", at_percent=50, command="RESTORE DATABASE")
    with pytest.raises(pymssql.Error):
        connect().cursor().execute(
            "RESTORE DATABASE shop FROM DISK = N'/backup/f.bak' WITH REPLACE"
        )
    assert simulator.database("shop").state == "RESTORING"


@pytest.mark.parametrize(("kind", "is_there"), [("drop", False), ("drop_after", True)])
def test_a_dropped_connection_and_what_the_server_made_of_it(
    simulator: Simulator, connect: Connect, media: Path, kind: str, is_there: bool
) -> None:
    simulator.faults.add(kind, at_percent=50)
    with pytest.raises(pymssql.Error) as error:
        connect().cursor().execute(BACKUP)
    assert error.value.args[0] == 20017
    assert (media / "f.bak").exists() == is_there
    rows = simulator.execute("SELECT COUNT(*) FROM msdb.dbo.backupset")
    assert rows == [(int(is_there),)]


def test_a_vanished_client_ends_its_backup(simulator: Simulator, media: Path) -> None:
    hold = simulator.faults.add("hold", at_percent=40)
    wire = client(simulator)
    wire.start(BACKUP)
    assert hold.reached.wait(10)
    assert simulator.database("shop").data_backup_by is not None
    wire.close()
    wait_for_no_session(simulator)
    assert simulator.database("shop").data_backup_by is None
    assert not (media / "f.bak").exists()


@pytest.mark.parametrize("leaves", [True, False])
def test_a_failed_write_may_leave_a_part_of_the_file(
    simulator: Simulator, connect: Connect, media: Path, leaves: bool
) -> None:
    simulator.faults.add("write", at_percent=50, device="/backup/f.bak", leaves_partial=leaves)
    with pytest.raises(pymssql.Error, match="not enough space") as error:
        connect().cursor().execute(BACKUP)
    assert error.value.args[0] == 3202
    assert (media / "f.bak").exists() == leaves


def test_a_full_disk_and_a_folder_that_is_denied(simulator: Simulator, connect: Connect) -> None:
    cursor = connect().cursor()
    simulator.faults.free_bytes = 500
    with pytest.raises(pymssql.Error, match=r"112\("):
        cursor.execute(BACKUP)
    simulator.faults.clear()
    simulator.faults.denied.add("/backup")
    with pytest.raises(pymssql.Error, match="Access is denied"):
        cursor.execute(BACKUP)


def test_messages_reach_pymssql_while_the_statement_runs(
    simulator: Simulator, connect: Connect
) -> None:
    hold = simulator.faults.add("hold", at_percent=55)
    connection = connect()
    seen: list[str] = []
    connection._conn.set_msghandler(lambda *parts: seen.append(parts[5].decode()))
    thread, _ = failing(lambda: connection.cursor().execute(BACKUP))
    assert hold.reached.wait(10)
    deadline = time.monotonic() + 10
    while "50 percent processed." not in seen and time.monotonic() < deadline:
        time.sleep(0.01)
    assert seen[0] == "10 percent processed."
    assert "60 percent processed." not in seen
    hold.released.set()
    thread.join(10)
    assert seen[-1].startswith("BACKUP DATABASE successfully processed")


def test_one_done_at_the_end_can_be_had_too(media: Path) -> None:
    with Simulator({"/backup": media}, unknowns=Unknowns(done_per_message=False)) as simulator:
        simulator.create_database("shop")
        wire = client(simulator)
        assert wire.batch(BACKUP).done == ["done/0/228/0"]
        wire.close()


def test_a_wrong_password_and_a_database_that_is_not_there(
    simulator: Simulator, connect: Connect
) -> None:
    wire = WireClient(simulator.host, simulator.port, "sa", "wrong")
    assert [each[:3] for each in wire.login.errors] == [(18456, 1, 14)]
    wire.close()
    with pytest.raises(pymssql.Error):
        connect(database="nowhere")
    assert simulator.endpoint is not None
    simulator.endpoint.refuses_logins = Message(18456, "Login failed for user 'sa'.", 14)
    with pytest.raises(pymssql.Error):
        connect()


def test_an_open_transaction_ends_with_its_connection(simulator: Simulator) -> None:
    wire = client(simulator)
    wire.batch("BEGIN TRAN; INSERT shop.dbo.t VALUES (N'lost')")
    assert wire.batch("SELECT COUNT(*) AS n FROM shop.dbo.t").rows == [[2]]
    wire.close()
    wait_for_no_session(simulator)
    assert simulator.rows("shop") == ["a"]
    assert simulator.database("shop").tables.oldest_open() is None


def test_single_user_throws_others_out(simulator: Simulator, connect: Connect) -> None:
    other = connect()
    other.cursor().execute("USE shop")
    mine = connect().cursor()
    mine.execute("ALTER DATABASE shop SET SINGLE_USER WITH ROLLBACK IMMEDIATE")
    mine.execute("ALTER DATABASE shop SET MULTI_USER")
    with pytest.raises(pymssql.Error):
        other.cursor().execute("SELECT 1")


def test_five_hundred_databases_on_one_instance(simulator: Simulator, connect: Connect) -> None:
    with simulator.lock:
        for number in range(500):
            simulator.instance.create_database(f"tenant {number:03d}")
    cursor = connect().cursor(as_dict=True)
    cursor.execute(
        "SELECT d.name, r.family_guid, f.physical_name FROM sys.databases AS d "
        "LEFT JOIN sys.database_recovery_status AS r ON r.database_id = d.database_id "
        "LEFT JOIN sys.master_files AS f ON f.database_id = d.database_id AND f.file_id = 1"
    )
    rows = cursor.fetchall()
    assert len(rows) == 505
    assert len({row["family_guid"] for row in rows}) == 505


def test_thirty_connections_at_once(simulator: Simulator) -> None:
    simulator.faults.pace = 0.2
    for number in range(30):
        simulator.create_database(f"db{number}")
    results: list[int] = []

    def work(number: int) -> None:
        wire = client(simulator)
        answer = wire.batch(f"BACKUP DATABASE db{number} TO DISK = '/backup/{number}' WITH FORMAT")
        results.append(len(answer.info))
        wire.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [3] * 30
