"""A vault that only its key opens, as an operator uses it: made, lost, rotated, taken away."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from sqlbak.vault.vault_key import VaultKey
from tests.acceptance.judges import (
    Restored,
    fed_by_hand,
    judge_running,
    judge_stopped,
    remove_cluster,
)
from tests.acceptance.shipping_sites import (
    NEWEST,
    POLICY,
    Writer,
    destroy,
    restored,
    shipping,
    until_covered,
)
from tests.acceptance.site import Site, encrypted_site
from tests.engines.postgres.clusters import Cluster, running_cluster, scratch_directory

pytestmark = pytest.mark.postgres

WORD = "a-word-that-nobody-else-may-read"


def with_options(site: Site, options: str) -> Site:
    """The same site under other options of its vault."""
    return Site(site.root, site.dsn, vault_options=options)


def stored_bytes(site: Site) -> bytes:
    files = sorted(path for path in (site.root / "vault").rglob("*") if path.is_file())
    return b"".join(path.read_bytes() for path in files)


@dataclass
class Marked:
    """A cluster of which an encrypted vault holds a full, a log, a differential and a log, each
    with one more row."""

    cluster: Cluster
    site: Site
    points: list[dict[str, Any]]


@pytest.fixture(scope="module")
def marked(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Marked:
    site = encrypted_site(tmp_path_factory.mktemp("encrypted"), cluster.dsn())
    cluster.execute("CREATE TABLE steps (id int, word text)")
    points = []
    for number, kind in enumerate(("full", "log", "differential", "log")):
        cluster.execute(f"INSERT INTO steps VALUES ({number}, '{WORD}')")
        points.append(site.backup(kind))
    return Marked(cluster, site, points)


@pytest.fixture
def home() -> Iterator[Path]:
    with scratch_directory() as place:
        yield place


def rows(document: dict[str, Any]) -> list[int]:
    assert document["proven"] is True
    with psycopg.connect(document["connection"]) as session:
        return [row[0] for row in session.execute("SELECT id FROM steps ORDER BY id")]


def restored_ids(site: Site, cluster: Cluster, into: Path, table: str) -> list[int]:
    """The ids in ``table`` of a restore to the end."""
    words = ("--start", "--pg-bin", cluster.programs)
    answer = site.restore("latest", into, *words).ok()
    try:
        with psycopg.connect(answer["connection"]) as session:
            return [row[0] for row in session.execute(f"SELECT id FROM {table} ORDER BY id")]
    finally:
        remove_cluster(cluster.major, into)


def test_every_point_is_restored_exactly_and_nothing_of_it_can_be_read_in_the_vault(
    marked: Marked, home: Path
) -> None:
    for number, point in enumerate(marked.points):
        into = home / f"data-{number}"
        words = ("--start", "--pg-bin", marked.cluster.programs)
        answer = marked.site.restore(point["id"], into, *words).ok()
        try:
            assert rows(answer) == list(range(number + 1))
            judge_running(Restored(marked.cluster.major, into, answer["connection"], answer))
            judge_stopped(marked.cluster.major, into)
        finally:
            remove_cluster(marked.cluster.major, into)
    assert WORD.encode() in b"".join(
        path.read_bytes() for path in marked.cluster.data_directory.glob("pg_wal/0*")
    )
    stored = stored_bytes(marked.site)
    assert WORD.encode() not in stored
    assert (marked.site.root / "vault.key").read_bytes().strip() not in stored


def test_without_the_key_it_is_listed_and_planned_and_nothing_is_restored_or_written(
    marked: Marked, home: Path
) -> None:
    keyless = with_options(marked.site, "")
    before = stored_bytes(keyless)
    try:
        listed = keyless.run("list").ok()["points"]
        assert [point["id"] for point in listed] == [point["id"] for point in marked.points]
        assert len(keyless.run("plan", "--to", "latest").ok()["steps"]) == 3
        assert len(keyless.windows()) == 1
        refused = keyless.restore("latest", home / "data")
        assert (refused.code, refused.document["error"]["code"]) == (2, "vault_key_missing")
        assert list(home.iterdir()) == []
        for kind in ("full", "differential", "log"):
            answer = keyless.run("backup", "orders", "--type", kind)
            assert (answer.code, answer.document["error"]["code"]) == (2, "vault_key_missing")
        assert WORD.encode() not in stored_bytes(keyless)
        shown = keyless.run("key", "list")
        assert shown.code == 4
        assert [key["is_at_hand"] for key in shown.document["keys"]] == [False]
    finally:
        marked.site.__post_init__()
    # What the refused runs left: their records of failure, and nothing else.
    new = [path for path in (keyless.root / "vault").rglob("*") if path.is_file()]
    assert len(stored_bytes(keyless)) - len(before) < 20_000
    assert not [path for path in new if "running" in path.parts]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (VaultKey(bytes(32)).text(), "vault_key_missing"),
        ("hunter2-is-no-key", "vault_key_invalid"),
        ("", "secret_unavailable"),
        (None, "secret_unavailable"),
    ],
    ids=["another key", "no key", "empty file", "no file"],
)
def test_a_wrong_key_is_told_before_anything_is_touched(
    marked: Marked, home: Path, content: str | None, code: str
) -> None:
    if content is not None:
        (home / "wrong.key").write_text(content)
    site = with_options(marked.site, f"    encryption: {{key: file:{home}/wrong.key}}\n")
    try:
        answers = [site.restore("latest", home / "data")]
        if code != "vault_key_missing":
            answers.append(site.run("backup", "orders", "--type", "full"))
        for answer in answers:
            assert (answer.code, answer.document["error"]["code"]) == (2, code)
            assert answer.document["error"]["hint"]
            assert not content or content not in answer.out + answer.err
        assert not (home / "data").exists()
    finally:
        marked.site.__post_init__()


def test_a_downloaded_folder_and_the_key_are_enough(marked: Marked, home: Path) -> None:
    (item,) = (marked.site.root / "vault" / "items").iterdir()
    folder = home / "downloaded"
    shutil.copytree(item, folder)
    key = marked.site.root / "vault.key"
    alone = Site(
        home,
        marked.cluster.dsn(),
        environment={
            "SQLBAK_CONFIG": str(home / "nothing"),
            "THE_KEY": key.read_text().strip(),
        },
    )
    words = ("restore", "--from", folder, "--to", "latest", "--into", home / "data")
    programs = ("--pg-bin", marked.cluster.programs)
    without = alone.run(*words, "--start", *programs)
    assert (without.code, without.document["error"]["code"]) == (2, "vault_key_missing")
    assert "--vault-key" in without.document["error"]["hint"]
    plain = alone.run(*words, "--vault-key", key.read_text().strip())
    assert plain.code == 2
    assert key.read_text().strip() not in plain.out + plain.err
    answer = alone.run(*words, "--vault-key", "env:THE_KEY", "--start", *programs).ok()
    try:
        assert rows(answer) == [0, 1, 2, 3]
    finally:
        remove_cluster(marked.cluster.major, home / "data")
    misplaced = marked.site.restore("latest", home / "x", "--vault-key", "env:THE_KEY")
    assert (misplaced.code, misplaced.document["error"]["code"]) == (2, "usage")


def test_a_long_log_is_fed_from_a_folder_with_the_key_that_the_restore_was_given(
    marked: Marked, home: Path
) -> None:
    (item,) = (marked.site.root / "vault" / "items").iterdir()
    words = ("--from", item, "--to", "latest", "--into", home / "data", "--log-space", "1MiB")
    key = f"file:{marked.site.root}/vault.key"
    answer = marked.site.run(
        "restore", *words, "--vault-key", key, "--pg-bin", marked.cluster.programs
    ).ok()
    assert answer["facts"]["fed"]
    (step,) = [step for step in answer["next_steps"] if "sqlbak feed" in step]
    command = shlex.split(step[step.index("sqlbak feed") :])
    assert command[command.index("--vault-key") + 1] == key
    with fed_by_hand(marked.site, command, marked.cluster.major, home / "data") as (fed, _):
        found = fed.execute("SELECT id FROM steps ORDER BY id")
    assert found == [(0,), (1,), (2,), (3,)]


def test_a_rotated_key_goes_on_with_the_chain_and_needs_the_old_one(
    cluster: Cluster, tmp_path: Path, home: Path
) -> None:
    first = encrypted_site(tmp_path, cluster.dsn())
    cluster.execute("CREATE TABLE turns AS SELECT 1 AS id")
    first.backup("full")
    first.run("key", "new", tmp_path / "next.key").ok()
    again = first.run("key", "new", tmp_path / "next.key")
    assert (again.code, again.document["error"]["code"]) == (2, "usage")
    assert (tmp_path / "next.key").stat().st_mode & 0o777 == 0o600
    both = with_options(
        first, "    encryption: {key: file:../next.key, old_keys: [file:../vault.key]}\n"
    )
    cluster.execute("INSERT INTO turns VALUES (2)")
    both.backup("log")
    keys = both.run("key", "list").ok()["keys"]
    assert [(key["is_at_hand"], key["is_current"]) for key in keys] == [(True, False), (True, True)]
    assert restored_ids(both, cluster, home / "data", "turns") == [1, 2]
    forgotten = with_options(first, "    encryption: {key: file:../next.key}\n")
    lost = forgotten.restore("latest", home / "data")
    assert (lost.code, lost.document["error"]["code"]) == (2, "vault_key_missing")
    assert forgotten.run("key", "list").code == 4


def test_encryption_is_turned_on_in_a_vault_that_has_points_already(
    cluster: Cluster, tmp_path: Path, home: Path
) -> None:
    plain = Site(tmp_path, cluster.dsn())
    cluster.execute("CREATE TABLE before_and_after AS SELECT 1 AS id")
    plain.backup("full")
    plain.run("key", "new", tmp_path / "vault.key").ok()
    strict = with_options(plain, "    encryption: {key: file:../vault.key}\n")
    refused = strict.run("backup", "orders", "--type", "log")
    assert (refused.code, refused.document["error"]["code"]) == (3, "not_encrypted")
    assert "plain_points: allowed" in refused.document["error"]["hint"]
    mixed = with_options(plain, "    encryption: {key: file:../vault.key, plain_points: allowed}\n")
    cluster.execute("INSERT INTO before_and_after VALUES (2)")
    mixed.backup("log")
    assert restored_ids(mixed, cluster, home / "data", "before_and_after") == [1, 2]
    strict = with_options(plain, "    encryption: {key: file:../vault.key}\n")
    assert strict.restore("latest", home / "data").document["error"]["code"] == "not_encrypted"
    strict.backup("full")
    cluster.execute("INSERT INTO before_and_after VALUES (3)")
    strict.backup("log")
    assert restored_ids(strict, cluster, home / "data", "before_and_after") == [1, 2, 3]


def test_shipped_log_of_a_server_that_burnt_down_is_restored_with_the_key(tmp_path: Path) -> None:
    with running_cluster(NEWEST, settings={"track_commit_timestamp": "on"}) as cluster:
        site = encrypted_site(tmp_path, cluster.dsn(), policy=POLICY)
        writer = Writer(cluster)
        writer.prepare()
        cluster.execute(f"CREATE TABLE words AS SELECT '{WORD}' AS word")
        with shipping(site):
            writer.write(50)
            until_covered(site, writer.known[50])
            cluster.execute(f"INSERT INTO words VALUES ('{WORD}')")
            writer.write(10)
            until_covered(site, writer.known[60])
        destroy(cluster)
        to: datetime = writer.committed[55]
        with restored(site, to.isoformat(), cluster.major) as (found, answer):
            assert found == writer.until(to)
            assert answer["steps"][-1]["type"] == "tail"
        stored = stored_bytes(site)
        assert WORD.encode() not in stored
        for path in (tmp_path / "vault").glob("items/*/tail/*/*.wal"):
            header = path.read_bytes()[8:]
            document, _ = json.JSONDecoder().raw_decode(header.decode("latin-1"))
            assert document["encryption"]["method"] == "aes-256-gcm"
