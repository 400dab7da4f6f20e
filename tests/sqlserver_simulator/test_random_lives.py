"""Whatever is done to a database, a chain restored by the plain rule gives what was committed."""

from __future__ import annotations

import random
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from .media import BackupSet
from .rules import Rules
from .simulator import Simulator

START = datetime(2026, 5, 1, tzinfo=UTC)


class Life:
    """Random changes and backups of one database, at a pace of seconds."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.simulator = Simulator({"/backup": folder})
        self.simulator.clock.set(START)
        self.simulator.create_database("shop", rows=["first"])
        self.rules = Rules(self.simulator)
        self.taken: list[tuple[str, BackupSet]] = []
        self.written = 0
        self._take(self.rules.full())

    def _take(self, path: str) -> None:
        self.taken.append((path, self.rules.header(path)))

    def step(self) -> None:
        self.simulator.clock.advance(seconds=self.random.choice([1, 2, 5]))
        kind = self.random.choices(
            ["insert", "update", "delete", "full", "copy", "differential", "log", "copied log"],
            [10, 3, 3, 1, 1, 2, 5, 1],
        )[0]
        if kind == "insert":
            self.written += 1
            self.simulator.insert("shop", *(f"{self.written}.{n}" for n in range(2)))
        elif kind == "update":
            self.simulator.execute("UPDATE shop.dbo.t SET v = v + N'!' WHERE id % 3 = 1")
        elif kind == "delete":
            self.simulator.execute("DELETE FROM shop.dbo.t WHERE id % 7 = 3")
        elif kind == "full":
            self._take(self.rules.full())
        elif kind == "copy":
            self._take(self.rules.full(options=", COPY_ONLY"))
        elif kind == "differential":
            self._take(self.rules.differential())
        elif kind == "log":
            self._take(self.rules.log())
        else:
            self._take(self.rules.log(options=", COPY_ONLY"))

    def restored(self, moment: datetime) -> list[str] | None:
        """A random full before the instant, perhaps its newest differential, then every log that
        fits until one stops; None where no log reaches so far."""
        local = moment.replace(tzinfo=None)
        fulls = [each for each in self.taken if each[1].type == "D"]
        fulls = [each for each in fulls if each[1].finished_at and each[1].finished_at <= local]
        if not fulls:
            return None
        path, base = self.random.choice(fulls)
        self.rules.restore(path, options="NORECOVERY, REPLACE")
        position = base.last_lsn
        for path, facts in reversed(self.taken):
            fits = facts.differential_base_guid == base.backup_set_uuid
            if (
                fits
                and facts.finished_at
                and facts.finished_at <= local
                and self.random.random() < 0.7
            ):
                self.rules.restore(path)
                position = facts.last_lsn
                break
        stop = local.isoformat(timespec="milliseconds")
        for path, facts in self.taken:
            if facts.type != "L" or not facts.first_lsn <= position < facts.last_lsn:
                continue
            self.rules.apply(path, options=f"NORECOVERY, STOPAT = '{stop}'")
            redo = self.simulator.database("copy").redo
            assert redo is not None
            position = redo.lsn
            if redo.stopped:
                return self.rules.recover()
        return None


def live(folder: Path, seed: int, steps: int, restores: int) -> int:
    life = Life(folder, seed)
    for _ in range(steps):
        life.step()
    end = life.simulator.clock.utc()
    reached = 0
    for _ in range(restores):
        seconds = life.random.randrange(int((end - START).total_seconds()))
        moment = START + timedelta(seconds=seconds)
        rows = life.restored(moment)
        if rows is not None:
            reached += 1
            assert rows == life.simulator.rows_at("shop", moment), (seed, moment)
    return reached


def test_restores_of_random_lives_give_what_was_committed() -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert sum(live(Path(folder), seed, 40, 5) for seed in range(4)) >= 5


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 130))
def test_restores_of_many_random_lives_give_what_was_committed(seed: int, tmp_path: Path) -> None:
    live(tmp_path, seed, 300, 60)
