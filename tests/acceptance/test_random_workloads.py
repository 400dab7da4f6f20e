"""Whatever clients do between backups, and while they run: every recorded instant comes back, from
whichever full or differential a restore begins with."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.history import instant, seeded_chance
from tests.acceptance.judges import restored_by_hand, restored_started
from tests.acceptance.random_workload import State, Workload, assert_holds, state_of
from tests.acceptance.site import Site
from tests.engines.postgres.clusters import (
    Cluster,
    available_majors,
    running_cluster,
    scratch_directory,
)

pytestmark = pytest.mark.postgres

POLICY = 'full: "0 1 * * sun"\n    differential: "0 1 * * mon-sat"\n    log: 15m'
# Each version with another combination of segment size (MB) and checksums.
SHAPES = {15: (1, False), 16: (16, True), 17: (1, True), 18: (64, False)}
KINDS = ("full", "differential", "log")
SOAK_ROUNDS = 50


@dataclass
class Story:
    """What a cluster went through, what its vault holds, and what it held when."""

    cluster: Cluster
    site: Site
    home: Path
    chance: random.Random
    has_checksums: bool
    workload: Workload = field(init=False)
    states: list[State] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.workload = Workload(self.cluster, random.Random(self.chance.getrandbits(32)))

    def begin(self) -> None:
        self.workload.begin()
        self.backup("full", meanwhile=0)

    def round(self) -> None:
        """Some changes, an instant that is remembered, and a backup while the changes go on."""
        for _ in range(self.chance.randrange(1, 3)):
            self.workload.change(self.chance.randrange(1, 5))
            self.states.append(state_of(self.cluster.dsn()))
            self.workload.fence()
        kind = self.chance.choices(KINDS, (1, 5, 5))[0]
        self.backup(kind, meanwhile=self.chance.choice([0, 0, 2, 6]))

    def backup(self, kind: str, *, meanwhile: int) -> None:
        if kind == "differential":
            methods = ["pages", "native"] if self.cluster.major >= 17 else ["pages"]
            method = self.chance.choice(methods)
            policy = f"{POLICY}\n    differential_method: {method}"
            (self.site.config / "orders.yaml").write_text(
                self.site.text().replace(self.site.policy, policy)
            )
        failures: list[BaseException] = []

        def work() -> None:
            try:
                self.workload.change(meanwhile, is_calm=True)
            except BaseException as failure:
                failures.append(failure)

        at_work = threading.Thread(target=work)
        at_work.start()
        try:
            answer = self.site.run("backup", "orders", "--type", kind).ok()
        finally:
            at_work.join()
        assert failures == []
        assert answer["point"]["type"] == kind, answer["notes"]
        native_refused = [note for note in answer["notes"] if "instead of the native" in note]
        assert answer["notes"] == native_refused
        for note in native_refused:
            print(note, flush=True)
        if kind == "differential":
            kind = "differential, pages for native" if native_refused else f"differential, {method}"
        self.done[kind] += 1

    def points(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.site.run("list", "orders").ok()["points"]
        return found

    def restore_any(self) -> None:
        """One of the instants, from one of the bases before it, judged by PostgreSQL's own
        programs and by all that it holds."""
        points = self.points()
        start, end = self.site.windows()[0]  # bases behind the last log are windows of their own
        assert end >= max(instant(p["covers_until"]) for p in points if p["type"] == "log")
        states = [state for state in self.states if start <= state.at <= end]
        state = self.chance.choice(states[-30:])
        bases = [
            point
            for point in points
            if point["type"] != "log" and instant(point["reachable_from"]) <= state.at
        ]
        base = self.chance.choice(bases[-12:])
        site = self.only(points, base)
        restore = restored_started if self.chance.random() < 0.7 else restored_by_hand
        options: dict[str, Any] = {"has_checksums": self.has_checksums}
        if restore is restored_by_hand:
            options["is_paused"] = False  # then, tables of prepared transactions would be locked
        print(f"{base['type']} {base['id']} to {state.at.isoformat()}", flush=True)
        into = self.home / "data"
        with restore(site, self.cluster.major, state.at.isoformat(), into, **options) as restored:
            steps = restored.document["steps"]
            assert steps[0]["point"] in (base["id"], base["base"])
            # A log that begins before a differential may be a cheaper way around it.
            used = ", ".join(step["type"] for step in steps[:2] if step["type"] != "log")
            self.done[f"{restore.__name__} from {used}"] += 1
            self.done["logs replayed"] += sum(step["type"] == "log" for step in steps)
            by_sqlbak = restore is restored_started
            assert_holds(restored.connection, state, by_sqlbak=by_sqlbak)

    def only(self, points: list[dict[str, Any]], base: dict[str, Any]) -> Site:
        """The vault without any other base, and without logs that end before it."""
        copy = self.home / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        subprocess.run(["cp", "-al", self.site.root / "vault", copy / "vault"], check=True)
        kept = {base["id"], base["base"]} | {
            point["id"]
            for point in points
            if point["type"] == "log" and point["last_lsn"] > base["last_lsn"]
        }
        for manifest in (copy / "vault").glob("items/*/points/*"):
            if manifest.name.partition("_")[0] not in kept:
                manifest.unlink()
        return Site(copy, self.cluster.dsn(), policy=POLICY)


@contextmanager
def story_of(major: int, root: Path) -> Iterator[Story]:
    chance = seeded_chance()
    megabytes, has_checksums = SHAPES.get(major, (16, True))
    settings = {"track_commit_timestamp": "on", "max_prepared_transactions": "8"}
    if major >= 17:
        settings |= {"summarize_wal": "on", "wal_log_hints": "on"}
    with (
        running_cluster(
            major,
            wal_segment_megabytes=megabytes,
            has_checksums=has_checksums,
            settings=settings,
        ) as cluster,
        scratch_directory() as home,
    ):
        site = Site(root, cluster.dsn(), policy=POLICY)
        story = Story(cluster, site, home, chance, has_checksums)
        story.begin()
        yield story


def test_states_between_random_changes_come_back_from_any_base(tmp_path: Path) -> None:
    with story_of(available_majors()[-1], tmp_path) as story:
        for number in range(15):
            story.round()
            if number in (9, 14):
                story.backup("log", meanwhile=0)
                story.restore_any()


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("major", available_majors(), ids=lambda major: f"pg{major}")
def test_states_between_hundreds_of_random_changes_come_back_from_any_base(
    major: int, tmp_path: Path
) -> None:
    rounds = int(os.environ.get("SQLBAK_SOAK_ROUNDS") or SOAK_ROUNDS)
    began = datetime.now()  # noqa: DTZ005 - for people
    with story_of(major, tmp_path) as story:
        for number in range(rounds):
            story.round()
            if number % 3 == 2:
                story.backup("log", meanwhile=0)
            if number >= 3:
                story.restore_any()
        story.backup("log", meanwhile=0)
        print(f"PostgreSQL {major}: {rounds} rounds in {datetime.now() - began}")  # noqa: DTZ005
        print(dict(story.done))
        print(dict(sorted(story.workload.counts.items())))
