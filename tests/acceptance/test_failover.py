"""Failovers, and several histories under one timeline's number: each is noticed, named and healed,
and no restore ever mixes two of them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.acceptance.aftermath import remove_restored
from tests.acceptance.history import instant
from tests.acceptance.site import Site
from tests.engines.postgres.clusters import (
    Cluster,
    available_majors,
    has_working_program,
    program_directory,
    run_as_server_user,
    running_cluster,
    scratch_directory,
)
from tests.engines.postgres.standbys import running_standby, wait_for_replay

pytestmark = pytest.mark.postgres

SETTINGS = {"track_commit_timestamp": "on"}
POLICY = 'full: "0 1 * * sun"\n    differential: "0 1 * * mon-sat"\n    log: 15m'
NEWEST = available_majors()[-1]
Truth = dict[str, datetime]
"""What was written, and when it was committed."""


@pytest.fixture
def home() -> Iterator[Path]:
    with scratch_directory() as path:
        yield path


def write(dsn: str, text: str) -> datetime:
    """Commit a mark; when that was."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS marks (text text PRIMARY KEY)")
        connection.execute("INSERT INTO marks VALUES (%s)", [text])
    return truth_of(dsn)[text]


def truth_of(dsn: str) -> Truth:
    with psycopg.connect(dsn, autocommit=True) as connection:
        return dict(
            connection.execute("SELECT text, pg_xact_commit_timestamp(xmin) FROM marks").fetchall()
        )


def assert_restores(
    site: Site, cluster: Cluster, truth: Truth, to: datetime, home: Path, *words: str
) -> dict[str, Any]:
    """A restore to ``to`` holds exactly what ``truth`` says."""
    into = home / "restored"
    try:
        document = site.restore(to.isoformat(), into, "--start", *words).ok()
        assert document["proven"] is True
        with psycopg.connect(document["connection"]) as connection:
            found = {text for (text,) in connection.execute("SELECT text FROM marks")}
        assert found == {text for text, at in truth.items() if at <= to}
    finally:
        remove_restored(cluster, into)
    return document


def kill_server(cluster: Cluster) -> None:
    """kill -9 of the postmaster; its children end when they notice."""
    pid_file = cluster.data_directory / "postmaster.pid"
    pid = int(pid_file.read_text().split()[0])
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for each in (pid, *map(int, children)):
        os.kill(each, signal.SIGKILL)
    while any(Path(f"/proc/{each}/cwd").exists() for each in (pid, *children)):
        time.sleep(0.02)
    pid_file.unlink()


def lineages(site: Site) -> set[str]:
    return {window["lineage"] for window in site.run("windows", "orders").ok()["windows"]}


def test_a_failover_is_named_and_healed_and_the_abandoned_branch_is_never_mixed_in(
    tmp_path: Path, home: Path
) -> None:
    with running_cluster(NEWEST, settings=SETTINGS) as old, running_standby(old) as new:
        site = Site(tmp_path, old.dsn(), policy=POLICY)
        site.backup("full")
        write(old.dsn(), "a")
        site.backup("log")
        write(old.dsn(), "b")
        site.backup("differential")
        before = write(old.dsn(), "c")
        last = instant(site.backup("log")["covers_until"])
        write(old.dsn(), "replicated, not in any log")
        wait_for_replay(old, new)
        kill_server(old)
        new.promote()
        promoted = replace(site, dsn=new.dsn())
        between = new.execute("SELECT clock_timestamp()")[0][0]
        healed = promoted.run("backup", "orders", "--type", "log").ok()
        assert (healed["point"]["type"], healed["point"]["lineage"]) == ("full", "2")
        (note,) = healed["notes"]
        assert "slot" in note
        assert "does not exist" in note
        assert "on lineage 2 now" in note
        after = write(new.dsn(), "d")
        assert promoted.run("backup", "orders", "--type", "log").ok()["notes"] == []
        assert promoted.backup("differential")["type"] == "differential"
        assert lineages(site) == {"1", "2"}
        truth = truth_of(new.dsn())
        assert_restores(site, new, truth, before, home)
        assert assert_restores(site, new, truth, after, home)["lineage"] == "2"
        refused = site.restore(between.isoformat(), home / "no")
        assert refused.code == 3
        error = refused.document["error"]
        assert error["code"] == "instant_unreachable"
        assert instant(error["nearest"][0]) == last

        # The old primary comes back on the old timeline, and somebody writes to it.
        old.start()
        stray = write(old.dsn(), "stray")
        assert site.run("backup", "orders", "--type", "log").ok()["notes"] == []
        refused = site.restore(stray.isoformat(), home / "no")
        assert (refused.code, refused.document["error"]["code"]) == (3, "lineage_ambiguous")
        assert "--lineage 1" in refused.document["error"]["hint"]
        found = assert_restores(site, old, truth_of(old.dsn()), stray, home, "--lineage", "1")
        assert found["lineage"] == "1"


