"""Sites that ship their log continuously: a writer who knows what was committed when, a server
that burns down, and a restore from what is left."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import psycopg

from sqlbak.model import ShippedLog
from sqlbak.vault.file_store import FileStore
from sqlbak.vault.tail import list_tail
from tests.acceptance.site import Site, kill_hard
from tests.acceptance.test_run import until
from tests.engines.postgres.clusters import (
    Cluster,
    available_majors,
    program_directory,
    run_as_server_user,
    scratch_directory,
)

__all__ = [
    "NEWEST",
    "POLICY",
    "Writer",
    "covered",
    "destroy",
    "restored",
    "shipped",
    "shipping",
    "until_covered",
    "until_more_than",
]

POLICY = (
    'full: "0 1 * * *"\n    log: 24h\n    log_shipping: continuous\n    log_shipping_interval: 1'
)
NEWEST = available_majors()[-1]


@contextmanager
def shipping(site: Site) -> Iterator[subprocess.Popen[str]]:
    """The scheduler, as a process."""
    process = site.start("run", "--tick", "0.2", "--grace", "10")
    try:
        yield process
    finally:
        if process.poll() is None:
            kill_hard(process)


def shipped(site: Site) -> list[ShippedLog]:
    """All pieces in the vault, by position."""
    found: list[ShippedLog] = []
    for folder in (site.root / "vault").glob("items/*"):
        found += list_tail(FileStore(site.root / "vault"), folder.name).pieces
    return found


def covered(site: Site) -> datetime | None:
    """Up to when the pieces in the vault cover, if they do."""
    return max((one.covers_until for one in shipped(site) if one.covers_until), default=None)


def until_covered(site: Site, instant: datetime) -> None:
    """Wait until shipped log covers ``instant``."""
    until(lambda: (at := covered(site)) and at > instant)


def until_more_than(site: Site, count: int) -> None:
    """Wait until there are more pieces than that."""
    until(lambda: len(shipped(site)) > count)


@dataclass
class Writer:
    """Commits one row after another; notes of each when, on the server's clock, it was committed
    and when its client knew."""

    cluster: Cluster
    committed: dict[int, datetime] = field(default_factory=dict)
    known: dict[int, datetime] = field(default_factory=dict)
    _leaving: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def prepare(self) -> None:
        self.cluster.execute("CREATE TABLE IF NOT EXISTS marks (id int PRIMARY KEY, filler text)")

    def write(self, count: int) -> None:
        with self.cluster.connect() as connection:
            for _ in range(count):
                self.write_one(connection)

    def write_one(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        number = len(self.committed) + 1
        connection.execute(
            "INSERT INTO marks VALUES (%s, repeat('x', %s))", (number, 50 + number % 700)
        )
        row = connection.execute(
            "SELECT pg_xact_commit_timestamp(xmin), clock_timestamp() FROM marks WHERE id = %s",
            (number,),
        ).fetchone()
        assert row is not None
        self.committed[number], self.known[number] = row

    def __enter__(self) -> Self:
        def work() -> None:
            with contextlib.suppress(psycopg.OperationalError), self.cluster.connect() as session:
                while not self._leaving.is_set():
                    self.write_one(session)

        self._thread = threading.Thread(target=work)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leaving.set()
        assert self._thread is not None
        self._thread.join()

    def until(self, instant: datetime) -> set[int]:
        """The rows that a restore to ``instant`` has."""
        return {number for number, at in self.committed.items() if at <= instant}


def destroy(cluster: Cluster) -> None:
    """kill -9 of the whole server, and its disk is gone."""
    postmaster = int((cluster.data_directory / "postmaster.pid").read_text().split()[0])
    children = subprocess.run(
        ["ps", "--no-headers", "-o", "pid", "--ppid", str(postmaster)],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split()
    for pid in (postmaster, *map(int, children)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    while True:
        try:
            os.kill(postmaster, 0)
        except ProcessLookupError:
            break
        if Path(f"/proc/{postmaster}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.02)
    shutil.rmtree(cluster.data_directory)


@contextmanager
def restored(site: Site, to: str, major: int) -> Iterator[tuple[set[int], Any]]:
    """The rows of a started restore, and the restore's answer."""
    programs = program_directory(major)
    with scratch_directory() as place:
        target = place / "restored"
        answer = site.restore(to, target, "--start", "--pg-bin", programs).ok()
        assert answer["proven"] is True
        try:
            with psycopg.connect(answer["connection"]) as session:
                rows = {row[0] for row in session.execute("SELECT id FROM marks")}
            yield rows, answer
        finally:
            stop = next(step for step in answer["next_steps"] if step.startswith("Stop it with"))
            run_as_server_user([*stop.partition(": ")[2].split(), "-m", "immediate"])
