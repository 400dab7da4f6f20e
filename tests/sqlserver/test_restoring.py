"""Restoring a database to the second, judged by what was committed by then."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pymssql
import pytest

from sqlbak.engines.port import TailChoice
from sqlbak.engines.sqlserver.connection import Session
from sqlbak.engines.sqlserver.target import read_server
from sqlbak.errors import InstantUnreachable, SqlbakError, TargetNotUsable
from tests.sqlserver.site import INSTANCE, Site, said

SECOND = timedelta(seconds=1)


@contextmanager
def connected(site: Site, database: str) -> Iterator[None]:
    connection = pymssql.connect(
        server=site.host,
        port=str(site.port),
        user="sa",
        password=site.password,
        database=database,
        autocommit=True,
    )
    try:
        yield
    finally:
        connection.close()


def test_every_commit_up_to_the_instant_is_there_and_none_after(sales: Site) -> None:
    seen = set()
    for at, _ in sales.commits["Sales"][2:-1:3]:
        for instant in (at - timedelta(milliseconds=4), at, at + SECOND):
            restored = sales.restore("Sales", instant, "Copy")
            assert sales.rows("Copy") == sales.rows_at("Sales", instant), instant
            assert restored.outcome.state == "ONLINE"
            assert restored.outcome.proven
            seen.add(tuple(sales.rows("Copy")))
            sales.drop("Copy")
    assert len(seen) > 4
    assert sales.leftovers() == []


def test_a_restore_is_into_a_new_name_unless_the_original_is_to_be_replaced(site: Site) -> None:
    site.write_history("Sales")
    target = site.commits["Sales"][5][0]
    with pytest.raises(TargetNotUsable, match="exists already"):
        site.restore("Sales", target, "Sales")
    with pytest.raises(TargetNotUsable, match="in no backup") as refused:
        site.restore("Sales", target, "Sales", replaces=True)
    assert "--tail discard" in refused.value.hint
    assert site.state("Sales") == "ONLINE"
    assert site.rows("Sales") == [value for _, value in site.commits["Sales"]]


def test_the_tail_joins_the_vault_before_the_original_is_replaced(site: Site) -> None:
    site.write_history("Sales")
    site.advance(seconds=30)
    site.insert("Sales", "only in the tail")
    now = site.advance(seconds=30)
    target = site.commits["Sales"][5][0]
    code = site.program(
        "restore", "erp/Sales", "--to", target.isoformat(), "--overwrite", "--tail", "backup"
    )
    assert code == 0
    assert site.rows("Sales") == site.rows_at("Sales", target)
    # The state right before it was replaced can be had all the same.
    restored = site.restore("Sales", now - SECOND, "Before")
    assert site.rows("Before")[-1] == "only in the tail"
    assert restored.plan.certainty.value == "proven"


def test_a_tail_that_cannot_be_taken_there_is_told_before_anybody_is_put_out(
    sales: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    policies = sales.write_policy()
    text = policies.read_text()
    again = text[text.index(f"  {INSTANCE}:\n") :].replace(f"  {INSTANCE}:", "  other:", 1)
    policies.write_text(text + again)
    with sales.simulator.lock:
        sessions = len(sales.simulator.instance.statements)
    code = sales.program(
        "restore", "erp/Sales", "--to", "latest", "--overwrite", "--tail", "backup",
        "--disconnect", "--instance", "other",
    )  # fmt: skip
    sales.write_policy()
    assert code == 2
    assert "takes the tail of erp/Sales itself" in capsys.readouterr().err
    sent = sales.simulator.instance.statements[sessions:]
    assert not any("RESTRICTED_USER" in batch for batch in sent)


def test_giving_up_the_tail_is_said_aloud(site: Site) -> None:
    site.write_history("Sales")
    target = site.commits["Sales"][5][0]
    code = site.program(
        "restore", "erp/Sales", "--to", target.isoformat(), "--overwrite", "--tail", "discard"
    )
    assert code == 0
    assert site.rows("Sales") == site.rows_at("Sales", target)
    assert "REPLACE" in " ".join(site.simulator.instance.statements)


def test_an_older_copy_of_the_database_is_replaced_too(site: Site) -> None:
    site.write_history("Sales")
    site.restore("Sales", site.commits["Sales"][4][0])
    later = site.commits["Sales"][6][0]
    site.restore("Sales", later, "Copy", replaces=True, tail=TailChoice.DISCARD)
    assert site.rows("Copy") == site.rows_at("Sales", later)


def test_sessions_are_ended_only_when_that_is_said_and_may_come_back(site: Site) -> None:
    site.write_history("Sales")
    target = site.commits["Sales"][5][0]
    replaced = {"replaces": True, "tail": TailChoice.DISCARD}
    with connected(site, "Sales"):
        with pytest.raises(TargetNotUsable, match="in use"):
            site.restore("Sales", target, "Sales", **replaced)
        site.restore("Sales", target, "Sales", disconnects=True, **replaced)
    assert site.rows("Sales") == site.rows_at("Sales", target)
    assert site.simulator.database("Sales").user_access == "MULTI_USER"


def test_another_database_of_that_name_is_never_overwritten(sales: Site) -> None:
    sales.simulator.create_database("Other", rows=["precious"])
    with pytest.raises(TargetNotUsable, match="another database"):
        sales.restore(
            "Sales",
            sales.commits["Sales"][5][0],
            "Other",
            replaces=True,
            tail=TailChoice.DISCARD,
        )
    assert sales.rows("Other") == ["precious"]


def test_a_database_left_for_more_log_is_not_open_and_says_so(sales: Site) -> None:
    restored = sales.restore("Sales", sales.commits["Sales"][5][0], "Waiting", recovers=False)
    assert restored.outcome.state == "RESTORING"
    assert not restored.outcome.proven
    assert "RESTORE DATABASE [Waiting] WITH RECOVERY" in restored.outcome.next_steps[0]
    assert sales.state("Waiting") == "RESTORING"


def test_the_end_of_a_recovery_point_and_a_position_are_reached_too(site: Site) -> None:
    site.write_history("Sales")
    log = site.backup("Sales", "log")
    site.restore("Sales", log.id, "ByPoint")
    everything = [value for _, value in site.commits["Sales"]]
    assert site.rows("ByPoint") == everything
    commits = site.simulator.database("Sales").commits[-len(everything) :]
    position = commits[6].lsn
    restored = site.restore("Sales", str(position), "ByPosition")
    assert site.rows("ByPosition") == everything[:6]
    assert restored.outcome.reached is not None
    assert restored.outcome.reached.lsn <= position


def test_after_the_last_log_nothing_is_promised(sales: Site) -> None:
    with pytest.raises(InstantUnreachable, match="last instant"):
        sales.restore("Sales", sales.advance(hours=1))
    assert sales.state("Copy") is None


def test_an_idle_database_is_restored_to_an_instant_after_its_last_commit(site: Site) -> None:
    site.simulator.create_database("Sales")
    site.backup("Sales", "full")
    site.advance(minutes=1)
    site.insert("Sales", "last")
    idle = site.advance(minutes=10)
    site.advance(minutes=5)
    site.backup("Sales", "log")
    restored = site.restore("Sales", idle)
    assert site.rows("Copy") == ["last"]
    assert restored.outcome.proven


@pytest.mark.parametrize(
    "name",
    ["a]b", "O'Brien", "x" * 128, " lead", "tab\tnew\nline", "日本", "semi;colon--", "100%", ".."],
    ids=lambda name: repr(name)[:20],
)
def test_every_legal_name_is_backed_up_and_restored(site: Site, name: str) -> None:
    # Its files are named after it, with something behind, so it gets its whole name afterwards.
    site.simulator.create_database("new", rows=["one"])
    site.simulator.execute(f"ALTER DATABASE new MODIFY NAME = [{name.replace(']', ']]')}]")
    site.advance(minutes=1)
    site.backup(name, "full")
    site.advance(minutes=1)
    at = site.insert(name, "two")
    site.advance(minutes=1)
    site.backup(name, "log")
    copy = f"{name[:100]} copy"
    site.restore(name, at, copy)
    assert site.rows(copy) == ["one", "two"]
    site.restore(name, at, name, replaces=True, tail=TailChoice.DISCARD)
    assert site.rows(name) == ["one", "two"]


def test_the_owner_and_users_without_a_login_come_with_their_statements(site: Site) -> None:
    site.simulator.create_database("Sales")
    site.simulator.create_login("O'Brien", "Secret!1")
    site.simulator.execute("CREATE USER [O'Brien] FOR LOGIN [O'Brien]", database="Sales")
    site.simulator.execute("ALTER AUTHORIZATION ON DATABASE::Sales TO [O'Brien]")
    point = site.backup("Sales", "full")
    del site.simulator.instance.logins["o'brien"]
    restored = site.restore("Sales", point.id)
    told = " ".join(restored.outcome.next_steps)
    assert "ALTER USER [O'Brien] WITH LOGIN = [O'Brien]" in told
    assert "ALTER AUTHORIZATION ON DATABASE::[Copy] TO [O'Brien]" in told


def test_what_the_program_prints_is_the_plan_and_what_was_reached(
    sales: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    target = sales.commits["Sales"][5][0]
    arguments = ["restore", "erp/Sales", "--to", target.isoformat(), "--as", "Printed", "--json"]
    assert sales.program(*arguments) == 0
    document, _ = said(capsys)
    assert document["database"] == "Printed"
    assert document["instance"] == "erp"
    assert document["state"] == "ONLINE"
    assert document["proven"] is True
    assert document["stop_at"] == target.isoformat(timespec="microseconds")
    assert document["stop_at_on_server"].startswith(f"{target:%Y-%m-%dT%H:%M:%S}")
    assert document["steps"][0]["type"] == "full"
    assert sorted(document["files"]) == ["Sales", "Sales_log"]
    assert sales.program(*arguments) == 3
    document, _ = said(capsys)
    assert document["error"]["code"] == "target_not_usable"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "where to?"),
        (("--as", "X", "--into", "/x"), "not into a directory"),
        (("--as", "X", "--tail", "backup"), "belong to --overwrite"),
        (("--overwrite", "--resume"), "name one of them"),
        (("--files", "/x", "--overwrite"), "touches no server"),
        (("--as", "X", "--move", "nonsense"), "not LOGICAL=PATH"),
    ],
)
def test_options_that_contradict_each_other_are_told(
    sales: Site, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], expected: str
) -> None:
    assert sales.program("restore", "erp/Sales", "--to", "latest", *words) == 2
    assert expected in capsys.readouterr().err


def test_files_are_placed_where_they_are_moved_to(sales: Site) -> None:
    moves = {"Sales": "/var/opt/mssql/data/elsewhere.mdf"}
    restored = sales.restore("Sales", sales.commits["Sales"][3][0], "Moved", moves=moves)
    assert restored.outcome.files["Sales"] == moves["Sales"]
    paths = [file.physical_name for file in sales.simulator.database("Moved").files]
    assert moves["Sales"] in paths


def test_an_older_server_is_refused_before_anything_is_fetched(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(year=2022)
    site.write_history("Sales")
    older = make_site(year=2019)
    site.port = older.port
    site.password = older.password
    site.write_policy()
    with pytest.raises(TargetNotUsable, match="older"):
        site.restore("Sales", site.commits["Sales"][3][0])
    assert older.leftovers() == []


def test_the_documented_grants_are_enough_and_a_missing_one_is_named(site: Site) -> None:
    site.write_history("Sales")
    target = site.commits["Sales"][5][0]
    login = site.simulator.create_login("restorer", site.password)
    site.write_policy(user="restorer")
    with pytest.raises(SqlbakError) as refused:
        site.restore("Sales", target)
    assert "CREATE ANY DATABASE" in refused.value.hint or "dbcreator" in refused.value.hint
    login.permissions |= {"CREATE ANY DATABASE", "VIEW SERVER STATE", "VIEW ANY DATABASE"}
    site.restore("Sales", target)
    assert site.rows("Copy") == site.rows_at("Sales", target)
    replaced = {"replaces": True, "tail": TailChoice.DISCARD}
    with pytest.raises(SqlbakError) as refused:
        site.restore("Sales", target, "Sales", **replaced)
    assert "dbcreator" in refused.value.hint
    assert site.state("Sales") == "ONLINE"
    login.roles.add("dbcreator")
    site.restore("Sales", target, "Sales", **replaced)
    assert site.rows("Sales") == site.rows_at("Sales", target)


def test_a_downloaded_copy_of_the_vault_is_enough(site: Site, tmp_path: Path) -> None:
    site.write_history("Sales")
    target = site.commits["Sales"][5][0]
    (item,) = (site.folder / "vault" / "items").iterdir()
    shutil.copytree(item, tmp_path / "copy")
    shutil.rmtree(site.folder / "vault")
    code = site.program(
        "restore", "erp/Sales", "--to", target.isoformat(), "--as", "Copy",
        "--from", str(tmp_path / "copy"),
    )  # fmt: skip
    assert code == 0
    assert site.rows("Copy") == site.rows_at("Sales", target)


def test_a_file_that_came_in_a_log_gets_a_place_of_its_own(site: Site) -> None:
    site.simulator.create_database("Sales")
    site.backup("Sales", "full")
    site.advance(minutes=1)
    site.simulator.execute(
        "ALTER DATABASE Sales ADD FILE (NAME = N'more', FILENAME = N'/var/opt/mssql/data/m.ndf')"
    )
    at = site.insert("Sales", "one")
    site.advance(minutes=1)
    site.backup("Sales", "log")
    restored = site.restore("Sales", at)
    assert restored.outcome.files["more"] != "/var/opt/mssql/data/m.ndf"
    assert site.rows("Copy") == ["one"]


def test_an_encrypted_database_needs_its_certificate_where_the_login_can_tell(
    make_site: Callable[..., Site],
) -> None:
    site = make_site()
    site.write_history("Sales")
    with site.fleet() as fleet:
        session = Session.open(fleet.restore_server("erp").address)
        with session:
            assert read_server(session).certificates is not None
    login = site.simulator.create_login("restorer", site.password, roles=["dbcreator"])
    login.permissions |= {"VIEW SERVER STATE", "VIEW ANY DATABASE"}
    site.write_policy(user="restorer")
    with site.fleet() as fleet:
        session = Session.open(fleet.restore_server("erp").address)
        with session:
            assert read_server(session).certificates is None


def test_a_history_that_the_target_cannot_write_fails_no_restore(site: Site) -> None:
    site.write_history("Sales")
    site.simulator.faults.msdb_fails = True
    site.simulator.faults.msdb_failure_severity = 16
    at = site.commits["Sales"][-1][0]
    assert site.restore("Sales", at).outcome.proven
    assert site.rows("Copy") == site.rows_at("Sales", at)


def test_an_empty_name_is_none(sales: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert sales.program("restore", "erp/Sales", "--to", "latest", "--as", "") == 2
    assert "names no database" in capsys.readouterr().err


def test_a_renamed_original_is_meant_even_by_an_older_step(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    site.write_history("Sales")
    older = site.commits["Sales"][-2][0]
    site.simulator.execute("ALTER DATABASE Sales MODIFY NAME = [Sales 2]")
    site.advance(minutes=1)
    site.backup("Sales 2", "log")
    words = ("--to", older.isoformat(), "--overwrite", "--tail", "discard")
    assert site.program("restore", "erp/Sales", *words) == 3
    assert "--as NAME" in capsys.readouterr().err
    assert site.program("restore", "erp/Sales 2", *words) == 0
    assert site.rows("Sales 2") == site.rows_at("Sales", older)
    assert site.state("Sales") is None


def test_a_renamed_original_is_replaced_under_its_new_name(site: Site) -> None:
    site.write_history("Sales")
    site.simulator.execute("ALTER DATABASE Sales MODIFY NAME = [Sales 2]")
    site.advance(minutes=1)
    site.backup("Sales 2", "log")
    site.advance(minutes=1)
    site.simulator.insert("Sales 2", "tail")
    site.advance(minutes=1)
    code = site.program(
        "restore", "erp/Sales 2", "--to", site.backup("Sales 2", "log").id, "--overwrite",
        "--tail", "backup",
    )  # fmt: skip
    assert code == 0
    assert site.state("Sales 2") == "ONLINE"
    assert site.rows("Sales 2")[-1] == "tail"
    assert site.state("Sales") is None
