"""Continuous shipping as an operator relies on it: the server burns down, the vault remains."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self

import psycopg
import pytest

from sqlbak.model import ShippedLog
from sqlbak.vault.file_store import FileStore
from sqlbak.vault.tail import list_tail
from tests.acceptance.site import Site, kill_hard
from tests.acceptance.test_run import end, manifests, until
from tests.engines.postgres.clusters import (
    Cluster,
    available_majors,
    give_to_server_user,
    program_directory,
    run_as_server_user,
    running_cluster,
    scratch_directory,
)

pytestmark = pytest.mark.postgres

POLICY = (
    'full: "0 1 * * *"\n    log: 24h\n    log_shipping: continuous\n    log_shipping_interval: 1'
)
NEWEST = available_majors()[-1]


@contextmanager
def shipping(site: Site) -> Iterator[subprocess.Popen[str]]:
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
                self._one(connection)

    def _one(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
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
                    self._one(session)

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


@pytest.fixture(params=[16, NEWEST], ids=lambda major: f"pg{major}")
def source(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster of one test's own, to be destroyed."""
    with running_cluster(request.param, settings={"track_commit_timestamp": "on"}) as cluster:
        yield cluster


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[Cluster, Site]]:
    """The newest version, with a site."""
    with running_cluster(NEWEST, settings={"track_commit_timestamp": "on"}) as cluster:
        yield cluster, Site(tmp_path, cluster.dsn(), policy=POLICY)


def test_a_destroyed_server_loses_no_more_than_what_was_committed_in_the_last_interval(
    source: Cluster, tmp_path: Path
) -> None:
    site = Site(tmp_path, source.dsn(), policy=POLICY)
    writer = Writer(source)
    writer.prepare()
    with shipping(site) as process:
        until(lambda: shipped(site))
        began = source.execute("SELECT clock_timestamp()")[0][0]
        with writer:
            until(lambda: (at := covered(site)) and at > began + timedelta(seconds=4))
            time.sleep(random.uniform(0, 1))
            destroy(source)
        killed_at = max(writer.known.values())
        events = end(process)
    assert not [event for event in events if "defect" in event["event"]]

    last = covered(site)
    assert last is not None
    # What a client knew to be committed when the last piece was cut is in it; how much comes
    # after is decided by the interval alone.
    assert {n for n, at in writer.known.items() if at <= last} <= writer.until(last)
    marks = sorted(one.covers_until for one in shipped(site) if one.covers_until)
    in_burst = [at for at in marks if at > began]
    assert len(in_burst) >= 4
    assert all(
        later - earlier >= timedelta(seconds=0.9) for earlier, later in itertools.pairwise(in_burst)
    )
    print(f"lost: {(killed_at - last).total_seconds():.3f} s")

    assert site.windows()[-1][1] == last
    assert [point["type"] for point in site.run("list").ok()["points"]] == ["full"]
    plan = site.run("plan", "orders").ok()
    assert [step["type"] for step in plan["steps"]] == ["full", "tail"]
    assert any("log shipped continuously up to" in note for note in plan["notes"])
    with restored(site, "latest", source.major) as (rows, answer):
        assert rows == writer.until(last)
        assert datetime.fromisoformat(answer["stop_at"]) == last
        newest = max(writer.committed[row] for row in rows)
        assert newest <= last
    # An instant between two commits in the middle of the tail.
    middle = in_burst[1] + timedelta(microseconds=1)
    exact = max(at for at in writer.committed.values() if at <= middle)
    with restored(site, exact.isoformat(), source.major) as (rows, _):
        assert rows == writer.until(exact)
    beyond = site.run("plan", "orders", "--to", (last + timedelta(seconds=1)).isoformat())
    assert beyond.code == 3
    assert datetime.fromisoformat(beyond.document["error"]["nearest"][-1]) == last


def test_idle_time_stays_reachable_without_a_transaction_written_for_it(
    own: tuple[Cluster, Site],
) -> None:
    cluster, site = own
    Writer(cluster).prepare()
    with shipping(site) as process:
        until(lambda: shipped(site))
        until(lambda: len({one.last_lsn for one in shipped(site)[-4:]}) == 1)
        standing = cluster.execute("SELECT pg_current_wal_insert_lsn()")[0][0]
        first = covered(site)
        assert first is not None
        until(lambda: (at := covered(site)) and at > first + timedelta(seconds=4))
        assert cluster.execute("SELECT pg_current_wal_insert_lsn()")[0][0] == standing
        end(process)
    assert site.windows()[-1][1] == covered(site)


def test_what_only_an_asynchronous_commit_wrote_is_covered_too(own: tuple[Cluster, Site]) -> None:
    cluster, site = own
    cluster.configure({"wal_writer_delay": "10s", "wal_writer_flush_after": "1GB"})
    cluster.restart()
    writer = Writer(cluster)
    writer.prepare()
    with shipping(site) as process:
        until(lambda: shipped(site))
        with cluster.connect() as session:
            session.execute("SET synchronous_commit = off")
            writer._one(session)
        known = writer.known[1]
        until_covered(site, known)
        destroy(cluster)
        end(process)
    with restored(site, "latest", NEWEST) as (rows, _):
        assert rows == {1}


