"""The program against a simulated server: what a user types, and what the scheduler does alone."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.engines.sqlserver.site import DIFFERENTIAL, FULL, LOG, Site, environment, site_in


def test_every_command_works_on_a_database(site: Site) -> None:
    site.simulator.create_database("Sales", rows=["one"])
    inspected = site.json("inspect", "erp")
    assert inspected["ready"] is True
    assert inspected["engine"] == "sqlserver"
    assert "Sales" in [each["name"] for each in inspected["facts"]["databases"]]
    assert {each["code"] for each in inspected["problems"]} == {"wire_in_clear"}
    made = {}
    site.point("Sales", FULL)
    site.point("Sales", LOG)
    for kind in (DIFFERENTIAL, LOG):
        site.simulator.insert("Sales", kind.value)
        made[kind] = site.json("backup", "erp/Sales", "--type", kind.value)["point"]
        assert made[kind]["item"] == "erp/Sales"
    listed = site.json("list", "erp/Sales")["points"]
    assert [point["type"] for point in listed] == ["full", "log", "differential", "log"]
    (window,) = site.json("windows", "erp/Sales")["windows"]
    assert window["lineage"] == made[LOG]["lineage"]
    assert window["to"] == made[LOG]["covers_until"]
    plan = site.json("plan", "erp/Sales", "--to", window["to"])
    assert plan["steps"][0]["type"] == "full"
    assert plan["steps"][-1]["point"] == made[LOG]["id"]


def test_what_cannot_be_taken_is_refused_with_its_own_exit_code(site: Site) -> None:
    site.simulator.create_database("Plain", model="SIMPLE")
    site.point("Plain", FULL)
    refused = site.run("backup", "erp/Plain", "--type", "log", "--json", check=False)
    assert refused.returncode == 3
    assert json.loads(refused.stdout)["error"]["code"] == "backup_paused"
    unknown = site.run("backup", "erp/NoSuch", check=False)
    assert unknown.returncode == 2
    assert "erp/Plain" in unknown.stderr


def test_no_command_tells_the_password(site: Site) -> None:
    site.simulator.create_database("Hidden")
    secret = site.simulator.sa_password
    (site.root / "password").write_text("wrong-and-secret")
    try:
        done = site.run("inspect", "erp", check=False)
        assert done.returncode == 1
        assert "login sa was refused" in done.stderr
        assert "wrong-and-secret" not in done.stdout + done.stderr
    finally:
        (site.root / "password").write_text(secret)
    done = site.run("backup", "erp/Hidden", "--json")
    assert secret not in done.stdout + done.stderr
    for path in site.vault.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes()


def events(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.startswith("{")]


def wait_for(condition: Any, what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def test_the_scheduler_protects_all_databases_and_new_ones(tmp_path: Path) -> None:
    names = ["Sales", "a]b", "Plain", "Away", "left out"]
    with site_in(tmp_path / "site", databases=names) as site:
        site.databases = {"exclude": ["master", "model", "msdb", "left*"]}
        site.write_policies()
        site.simulator.execute("ALTER DATABASE Plain SET RECOVERY SIMPLE")
        site.simulator.execute("ALTER DATABASE Away SET OFFLINE")
        log = tmp_path / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*site.command("--json", "run", "--tick", "0.3")],
                env=environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:

            def fulls() -> set[str]:
                done = [each for each in events(log) if each.get("event") == "backup done"]
                return {each["item"] for each in done if each["type"] == "full"}

            wait_for(lambda: fulls() == {"erp/Sales", "erp/a]b", "erp/Plain"}, "fulls")
            site.simulator.create_database("Newcomer")
            wait_for(lambda: "erp/Newcomer" in fulls(), "the new database")
            paused = [each for each in events(log) if each.get("event") == "backup paused"]
            assert {each["item"] for each in paused} == {"erp/Away"}
            assert len([each for each in paused if each["type"] == "full"]) == 1
            assert "offline" in paused[0]["why"]
            # What has its first backup is known at once, and not looked at over and over.
            seen = [each for each in events(log) if "not needed" in each.get("event", "")]
            assert seen == []
            site.simulator.execute("DROP DATABASE Newcomer")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        failures = [each for each in events(log) if each.get("level") == "error"]
        # One that is dropped while it is looked at or backed up is missed, and rightly said to be.
        assert [each for each in failures if each.get("item") != "erp/Newcomer"] == []


@pytest.mark.parametrize("count", [pytest.param(500, marks=pytest.mark.soak), 60])
def test_many_databases_cost_one_connection_to_find(tmp_path: Path, count: int) -> None:
    with site_in(tmp_path / "site") as site:
        for number in range(count):
            with site.simulator.lock:
                site.simulator.instance.create_database(f"db{number:03}")
        with site.fleet() as fleet:
            before = len(site.simulator.instance.statements)
            names = fleet.item_names("erp")
            assert len(names) == count
            for name in names:
                assert fleet.points(name) == ()
            seen = site.simulator.instance.statements[before:]
        assert sum(text.startswith("USE") for text in seen) == 1
        assert len(seen) < 12


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_five_hundred_databases_are_protected_in_one_round(tmp_path: Path) -> None:
    count = 500
    with site_in(tmp_path / "site") as site:
        for number in range(count):
            with site.simulator.lock:
                site.simulator.instance.create_database(f"db{number:03}")
        done = json.loads(site.run("--json", "run", "--once").stdout)
        assert done["problems"] == []
        with site.fleet() as fleet:
            for name in fleet.item_names("erp"):
                assert [point.type for point in fleet.points(name)] == [FULL]
        assert list(site.folder.iterdir()) == []
        status = json.loads(site.run("status", "--json").stdout)
        assert {item["health"] for item in status["items"]} == {"healthy"}
