"""T-SQL as the simulator reads and runs it: what it knows, what it refuses, what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pymssql
import pytest
from hypothesis import given
from hypothesis import strategies as st

from . import syntax as s
from .errors import SqlError
from .media import Family, Unreadable, data_block, family_block, read_family, segment, segments
from .parser import parse
from .rules import Rules
from .simulator import Simulator, SimulatorError, quoted
from .tds import packets
from .versions import VERSIONS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def shop() -> Simulator:
    simulator = Simulator()
    simulator.create_database("shop", rows=["a", "b", "B", "c"])
    return simulator


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        ("SELECT 1 + 2 * 3, 7 / 2, 7 % 2, -(1)", [(7, 3, 1, -1)]),
        ("SELECT N'a' + 'b', CONCAT('x', NULL, 1), QUOTENAME('a]b')", [("ab", "x1", "[a]]b]")]),
        ("SELECT CASE WHEN NULL = NULL THEN 1 ELSE 2 END, ISNULL(NULL, 3)", [(2, 3)]),
        ("SELECT COUNT(*), MIN(v), MAX(id) FROM shop.dbo.t WHERE v LIKE '[ab]'", [(3, "a", 3)]),
        ("SELECT v, COUNT(*) AS n FROM shop.dbo.t GROUP BY v HAVING COUNT(*) > 1", [("b", 2)]),
        ("SELECT TOP (1) v FROM shop.dbo.t ORDER BY id DESC", [("c",)]),
        ("SELECT DISTINCT v FROM shop.dbo.t ORDER BY v", [("a",), ("b",), ("c",)]),
        ("SELECT v FROM shop.dbo.t WHERE id IN (SELECT MAX(id) FROM shop.dbo.t)", [("c",)]),
        ("SELECT x.id FROM shop.dbo.t x WHERE NOT EXISTS (SELECT 1 FROM shop.dbo.t y "
         "WHERE y.id > x.id)", [(4,)]),
        ("SELECT a.id, b.id FROM shop.dbo.t a LEFT JOIN shop.dbo.t b ON b.id = a.id + 3",
         [(1, 4), (2, None), (3, None), (4, None)]),
        ("SELECT a.id FROM (SELECT id FROM shop.dbo.t WHERE id < 3) AS a, "
         "(VALUES (1), (9)) AS v(n) WHERE v.n = a.id", [(1,)]),
        ("WITH n AS (SELECT id, ROW_NUMBER() OVER (PARTITION BY v ORDER BY id DESC) AS r "
         "FROM shop.dbo.t) SELECT id FROM n WHERE r = 1 ORDER BY id", [(1,), (3,), (4,)]),
        ("SELECT 1 UNION ALL SELECT 1 UNION SELECT 2 ORDER BY 1", [(1,), (2,)]),
        ("SELECT id FROM shop.dbo.t ORDER BY id OFFSET 1 ROWS FETCH NEXT 2 ROWS ONLY",
         [(2,), (3,)]),
        ("SELECT t.id, o.m FROM shop.dbo.t AS t OUTER APPLY (SELECT MAX(u.id) AS m FROM "
         "shop.dbo.t u WHERE u.id < t.id) AS o WHERE t.id < 3", [(1, None), (2, 1)]),
        ("DECLARE @n int = 2; SET @n = @n + 1; SELECT @n, @@ROWCOUNT", [(3, 0)]),
        ("IF DB_ID('nowhere') IS NULL SELECT 'no' ELSE SELECT 'yes'", [("no",)]),
        ("SELECT DATEDIFF(day, '2026-01-31T23:59:59', '2026-02-01T00:00:00'), "
         "CONVERT(nvarchar(30), CAST('2026-01-01T10:00:00.123' AS datetime), 126)",
         [(1, "2026-01-01T10:00:00.123")]),
        ("BEGIN TRY RAISERROR('bad', 16, 1) END TRY BEGIN CATCH SELECT ERROR_MESSAGE() END CATCH",
         [("bad",)]),
        ("SELECT CAST('39000000112000001' AS numeric(25,0)) % 10", [(1,)]),
        ("EXEC sp_executesql N'SELECT 5'", [(5,)]),
    ],
)  # fmt: skip
def test_queries_give_what_sql_server_gives(
    shop: Simulator, sql: str, rows: list[tuple[object, ...]]
) -> None:
    assert [tuple(row) for row in shop.execute(sql)] == rows


@pytest.mark.parametrize(
    ("sql", "number"),
    [
        ("SELECT nothing FROM shop.dbo.t", 207),
        ("SELECT * FROM shop.dbo.nowhere", 208),
        ("SELECT x.y FROM shop.dbo.t", 4104),
        ("SELECT nonsense(1)", 195),
        ("SELEC 1", 2812),
        ("SELECT 'open", 105),
        ("SELECT 1 FROM", 156),
        ("BACKUP DATABASE shop DISK = 'x'", 102),
        ("BACKUP DATABASE shop TO DISK = 'x' WITH STATS = ", 102),
        ("RESTORE DATABASE shop FROM DISK = 'x' WITH NONSENSE", 155),
        ("SELECT @undeclared", 137),
        ("SELECT CAST('x' AS int)", 245),
        ("SELECT CAST('2026-13-01' AS datetime)", 242),
        ("SELECT CAST('2026-01-01T00:00:00.1234' AS datetime)", 241),
        ("SELECT * FROM sys.unheard_of", 50001),
        ("EXEC sp_unheard_of", 50001),
        ("BACKUP DATABASE shop FILEGROUP = 'x' TO DISK = 'y'", 50001),
        ("ALTER DATABASE shop SET SUSPEND_FOR_SNAPSHOT_BACKUP = ON", 50001),
        ("COMMIT", 3902),
        ("USE nowhere", 911),
    ],
)
def test_wrong_statements_fail_as_there_and_unknown_ones_loudly(
    shop: Simulator, sql: str, number: int
) -> None:
    with pytest.raises(SimulatorError) as error:
        shop.execute(sql)
    assert error.value.numbers[0] == number


@given(name=st.text(min_size=1, max_size=40).filter(lambda text: "\0" not in text))
def test_a_quoted_name_is_read_back(name: str) -> None:
    found = parse(f"BACKUP DATABASE {quoted(name)} TO DISK = N'x'")[0]
    assert isinstance(found, s.Backup)
    assert isinstance(found.database, s.Literal)
    assert found.database.value == name


@given(text=st.text(max_size=200))
def test_any_text_is_parsed_or_refused_with_a_server_error(text: str) -> None:
    try:
        parse(text)
    except SqlError as error:
        assert error.messages[0].text


@given(payload=st.binary(max_size=3000), size=st.integers(512, 1000))
def test_packets_carry_their_payload_whole(payload: bytes, size: int) -> None:
    data, found, at = packets(4, payload, size), b"", 0
    while at < len(data):
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        assert length <= size
        found += data[at + 8 : at + length]
        at += length
    assert found == payload


@given(
    content=st.dictionaries(st.text(max_size=5), st.integers()),
    filler=st.integers(0, 5000),
    compress=st.booleans(),
)
def test_a_payload_is_read_back(content: dict[str, int], filler: int, compress: bool) -> None:
    data = segment(content, filler, compress=compress, seed=1)
    assert segments(data + segment([1], 0, compress=False, seed=0)) == [content, [1]]


@pytest.mark.parametrize("year", list(VERSIONS))
def test_versions_differ_where_they_do(year: int, tmp_path: Path) -> None:
    simulator = Simulator({"/backup": tmp_path}, year=year)
    simulator.create_database("shop")
    rules = Rules(simulator)
    path = rules.full(options=", COMPRESSION")
    columns = 59 if year >= 2022 else 56
    assert len(simulator.execute(f"RESTORE HEADERONLY FROM DISK = '{path}'")[0]) == columns
    product = simulator.execute("SELECT CONVERT(nvarchar(128), SERVERPROPERTY('ProductVersion'))")
    assert product == [(VERSIONS[year].product,)]
    zstd = "BACKUP DATABASE shop TO DISK = '/backup/z' WITH COMPRESSION (ALGORITHM = ZSTD)"
    if year == 2025:
        simulator.execute(zstd)
        assert rules.header("/backup/z").compression_algorithm == "ZSTD"
    else:
        rules.refused(zstd, 155 if year == 2022 else 102)


def test_windows_paths_lead_to_real_folders(tmp_path: Path) -> None:
    simulator = Simulator({r"\\files\backup": tmp_path}, platform="Windows")
    simulator.create_database("shop", rows=["a"])
    simulator.execute(r"BACKUP DATABASE shop TO DISK = N'\\FILES\backup\x.bak'")
    assert (tmp_path / "x.bak").exists()
    Rules(simulator).refused(r"BACKUP DATABASE shop TO DISK = N'C:\nowhere\x.bak'", 3201, 3013)


def test_an_unfinished_media_file_is_read_as_far_as_it_goes() -> None:
    from datetime import datetime
    from uuid import uuid4

    family = Family(uuid4(), 1, 1, uuid4(), datetime(2026, 1, 1), False)  # noqa: DTZ001
    data = family_block(family) + data_block(b"x")
    with pytest.raises(Unreadable):
        read_family(data)
    assert read_family(family_block(family)).sets == []


def test_it_runs_as_a_process(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.sqlserver_simulator", "--folder", f"/backup={tmp_path}",
         "--zone", "Europe/Berlin", "--until-eof",
         "--execute", "CREATE DATABASE shop"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    address = json.loads(process.stdout.readline())
    connection = pymssql.connect(
        server=address["host"], port=address["port"], user=address["user"],
        password=address["password"], autocommit=True,
    )  # fmt: skip
    connection.cursor().execute("BACKUP DATABASE shop TO DISK = '/backup/x.bak'")
    connection.close()
    process.stdin.close()
    assert process.wait(10) == 0
    process.stdout.close()
    assert (tmp_path / "x.bak").exists()
