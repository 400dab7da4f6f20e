"""Whatever happened to a database, an instant is restored exactly as it was, or refused.

The oracle is the database itself: what it held at each moment of its life is written down as it
lives, across differentials, foreign backups, switches of the recovery model, renames, restores in
place and changes of the clocks.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from sqlbak.engines.port import TailChoice
from sqlbak.errors import (
    EngineError,
    LineageAmbiguous,
    NameNeeded,
    Refused,
    SqlbakError,
)
from sqlbak.restore.item_windows import item_windows
from tests.sqlserver.site import INSTANCE, SERVER_FOLDER, Site
from tests.sqlserver_simulator.instance import Unknowns

# Half of the histories run over the hour that Berlin's clocks show twice.
FOLD = datetime(2026, 10, 25, 1, tzinfo=UTC)
# What nobody has measured on a real server, either way.
ANSWERS: list[dict[str, bool]] = [
    {},
    {"plain_recovery_forks": False},
    {"empty_log_restores": False, "warning_4322_comes_last": True},
    {"first_log_after_differential_begins_chain": False, "done_per_message": False},
    {"status_of_restoring_is_null": True},
]
NAMES = ["Sales", "a]b", "O'Brien", "sales", " lead"]
EVENTS = {
    "insert": 10,
    "full": 2,
    "differential": 3,
    "log": 8,
    "copy_only": 1,
    "foreign_full": 1,
    "foreign_log": 1,
    "simple": 1,
    "bulk": 1,
    "rename": 1,
    "restore_in_place": 1,
    "add_file": 1,
    "idle": 2,
}


class Life:
    """One database and all that it ever held."""

    def __init__(self, site: Site, dice: random.Random) -> None:
        self.site = site
        self.dice = dice
        self.name = "Sales"
        self.number = 0
        self.told: list[str] = []
        site.simulator.create_database(self.name)
        self.instants = [site.simulator.clock.utc() - timedelta(days=1)]
        self.states: list[list[str]] = [[]]

    def now(self) -> datetime:
        return self.site.simulator.clock.utc()

    def note(self, at: datetime | None = None) -> None:
        """Write down what there is now. A commit counts from the tick of 1/300 second that the log
        gives it."""
        moment = at or self.now()
        tick = -(-(moment.microsecond * 300 // 1_000_000) * 1_000_000 // 300)
        self.instants.append(max(moment.replace(microsecond=tick), self.instants[-1]))
        self.states.append(self.site.rows(self.name))

    def at(self, instant: datetime) -> list[str]:
        return self.states[bisect_right(self.instants, instant) - 1]

    def pass_time(self) -> None:
        self.site.advance(
            seconds=self.dice.choice([1, 20, 300, 900, 1700]),
            microseconds=self.dice.randrange(1_000_000),
        )

    def live(self, event: str) -> None:
        self.told.append(f"{self.now():%d %H:%M:%S.%f} {event}")
        getattr(self, event)()
        self.pass_time()

    def insert(self) -> None:
        for _ in range(self.dice.randrange(1, 4)):
            self.number += 1
            self.site.simulator.insert(self.name, f"row {self.number}")
            self.note()
            self.site.advance(milliseconds=self.dice.choice([0, 1, 3, 7, 900, 60_000]))

    def backup(self, kind: str, **options) -> None:
        try:
            self.site.backup_outcome(self.name, kind, **options)
        except SqlbakError as error:
            assert isinstance(error, EngineError | Refused), error
            self.told.append(f"    {error.message}")

    def full(self) -> None:
        self.backup("full")

    def differential(self) -> None:
        self.backup("differential")

    def log(self) -> None:
        self.backup("log")

    def copy_only(self) -> None:
        self.backup("full", is_copy_only=True)

    def execute(self, statement: str) -> None:
        try:
            self.site.simulator.execute(statement)
        except Exception as error:
            self.told.append(f"    {error}")

    def foreign_full(self) -> None:
        self.execute(f"BACKUP DATABASE [{self.name}] TO DISK = N'{SERVER_FOLDER}/foreign.bak'")

    def foreign_log(self) -> None:
        self.execute(f"BACKUP LOG [{self.name}] TO DISK = N'NUL'")

    def simple(self) -> None:
        self.execute(f"ALTER DATABASE [{self.name}] SET RECOVERY SIMPLE")
        if self.dice.random() < 0.5:
            self.insert()
            self.backup("log")
        self.execute(f"ALTER DATABASE [{self.name}] SET RECOVERY FULL")

    def bulk(self) -> None:
        self.execute(f"ALTER DATABASE [{self.name}] SET RECOVERY BULK_LOGGED")
        self.number += 1
        self.site.simulator.bulk_insert(self.name, f"bulk {self.number}")
        self.note()
        self.insert()
        self.execute(f"ALTER DATABASE [{self.name}] SET RECOVERY FULL")

    def rename(self) -> None:
        new = self.dice.choice(NAMES)
        old_quoted, new_quoted = (name.replace("]", "]]") for name in (self.name, new))
        self.execute(f"ALTER DATABASE [{old_quoted}] MODIFY NAME = [{new_quoted}]")
        if self.site.simulator.instance.find(new) is not None:
            self.name = new

    def restore_in_place(self) -> None:
        tail = self.dice.choice([TailChoice.BACKUP, TailChoice.DISCARD])
        if tail is TailChoice.BACKUP:
            self.backup("log")
        to = self.instants[0] + (self.now() - self.instants[0]) * self.dice.random()
        to = max(to, self.instants[1]) if len(self.instants) > 1 else to
        try:
            self.site.restore(self.item(), to, self.name, replaces=True, tail=TailChoice.DISCARD)
        except (Refused, NameNeeded) as error:
            self.told.append(f"    {error.message}")
            return
        assert self.site.rows(self.name) == self.at(to), self.told
        self.told.append(f"    to {to:%d %H:%M:%S.%f}")
        self.note()

    def item(self) -> str:
        """The name under which the vault has it."""
        with self.site.fleet() as fleet:
            for name in (self.name, *NAMES):
                try:
                    if fleet.stored_items(f"{INSTANCE}/{name}"):
                        return name
                except SqlbakError:
                    continue
        raise AssertionError(self.told)

    def add_file(self) -> None:
        self.number += 1
        quoted = self.name.replace("]", "]]")
        self.execute(
            f"ALTER DATABASE [{quoted}] ADD FILE (NAME = N'more{self.number}', "
            f"FILENAME = N'/var/opt/mssql/data/more{self.number}.ndf')"
        )

    def idle(self) -> None:
        self.site.advance(minutes=20)


def lived(make_site: Callable[..., Site], seed: int, events: int, **unknowns: bool) -> Life:
    dice = random.Random(seed)
    site = make_site("Europe/Berlin", unknowns=Unknowns(**unknowns))
    if seed % 4 > 1:
        site.encrypt()
    start = FOLD - timedelta(hours=2) if seed % 2 else FOLD - timedelta(days=30)
    site.simulator.clock.set(start + timedelta(seconds=dice.randrange(3600)))
    life = Life(site, dice)
    life.live("full")
    names, weights = list(EVENTS), list(EVENTS.values())
    for event in dice.choices(names, weights, k=events):
        life.live(event)
    life.live("log")
    return life


def in_a_window(life: Life, instant: datetime) -> bool:
    with life.site.fleet() as fleet:
        return any(
            window.start <= instant <= window.end
            for stored in fleet.stored_items(None)
            for window in item_windows(stored)
        )


def judged(life: Life, restores: int) -> int:
    """Restore random instants; how many were restored."""
    dice, done = life.dice, 0
    for number in range(restores):
        around = dice.choice(life.instants[1:] or life.instants)
        instant = around + timedelta(
            microseconds=dice.choice([-3334, -1, 0, 1, 3333, 900_000, 40_000_000])
        )
        copy = f"Copy{number}"
        try:
            life.site.restore(life.item(), instant, copy)
        except (LineageAmbiguous, NameNeeded):
            continue
        except Refused as refused:
            assert not in_a_window(life, instant), (instant, refused.message, life.told)
            assert life.site.state(copy) is None
            continue
        expected = life.at(instant)
        assert life.site.rows(copy) == expected, (instant, life.told)
        assert life.site.state(copy) == "ONLINE"
        life.site.drop(copy)
        done += 1
    return done


def test_random_histories_restore_as_they_were_or_are_refused(make_site) -> None:
    restored = sum(judged(lived(make_site, seed, 8), 2) for seed in range(12))
    assert restored >= 8, "too many refusals for the histories to prove anything"


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("batch", range(10))
def test_many_random_histories_restore_as_they_were_or_are_refused(make_site, batch: int) -> None:
    unknowns = ANSWERS[batch % len(ANSWERS)]
    restored = sum(
        judged(lived(make_site, 1000 + 20 * batch + number, 25, **unknowns), 6)
        for number in range(20)
    )
    assert restored >= 30
