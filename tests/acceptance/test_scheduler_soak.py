"""Two schedulers over four clusters under load, killed, stopped and ended at random, while their
clock runs fast: no window gets a gap, no item is ever further behind than two intervals, and
memory stays where it was."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sqlbak.fleet import Fleet
from sqlbak.model import PointType
from sqlbak.policy.loading import load_configuration
from tests.acceptance.markers import Writer
from tests.engines.postgres.clusters import Cluster, available_majors, running_cluster

pytestmark = [pytest.mark.postgres, pytest.mark.soak, pytest.mark.timeout(0)]

CLUSTERS = 4
FACTOR = 30.0
INTERVAL_SECONDS = 15 * 60 / FACTOR
SETTLED = 0.85
"""Part of the time after which memory is watched."""


@dataclass
class Scheduler:
    """A process that is started again whenever it was ended; ``lives``: (moment,
    bytes of memory) of each of its processes."""

    command: list[str]
    diary: Path
    environment: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    lives: list[list[tuple[float, int]]] = field(default_factory=list)

    def start(self) -> None:
        with self.diary.open("ab") as diary:
            self.process = subprocess.Popen(self.command, stderr=diary, env=self.environment)
        self.lives.append([])

    def measure(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        try:
            pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            return
        self.lives[-1].append((time.monotonic(), pages * os.sysconf("SC_PAGE_SIZE")))

    def end(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(number)
            self.process.wait()


@pytest.fixture
def clusters() -> Iterator[list[Cluster]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(running_cluster(available_majors()[-1])) for _ in range(CLUSTERS)
        ]


def write_policies(folder: Path, clusters: list[Cluster], full_at: datetime) -> Path:
    """A daily full at that instant, in a zone in which the day begins right before it: whatever was
    taken earlier was taken on another day."""
    hours = full_at.hour if full_at.hour <= 12 else full_at.hour - 24
    zone = f"Etc/GMT{hours:+d}" if hours else "UTC"
    cron = f"{full_at.minute} 0 * * *"
    lines = [
        "vaults:",
        f'  main: {{url: "file://{folder}/vault", redundancy: local}}',
        "policies:",
        f'  gold: {{vault: main, timezone: {zone}, full: "{cron}", log: 15m}}',
        "instances:",
        *(
            f'  db{number}: {{engine: postgres, dsn: "{cluster.dsn()}"}}'
            for number, cluster in enumerate(clusters)
        ),
    ]
    (folder / "policies").mkdir()
    file = folder / "policies" / "fleet.yaml"
    file.write_text("\n".join(lines) + "\n")
    return file


def behind(fleet: Fleet) -> dict[str, float]:
    """How much work losing each server now would cost, in seconds of the real clock."""
    found: dict[str, float] = {}
    now = datetime.now(UTC)
    for name in fleet.instances():
        covered = [point.covers_until for point in fleet.points(name) if point.covers_until]
        if covered:
            found[name] = (now - max(covered)).total_seconds()
    return found


def test_two_schedulers_that_are_killed_at_random_leave_no_gap_and_fall_behind_nowhere(
    tmp_path: Path, clusters: list[Cluster]
) -> None:
    minutes = min(float(os.environ.get("SQLBAK_SOAK_MINUTES") or 60) / 2, 30)
    seconds = minutes * 60
    started = time.time()
    # A full is due a third of the way through, shortly after an hour of the clock.
    third = datetime.fromtimestamp(started + seconds / 3 * FACTOR, UTC)
    full_at = third.replace(minute=5) + timedelta(hours=1)
    config = write_policies(tmp_path, clusters, full_at)
    command = [
        sys.executable, "-m", "tests.acceptance.hurried_scheduler",
        str(config.parent), str(FACTOR), str(started),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    schedulers = [Scheduler(command, tmp_path / f"diary{n}", environment) for n in range(2)]
    chance = random.Random(4711)
    worst: dict[str, float] = {}
    deeds = 0
    with ExitStack() as stack:
        for cluster in clusters:
            stack.enter_context(Writer(cluster, pause_seconds=0.02))
        fleet = stack.enter_context(Fleet(load_configuration(config).configuration))
        for scheduler in schedulers:
            scheduler.start()
            stack.callback(scheduler.end, signal.SIGKILL)
        waiting = time.monotonic() + 240
        while len(behind(fleet)) < CLUSTERS:
            assert time.monotonic() < waiting, "the first fulls are not taken"
            time.sleep(1)
        begun = time.monotonic()
        next_deed = begun + 20
        pending: list[tuple[float, Scheduler, str]] = []
        while time.monotonic() - begun < seconds:
            time.sleep(1)
            for name, age in behind(fleet).items():
                worst[name] = max(worst.get(name, 0.0), age)
            for scheduler in schedulers:
                scheduler.measure()
            for due in [one for one in pending if one[0] <= time.monotonic()]:
                pending.remove(due)
                if due[2] == "start":
                    due[1].start()
                elif due[1].process is not None:
                    due[1].process.send_signal(signal.SIGCONT)
            quiet = time.monotonic() - begun > seconds * 0.6  # memory is watched at the end
            if time.monotonic() < next_deed or pending or quiet:
                continue
            victim = chance.choice(schedulers)
            deed = chance.choice(["kill", "kill", "end", "stop"])
            deeds += 1
            again = time.monotonic() + chance.uniform(1, 8)
            if deed == "stop":
                assert victim.process is not None
                victim.process.send_signal(signal.SIGSTOP)
                pending.append((again, victim, "continue"))
            else:
                victim.end(signal.SIGKILL if deed == "kill" else signal.SIGTERM)
                pending.append((again, victim, "start"))
            next_deed = again + chance.uniform(3, 12)
        for scheduler in schedulers:
            scheduler.end(signal.SIGTERM)
        points = {name: fleet.points(name) for name in fleet.instances()}
        windows = windows_of(fleet)
    # Fulls are over by then, nobody was killed since, and each has taken backups.
    settled = [
        [size for at, size in life if at - begun > seconds * SETTLED]
        for scheduler in schedulers
        for life in scheduler.lives
    ]
    largest = max(size for one in schedulers for life in one.lives for _, size in life)
    growth = [(sizes[-1] - sizes[0]) / sizes[0] for sizes in settled if len(sizes) > 10]
    print(
        f"\n{deeds} deeds; furthest behind {max(worst.values()):.1f} s of {INTERVAL_SECONDS:.0f} s;"
        f" largest {largest >> 20} MiB, growth {[f'{one:+.1%}' for one in growth]};"
        f" points { ({name: len(found) for name, found in points.items()}) }"
    )
    for sizes in filter(None, settled):
        print("memory in MiB, from settled to the end:", [size >> 20 for size in sizes[::10]])
    assert deeds > 3
    assert max(worst.values()) <= 2 * INTERVAL_SECONDS, worst
    for name, found in points.items():
        fulls = [point for point in found if point.type is PointType.FULL]
        assert len(fulls) == 2, (name, len(fulls))
        assert len(windows[name]) == 1, (name, windows[name])
        slots = (windows[name][0][1] - windows[name][0][0]) / timedelta(seconds=INTERVAL_SECONDS)
        logs = [point for point in found if point.type is PointType.LOG]
        assert len(logs) >= slots - 2
    assert largest < 256 << 20
    assert growth
    # A short run is over before each has taken its share of backups.
    assert seconds < 900 or max(growth) < 0.1, growth


def windows_of(fleet: Fleet) -> dict[str, list[tuple[datetime, datetime]]]:
    from sqlbak.restore.windows import windows

    found: dict[str, list[tuple[datetime, datetime]]] = {}
    for stored in fleet.stored_items(None):
        spans = [(span.start, span.end) for span in windows(stored.catalog())]
        found.setdefault(stored.item.name, []).extend(spans)
    return found