def test_a_killed_shipper_leaves_no_gap_and_the_next_log_backup_leaves_no_tail(
    own: tuple[Cluster, Site],
) -> None:
    cluster, site = own
    writer = Writer(cluster)
    writer.prepare()
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    moments = random.Random(seed)
    for _ in range(3):
        with shipping(site) as process:
            until(lambda: manifests(site))
            before = len(shipped(site))
            with writer:
                until_more_than(site, before)
                time.sleep(moments.uniform(0, 1.5))
            kill_hard(process)
            kept = shipped(site)
            assert kept
            assert site.windows()[-1][1] == covered(site)
    point = site.backup("log")
    assert point["type"] == "log"
    assert point["last_lsn"] >= kept[-1].last_lsn
    assert shipped(site) == []
    writer.write(5)
    second = site.backup("log")
    assert (second["type"], second["first_lsn"]) == ("log", point["last_lsn"])
    assert len(site.windows()) == 1
    with restored(site, "latest", NEWEST) as (rows, _):
        assert rows == set(writer.committed)


def test_of_two_schedulers_one_ships_and_the_other_takes_over_when_it_dies(
    own: tuple[Cluster, Site],
) -> None:
    cluster, site = own
    writer = Writer(cluster)
    writer.prepare()
    with shipping(site) as first:
        until(lambda: shipped(site))
        with shipping(site) as second:
            time.sleep(3.0)
            writer.write(10)
            kill_hard(first)
            writer.write(10)
            known = max(writer.known.values())
            until_covered(site, known)
            events = end(second)
    names = [event["event"] for event in events]
    assert names.index("log shipping left to another") < names.index("log shipping started")
    pieces = [one for one in shipped(site) if one.first_lsn < one.last_lsn]
    assert len({one.run for one in pieces}) == 1
    for one, following in itertools.pairwise(pieces):
        assert following.first_lsn == one.last_lsn
    with restored(site, "latest", NEWEST) as (rows, _):
        assert rows == set(writer.committed)


def test_a_damaged_piece_is_refused_with_what_is_still_reachable(
    own: tuple[Cluster, Site],
) -> None:
    cluster, site = own
    writer = Writer(cluster)
    writer.prepare()
    with shipping(site) as process:
        until(lambda: shipped(site))
        with writer:
            until(lambda: sum(one.last_lsn > one.first_lsn for one in shipped(site)) >= 4)
        end(process)
    pieces = [one for one in shipped(site) if one.last_lsn > one.first_lsn]
    victim = pieces[2]
    (file,) = (site.root / "vault").glob(f"items/*/tail/n1/{victim.name}")
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.chmod(0o600)
    file.write_bytes(content)
    target = site.root / "target"
    answer = site.restore("latest", target)
    assert answer.code == 3
    assert "damaged" in answer.document["error"]["message"]
    reachable = datetime.fromisoformat(answer.document["error"]["nearest"][-1])
    assert reachable == pieces[1].covers_until
    assert not target.exists()
    with restored(site, reachable.isoformat(), NEWEST) as (rows, _):
        assert rows == writer.until(reachable)
    # The server is still there, so the next log backup makes all of it good.
    assert site.backup("log")["type"] == "log"
    assert shipped(site) == []
    with restored(site, "latest", NEWEST) as (rows, _):
        assert rows == set(writer.committed)


def test_shipping_goes_on_over_a_restart_and_over_log_backups(own: tuple[Cluster, Site]) -> None:
    cluster, site = own
    writer = Writer(cluster)
    writer.prepare()
    with shipping(site) as process:
        until(lambda: shipped(site))
        for _ in range(2):
            writer.write(5)
            cluster.restart()
            writer.write(5)
            known = max(writer.known.values())
            until_covered(site, known)
            assert site.backup("log")["type"] == "log"
        writer.write(5)
        known = max(writer.known.values())
        until_covered(site, known)
        destroy(cluster)
        end(process)
    plan = site.run("plan", "orders").ok()
    assert [step["type"] for step in plan["steps"]] == ["full", "log", "log", "tail"]
    with restored(site, "latest", NEWEST) as (rows, _):
        assert rows == set(writer.committed)


def test_without_its_slot_nothing_is_shipped_and_an_event_says_so(
    own: tuple[Cluster, Site],
) -> None:
    cluster, site = own
    site.backup("full")
    cluster.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
    with shipping(site) as process:
        time.sleep(3.0)
        events = end(process)
    assert shipped(site) == []
    told = [event for event in events if event["event"] == "log shipping interrupted"]
    assert [event["code"] for event in told] == ["log_chain_broken"]


