"""What `sqlbak restore` takes besides an instant and a directory."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.acceptance.judges import fed_by_hand
from tests.acceptance.site import Site
from tests.engines.postgres.clusters import Cluster, run_as_server_user, scratch_directory

pytestmark = pytest.mark.postgres

DIFFERENTIALS = 'full: "0 1 * * sun"\n    differential: "0 1 * * mon-sat"\n    log: 15m'


@pytest.fixture
def home() -> Iterator[Path]:
    with scratch_directory() as path:
        yield path


class Marked:
    """A site whose server has rows 1 to 4, one between each two of its recovery points, and a
    position in the log right behind row 3."""

    def __init__(self, cluster: Cluster, root: Path) -> None:
        self.cluster = cluster
        self.site = Site(root, cluster.dsn())
        cluster.execute("DROP TABLE IF EXISTS steps")
        cluster.execute("CREATE TABLE steps (id int)")
        self.points = []
        for number, kind in enumerate(("full", "log", "log"), 1):
            cluster.execute("INSERT INTO steps VALUES (%s)", [number])
            if number == 3:
                ((self.position,),) = cluster.execute("SELECT pg_current_wal_insert_lsn()::text")
                cluster.execute("INSERT INTO steps VALUES (4)")
            self.points.append(self.site.backup(kind))

    def rows(self, answer: dict[str, Any]) -> list[int]:
        with psycopg.connect(answer["connection"], autocommit=True) as connection:
            found = [n for (n,) in connection.execute("SELECT id FROM steps ORDER BY id")]
        run_as_server_user(
            [self.cluster.programs / "pg_ctl", "stop", "-m", "fast", "-D", answer["directory"]]
        )
        return found


@pytest.fixture(scope="module")
def marked(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Marked:
    return Marked(cluster, tmp_path_factory.mktemp("marked"))


def test_a_recovery_point_s_id_means_its_very_end(marked: Marked, home: Path) -> None:
    for number, point in enumerate(marked.points[:2], 1):
        into = home / f"to-{number}"
        answer = marked.site.restore(point["id"], into, "--start", *_programs(marked)).ok()
        assert answer["stop_at"] is None
        assert answer["steps"][-1]["point"] == point["id"]
        assert marked.rows(answer) == list(range(1, number + 1))


def test_a_position_in_the_log_is_an_end_too(marked: Marked, home: Path) -> None:
    answer = marked.site.restore(marked.position, home / "data", "--start", *_programs(marked)).ok()
    assert answer["stop_lsn"] >= answer["reached"]["lsn"]
    assert marked.rows(answer) == [1, 2, 3]


@pytest.mark.parametrize("start", [True, False])
def test_log_that_makes_a_tablespace_in_the_way_is_passed_by_a_newer_base(
    cluster: Cluster, tmp_path: Path, home: Path, start: bool
) -> None:
    site = Site(tmp_path, cluster.dsn(), policy=DIFFERENTIALS)
    full = site.backup("full")
    name = f"made_later_{start}".lower()
    place = cluster.make_directory(name)
    cluster.execute(f"CREATE TABLESPACE {name} LOCATION '{place}'")
    before = sorted(place.rglob("*"))
    differential = site.backup("differential")
    cluster.execute(f"CREATE TABLE t_{name} TABLESPACE {name} AS SELECT 4711 AS n")
    log = site.backup("log")
    # One log holds all of it: it is the cheapest way, if only it could be replayed.
    plan = site.run("plan", "orders").ok()
    assert [step["point"] for step in plan["steps"]] == [full["id"], log["id"]]
    answer = site.restore("latest", home / "data", *(["--start"] * start)).ok()
    steps = [step["point"] for step in answer["steps"]]
    assert steps == [full["id"], differential["id"], log["id"]]
    assert any(f"creates a tablespace at {place}" in note for note in answer["notes"])
    if start:
        with psycopg.connect(answer["connection"]) as connection:
            assert connection.execute(f"SELECT n FROM t_{name}").fetchall() == [(4711,)]
        run_as_server_user([cluster.programs / "pg_ctl", "stop", "-D", home / "data"])
    assert [path for path in before if not path.exists()] == []


def _programs(marked: Marked) -> tuple[str, str]:
    return "--pg-bin", str(marked.cluster.programs)


@pytest.mark.parametrize(
    ("to", "code", "error"),
    [
        ("20240501T102213Z-aaaaaaaaaa", 2, "unknown_name"),
        ("FFFFFFFF/0", 3, "position_unreachable"),
        ("0/1", 3, "position_unreachable"),
        ("0/", 2, "usage"),
    ],
)
def test_an_end_that_is_not_there_is_refused(
    marked: Marked, home: Path, to: str, code: int, error: str
) -> None:
    for answer in (
        marked.site.restore(to, home / "data"),
        marked.site.run("plan", "orders", "--to", to),
    ):
        assert (answer.code, answer.document["error"]["code"]) == (code, error)
    assert not (home / "data").exists()


@pytest.mark.parametrize("option", ["nothing", "relative=/new", "/old=/new=/newer", "/old=new"])
def test_a_tablespace_option_that_is_not_two_paths_is_refused(
    marked: Marked, home: Path, option: str
) -> None:
    answer = marked.site.restore("latest", home / "data", "--tablespace", option)
    assert (answer.code, answer.document["error"]["code"]) == (2, "usage")


@pytest.mark.parametrize("options", [(), ("--into", "{}", "--in-place", "{}")])
def test_a_restore_needs_one_place(marked: Marked, home: Path, options: tuple[str, ...]) -> None:
    words = [option.format(home / "data") for option in options]
    answer = marked.site.run("restore", "orders", "--to", "latest", *words)
    assert (answer.code, answer.document["error"]["code"]) == (2, "usage")


def test_what_is_no_stopped_cluster_is_not_replaced(marked: Marked, home: Path) -> None:
    for place in (home, home / "absent", marked.cluster.data_directory):
        answer = marked.site.run("restore", "orders", "--to", "latest", "--in-place", place)
        assert (answer.code, answer.document["error"]["code"]) == (3, "target_not_usable")
    assert list(home.iterdir()) == []
    assert marked.cluster.execute("SELECT 1") == [(1,)]


def test_an_earlier_restore_is_replaced_in_its_place(marked: Marked, home: Path) -> None:
    first = marked.site.restore(
        marked.points[0]["id"], home / "data", "--start", *_programs(marked)
    )
    assert marked.rows(first.ok()) == [1]
    words = ("--to", "latest", "--in-place", home / "data", "--start", *_programs(marked))
    second = marked.site.run("restore", "orders", *words).ok()
    assert marked.rows(second) == [1, 2, 3, 4]
    assert Path(second["facts"]["set_aside"]).parent == home


def test_a_downloaded_folder_is_enough(marked: Marked, home: Path) -> None:
    (item,) = (marked.site.root / "vault" / "items").iterdir()
    folder = home / "downloaded"
    shutil.copytree(item, folder)
    site = Site(home, marked.cluster.dsn(), environment={"SQLBAK_CONFIG": str(home / "nothing")})
    planned = site.run("plan", "--from", folder, "--to", marked.points[1]["id"]).ok()
    assert [step["point"] for step in planned["steps"]] == [p["id"] for p in marked.points[:2]]
    words = ("--from", folder, "--to", "latest", "--into", home / "data", "--start")
    answer = site.run("restore", *words, *_programs(marked)).ok()
    assert answer["item"] == "orders"
    assert answer["record"] == str(home / "data.sqlbak.json")
    record = json.loads((home / "data.sqlbak.json").read_text())
    assert (record["asked"], record["reached"]) == ("latest", answer["reached"])
    assert marked.rows(answer) == [1, 2, 3, 4]
    wrong = site.run("restore", "other", *words)
    assert (wrong.code, wrong.document["error"]["code"]) == (2, "unknown_name")
    nothing = site.run("plan", "--from", home / "data")
    assert (nothing.code, nothing.document["error"]["code"]) == (1, "vault_missing")


def test_a_later_state_is_restored_over_an_earlier_one(marked: Marked, home: Path) -> None:
    """With the programs that the policy names."""
    text = marked.site.text().replace(
        "policy: gold\n", f"policy: gold\n    pg_bin: {marked.cluster.programs}\n"
    )
    site = Site(home, marked.cluster.dsn(), vault_url=marked.site.vault_url)
    (site.config / "orders.yaml").write_text(text)
    first = site.restore(marked.points[0]["id"], home / "data", "--start")
    assert marked.rows(first.ok()) == [1]
    assert any(f"{marked.cluster.programs}/pg_ctl" in step for step in first.ok()["next_steps"])
    words = ("restore", "orders", "--to", "latest", "--reuse", home / "data")
    second = site.run(*words, "--start").ok()
    assert marked.rows(second) == [1, 2, 3, 4]
    reused = second["facts"]["reused"]
    assert reused["fetched_bytes"] > 0
    assert reused["kept_bytes"] > 0
    both = site.run(*words, "--in-place", home / "data")
    assert (both.code, both.document["error"]["code"]) == (2, "usage")
    running = site.run(*words[:-1], marked.cluster.data_directory)
    assert (running.code, running.document["error"]["code"]) == (3, "target_not_usable")


def test_a_long_log_is_fed_by_the_command_that_the_restore_prints(
    marked: Marked, home: Path
) -> None:
    words = ("--log-space", "1MiB", "--pg-bin", marked.cluster.programs)
    answer = marked.site.restore("latest", home / "data", *words).ok()
    assert answer["facts"]["fed"]
    (step,) = [step for step in answer["next_steps"] if "sqlbak feed" in step]
    command = shlex.split(step[step.index("sqlbak feed") :])
    with fed_by_hand(marked.site, command, marked.cluster.major, home / "data") as (fed, feeder):
        fed.execute("SELECT pg_wal_replay_resume()")
        out, _ = feeder.communicate(timeout=60)
        assert (feeder.returncode, json.loads(out)["item"]) == (0, "orders")
        rows = fed.execute("SELECT id FROM steps ORDER BY id")
        assert rows == [(1,), (2,), (3,), (4,)]
    again = marked.site.run("feed", home / "data")
    assert (again.code, again.document["error"]["code"]) == (3, "target_not_usable")
    size = marked.site.restore("latest", home / "other", "--log-space", "much")
    assert (size.code, size.document["error"]["code"]) == (2, "usage")
