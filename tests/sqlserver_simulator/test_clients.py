"""Three drivers that know nothing of each other talk to the simulator and agree."""

from __future__ import annotations

import importlib
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytds
import pytest

from .simulator import Simulator

VALUES = (
    "SELECT CAST(7 AS tinyint) AS tiny, CAST(-5 AS bigint) AS big, CAST(1 AS bit) AS yes, "
    "N'Zażółć' AS wide, CAST(N'x' AS nvarchar(max)) AS long, "
    "CAST('39000000112000001' AS numeric(25, 0)) AS lsn, "
    "CAST('6F9619FF-8B86-D011-B42D-00C04FC964FF' AS uniqueidentifier) AS guid, "
    "CAST('2026-05-01T12:00:00.997' AS datetime) AS moment, 0x00FF AS raw, "
    "CAST(NULL AS int) AS nothing, CAST(NULL AS nvarchar(9)) AS no_text"
)
EXPECTED = (
    7, -5, True, "Zażółć", "x", Decimal(39000000112000001),
    uuid.UUID("6F9619FF-8B86-D011-B42D-00C04FC964FF"),
    datetime(2026, 5, 1, 12, 0, 0, 997_000),  # noqa: DTZ001
    b"\x00\xff", None, None,
)  # fmt: skip


@pytest.fixture(scope="module", params=["off", "on"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Simulator]:
    folder = tmp_path_factory.mktemp("media")
    with Simulator({"/backup": folder}, tls=request.param) as simulator:
        simulator.create_database("shop", rows=["a", "b"])
        yield simulator


def by_pymssql(server: Simulator) -> Any:
    import pymssql

    return pymssql.connect(
        server=server.host, port=server.port, user="sa", password=server.sa_password,
        autocommit=True,
    )  # fmt: skip


def by_pytds(server: Simulator) -> Any:
    parts: dict[str, Any] = {}
    if server.certificate is not None:
        path = next(iter(server.instance.folders.values())) / "ca.pem"
        path.write_bytes(server.certificate)
        parts = {"cafile": str(path), "validate_host": False}
    return pytds.connect(
        dsn=server.host, port=server.port, user="sa", password=server.sa_password,
        autocommit=True, **parts,
    )  # fmt: skip


def by_microsoft(server: Simulator) -> Any:
    try:
        driver = importlib.import_module("mssql_python")
    except (ImportError, RuntimeError, OSError) as error:
        pytest.skip(f"Microsoft's driver does not load here: {error}")
    try:
        return driver.connect(
            f"Server={server.host},{server.port};Uid=sa;Pwd={server.sa_password};"
            f"Encrypt={'yes' if server.certificate else 'no'};TrustServerCertificate=yes",
            autocommit=True,
        )
    except Exception as error:
        if "Failed to load the driver" in str(error):
            pytest.skip("Microsoft's driver does not load here: it needs libltdl7")
        raise


DRIVERS = [by_pymssql, by_pytds, by_microsoft]


@pytest.fixture(params=DRIVERS, ids=["pymssql", "python-tds", "mssql-python"])
def cursor(request: pytest.FixtureRequest, server: Simulator) -> Iterator[Any]:
    opener: Callable[[Simulator], Any] = request.param
    if opener is by_pytds and server.certificate is not None:
        pytest.importorskip("OpenSSL", reason="python-tds needs pyOpenSSL for TLS")
    connection = opener(server)
    yield connection.cursor()
    connection.close()


def drain(cursor: Any) -> None:
    while cursor.nextset():
        pass


def test_every_type_arrives_exactly(cursor: Any) -> None:
    cursor.execute(VALUES)
    row = tuple(cursor.fetchall()[0])
    assert row == EXPECTED
    assert [each[0] for each in cursor.description][:3] == ["tiny", "big", "yes"]


def test_a_backup_and_its_header(cursor: Any, server: Simulator) -> None:
    cursor.execute("BACKUP DATABASE shop TO DISK = N'/backup/f.bak' WITH FORMAT, STATS = 20")
    drain(cursor)
    cursor.execute("RESTORE HEADERONLY FROM DISK = N'/backup/f.bak'")
    rows = cursor.fetchall()
    names = [each[0] for each in cursor.description]
    assert len(names) == 59
    assert dict(zip(names, rows[0], strict=True))["DatabaseName"] == "shop"
    drain(cursor)


def test_an_error_carries_its_number_or_its_text(cursor: Any) -> None:
    with pytest.raises(Exception, match="does not exist"):
        cursor.execute("BACKUP DATABASE nosuch TO DISK = N'/backup/f.bak'")
    cursor.execute("SELECT 1 AS still")
    assert tuple(cursor.fetchall()[0]) == (1,)


def test_rows_come_back_from_a_restore(cursor: Any, server: Simulator) -> None:
    path = Path(next(iter(server.instance.folders.values())))
    name = f"copy_{uuid.uuid4().hex[:8]}"
    cursor.execute(f"BACKUP DATABASE shop TO DISK = N'/backup/{name}' WITH FORMAT, COPY_ONLY")
    drain(cursor)
    assert (path / name).stat().st_size > 0
    cursor.execute(
        f"RESTORE DATABASE {name} FROM DISK = N'/backup/{name}' WITH "
        f"MOVE 'shop' TO '/var/opt/mssql/data/{name}.mdf', "
        f"MOVE 'shop_log' TO '/var/opt/mssql/data/{name}.ldf'"
    )
    drain(cursor)
    cursor.execute(f"SELECT v FROM {name}.dbo.t ORDER BY id")
    assert [row[0] for row in cursor.fetchall()] == ["a", "b"]
    server.execute(f"DROP DATABASE {name}")
