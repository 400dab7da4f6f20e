"""Differentials through the command line: taken, planned, restored, and healed into fulls."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sqlbak.vault.manifest import decode_manifest, encode_manifest
from tests.acceptance.judges import AMCHECK, restored_started
from tests.acceptance.site import Site
from tests.engines.postgres.clusters import (
    Cluster,
    available_majors,
    give_to_server_user,
    running_cluster,
    scratch_directory,
)

pytestmark = pytest.mark.postgres

POLICY = 'full: "0 1 * * sun"\n    differential: "0 1 * * mon-sat"\n    log: 15m'


@pytest.fixture
def site(cluster: Cluster, tmp_path: Path) -> Site:
    return Site(tmp_path, cluster.dsn(), policy=POLICY)


@pytest.fixture
def place() -> Iterator[Path]:
    with scratch_directory() as path:
        yield path / "restored"


def take(site: Site, kind: str) -> tuple[str, list[str]]:
    """The type of what was taken, and the notes."""
    answer = site.run("backup", "orders", "--type", kind).ok()
    return answer["point"]["type"], answer["notes"]


def test_a_differential_without_a_full_becomes_a_full_and_says_why(site: Site) -> None:
    kind, notes = take(site, "differential")
    assert kind == "full"
    assert "no full backup yet" in notes[0]
    assert take(site, "differential") == ("differential", [])


def test_a_copy_only_full_is_never_a_base(site: Site) -> None:
    full = site.backup("full")
    site.backup("full", "--copy-only")
    assert site.backup("differential")["base"] == full["id"]


def test_a_full_by_an_older_version_without_a_page_map_heals_into_a_full(site: Site) -> None:
    full = site.backup("full")
    (path,) = site.root.glob(f"vault/items/*/points/{full['id']}_*")
    manifest = decode_manifest(path.name, path.read_bytes())
    facts = {key: value for key, value in (manifest.facts or {}).items() if key != "page_map"}
    path.chmod(0o600)
    path.write_bytes(encode_manifest(replace(manifest, facts=facts)))
    kind, notes = take(site, "differential")
    assert kind == "full"
    assert "older version" in notes[0]


@pytest.mark.parametrize("what", ["manifest", "page map", "payload"])
def test_a_damaged_full_heals_into_a_full(site: Site, what: str) -> None:
    full = site.backup("full")
    pattern = {
        "manifest": f"points/{full['id']}_*",
        "page map": f"data/{full['id']}/pages.0*",
        "payload": f"data/{full['id']}/base.tar.0*",
    }[what]
    (path,) = site.root.glob(f"vault/items/*/{pattern}")
    path.chmod(0o600)
    if what == "payload":
        path.unlink()
    else:
        damaged = bytearray(path.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        path.write_bytes(damaged)
    kind, notes = take(site, "differential")
    assert kind == "full"
    assert "damaged" in notes[0]
    if what == "page map":
        assert not list(site.root.glob("vault/items/*/running/*"))
    assert take(site, "differential") == ("differential", [])


def test_after_a_failover_a_differential_becomes_a_full(tmp_path: Path) -> None:
    with running_cluster(available_majors()[-1]) as cluster:
        site = Site(tmp_path, cluster.dsn(), policy=POLICY)
        site.backup("full")
        cluster.stop()
        (cluster.data_directory / "standby.signal").touch()
        cluster.start()
        cluster.promote()
        kind, notes = take(site, "differential")
        assert kind == "full"
        assert "lineage 2" in notes[0]
        assert take(site, "differential")[0] == "differential"


def test_a_server_that_was_put_back_goes_on_as_a_new_item(tmp_path: Path) -> None:
    with running_cluster(available_majors()[-1]) as cluster:
        site = Site(tmp_path, cluster.dsn(), policy=POLICY)
        full = site.backup("full")
        cluster.stop()
        older = cluster.home / "older"
        shutil.copytree(cluster.data_directory, older, symlinks=True)
        cluster.start()
        cluster.execute("CREATE TABLE undone AS SELECT generate_series(1, 10000) AS n")
        site.backup("log")
        cluster.stop()
        shutil.rmtree(cluster.data_directory)
        older.rename(cluster.data_directory)
        give_to_server_user(cluster.data_directory)
        cluster.start()
        kind, notes = take(site, "differential")
        assert kind == "full"
        assert "set back to an older state" in notes[0]
        assert "new item" in notes[0]
        again = site.backup("differential")
        assert (again["type"], again["base"] == full["id"]) == ("differential", False)


def test_without_log_backups_the_server_lets_log_go_after_each_differential(
    cluster: Cluster, tmp_path: Path
) -> None:
    site = Site(tmp_path, cluster.dsn(), policy=POLICY.replace("\n    log: 15m", ""))
    site.backup("full")
    cluster.execute("SELECT pg_switch_wal()")
    differential = site.backup("differential")
    (name,) = [
        slot
        for (slot,) in cluster.execute(
            "SELECT slot_name FROM pg_replication_slots WHERE restart_lsn::text = %s",
            [f"{differential['last_lsn'] >> 32:X}/{differential['last_lsn'] & 0xFFFFFFFF:X}"],
        )
    ]
    assert name.startswith("sqlbak")


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("method", ["pages", "native"])
def test_a_table_of_several_segments_is_restored_from_a_small_differential(
    method: str, tmp_path: Path, place: Path
) -> None:
    settings = {"track_commit_timestamp": "on", "max_wal_size": "8GB", "summarize_wal": "on"}
    with running_cluster(available_majors()[-1], settings=settings) as cluster:
        policy = f"{POLICY}\n    differential_method: {method}"
        site = Site(tmp_path, cluster.dsn(), policy=policy)
        for database in ("template1", "postgres"):
            cluster.execute(AMCHECK, database=database)
        cluster.execute(
            "CREATE TABLE long AS SELECT n AS id, repeat(md5(n::text), 30) AS filler"
            " FROM generate_series(1, 3000000) n"
        )
        cluster.execute("VACUUM (FREEZE) long")
        path = cluster.execute("SELECT pg_relation_filepath('long')")[0][0]
        assert (cluster.data_directory / f"{path}.2").stat().st_size > 800 << 20
        full = site.backup("full")
        cluster.execute("UPDATE long SET filler = 'x' WHERE id % 100000 = 0")
        cluster.execute("DELETE FROM long WHERE id > 1300000")
        size = "SELECT pg_relation_size('long') > 1400000000"
        while cluster.execute(size)[0][0]:  # a session that just ends may keep pages from going
            cluster.execute("VACUUM (TRUNCATE) long")
        differential = site.backup("differential")
        assert differential["size_bytes"] < full["size_bytes"] / 4
        expected = cluster.execute("SELECT count(*), sum(hashtext(t::text)::bigint) FROM long t")
        with restored_started(site, cluster.major, differential["id"], place) as restored:
            steps = [step["type"] for step in restored.document["steps"]]
            assert steps == ["full", "differential"]
            found = restored.rows("SELECT count(*), sum(hashtext(t::text)::bigint) FROM long t")
            assert found == expected
