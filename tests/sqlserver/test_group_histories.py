"""Whatever happens to a group of servers, an instant is restored exactly as it was, or refused.

The oracle is the database itself: what its primary held at each moment is written down, across
failovers with and without loss, outages, replicas that fall behind, runs that die before they ship,
changed preferences and backups that others took.
"""

from __future__ import annotations

import random
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

import pytest

from sqlbak.errors import (
    BackupFailed,
    EngineError,
    LineageAmbiguous,
    NameNeeded,
    Refused,
    SqlbakError,
)
from sqlbak.model import PointType
from tests.sqlserver.group_site import DIFFERENTIAL, FULL, LOG, GroupSite, group_site
from tests.sqlserver_simulator.instance import Unknowns
from tests.sqlserver_simulator.simulator import SimulatorError

SECOND = timedelta(seconds=1)
EVENTS = {
    "insert": 10,
    "full": 2,
    "differential": 3,
    "log": 10,
    "copy_only": 1,
    "foreign_full": 1,
    "foreign_log": 1,
    "fail_over": 4,
    "fail_over_in_a_backup": 1,
    "forced_failover": 1,
    "outage": 2,
    "return_of_all": 2,
    "fall_behind": 1,
    "preference": 2,
    "dying_log": 1,
}


class GroupLife:
    """One database on several servers, and all that it ever held."""

    def __init__(self, site: GroupSite, dice: random.Random) -> None:
        self.site = site
        self.dice = dice
        self.number = 0
        self.down: set[str] = set()
        self.told: list[str] = []

    def live(self, event: str) -> None:
        self.told.append(f"{self.site.now():%d %H:%M:%S.%f} {event}")
        getattr(self, event)()
        self.site.advance(
            seconds=self.dice.choice([1, 20, 300, 900]),
            microseconds=self.dice.randrange(1_000_000),
        )

    def insert(self) -> None:
        for _ in range(self.dice.randrange(1, 3)):
            self.number += 1
            self.site.insert(f"row {self.number}")

    def backup(self, kind: PointType, **options) -> None:
        try:
            points = self.site.backup(kind, **options).points
            self.told[-1] += f": {[point.type.value for point in points]}"
        except SqlbakError as error:
            assert isinstance(error, EngineError | Refused), error
            self.told.append(f"    {error.message}")

    def full(self) -> None:
        self.backup(FULL)

    def differential(self) -> None:
        self.backup(DIFFERENTIAL)

    def log(self) -> None:
        self.backup(LOG)

    def copy_only(self) -> None:
        self.backup(FULL, is_copy_only=True)

    def foreign_full(self) -> None:
        self.site.primary.execute("BACKUP DATABASE Sales TO DISK = N'NUL'")

    def foreign_log(self) -> None:
        with suppress(SimulatorError):
            self.site.foreign_log(self.dice.choice(sorted(self.site.nodes)))

    def others(self) -> list[str]:
        primary = self.site.group.primary.server_name
        return [name for name in self.site.nodes if name != primary and name not in self.down]

    def fail_over(self, **options) -> None:
        names = self.others()
        if not options:
            held = {name for name, _ in self.site.group.received}
            names = [name for name in names if name not in held]
        if names:
            self.site.fail_over(self.dice.choice(names), **options)
            self.site.note()

    def forced_failover(self) -> None:
        self.fail_over(forced=True)

    def fail_over_in_a_backup(self) -> None:
        kind = self.dice.choice([FULL, DIFFERENTIAL, LOG])
        command = "BACKUP LOG" if kind is LOG else "BACKUP DATABASE"
        for node in self.site.nodes.values():
            node.faults.add(
                "call",
                at_percent=self.dice.choice([1, 50, 99]),
                command=command,
                action=self.fail_over,
            )
        self.backup(kind)
        for node in self.site.nodes.values():
            node.faults.clear()

    def outage(self) -> None:
        if names := self.others():
            name = self.dice.choice(names)
            self.site.take_down(name)
            if self.dice.random() < 0.3:
                # It runs, and only sqlbak does not get there.
                self.site.group.not_synchronizing.discard(name)
            self.down.add(name)

    def return_of_all(self) -> None:
        for name in sorted(self.down):
            self.site.bring_up(name)
        self.down.clear()
        self.site.group.received.clear()
        self.site.write_policy()

    def fall_behind(self) -> None:
        if names := self.others():
            self.site.group.hold(self.site.nodes[self.dice.choice(names)].instance)

    def preference(self) -> None:
        group = self.site.group
        group.preference = self.dice.choice(["PRIMARY", "SECONDARY", "SECONDARY_ONLY", "NONE"])
        group.priorities = {name: self.dice.choice([0, 30, 50, 90]) for name in self.site.nodes}

    def dying_log(self) -> None:
        with patch(
            "sqlbak.engines.sqlserver.backing.Backing.ship", side_effect=BackupFailed("died")
        ):
            self.backup(LOG)