def test_with_its_slot_on_the_standby_the_log_goes_on_across_the_failover(
    tmp_path: Path,
) -> None:
    with running_cluster(NEWEST, settings=SETTINGS) as old, running_standby(old) as new:
        write(old.dsn(), "a")
        wait_for_replay(old, new)
        site = Site(tmp_path, new.dsn(), policy=POLICY)
        site.backup("full")
        write(old.dsn(), "b")
        wait_for_replay(old, new)
        site.backup("log")
        lost_in_no_log = write(old.dsn(), "c")
        wait_for_replay(old, new)
        kill_server(old)
        new.promote()
        after = write(new.dsn(), "d")
        answer = site.run("backup", "orders", "--type", "log").ok()
        assert answer["notes"] == []
        assert [point["lineage"] for point in answer["points"]] == ["1", "2"]
        for to in (lost_in_no_log, after):
            assert site.run("plan", "orders", "--to", to.isoformat()).ok()["lineage"] == "2"


def test_log_that_the_new_primary_never_had_is_left_behind_by_one_full_and_the_chain_goes_on(
    tmp_path: Path, home: Path
) -> None:
    with running_cluster(NEWEST, settings=SETTINGS) as old, running_standby(old) as new:
        write(old.dsn(), "a")
        wait_for_replay(old, new)
        site = Site(tmp_path, new.dsn(), policy=POLICY)
        site.backup("full")
        ((slot,),) = new.execute("SELECT slot_name FROM pg_replication_slots")
        old.execute("SELECT pg_create_physical_replication_slot(%s, true)", [slot])
        kept = write(old.dsn(), "b")
        wait_for_replay(old, new)
        new.stop()
        write(old.dsn(), "lost with the old primary")
        assert replace(site, dsn=old.dsn()).backup("log")["type"] == "log"
        kill_server(old)
        new.start()
        new.promote()
        after = write(new.dsn(), "c")
        healed = site.run("backup", "orders", "--type", "log").ok()
        assert (healed["point"]["type"], healed["point"]["lineage"]) == ("full", "2")
        assert "does not descend" in healed["notes"][0]
        answer = site.run("backup", "orders", "--type", "log").ok()
        assert [point["type"] for point in answer["points"]] == ["log", "log"]
        assert answer["notes"] == []
        assert site.run("backup", "orders", "--type", "log").ok()["notes"] == []
        found = assert_restores(site, new, truth_of(new.dsn()), after, home)
        assert kept < after
        assert found["lineage"] == "2"


def test_two_restores_from_one_point_that_both_go_live_are_never_mixed(
    tmp_path: Path, home: Path
) -> None:
    with running_cluster(NEWEST, settings=SETTINGS) as source, ExitStack() as stack:
        site = Site(tmp_path, source.dsn(), policy=POLICY)
        site.backup("full")
        to = write(source.dsn(), "common")
        write(source.dsn(), "the mistake")
        site.backup("log")
        sites: list[Site] = []
        for name in ("one", "other"):
            stack.callback(remove_restored, source, home / name)
            document = site.restore(to.isoformat(), home / name, "--start").ok()
            sites.append(replace(site, dsn=document["connection"]))
        one, other = sites
        histories = {name: home / name / "pg_wal" / "00000002.history" for name in ("one", "other")}
        assert histories["one"].read_bytes() == histories["other"].read_bytes()
        assert one.run("backup", "orders", "--type", "log").ok()["point"]["lineage"] == "2"
        on_one = write(one.dsn, "on one")
        assert one.run("backup", "orders", "--type", "log").ok()["notes"] == []
        # The same name, the same cluster's identity, the same timeline; another history.
        write(other.dsn, "on other, a little longer than what the first has written")
        for kind in ("full", "differential"):
            site = one if kind == "differential" else other
            answer = site.run("backup", "orders", "--type", kind).ok()
            assert answer["point"]["type"] == "full"
            assert "It goes on as a new item" in answer["notes"][-1]
        answer = other.run("backup", "orders", "--type", "log").ok()
        assert "It goes on as a new item" in answer["notes"][-1]
        windows = other.run("windows", "orders").ok()["windows"]
        assert len({window["item_id"] for window in windows if window["lineage"] == "2"}) == 4
        assert_restores(one, source, truth_of(one.dsn), on_one, home)


@pytest.mark.soak
def test_a_server_upgraded_by_pg_upgrade_is_a_new_item_and_the_old_one_stays_restorable(
    tmp_path: Path, home: Path
) -> None:
    elder, newer = available_majors()[:2]
    if not has_working_program(newer, "pg_upgrade"):
        pytest.skip("pg_upgrade is not there")
    with running_cluster(elder, settings=SETTINGS) as old, running_cluster(newer) as target:
        site = Site(tmp_path, old.dsn(), policy=POLICY)
        site.backup("full")
        before = write(old.dsn(), "before the upgrade")
        site.backup("log")
        truth = truth_of(old.dsn())
        old.stop()
        target.stop()
        run_as_server_user(
            [
                "sh", "-c",
                f"cd {home} && {program_directory(newer)}/pg_upgrade -U postgres"
                f" -b {old.programs} -B {target.programs}"
                f" -d {old.data_directory} -D {target.data_directory}",
            ]
        )  # fmt: skip
        target.start()
        upgraded = replace(site, dsn=target.dsn())
        answer = upgraded.run("backup", "orders", "--type", "log").ok()
        assert answer["point"]["type"] == "full"
        assert "pg_upgrade" in answer["notes"][0]
        assert upgraded.run("backup", "orders", "--type", "log").ok()["notes"] == []
        assert_restores(upgraded, old, truth, before, home)
