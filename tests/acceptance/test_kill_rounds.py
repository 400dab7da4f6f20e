"""kill -9 at random moments, while clients write. Afterwards nothing is lost, nothing is half done,
and every instant of the windows comes back as it was."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.acceptance.aftermath import (
    assert_logs_chain,
    assert_nothing_left,
    assert_one_window,
    own_slots,
    remove_restored,
    restored,
    servers_on,
)
from tests.acceptance.history import instant, seeded_chance
from tests.acceptance.markers import Writer, assert_restored_exactly, commit_times
from tests.acceptance.shipping_sites import covered, shipped
from tests.acceptance.site import Answer, Site, kill_hard
from tests.engines.postgres.clusters import Cluster, scratch_directory

pytestmark = pytest.mark.postgres

POLICY = (
    'full: "0 1 * * sun"\n    differential: "0 1 * * mon-sat"\n    log: 24h\n'
    "    log_shipping: continuous\n    log_shipping_interval: 1"
)
SOAK_ROUNDS = int(os.environ.get("SQLBAK_SOAK_ROUNDS") or 200)
KINDS = ("full", "differential", "log", "restore", "ship", "restore what was shipped")
LONGEST_SECONDS = {"full": 2.0, "differential": 2.0, "log": 1.2, "restore": 4.0}


@pytest.fixture
def home() -> Iterator[Path]:
    with scratch_directory() as path:
        yield path


@dataclass
class Rounds:
    """Runs that are killed, each at a moment of its own; what those that were faster said."""

    site: Site
    cluster: Cluster
    home: Path
    chance: random.Random
    killed: int = 0
    shippers_killed: int = 0
    notes: list[str] = field(default_factory=list)
    shipper: subprocess.Popen[str] | None = None
    keys: list[Path] = field(default_factory=list)

    def change_key(self) -> None:
        """The vault is encrypted with a new key from here on. Whoever runs goes on with the old."""
        key = self.site.root / f"vault-{len(self.keys)}.key"
        self.site.run("key", "new", key).ok()
        old = ", ".join(f"file:{other}" for other in self.keys)
        self.keys.insert(0, key)
        self.site.vault_options = f"    encryption: {{key: file:{key}, old_keys: [{old}]}}\n"
        self.site.__post_init__()

    def backup(self, kind: str) -> None:
        process = self.site.start("backup", "orders", "--type", kind, "--json")
        vault = self.site.root / "vault"
        if self.chance.random() < 0.7:
            # From the first byte on, where something can be left behind.
            deadline = time.monotonic() + LONGEST_SECONDS[kind]
            before = set(vault.glob("items/*/jobs/*"))
            while process.poll() is None and time.monotonic() < deadline:
                running = list(vault.glob("items/*/running/*"))
                if running and set(vault.glob("items/*/jobs/*")) == before:
                    break
                time.sleep(0.002)
            wait = self.chance.uniform(0, 0.25)
        else:
            wait = self.chance.uniform(0, LONGEST_SECONDS[kind])
        answer = self.killed_after(process, wait)
        if answer is not None:
            self.notes += answer.ok()["notes"]

    def killed_after(self, process: subprocess.Popen[str], wait: float) -> Answer | None:
        """Its answer if it was faster."""
        try:
            out, err = process.communicate(timeout=wait)
        except subprocess.TimeoutExpired:
            kill_hard(process)
            self.killed += 1
            return None
        return Answer(process.returncode, out, err)

    def complete(self, kind: str) -> None:
        self.notes += self.site.run("backup", "orders", "--type", kind).ok()["notes"]

    def restore(self) -> None:
        """Kill a restore. Whatever server it leaves, none shows a state that nobody proved; and
        the place can be used again."""
        start, end = self.site.windows()[0]
        to = start + (end - start) * self.chance.random()
        into = self.home / "killed"
        words = ("restore", "orders", "--to", to.isoformat(), "--into", into, "--start", "--json")
        process = self.site.start(*words)
        answer = self.killed_after(process, self.chance.uniform(0.5, LONGEST_SECONDS["restore"]))
        if answer is None:
            again = self.site.restore(to.isoformat(), into, "--start")
            if again.code == 0:  # it was killed before it had made anything
                assert_restored_exactly(again.document, commit_times(self.cluster), to)
            else:
                assert again.code == 3
                assert again.document["error"]["code"] == "target_not_usable"
                self.assert_unproven_states_are_out_of_reach(into, to)
        remove_restored(self.cluster, into)
        with restored(self.site, self.cluster, to.isoformat(), into) as document:
            assert_restored_exactly(document, commit_times(self.cluster), to)

    def assert_unproven_states_are_out_of_reach(self, into: Path, to: datetime) -> None:
        """A server that is left over is not promoted, or it is to the very state."""
        sockets = [path for path in into.glob("sqlbak/.s.PGSQL.*") if path.suffix != ".lock"]
        for path in sockets:
            where = f"host={path.parent} port={path.suffix[1:]} user=postgres dbname=postgres"
            try:
                with psycopg.connect(where, autocommit=True, connect_timeout=5) as connection:
                    row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
            except psycopg.OperationalError:
                continue  # not up yet, or not any more
            if row == (False,):
                assert_restored_exactly(
                    {"proven": True, "connection": where}, commit_times(self.cluster), to
                )

    def ship(self) -> None:
        """Ship log continuously, beside whatever else runs."""
        if self.shipper is None or self.shipper.poll() is not None:
            self.stop_shipping()
            self.shipper = self.site.start("ship", "orders", "--json")

    def stop_shipping(self) -> None:
        """kill -9, wherever it is."""
        if self.shipper is not None:
            assert self.shipper.poll() is None, self.shipper.communicate()
            kill_hard(self.shipper)
            self.shipper = None
            self.shippers_killed += 1

    def restore_what_was_shipped(self) -> None:
        """What a killed shipper left is sound up to its end, and ends where ``windows`` says."""
        self.stop_shipping()
        points, (_, end) = self.points(), self.site.windows()[-1]
        at = covered(self.site)
        assert end == max(
            [at] * (at is not None)
            + [instant(p["covers_until"]) for p in points if p["covers_until"]]
        )
        self.assert_restores(end)

    def window(self) -> tuple[datetime, datetime]:
        return assert_one_window(self.site, self.points())

    def points(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.site.run("list", "orders").ok()["points"]
        return found

    def assert_sound(self) -> list[dict[str, Any]]:
        """One more run of each kind, and all is as if nobody had killed anything."""
        self.stop_shipping()
        self.complete("full")
        self.complete("differential")
        self.complete("log")
        assert_nothing_left(self.site, self.cluster)
        assert shipped(self.site) == []  # the log backup holds it all
        assert self.notes == []  # no log had to be healed by a full
        points = self.points()
        assert_logs_chain(points)
        self.window()
        return points

    def assert_whole_chain_restores(self) -> None:
        """From the first full over every log to the end: all other bases are hidden."""
        options = self.site.vault_options
        copy = Site(self.home / "copy", self.cluster.dsn(), vault_options=options)
        shutil.copytree(self.site.root / "vault", self.home / "copy" / "vault")
        fulls = sorted((self.home / "copy" / "vault").glob("items/*/points/*_tf_*"))
        assert fulls
        differentials = (self.home / "copy" / "vault").glob("items/*/points/*_td_*")
        for manifest in [*fulls[1:], *differentials]:
            manifest.unlink()
        with restored(copy, self.cluster, "latest", self.home / "whole") as document:
            assert document["steps"][0]["point"] in fulls[0].name
            assert len(document["steps"]) == 1 + sum(
                point["type"] == "log" for point in self.points()
            )
            to = datetime.fromisoformat(document["stop_at"])
            assert_restored_exactly(document, commit_times(self.cluster), to)

    def assert_restores(self, to: datetime) -> None:
        with restored(self.site, self.cluster, to.isoformat(), self.home / "one") as document:
            assert_restored_exactly(document, commit_times(self.cluster), to)


@pytest.fixture
def rounds(
    request: pytest.FixtureRequest, cluster: Cluster, tmp_path: Path, home: Path
) -> Iterator[Rounds]:
    (home / "copy").mkdir()
    site = Site(tmp_path, cluster.dsn(), policy=POLICY)
    with own_slots(cluster):
        made = Rounds(site, cluster, home, seeded_chance())
        if getattr(request, "param", None) == "encrypted":
            made.change_key()
        try:
            yield made
        finally:
            if made.shipper is not None:
                kill_hard(made.shipper)


# Encryption changes nothing of what a kill leaves; with it, its own steps are met as well.
@pytest.mark.parametrize("rounds", ["encrypted"], indirect=True)
def test_a_few_runs_killed_at_random_moments_leave_nothing_behind(rounds: Rounds) -> None:
    with Writer(rounds.cluster):
        rounds.complete("full")
        for kind in ("full", "log", "differential", "full", "log", "differential"):
            rounds.backup(kind)
            rounds.ship()
        rounds.change_key()
        rounds.restore_what_was_shipped()
        rounds.complete("log")
        rounds.restore()
        rounds.assert_sound()
    rounds.assert_whole_chain_restores()


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("rounds", ["readable", "encrypted"], indirect=True)
def test_hundreds_of_killed_runs_leave_nothing_behind(rounds: Rounds) -> None:
    done: Counter[str] = Counter()
    minutes = float(os.environ.get("SQLBAK_SOAK_MINUTES") or 60)
    deadline = datetime.now(UTC) + timedelta(minutes=minutes)
    with Writer(rounds.cluster):
        rounds.complete("full")
        rounds.complete("log")
        for number in range(SOAK_ROUNDS):
            kind = rounds.chance.choices(KINDS, (20, 25, 25, 10, 10, 10))[0]
            done[kind] += 1
            if kind == "restore":
                rounds.restore()
            elif kind == "ship":
                rounds.ship()
            elif kind == "restore what was shipped":
                rounds.restore_what_was_shipped()
            else:
                rounds.backup(kind)
            if number % 10 == 9:
                rounds.assert_sound()
                if rounds.keys:
                    rounds.change_key()
            if datetime.now(UTC) > deadline:
                break
        points = rounds.assert_sound()
    print(
        f"{number + 1} rounds, {rounds.killed} runs and {rounds.shippers_killed} shippers killed,"
        f" {len(points)} points, {dict(done)}"
    )
    rounds.assert_whole_chain_restores()
    ends = [datetime.fromisoformat(point["covers_until"]) for point in points]
    start, end = rounds.window()
    for to in [*ends, *(start + (end - start) * rounds.chance.random() for _ in range(20))]:
        rounds.assert_restores(to)


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv of util-linux")
def test_a_recovering_server_whose_restore_was_killed_ends_by_itself(rounds: Rounds) -> None:
    rounds.complete("full")
    with Writer(rounds.cluster):
        time.sleep(1.0)
    rounds.complete("log")
    for _ in range(3):
        into = rounds.home / "orphan"
        process = rounds.site.start(
            "restore", "orders", "--to", "latest", "--into", into, "--start"
        )
        while process.poll() is None and not servers_on(into / "sqlbak"):
            time.sleep(0.01)
        time.sleep(rounds.chance.uniform(0, 1.0))
        kill_hard(process)
        deadline = time.monotonic() + 10
        # A restore that was faster than the kill has left the server that was asked for; it is
        # told from a recovering one by where its configuration lies.
        own = f"hba_file={into / 'sqlbak'}"
        while recovering := [line for line in servers_on(into) if own in line]:
            assert time.monotonic() < deadline, recovering
            time.sleep(0.1)
        remove_restored(rounds.cluster, into)