def lived(site: GroupSite, seed: int, events: int) -> GroupLife:
    life = GroupLife(site, random.Random(seed))
    life.live("full")
    for event in life.dice.choices(list(EVENTS), list(EVENTS.values()), k=events):
        life.live(event)
    life.return_of_all()
    life.site.group.preference = "SECONDARY"
    life.site.group.priorities.clear()
    for event in ("log", "insert", "log"):
        life.live(event)
    return life


def judged(life: GroupLife, restores: int) -> int:
    """Restore random instants; how many were restored."""
    site, dice, done = life.site, life.dice, 0
    lineages = {point.lineage for point in site.points()}
    assert len(site.items()) == 1, life.told
    assert site.leftovers() == [], life.told
    for _ in range(restores):
        instant = dice.choice(site.instants[1:]) + timedelta(
            microseconds=dice.choice([-3334, -1, 0, 1, 3333, 900_000, 40_000_000])
        )
        if any(start <= instant + SECOND and instant <= end + SECOND for start, end in site.twice):
            continue
        in_a_window = any(window.start <= instant <= window.end for window in site.windows())
        try:
            rows = site.restored(instant)
        except (LineageAmbiguous, NameNeeded):
            assert len(lineages) > 1, life.told
            continue
        except Refused as refused:
            assert not in_a_window, (instant, refused.message, life.told)
            continue
        assert rows == site.at(instant), (instant, life.told)
        done += 1
    assert site.restored() == site.states[-1], life.told
    return done


def restored_of(folder: Path, seed: int, events: int, restores: int) -> int:
    known = ("live", "old", "null")[seed % 3]
    with (
        patch("sqlbak.engines.sqlserver.logend._WAIT_SECONDS", 0.0),
        group_site(
            folder,
            count=2 + seed % 2,
            host=("listener", "NODE1")[seed // 2 % 2],
            is_folder_shared=bool(seed // 4 % 2),
            unknowns=Unknowns(status_of_secondary=known),
        ) as site,
    ):
        for number, node in enumerate(site.nodes.values()):
            # Clocks that nobody keeps together.
            node.clock.skew = timedelta(seconds=(seed * 7 + number * 13) % 9 - 4) * (seed // 8 % 2)
        return judged(lived(site, seed, events), restores)


def test_random_histories_of_groups_restore_as_they_were_or_are_refused(tmp_path: Path) -> None:
    restored = sum(restored_of(tmp_path / str(seed), seed, 8, 2) for seed in (5, 11, 14, 29))
    assert restored >= 4, "too many refusals for the histories to prove anything"


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("batch", range(10))
def test_many_random_histories_of_groups_restore_as_they_were_or_are_refused(
    tmp_path: Path, batch: int
) -> None:
    restored = sum(
        restored_of(tmp_path / str(number), 1000 + 20 * batch + number, 25, 5)
        for number in range(20)
    )
    assert restored >= 30