def test_a_promotion_stops_shipping_until_the_next_log_backup_has_followed_it(
    own: tuple[Cluster, Site],
) -> None:
    cluster, site = own
    writer = Writer(cluster)
    writer.prepare()
    with shipping(site) as process:
        until(lambda: shipped(site))
        writer.write(5)
        cluster.stop()
        (cluster.data_directory / "standby.signal").touch()
        give_to_server_user(cluster.data_directory)
        cluster.start()
        cluster.promote()
        writer.write(5)
        time.sleep(2.0)
        assert {one.lineage for one in shipped(site)} == {"1"}
        assert site.backup("log")["lineage"] == "2"
        writer.write(5)
        known = max(writer.known.values())
        until_covered(site, known)
        destroy(cluster)
        end(process)
    assert {one.lineage for one in shipped(site)} == {"2"}
    with restored(site, "latest", NEWEST) as (rows, _):
        assert rows == set(writer.committed)


def test_what_was_shipped_of_a_server_that_was_put_back_is_kept_and_never_mixed(
    own: tuple[Cluster, Site],
) -> None:
    cluster, site = own
    writer = Writer(cluster)
    writer.prepare()
    site.backup("full")
    writer.write(5)
    cluster.stop()
    snapshot = cluster.home / "snapshot"
    shutil.copytree(cluster.data_directory, snapshot, symlinks=True)
    cluster.start()
    with shipping(site) as process:
        writer.write(20)
        known = max(writer.known.values())
        until_covered(site, known)
        end(process)
    lost = covered(site)
    assert lost is not None
    cluster.stop()
    shutil.rmtree(cluster.data_directory)
    snapshot.rename(cluster.data_directory)
    give_to_server_user(cluster.data_directory)
    cluster.start()
    kept = shipped(site)
    cluster.execute("CREATE TABLE other AS SELECT generate_series(1, 100000)")
    with shipping(site) as process:
        time.sleep(2.0)
        assert shipped(site) == kept
        answer = site.run("backup", "orders", "--type", "log").ok()
        assert answer["point"]["type"] == "full"
        assert "put back to an older state" in answer["notes"][0]
        until(lambda: len(shipped(site)) > len(kept))
        cluster.execute("INSERT INTO marks VALUES (1000, '')")
        known = cluster.execute("SELECT clock_timestamp()")[0][0]
        until_covered(site, known)
        end(process)
    assert site.backup("log")["type"] == "log"
    assert shipped(site) == kept
    with restored(site, lost.isoformat(), NEWEST) as (rows, _):
        assert rows == writer.until(lost) == set(range(1, 26))
    with restored(site, "latest", NEWEST) as (rows, _):
        assert rows == {1, 2, 3, 4, 5, 1000}


def test_backups_of_the_rebuilt_cluster_leave_the_tail_of_the_destroyed_one(
    own: tuple[Cluster, Site],
) -> None:
    cluster, site = own
    writer = Writer(cluster)
    writer.prepare()
    with shipping(site) as process:
        until(lambda: shipped(site))
        writer.write(10)
        known = max(writer.known.values())
        until_covered(site, known)
        destroy(cluster)
        end(process)
    kept, last = shipped(site), covered(site)
    assert last is not None
    earlier = writer.committed[5]
    with restored(site, earlier.isoformat(), NEWEST) as (_, answer):
        rebuilt = Site(site.root, answer["connection"], policy=POLICY)
        assert rebuilt.backup("log")["type"] == "full"
        assert rebuilt.backup("log")["type"] == "log"
    assert shipped(site) == kept
    with restored(site, last.isoformat(), NEWEST) as (rows, _):
        assert rows == set(writer.committed)


def test_a_full_taken_meanwhile_is_a_nearer_base_for_what_was_shipped_behind_it(
    own: tuple[Cluster, Site],
) -> None:
    cluster, site = own
    writer = Writer(cluster)
    writer.prepare()
    with shipping(site) as process:
        until(lambda: shipped(site))
        writer.write(5)
        for _ in range(20):
            cluster.execute(
                "SELECT pg_logical_emit_message(false, 'test', string_agg(md5(random()::text), ''))"
                " FROM generate_series(1, 30000)"
            )
        nearer = site.backup("full")
        writer.write(5)
        until_covered(site, max(writer.known.values()))
        destroy(cluster)
        end(process)
    plan = site.run("plan", "orders").ok()
    assert [step["type"] for step in plan["steps"]] == ["full", "tail"]
    assert plan["steps"][0]["point"] == nearer["id"]
    with restored(site, "latest", NEWEST) as (rows, _):
        assert rows == set(writer.committed)


def test_shipping_can_run_by_itself_and_ends_cleanly_when_asked(own: tuple[Cluster, Site]) -> None:
    cluster, site = own
    Writer(cluster).prepare()
    site.backup("full")
    process = site.start("ship", "orders", "--interval", "1")
    try:
        until(lambda: len(shipped(site)) > 2)
        events = end(process)
    finally:
        if process.poll() is None:
            kill_hard(process)
    assert [event["event"] for event in events] == ["log shipping started", "stopped"]
    assert site.windows()[-1][1] == covered(site)
