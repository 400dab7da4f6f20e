"""The command line as other programs see it: documents, exit codes, streams (docs/commands.md)."""

from __future__ import annotations

import json
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sqlbak import __version__
from tests.acceptance.site import Site
from tests.engines.postgres.clusters import Cluster

pytestmark = pytest.mark.postgres

POINT = {
    "id",
    "item",
    "type",
    "copy_only",
    "lineage",
    "first_lsn",
    "last_lsn",
    "started_at",
    "finished_at",
    "reachable_from",
    "covers_until",
    "base",
    "size_bytes",
}


@pytest.fixture(scope="module")
def used(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site with a full and two logs; tests here only read it."""
    site = Site(tmp_path_factory.mktemp("used"), cluster.dsn())
    site.backup("full")
    site.backup("log")
    site.backup("log")
    return site


def refused(answer: Any, code: int, error: str) -> dict[str, Any]:
    assert answer.code == code, answer.err
    described: dict[str, Any] = answer.document["error"]
    assert described["code"] == error
    assert described["message"]
    assert f"sqlbak: {described['message'].splitlines()[0]}" in answer.err
    return described


def test_a_backup_answers_with_its_recovery_point(used: Site) -> None:
    answer = used.run("backup", "--type", "log").ok()
    point = answer["point"]
    assert set(point) == POINT
    assert point["type"] == "log"
    assert isinstance(point["first_lsn"], int)
    assert point["first_lsn"] < point["last_lsn"]
    assert datetime.fromisoformat(point["covers_until"]).utcoffset() == timedelta(0)
    assert answer["points"] == [point]


def test_the_list_shows_every_point_oldest_first_and_logs_without_a_gap(used: Site) -> None:
    points = used.run("list", "orders").ok()["points"]
    assert all(set(point) == {*POINT, "item_id"} for point in points)
    starts = [point["started_at"] for point in points]
    assert starts == sorted(starts)
    assert [point["type"] for point in points][0:3] == ["full", "log", "log"]
    assert [p["first_lsn"] for p in points[1:]] == [p["last_lsn"] for p in points[:-1]]


def test_windows_reach_from_the_full_to_the_last_log(used: Site) -> None:
    points = used.run("list").ok()["points"]
    (window,) = used.run("windows").ok()["windows"]
    assert window["from"] == points[0]["reachable_from"]
    assert window["to"] == points[-1]["covers_until"]
    assert (window["item"], window["lineage"]) == ("orders", "1")


def test_a_plan_names_its_steps_and_why_the_others_are_not_used(used: Site) -> None:
    points = used.run("list").ok()["points"]
    plan = used.run("plan", "orders", "--to", points[1]["covers_until"]).ok()
    assert [step["type"] for step in plan["steps"]] == ["full", "log"]
    assert [step["point"] for step in plan["steps"]] == [points[0]["id"], points[1]["id"]]
    assert plan["bytes"] == points[0]["size_bytes"] + points[1]["size_bytes"]
    assert datetime.fromisoformat(plan["stop_at"]) == datetime.fromisoformat(
        points[1]["covers_until"]
    )
    assert {one["point"] for one in plan["rejected"]} == {point["id"] for point in points[2:]}
    assert all(one["reason"] for one in plan["rejected"])


def test_options_mean_the_same_before_and_after_the_command(used: Site, tmp_path: Path) -> None:
    elsewhere = Site(tmp_path, used.dsn)
    after = used.run("list", "--config", str(used.config))
    before = elsewhere.run("--config", str(used.config), "--json", "list", as_json=False)
    by_environment = used.run("list")
    assert after.ok() == before.ok() == by_environment.ok()
    assert after.document["points"]


def test_text_for_people_goes_to_stdout_without_json_and_to_stderr_with_it(used: Site) -> None:
    text = used.run("windows", as_json=False)
    assert text.code == 0
    assert "lineage" in text.out
    with_json = used.run("restore", "--to", "latest", "--into", str(used.root))
    assert json.loads(with_json.out)["error"]


def test_an_unknown_item_is_a_usage_error_that_lists_the_choices(used: Site) -> None:
    for words in (
        ["list", "ordres"],
        ["windows", "ordres"],
        ["backup", "ordres"],
        ["plan", "ordres", "--to", "latest"],
    ):
        assert "orders" in refused(used.run(*words), 2, "unknown_name")["hint"]


def test_a_name_may_be_left_out_only_where_one_thing_can_be_meant(
    used: Site, tmp_path: Path
) -> None:
    two = Site(tmp_path, used.dsn)
    file = two.config / "orders.yaml"
    file.write_text(
        file.read_text()
        + "  billing: {engine: postgres, dsn: 'host=/nowhere user=x', policy: gold}\n"
    )
    assert "billing, orders" in refused(two.run("backup"), 2, "name_needed")["hint"]


@pytest.mark.parametrize("to", ["yesterday", "2026-13-01T00:00:00", "2026-11-22", "12:00", ""])
def test_a_time_that_cannot_be_read_is_a_usage_error(used: Site, tmp_path: Path, to: str) -> None:
    into = tmp_path / "into"
    answer = used.run("restore", "--to", to, "--into", into)
    assert answer.code == 2, answer.err
    assert answer.document["error"]["hint"]
    assert not into.exists()


def test_an_instant_outside_every_window_is_refused_with_the_nearest(
    used: Site, tmp_path: Path
) -> None:
    into = tmp_path / "into"
    (window,) = used.run("windows").ok()["windows"]
    for to, nearest in (
        ("2001-01-01T00:00:00Z", window["from"]),
        ("2101-01-01T00:00:00+02:00", window["to"]),
    ):
        error = refused(used.restore(to, into), 3, "instant_unreachable")
        assert nearest in error["nearest"]
        assert not into.exists()


def test_a_local_time_that_happens_twice_or_never_is_refused(used: Site, tmp_path: Path) -> None:
    berlin = Site(tmp_path, used.dsn, vault_url=used.vault_url)
    file = berlin.config / "orders.yaml"
    file.write_text(
        file.read_text().replace("vault: main\n", "vault: main\n    timezone: Europe/Berlin\n")
    )
    into = tmp_path / "into"
    twice = refused(berlin.restore("2026-10-25T02:30:00", into), 3, "instant_ambiguous")
    assert [datetime.fromisoformat(one) for one in twice["nearest"]] == [
        datetime(2026, 10, 25, 0, 30, tzinfo=UTC),
        datetime(2026, 10, 25, 1, 30, tzinfo=UTC),
    ]
    refused(berlin.restore("2026-03-29T02:30:00", into), 3, "instant_nonexistent")
    assert not into.exists()


def test_a_target_that_is_not_empty_is_refused_and_stays_as_it_was(
    used: Site, tmp_path: Path
) -> None:
    into = tmp_path / "into"
    into.mkdir()
    (into / "precious").write_text("data")
    refused(used.restore("latest", into), 3, "target_not_usable")
    assert [path.name for path in into.iterdir()] == ["precious"]


def test_before_the_first_backup_there_is_nothing_to_restore(
    cluster: Cluster, tmp_path: Path
) -> None:
    site = Site(tmp_path, cluster.dsn())
    assert site.run("list").ok() == {"points": []}
    assert site.run("windows").ok() == {"windows": []}
    refused(site.restore("latest", tmp_path / "into"), 3, "nothing_to_restore")
    assert not (tmp_path / "vault").exists()


def test_wrong_words_are_a_usage_error_in_json_too(used: Site) -> None:
    for words in (["lisst"], ["list", "--bad"], ["restore"], ["backup", "--type", "snapshot"]):
        refused(used.run(*words), 2, "usage")
    assert used.run(as_json=False).code == 2
    assert used.run("--version", as_json=False).out == f"sqlbak {__version__}\n"


def test_validate_tells_every_problem_at_once_with_file_and_line(tmp_path: Path) -> None:
    site = Site(tmp_path, "host=/nowhere")
    file = site.config / "orders.yaml"
    file.write_text(site.text().replace("log: 15m", "log: 17m").replace("dsn: env:", "dsnn: env:"))
    error = refused(site.run("validate"), 2, "configuration_invalid")
    assert len(error["problems"]) >= 2
    assert all(problem.startswith(f"{file}:") for problem in error["problems"])
    file.write_text(site.text())
    document = site.run("validate").ok()
    assert document["valid"]
    assert [one["name"] for one in document["instances"]] == ["orders"]


def test_a_differential_names_its_full(used: Site) -> None:
    full = used.run("list").ok()["points"][0]
    point = used.run("backup", "--type", "differential").ok()["point"]
    assert set(point) == POINT
    assert (point["type"], point["base"]) == ("differential", full["id"])


def test_an_interrupted_backup_exits_130_and_leaves_nothing(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.execute(
        "CREATE TABLE IF NOT EXISTS bulk AS SELECT n, repeat(md5(n::text), 30) t "
        "FROM generate_series(1, 200000) n"
    )
    site = Site(tmp_path, cluster.dsn())
    process = site.start("backup", "orders", "--type", "full")
    vault = tmp_path / "vault"
    deadline = time.monotonic() + 60
    while not list(vault.glob("items/*/running/*.json")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    if process.returncode == 0:
        pytest.skip("the backup was faster than the signal")
    assert process.returncode == 130
    assert not list(vault.glob("items/*/points/*"))
    assert not list(vault.glob("items/*/data/**/*.zst"))
    assert not list(vault.glob("items/*/running/*"))
    assert site.backup("full")["type"] == "full"


def test_a_plan_from_exported_headers_needs_no_vault_and_no_policy(tmp_path: Path) -> None:
    headers = [
        header("F", 1, "10:00:00", 100, 110, checkpoint=105),
        header("L1", 2, "10:15:00", 90, 120),
        header("L2", 2, "10:30:00", 120, 130),
    ]
    file = tmp_path / "headers.json"
    file.write_text(json.dumps(headers), encoding="utf-16")
    site = Site(tmp_path, "host=/nowhere")
    (site.config / "orders.yaml").unlink()
    plan = site.run("plan", "--headers", file, "--to", "2026-05-01T10:20:00").ok()
    assert [step["point"] for step in plan["steps"]] == ["F", "L1", "L2"]
    assert [step["type"] for step in plan["steps"]] == ["full", "log", "log"]
    assert plan["stop_at"].startswith("2026-05-01T10:20:00")
    answer = site.run("plan", "--headers", file, "--to", "2026-05-01T11:20:00")
    refused(answer, 3, "instant_unreachable")
    file.write_text("[{")
    refused(site.run("plan", "--headers", file), 2, "input_unreadable")


def header(guid: str, kind: int, time_of_day: str, first: int, last: int, **more: int) -> Any:
    return {
        "DatabaseName": "erp",
        "BackupType": kind,
        "BackupStartDate": f"2026-05-01T{time_of_day}",
        "BackupFinishDate": f"2026-05-01T{time_of_day}",
        "FirstLSN": first,
        "LastLSN": last,
        "CheckpointLSN": more.get("checkpoint", first),
        "DatabaseBackupLSN": 105 if kind == 2 else 0,
        "BackupSetGUID": guid,
        "FamilyGUID": "A",
        "FirstRecoveryForkID": "B",
        "RecoveryForkID": "B",
        "BackupSize": 1000,
    }
