"""What `sqlbak restore` takes besides an instant and a directory."""

from __future__ import annotations

import json
import shlex
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.acceptance.site import Site
from tests.engines.postgres.clusters import Cluster, run_as_server_user, scratch_directory

pytestmark = pytest.mark.postgres


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
    restored = Cluster(marked.cluster.major, home)
    restored.data_directory = home / "data"
    restored.configure({"port": str(restored.port), "unix_socket_directories": str(home)})
    feeder = marked.site.start(*command[1:], "--json")
    try:
        while (home / "data" / "sqlbak" / "feed" / "shut").exists():
            assert feeder.poll() is None, feeder.communicate()
            time.sleep(0.05)
        restored.start()
        while restored.execute("SELECT pg_get_wal_replay_pause_state()") != [("paused",)]:
            time.sleep(0.05)
        restored.execute("SELECT pg_wal_replay_resume()")
        out, _ = feeder.communicate(timeout=60)
        assert (feeder.returncode, json.loads(out)["item"]) == (0, "orders")
        rows = restored.execute("SELECT id FROM steps ORDER BY id")
        assert rows == [(1,), (2,), (3,), (4,)]
    finally:
        feeder.kill()
        feeder.wait()
        restored.stop("immediate")
    again = marked.site.run("feed", home / "data")
    assert (again.code, again.document["error"]["code"]) == (3, "target_not_usable")
    size = marked.site.restore("latest", home / "other", "--log-space", "much")
    assert (size.code, size.document["error"]["code"]) == (2, "usage")
