"""Backups that are taken from a standby: what they promise, and that the promise is kept."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.aftermath import (
    assert_logs_chain,
    assert_one_window,
    drop_slots,
    remove_restored,
)
from tests.acceptance.history import instant, seeded_chance
from tests.acceptance.shipping_sites import covered, until_covered
from tests.acceptance.site import Site, kill_hard
from tests.acceptance.witness import (
    Mark,
    Noise,
    Witness,
    assert_holds_exactly,
    committed_marks,
    queries,
)
from tests.engines.postgres.clusters import (
    Cluster,
    available_majors,
    elsewhere,
    running_cluster,
    scratch_directory,
)
from tests.engines.postgres.standbys import running_standby, wait_for_replay

pytestmark = pytest.mark.postgres

SETTINGS = {"track_commit_timestamp": "on", "summarize_wal": "on"}
POLICY = 'full: "0 1 * * sun"\n    differential: "0 1 * * mon-sat"\n    log: 15m'
WITH_PRIMARY = "    primary_dsn: env:PRIMARY_DSN\n"
NEWEST = available_majors()[-1]


@dataclass
class Pair:
    """A primary, its standby, and a place for restores."""

    primary: Cluster
    standby: Cluster
    home: Path

    def marks(self) -> tuple[Mark, ...]:
        return committed_marks(self.primary.execute)

    def write(self) -> datetime:
        """One mark; when it was committed."""
        with Witness(self.primary, seeded_chance(), rests=(0.001,)):
            before = len(self.marks())
            while len(self.marks()) == before:
                pass
        wait_for_replay(self.primary, self.standby)
        return self.marks()[-1].committed_at

    def assert_restores(self, site: Site, to: str, *, at: datetime) -> dict[str, Any]:
        """A restore to ``to`` is proven and holds exactly what was committed by ``at``."""
        into = self.home / "restored"
        place = elsewhere(self.primary.major)
        programs = () if place is None else ("--pg-bin", place)
        try:
            document = site.restore(to, into, "--start", *programs).ok()
            assert document["proven"] is True
            assert_holds_exactly(queries(document["connection"]), self.marks(), at)
        finally:
            remove_restored(self.primary, into)
        return document


def pair_of(major: int) -> Iterator[Pair]:
    settings = {k: v for k, v in SETTINGS.items() if major >= 17 or k != "summarize_wal"}
    with running_cluster(major, settings=settings) as primary, scratch_directory() as home:
        primary.execute("CREATE TABLE noise (n int PRIMARY KEY, changes int)")
        primary.execute("INSERT INTO noise SELECT n, 0 FROM generate_series(1, 20000) AS n")
        with running_standby(primary) as standby:
            yield Pair(primary, standby, home)


@pytest.fixture(scope="module")
def shared() -> Iterator[Pair]:
    yield from pair_of(NEWEST)


@pytest.fixture
def pair(shared: Pair) -> Iterator[Pair]:
    for cluster in (shared.primary, shared.standby):
        drop_slots(cluster)
    yield shared
    for cluster in (shared.primary, shared.standby):
        drop_slots(cluster)


def site_of(pair: Pair, root: Path, *, with_primary: bool) -> Site:
    """A site that backs up the standby."""
    return Site(
        root,
        pair.standby.dsn(),
        policy=POLICY,
        instance_options=WITH_PRIMARY if with_primary else "",
        environment={"PRIMARY_DSN": pair.primary.dsn()},
    )


def restores_of_a_busy_standby(pair: Pair, site: Site, *promises: str) -> None:
    """Full, differential and logs while clients write; these promises are tried."""
    noise = "UPDATE noise SET changes = changes + 1 WHERE n = 1 + (random() * 19999)::int"
    with (
        Noise(pair.primary, noise, sessions=4, pause=0.001),
        Witness(pair.primary, seeded_chance()),
    ):
        made = {kind: site.backup(kind) for kind in ("full", "differential", "log")}
    assert [point["type"] for point in made.values()] == list(made)
    points = site.run("list").ok()["points"]
    assert_logs_chain(points)
    assert_one_window(site, points)
    for kind in promises:
        end = instant(made[kind]["covers_until"])
        assert pair.marks()[-1].committed_at > end
        pair.assert_restores(site, end.isoformat(), at=end)


def test_backups_of_a_busy_standby_restore_to_every_end_that_they_promise(
    pair: Pair, tmp_path: Path
) -> None:
    site = site_of(pair, tmp_path, with_primary=False)
    restores_of_a_busy_standby(pair, site, "full")


def test_without_the_primary_idle_time_is_not_promised(pair: Pair, tmp_path: Path) -> None:
    site = site_of(pair, tmp_path, with_primary=False)
    newest = pair.write()
    full = site.backup("full")
    assert full["reachable_from"] is not None
    assert instant(full["reachable_from"]) >= newest
    pair.primary.execute("SELECT pg_switch_wal()")
    wait_for_replay(pair.primary, pair.standby)
    first, second = site.backup("log"), site.backup("log")
    assert first["covers_until"] == second["covers_until"]
    ((replayed,),) = pair.standby.execute("SELECT pg_last_xact_replay_timestamp()")
    assert instant(second["covers_until"]) == replayed
    problems = site.run("inspect", "orders").ok()["problems"]
    assert "primary_not_asked" in {problem["code"] for problem in problems}


def test_with_the_primary_every_second_is_promised_on_an_idle_server_too(
    pair: Pair, tmp_path: Path
) -> None:
    site = site_of(pair, tmp_path, with_primary=True)
    pair.write()
    site.backup("full")
    newest = pair.write()
    ((idle,),) = pair.primary.execute("SELECT clock_timestamp()")
    answer = site.run("backup", "orders", "--type", "log").ok()
    assert answer["notes"] == []
    assert instant(answer["point"]["covers_until"]) > idle > newest


def test_one_chain_goes_on_whichever_of_the_two_servers_the_dsn_names(
    pair: Pair, tmp_path: Path
) -> None:
    standby = site_of(pair, tmp_path, with_primary=True)
    standby.policy += "\n    differential_method: native"
    primary = replace(standby, dsn=pair.primary.dsn())
    pair.write()
    assert standby.backup("full")["type"] == "full"
    ((slot,),) = pair.standby.execute("SELECT slot_name FROM pg_replication_slots")
    pair.primary.execute("SELECT pg_create_physical_replication_slot(%s, true)", [slot])
    for site in (primary, standby):
        pair.write()
        ((idle,),) = pair.primary.execute("SELECT clock_timestamp()")
        answer = site.run("backup", "orders", "--type", "log").ok()
        assert (answer["point"]["type"], answer["notes"]) == ("log", [])
    # The slot that is not used is moved along, so that it does not fill the primary's disk.
    ((held,),) = pair.primary.execute(
        "SELECT restart_lsn - '0/0' FROM pg_replication_slots WHERE slot_name = %s", [slot]
    )
    points = primary.run("list").ok()["points"]
    assert int(held) == max(int(point["last_lsn"]) for point in points)
    assert len({point["item_id"] for point in points}) == 1
    assert_logs_chain(points)
    assert_one_window(primary, points)
    # What the log promised was read from both servers; and one full bears the other's changes.
    assert pair.assert_restores(standby, idle.isoformat(), at=idle)["lineage"] == "1"
    full_of_the_primary = primary.backup("full")
    answer = standby.run("backup", "orders", "--type", "differential").ok()
    mixed = answer["point"]
    assert (mixed["type"], mixed["base"]) == ("differential", full_of_the_primary["id"])
    # The standby has had no restartpoint since, so its server refuses the native method.
    assert [note.split(":")[0] for note in answer["notes"]] == [
        "pages were compared instead of the native method"
    ]
    end = instant(mixed["reachable_from"])
    pair.assert_restores(standby, end.isoformat(), at=end)


def test_a_standby_that_lags_behind_the_vault_is_waited_for_and_never_taken_for_another(
    pair: Pair, tmp_path: Path
) -> None:
    site = site_of(pair, tmp_path, with_primary=False)
    pair.write()
    site.backup("full")
    ((slot,),) = pair.standby.execute("SELECT slot_name FROM pg_replication_slots")
    pair.primary.execute("SELECT pg_create_physical_replication_slot(%s, true)", [slot])
    pair.standby.execute("SELECT pg_wal_replay_pause()")
    with Witness(pair.primary, seeded_chance(), rests=(0.001,)):
        replace(site, dsn=pair.primary.dsn()).backup("log")
    waiting = site.start("backup", "orders", "--type", "log", "--json")
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(timeout=1.5)
    pair.standby.execute("SELECT pg_wal_replay_resume()")
    out, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, err + out
    points = site.run("list").ok()["points"]
    assert [point["type"] for point in points] == ["full", "log", "log"]
    assert_logs_chain(points)
    assert_one_window(site, points)


def test_a_primary_that_is_no_primary_of_this_standby_proves_nothing(
    pair: Pair, tmp_path: Path
) -> None:
    site = site_of(pair, tmp_path, with_primary=True)
    pair.write()
    site.backup("full")
    down = "host=127.0.0.1 port=1 user=postgres dbname=postgres"
    for dsn, why in ((pair.standby.dsn(), "is a standby itself"), (down, "no connection")):
        wrong = replace(site, environment={"PRIMARY_DSN": dsn})
        newest = pair.write()
        answer = wrong.run("backup", "orders", "--type", "log").ok()
        assert any(why in note for note in answer["notes"]), answer["notes"]
        assert instant(answer["point"]["covers_until"]) == newest


@pytest.mark.soak
def test_the_log_of_a_standby_is_shipped_until_the_primary_is_lost(
    pair: Pair, tmp_path: Path
) -> None:
    site = site_of(pair, tmp_path, with_primary=True)
    pair.write()
    site.backup("full")
    process = site.start("ship", "orders", "--interval", "1")
    try:
        newest = pair.write()
        until_covered(site, newest)
    finally:
        kill_hard(process)
    end = covered(site)
    assert end is not None
    pair.assert_restores(site, end.isoformat(), at=end)


@pytest.mark.soak
@pytest.mark.parametrize("major", available_majors())
@pytest.mark.parametrize("with_primary", [False, True], ids=["alone", "with primary"])
def test_every_version_s_busy_standby_keeps_its_promises(
    major: int, with_primary: bool, tmp_path: Path
) -> None:
    for pair in pair_of(major):
        site = site_of(pair, tmp_path, with_primary=with_primary)
        restores_of_a_busy_standby(pair, site, "full", "differential", "log")
