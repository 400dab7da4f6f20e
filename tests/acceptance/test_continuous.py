"""Continuous shipping as an operator relies on it: the server burns down, the vault remains."""

from __future__ import annotations

import itertools
import random
import shutil
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.acceptance.s3_sites import S3Site, s3_site
from tests.acceptance.shipping_sites import (
    NEWEST,
    POLICY,
    Writer,
    covered,
    destroy,
    restored,
    shipped,
    shipping,
    until_covered,
    until_more_than,
)
from tests.acceptance.site import Site, kill_hard
from tests.acceptance.test_run import end, manifests, until
from tests.engines.postgres.clusters import (
    Cluster,
    give_to_server_user,
    running_cluster,
)
from tests.vault.s3_servers import start_moto

pytestmark = pytest.mark.postgres


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
        assert writer.until(last) <= rows
        # At most one whose answer the server did not live to give.
        unheard = rows - writer.until(last)
        assert len(unheard) <= 1
        assert not unheard & writer.known.keys()
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


@pytest.mark.soak
@pytest.mark.parametrize("seconds_at_work", [6.0, 11.0, 17.5])
def test_by_default_a_burst_before_the_end_of_a_server_costs_five_seconds_at_most(
    own: tuple[Cluster, Site], seconds_at_work: float
) -> None:
    cluster, site = own
    (site.config / "orders.yaml").write_text(
        site.text().replace("\n    log_shipping_interval: 1", "")
    )
    writer = Writer(cluster)
    writer.prepare()
    with shipping(site) as process:
        until(lambda: shipped(site))
        began = cluster.execute("SELECT clock_timestamp()")[0][0]
        with writer:
            until_covered(site, began)
            time.sleep(seconds_at_work)
            destroy(cluster)
        killed_at = max(writer.known.values())
        end(process)
    last = covered(site)
    assert last is not None
    assert site.windows()[-1][1] == last
    lost = {number for number, at in writer.known.items() if at > last}
    print(f"{len(writer.known)} rows, lost {len(lost)} of the last {killed_at - last}")
    assert killed_at - last <= timedelta(seconds=5 + 2)  # and what processing takes
    with restored(site, "latest", NEWEST) as (rows, _):
        assert rows == writer.until(last)
        assert set(writer.known) - rows <= lost


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
            writer.write_one(session)
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


@pytest.mark.s3
def test_a_bucket_takes_shipped_log_as_a_folder_does(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    def pieces(bucket: S3Site) -> list[str]:
        found = bucket.keys()
        return [key for key in found if "/tail/n1/" in key]

    with (
        running_cluster(NEWEST, settings={"track_commit_timestamp": "on"}) as cluster,
        start_moto(tmp_path_factory.mktemp("moto")) as server,
    ):
        bucket = s3_site(tmp_path, cluster.dsn(), server)
        file = bucket.site.config / "orders.yaml"
        quick = "log: 24h\n    log_shipping: continuous\n    log_shipping_interval: 1"
        file.write_text(file.read_text().replace("log: 15m", quick))
        writer = Writer(cluster)
        writer.prepare()
        with shipping(bucket.site) as process:
            until(lambda: pieces(bucket))
            writer.write(5)
            until(lambda: bucket.site.windows()[-1][1] > writer.known[5])
            assert bucket.site.backup("log")["type"] == "log"
            writer.write(5)
            until(lambda: bucket.site.windows()[-1][1] > writer.known[10])
            destroy(cluster)
            end(process)
        bucket.assert_nothing_left()
        plan = bucket.site.run("plan", "orders").ok()
        assert [step["type"] for step in plan["steps"]] == ["full", "log", "tail"]
        with restored(bucket.site, "latest", NEWEST) as (rows, _):
            assert rows == set(writer.committed)
