"""Logins that may do only what they were given, as each statement's page says."""

from __future__ import annotations

import pytest

from .rules import Rules
from .simulator import Simulator, SimulatorError

PREPARE = """
CREATE LOGIN taker WITH PASSWORD = 'Taker!12345';
CREATE LOGIN giver WITH PASSWORD = 'Giver!12345';
CREATE LOGIN nobody WITH PASSWORD = 'Nobody!12345';
ALTER SERVER ROLE dbcreator ADD MEMBER giver;
USE shop; CREATE USER taker FOR LOGIN taker; ALTER ROLE db_backupoperator ADD MEMBER taker;
CREATE USER nobody FOR LOGIN nobody;
USE msdb; CREATE USER taker FOR LOGIN taker; ALTER ROLE db_datareader ADD MEMBER taker;
USE master;
"""


@pytest.fixture
def rules(simulator: Simulator) -> Rules:
    simulator.create_database("shop", rows=["a"])
    simulator.create_database("other")
    simulator.execute(PREPARE)
    return Rules(simulator)


def numbers(rules: Rules, sql: str, login: str) -> list[int]:
    try:
        rules.simulator.execute(sql, login=login)
    except SimulatorError as error:
        return error.numbers
    return []


BACKUP = "BACKUP DATABASE {} TO DISK = '/backup/p.bak' WITH FORMAT"
RESTORE = (
    "RESTORE DATABASE {} FROM DISK = '/backup/1.bak' WITH REPLACE, "
    "MOVE 'shop' TO '/var/opt/mssql/data/n.mdf', MOVE 'shop_log' TO '/var/opt/mssql/data/n.ldf'"
)


@pytest.mark.parametrize(
    ("login", "sql", "expected"),
    [
        ("taker", BACKUP.format("shop"), []),
        ("taker", BACKUP.format("other"), [916, 3013]),
        ("taker", "BACKUP LOG shop TO DISK = '/backup/p.trn'", []),
        ("nobody", BACKUP.format("shop"), [262, 3013]),
        ("taker", "SELECT v FROM shop.dbo.t", []),
        ("taker", "RESTORE HEADERONLY FROM DISK = '/backup/1.bak'", [262, 3013]),
        ("giver", "RESTORE HEADERONLY FROM DISK = '/backup/1.bak'", []),
        ("giver", RESTORE.format("new"), []),
        ("giver", RESTORE.format("shop"), []),
        ("taker", RESTORE.format("new"), [262, 3013]),
        ("taker", RESTORE.format("shop"), [3110, 3013]),
        ("taker", "SELECT COUNT(*) FROM msdb.dbo.backupset", []),
        ("giver", "SELECT COUNT(*) FROM msdb.dbo.backupset", [229]),
        ("taker", "KILL 99", [6102]),
        ("taker", "CREATE CREDENTIAL [s3://x] WITH IDENTITY = 'S3 Access Key', SECRET = 'a:b'",
         [15247]),
        ("taker", "CREATE DATABASE x", [262]),
        ("taker", "DROP DATABASE shop", [3701]),
        ("taker", "ALTER DATABASE shop SET RECOVERY SIMPLE", [5011, 5069]),
        ("giver", "ALTER DATABASE shop SET RESTRICTED_USER WITH ROLLBACK IMMEDIATE", []),
        ("nobody", "USE other", [916]),
        ("taker", "DBCC CHECKDB (shop)", [7983]),
    ],
)  # fmt: skip
def test_who_may_do_what(rules: Rules, login: str, sql: str, expected: list[int]) -> None:
    rules.full()
    assert numbers(rules, sql, login) == expected


def test_the_restoring_login_owns_what_it_made(rules: Rules, simulator: Simulator) -> None:
    rules.full()
    simulator.execute(RESTORE.format("new"), login="giver")
    owner = "SELECT SUSER_SNAME(owner_sid) FROM sys.databases WHERE name = 'new'"
    assert simulator.execute(owner) == [("giver",)]
    assert numbers(rules, "DBCC CHECKDB (new) WITH NO_INFOMSGS", "giver") == []
    simulator.execute("ALTER AUTHORIZATION ON DATABASE::new TO sa")
    assert simulator.execute(owner) == [("sa",)]


def test_views_show_what_the_login_may_see(rules: Rules, simulator: Simulator) -> None:
    def count(view: str, login: str) -> int:
        return int(simulator.execute(f"SELECT COUNT(*) FROM {view}", login=login)[0][0])

    assert count("sys.databases", "taker") == 6
    assert count("sys.master_files", "taker") == 0
    assert count("sys.master_files", "giver") == 12
    assert count("shop.sys.database_files", "taker") == 2
    simulator.execute("DENY VIEW ANY DATABASE TO taker")
    assert count("sys.databases", "taker") == 2
    simulator.execute("GRANT VIEW ANY DEFINITION TO taker")
    assert count("sys.master_files", "taker") == 12


def test_permissions_can_be_asked_for(rules: Rules, simulator: Simulator) -> None:
    simulator.create_database("odd [name]")
    ask = "SELECT HAS_PERMS_BY_NAME(N'{}', 'DATABASE', 'BACKUP LOG'), IS_SRVROLEMEMBER('dbcreator')"
    assert simulator.execute(ask.format("[odd [name]]]")) == [(1, 1)]
    assert simulator.execute(ask.format("shop"), login="taker") == [(1, 0)]
    assert simulator.execute(ask.format("other"), login="taker") == [(0, 0)]
    simulator.execute("USE other; CREATE USER nobody FOR LOGIN nobody; GRANT BACKUP LOG TO nobody")
    assert simulator.execute(ask.format("other"), login="nobody") == [(1, 0)]


def test_a_user_whose_login_is_gone_is_an_orphan(rules: Rules, simulator: Simulator) -> None:
    orphans = (
        "SELECT dp.name FROM shop.sys.database_principals AS dp LEFT JOIN sys.server_principals "
        "AS sp ON sp.sid = dp.sid WHERE dp.type = 'S' AND sp.sid IS NULL"
    )
    assert simulator.execute(orphans) == []
    simulator.execute("DROP LOGIN nobody")
    assert simulator.execute(orphans) == [("nobody",)]
