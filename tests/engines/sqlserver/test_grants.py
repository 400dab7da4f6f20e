"""The grants that the documentation asks for are enough, each missing one is named, and of an
availability group is taken what its replica gives."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sqlbak.errors import BackupPaused, ServerNotReady
from tests.engines.sqlserver.site import DIFFERENTIAL, FULL, LOG, ROOT, Site, site_in

PASSWORD = "An0ther!Secret"
PAGE = ROOT / "docs" / "sql-server.md"


def documented() -> tuple[list[str], list[str]]:
    """The statements of the page's section on the login: once, and in each database."""
    section = PAGE.read_text().split("### The login")[1].split("### The folder")[0]
    blocks = re.findall(r"```sql\n(.*?)```", section, re.DOTALL)
    once, in_each = (
        [one.strip() for one in re.sub(r"--.*", "", block).split(";") if one.strip()]
        for block in blocks
    )
    return once, in_each


def granted(site: Site, *, without: str | None = None) -> None:
    """Make the login with what the page says, but for one statement."""
    database = "master"
    once, in_each = documented()
    for statement in once:
        if statement.startswith("USE "):
            database = statement.removeprefix("USE ")
        elif statement.startswith("CREATE LOGIN"):
            site.simulator.create_login("sqlbak", PASSWORD)
        elif without is None or without not in statement:
            site.simulator.execute(statement, database=database)
    for statement in in_each:
        if without is None or without not in statement:
            for name in ("Sales", "model"):
                site.simulator.execute(statement, database=name)
    (site.root / "password").write_text(PASSWORD)


@pytest.fixture
def least(tmp_path: Path) -> Iterator[Site]:
    with site_in(tmp_path / "site", databases=["Sales"], settings={"user": "sqlbak"}) as site:
        yield site


def test_the_documented_grants_are_enough(least: Site) -> None:
    granted(least)
    inspection = least.json("inspect", "erp")
    assert inspection["ready"], inspection["problems"]
    least.simulator.insert("Sales", "row")
    for kind in (FULL, LOG, DIFFERENTIAL):
        facts = least.manifest("Sales", least.point("Sales", kind)).facts
        assert facts is not None
        assert facts["msdb"] is not None
    least.simulator.insert("Sales", "row 2")
    least.simulator.execute("BACKUP LOG Sales TO DISK = 'NUL' WITH NAME = 'theirs'")
    assert "theirs" in least.backup("Sales", LOG).notes[-1].text


@pytest.mark.parametrize(
    ("without", "named"),
    [
        ("db_backupoperator", "db_backupoperator"),
        ("CREATE ANY DATABASE", "CREATE ANY DATABASE"),
    ],
)
def test_a_missing_grant_is_named_with_the_statement(least: Site, without: str, named: str) -> None:
    granted(least, without=without)
    with pytest.raises(ServerNotReady) as refused:
        least.backup("Sales", FULL)
    assert named in refused.value.hint
    assert least.files() == []


@pytest.mark.parametrize("without", ["VIEW SERVER STATE", "GRANT SELECT"])
def test_what_is_only_for_telling_more_stops_no_backup(least: Site, without: str) -> None:
    granted(least, without=without)
    for kind in (FULL, LOG, DIFFERENTIAL):
        least.point("Sales", kind)


def test_of_an_availability_group_the_primary_gives_all_and_others_nothing(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with (
        site_in(tmp_path / "one", databases=["Shop"], server_name="ONE") as primary,
        site_in(tmp_path / "two", server_name="TWO") as secondary,
    ):
        group = primary.simulator.group("ag", ["Shop"], [secondary.simulator], preference="PRIMARY")
        primary.point("Shop", FULL)
        primary.simulator.insert("Shop", "row")
        primary.point("Shop", LOG)
        primary.point("Shop", DIFFERENTIAL)
        for kind in (FULL, DIFFERENTIAL, LOG):
            with pytest.raises(BackupPaused, match=r"secondary|prefers"):
                secondary.backup("Shop", kind)
        group.preference = "SECONDARY"
        with pytest.raises(BackupPaused, match="prefers another replica"):
            primary.backup("Shop", LOG)
        group.preference = "PRIMARY"
        # Through the listener, the same item goes on at the new primary.
        group.fail_over(secondary.simulator.instance)
        listener = Site(primary.root, primary.vault, secondary.simulator)
        listener.settings["delivery"] = {
            "disk": {"server_path": "/var/opt/mssql/backup", "local_path": str(secondary.folder)}
        }
        listener.write_policies()
        secondary.simulator.insert("Shop", "after")
        listener.point("Shop", LOG)
        assert len(listener.stored("Shop")) == 1
        logs = [point for point in listener.points("Shop") if point.type is LOG]
        assert logs[1].first_lsn == logs[0].last_lsn
