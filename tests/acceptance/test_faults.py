"""What happens to the server while, before and after it is backed up: sessions that end, crashes,
lost slots, replaced and restored clusters; and several runs at once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.acceptance.aftermath import (
    assert_logs_chain,
    assert_no_slot_left,
    assert_nothing_left,
    assert_one_window,
    own_slots,
    restored,
)
from tests.acceptance.markers import (
    Writer,
    assert_restored_exactly,
    commit_times,
    make_markers,
)
from tests.acceptance.site import Answer, Site
from tests.engines.postgres.clusters import (
    Cluster,
    available_majors,
    give_to_server_user,
    running_cluster,
    scratch_directory,
)

pytestmark = pytest.mark.postgres

SETTINGS = {"track_commit_timestamp": "on"}
PATIENCE_SECONDS = 30.0


@pytest.fixture(autouse=True)
def _own_slots(cluster: Cluster) -> Iterator[None]:
    with own_slots(cluster):
        yield


@pytest.fixture
def home() -> Iterator[Path]:
    with scratch_directory() as path:
        yield path


def mark(cluster: Cluster) -> datetime:
    """Commit a marker; its time."""
    make_markers(cluster)
    cluster.execute("INSERT INTO markers (filler) VALUES ('x')")
    return max(commit_times(cluster).values())


def write_log(cluster: Cluster, megabytes: int) -> None:
    """Let the server write about so much log."""
    cluster.execute(
        "CREATE TABLE bulk AS SELECT sha512(n::text::bytea) AS a FROM generate_series(1, %s) AS n",
        [megabytes * 8000],
    )
    cluster.execute("DROP TABLE bulk")


def answer_of(process: subprocess.Popen[str]) -> Answer:
    out, err = process.communicate(timeout=120)
    return Answer(process.returncode, out, err)


def failed(answer: Answer, *codes: str, exit_code: int = 1) -> dict[str, Any]:
    """The one error of a run."""
    assert answer.code == exit_code, answer.err + answer.out
    assert "Traceback" not in answer.err
    assert answer.err.count("sqlbak: ") == 1
    error: dict[str, Any] = answer.document["error"]
    assert error["code"] in codes, error
    assert error["hint"]
    return error


def stopped_in(site: Site, cluster: Cluster, kind: str) -> subprocess.Popen[str]:
    """A backup that stands still while the server sends to it. Continue it with SIGCONT."""
    process = site.start("backup", "orders", "--type", kind, "--json")
    states = ("backup", "streaming") if kind == "full" else ("streaming", "catchup")

    with cluster.connect() as watching:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not watching.execute(
            "SELECT 1 FROM pg_stat_replication WHERE state = ANY(%s)", [list(states)]
        ).fetchall():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
    os.kill(process.pid, signal.SIGSTOP)
    return process


def go_on(process: subprocess.Popen[str]) -> Answer:
    os.kill(process.pid, signal.SIGCONT)
    return answer_of(process)


class TestSessionsAndServersThatEnd:
    @pytest.mark.parametrize("kind", ["full", "log"])
    def test_a_terminated_walsender_is_one_error_and_the_next_run_succeeds(
        self, site: Site, cluster: Cluster, kind: str
    ) -> None:
        site.backup("full")
        write_log(cluster, 60)
        process = stopped_in(site, cluster, kind)
        cluster.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
        failed(go_on(process), "backup_failed", "server_unreachable")
        assert len(site.run("list").ok()["points"]) == 1
        assert_nothing_left(site, cluster)
        assert site.run("backup", "orders", "--type", kind).ok()["notes"] == []
        assert site.run("backup", "orders", "--type", "log").ok()["notes"] == []
        assert_one_window(site, site.run("list").ok()["points"])

    @pytest.mark.parametrize("mode", ["fast", "immediate"])
    def test_a_server_that_stops_in_a_full_is_one_error_and_its_chain_goes_on(
        self, site: Site, cluster: Cluster, home: Path, mode: str
    ) -> None:
        site.backup("full")
        to = mark(cluster)
        process = stopped_in(site, cluster, "full")
        try:
            if mode == "immediate":
                cluster.stop("immediate")
                answer = go_on(process)
            else:
                # A fast stop waits until its walsenders have sent everything.
                os.kill(process.pid, signal.SIGCONT)
                cluster.stop("fast")
                answer = answer_of(process)
        finally:
            cluster.start()
        if answer.code != 0:  # it may have been faster than a fast stop
            failed(answer, "backup_failed", "server_unreachable")
        assert site.run("backup", "orders", "--type", "log").ok()["notes"] == []
        site.backup("full")
        site.backup("log")
        assert_nothing_left(site, cluster)
        assert_one_window(site, site.run("list").ok()["points"])
        with restored(site, cluster, to.isoformat(), home / "data") as document:
            assert_restored_exactly(document, commit_times(cluster), to)

    def test_a_server_that_is_down_is_one_error(self, site: Site, cluster: Cluster) -> None:
        site.backup("full")
        cluster.stop()
        try:
            error = failed(site.run("backup", "orders", "--type", "log"), "server_unreachable")
            assert str(cluster.port) in error["message"]
            assert site.run("list").ok()["points"]  # the vault needs no server
        finally:
            cluster.start()


class TestSlots:
    def test_a_dropped_slot_is_healed_by_a_full_and_logs_go_on(
        self, site: Site, cluster: Cluster, home: Path
    ) -> None:
        site.backup("full")
        early = mark(cluster)
        site.backup("log")
        with own_slots(cluster):
            pass  # somebody cleans up
        healed = site.run("backup", "orders", "--type", "log").ok()
        assert healed["point"]["type"] == "full"
        assert "slot" in healed["notes"][0] or "no longer holds" in healed["notes"][0]
        late = mark(cluster)
        assert site.run("backup", "orders", "--type", "log").ok()["notes"] == []
        assert_no_slot_left(cluster)
        for to in (early, late):
            with restored(site, cluster, to.isoformat(), home / "data") as document:
                assert_restored_exactly(document, commit_times(cluster), to)

    def test_a_slot_that_the_server_gave_up_is_healed_by_a_full_and_logs_go_on(
        self, tmp_path: Path, home: Path
    ) -> None:
        settings = {**SETTINGS, "max_slot_wal_keep_size": "2MB", "max_wal_size": "4MB"}
        settings["min_wal_size"] = "2MB"
        options = {"wal_segment_megabytes": 1, "settings": settings}
        with running_cluster(available_majors()[-1], **options) as cluster:
            site = Site(tmp_path, cluster.dsn())
            site.backup("full")
            early = mark(cluster)
            site.backup("log")
            write_log(cluster, 30)
            cluster.execute("CHECKPOINT")
            ((status,),) = cluster.execute("SELECT wal_status FROM pg_replication_slots")
            assert status == "lost"
            healed = site.run("backup", "orders", "--type", "log").ok()
            assert healed["point"]["type"] == "full"
            assert len(healed["notes"]) == 1
            late = mark(cluster)
            assert site.run("backup", "orders", "--type", "log").ok()["notes"] == []
            assert_nothing_left(site, cluster)
            windows = site.windows()
            assert len(windows) == 2
            hole = windows[0][1] + (windows[1][0] - windows[0][1]) / 2
            refused = site.restore(hole.isoformat(), home / "data")
            assert refused.code == 3
            assert [datetime.fromisoformat(t) for t in refused.document["error"]["nearest"]] == [
                windows[0][1],
                windows[1][0],
            ]
            for to in (early, late):
                with restored(site, cluster, to.isoformat(), home / "data") as document:
                    assert_restored_exactly(document, commit_times(cluster), to)

    def test_a_slot_that_is_dropped_while_a_log_runs_loses_nothing(
        self, site: Site, cluster: Cluster, home: Path
    ) -> None:
        site.backup("full")
        write_log(cluster, 60)
        to = mark(cluster)
        process = stopped_in(site, cluster, "log")
        with own_slots(cluster):
            pass
        answer = go_on(process).ok()
        assert [point["type"] for point in answer["points"]][-1] == "full"
        assert answer["notes"]
        assert site.run("backup", "orders", "--type", "log").ok()["notes"] == []
        with restored(site, cluster, to.isoformat(), home / "data") as document:
            assert_restored_exactly(document, commit_times(cluster), to)


class TestOtherClusters:
    def test_a_server_that_was_replaced_is_a_new_item_and_the_old_one_stays_restorable(
        self, site: Site, cluster: Cluster, home: Path
    ) -> None:
        make_markers(cluster)
        site.backup("full")
        old = mark(cluster)
        site.backup("log")
        with running_cluster(available_majors()[-1], settings=SETTINGS) as other:
            here = replace(site, dsn=other.dsn())
            make_markers(other)
            first = here.run("backup", "orders", "--type", "log").ok()
            assert first["point"]["type"] == "full"
            assert "another server now" in first["notes"][0]
            new = mark(other)
            here.backup("log")
            items = {w["item_id"]: w for w in here.run("windows", "orders").ok()["windows"]}
            assert len(items) == 2
            assert len({p["item_id"] for p in here.run("list", "orders").ok()["points"]}) == 2
            with restored(here, cluster, old.isoformat(), home / "data") as document:
                assert_restored_exactly(document, commit_times(cluster), old)
            for to in (new.isoformat(), "latest"):
                with restored(here, other, to, home / "data") as document:
                    assert_restored_exactly(document, commit_times(other), new)
        # The old server comes back: its chain goes on.
        assert site.run("backup", "orders", "--type", "log").ok()["notes"] == []

    def test_a_restored_cluster_that_goes_live_begins_a_timeline_and_the_old_one_stays_restorable(
        self, tmp_path: Path, home: Path
    ) -> None:
        with running_cluster(available_majors()[-1], settings=SETTINGS) as cluster:
            site = Site(tmp_path, cluster.dsn())
            site.backup("full")
            before = mark(cluster)
            mark(cluster)  # the mistake
            site.backup("log")
            with restored(site, cluster, before.isoformat(), home / "live") as document:
                live = replace(site, dsn=document["connection"])
                healed = live.run("backup", "orders", "--type", "log").ok()
                assert healed["point"]["lineage"] == "2"
                assert healed["point"]["type"] == "full"
                assert "slot" in healed["notes"][0] or "holds" in healed["notes"][0]
                live_marks = mark_over(document)
                on_live = max(live_marks.values())
                on_old = mark(cluster)
                # Both go on for a while: two lineages hold the same instants.
                assert live.run("backup", "orders", "--type", "log").ok()["notes"] == []
                assert site.run("backup", "orders", "--type", "log").ok()["notes"] == []
                windows = site.run("windows", "orders").ok()["windows"]
                assert {window["lineage"] for window in windows} == {"1", "2"}
                twice = site.run("restore", "--to", on_live.isoformat(), "--into", home / "no")
                error = failed(twice, "lineage_ambiguous", exit_code=3)
                assert "1, 2" in error["message"]
                assert "--lineage" in error["hint"]
                for lineage, to, truth in (
                    ("1", on_old, commit_times(cluster)),
                    ("2", on_live, live_marks),
                ):
                    into, words = home / "data", ("--lineage", lineage)
                    with restored(site, cluster, to.isoformat(), into, *words) as again:
                        assert again["lineage"] == lineage
                        assert_restored_exactly(again, truth, to)
                # An instant before the fork has one state, whichever lineage tells it.
                with restored(site, cluster, before.isoformat(), home / "data") as again:
                    assert_restored_exactly(again, commit_times(cluster), before)

    @pytest.mark.parametrize("megabytes", [0, 60], ids=["behind", "beyond"])
    def test_a_cluster_put_back_to_an_older_copy_of_itself_never_mixes_two_histories(
        self, tmp_path: Path, home: Path, megabytes: int
    ) -> None:
        with running_cluster(available_majors()[-1], settings=SETTINGS) as cluster:
            site = Site(tmp_path, cluster.dsn())
            site.backup("full")
            mark(cluster)
            site.backup("log")
            cluster.stop()
            copy = cluster.home / "copy"
            shutil.copytree(cluster.data_directory, copy, symlinks=True)
            cluster.start()
            first_life = mark(cluster)
            write_log(cluster, 20)
            site.backup("log")
            truth = commit_times(cluster)
            site.backup("full")
            mark(cluster)
            site.backup("log")
            cluster.stop()
            shutil.rmtree(cluster.data_directory)
            copy.rename(cluster.data_directory)
            give_to_server_user(cluster.data_directory)
            cluster.start()
            write_log(cluster, megabytes)
            healed = site.run("backup", "orders", "--type", "log").ok()
            assert healed["point"]["type"] == "full"
            assert "older copy" in healed["notes"][0] or "older state" in healed["notes"][0]
            second_life = mark(cluster)
            for _ in range(2):
                assert site.run("backup", "orders", "--type", "log").ok()["notes"] == []
            windows = site.run("windows", "orders").ok()["windows"]
            assert len({window["item_id"] for window in windows}) == 2
            assert len(windows) == 2
            for to, known in ((first_life, truth), (second_life, commit_times(cluster))):
                with restored(site, cluster, to.isoformat(), home / "data") as document:
                    assert_restored_exactly(document, known, to)


def mark_over(document: dict[str, Any]) -> dict[int, datetime]:
    """Commit a marker in a restored server; when all of its markers were committed."""
    with psycopg.connect(document["connection"], autocommit=True) as connection:
        connection.execute("INSERT INTO markers (filler) VALUES ('live')")
        return dict(
            connection.execute("SELECT id, pg_xact_commit_timestamp(xmin) FROM markers").fetchall()
        )


class TestSeveralRunsAtOnce:
    def outcomes(self, processes: list[subprocess.Popen[str]]) -> list[Answer]:
        """Their answers; each succeeded or tells who holds the lease."""
        answers = [answer_of(process) for process in processes]
        for answer in answers:
            if answer.code != 0:
                error = failed(answer, "lease_held")
                pids = [str(process.pid) for process in processes]
                assert any(f":{pid} " in error["message"] for pid in pids), error
        assert any(answer.code == 0 for answer in answers)
        return answers

    @pytest.mark.parametrize("kind", ["full", "log"])
    def test_two_of_one_kind_are_one_or_two_whole_points(
        self, site: Site, cluster: Cluster, kind: str
    ) -> None:
        with Writer(cluster):
            if kind == "log":
                site.backup("full")
            made = 0
            for _ in range(2):
                start = [site.start("backup", "--type", kind, "--json") for _ in range(3)]
                made += sum(answer.code == 0 for answer in self.outcomes(start))
            site.backup("log")
        points = site.run("list").ok()["points"]
        assert len(points) == made + (2 if kind == "log" else 1)
        assert_logs_chain(points)
        assert_one_window(site, points)
        assert_nothing_left(site, cluster)

    def test_logs_go_on_while_a_full_runs(self, site: Site, cluster: Cluster, home: Path) -> None:
        with Writer(cluster):
            site.backup("full")
            site.backup("log")
            process = stopped_in(site, cluster, "full")
            for _ in range(2):
                assert site.run("backup", "--type", "log").ok()["notes"] == []
            error = failed(site.run("backup", "--type", "full"), "lease_held")
            assert f":{process.pid} " in error["message"]
            go_on(process).ok()
            site.backup("log")
        points = site.run("list").ok()["points"]
        assert [point["type"] for point in points].count("log") == 4
        assert_logs_chain(points)
        _, end = assert_one_window(site, points)
        assert_nothing_left(site, cluster)
        to = end - timedelta(milliseconds=300)
        with restored(site, cluster, to.isoformat(), home / "data") as document:
            assert_restored_exactly(document, commit_times(cluster), to)

    def test_a_log_that_would_heal_waits_for_nobody_and_says_who_works(
        self, site: Site, cluster: Cluster
    ) -> None:
        site.backup("full")
        process = stopped_in(site, cluster, "full")
        cluster.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots"
            " WHERE NOT temporary"
        )
        error = failed(site.run("backup", "--type", "log"), "lease_held")
        assert f":{process.pid} " in error["message"]
        answer = go_on(process)
        assert answer.code == 0, answer.err
        site.backup("log")
        assert_nothing_left(site, cluster)
