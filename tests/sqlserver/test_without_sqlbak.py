"""What sqlbak wrote comes back without sqlbak: by the script that it leaves, and by hand."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.sqlserver.site import SERVER_FOLDER, Site

PAGE = Path(__file__).parents[2] / "docs" / "sql-server.md"


def statements_of(script: str, folder: Path) -> list[str]:
    """The RESTORE statements of a script, its variables put in, as the server would run them."""
    values = {"@data": "/var/opt/mssql/data/", "@log": "/var/opt/mssql/data/"}
    values["@folder"] = f"{SERVER_FOLDER}/{folder.name}/"
    for name, base, text in re.findall(
        r"DECLARE (@\w+) nvarchar\(400\) = (@\w+) \+ N'([^']*)';", script
    ):
        values[name] = values[base] + text
    found = []
    for statement in re.findall(r"^    (RESTORE .*?);$", script, re.DOTALL | re.MULTILINE):
        for name in sorted(values, key=len, reverse=True):
            statement = re.sub(rf"{name}\b", f"N'{values[name]}'", statement)
        found.append(re.sub(r"\s+", " ", statement))
    return found


def test_the_script_restores_to_the_second(sales: Site) -> None:
    target = sales.commits["Sales"][7][0]
    folder = sales.delivery / "files"
    code = sales.program(
        "restore", "erp/Sales", "--to", target.isoformat(), "--as", "ByScript",
        "--files", str(folder), "--json",
    )  # fmt: skip
    assert code == 0
    try:
        for statement in statements_of((folder / "restore.sql").read_text("utf-8-sig"), folder):
            sales.simulator.execute(statement)
        assert sales.rows("ByScript") == sales.rows_at("Sales", target)
        assert sales.state("ByScript") == "ONLINE"
    finally:
        shutil.rmtree(folder)


@pytest.mark.skipif(shutil.which("zstd") is None, reason="needs zstd")
def test_the_page_unpacks_backups_that_the_server_restores(sales: Site, tmp_path: Path) -> None:
    (code,) = re.findall(
        r"```sh\n(.*?)```", PAGE.read_text().split("## Without sqlbak")[1], re.DOTALL
    )
    (item,) = (sales.folder / "vault" / "items").iterdir()
    out = sales.delivery / "byhand"
    out.mkdir()
    try:
        subprocess.run(
            ["sh", "-euc", code],
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "ITEM": str(item), "OUT": str(out)},
            check=True,
        )
        with sales.fleet() as fleet:
            (stored,) = fleet.stored_items("erp/Sales")
            full = next(p for p in stored.points() if p.type.value == "full")
            logs = sorted(
                (p for p in stored.points() if p.type.value == "log"), key=lambda p: p.last_lsn
            )
        for point, verb in [(full, "DATABASE"), *((log, "LOG") for log in logs)]:
            path = f"{SERVER_FOLDER}/byhand/{point.id}-media-1.bak"
            move = (
                ", MOVE N'Sales' TO N'/var/opt/mssql/data/h.mdf',"
                " MOVE N'Sales_log' TO N'/var/opt/mssql/data/h.ldf'"
            )
            sales.simulator.execute(
                f"RESTORE {verb} ByHand FROM DISK = N'{path}' WITH NORECOVERY"
                + (move if verb == "DATABASE" else "")
            )
        sales.simulator.execute("RESTORE DATABASE ByHand WITH RECOVERY")
        assert sales.rows("ByHand") == sales.rows("Sales")
    finally:
        shutil.rmtree(out)


def test_a_server_is_moved_with_only_the_last_log_at_the_end(site: Site) -> None:
    site.write_history("Sales")
    newest = site.backup("Sales", "log")
    site.restore("Sales", newest.id, "Moved", recovers=False)
    site.advance(minutes=1)
    site.insert("Sales", "on the day")
    site.advance(minutes=1)
    last = site.backup("Sales", "log")
    restored = site.restore("Sales", last.id, "Moved", resumes=True)
    assert restored.outcome.resumed_after == len(restored.plan.steps) - 1
    assert site.rows("Moved") == site.rows("Sales")
