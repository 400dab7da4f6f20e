"""docs/break-glass.md is run as it stands: without sqlbak a database comes back."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sqlbak.engines.port import ShippedPiece
from sqlbak.model import EngineName
from sqlbak.vault.documents import encode
from sqlbak.vault.file_store import FileStore
from sqlbak.vault.tail import put_piece
from sqlbak.vault.vault import create_vault
from sqlbak.vault.vault_key import VaultKey
from sqlbak.vault.vault_keys import KeySettings
from sqlbak.vault.wrapped_key import about_shipped_log
from tests.acceptance.site import Site, encrypted_site
from tests.engines.postgres.clusters import (
    Cluster,
    free_port,
    give_to_server_user,
    has_working_program,
    run_as_server_user,
    scratch_directory,
)
from tests.vault.making import CONTENT, ITEM, NOW, Job

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.skipif(
        any(shutil.which(tool) is None for tool in ("zstd", "tar", "jq", "split")),
        reason="needs zstd, tar, jq and split",
    ),
]

PAGE = Path(__file__).parents[2] / "docs" / "break-glass.md"


def script() -> str:
    return "\n".join(re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL))


def decrypting(item: Path, out: Path, *more: str | Path) -> subprocess.CompletedProcess[str]:
    """A run of decrypt.py as it stands on the page."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    command = [sys.executable, "-c", code, *map(str, (item, out, *more))]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")


def decrypted(item: Path, out: Path, *more: str | Path) -> Path:
    """What decrypt.py makes of an item's folder."""
    done = decrypting(item, out, *more)
    assert done.returncode == 0, done.stderr
    return out


def refusal(item: Path, out: Path, *more: str | Path) -> str:
    """Why it stops, in one sentence. What it had written by then goes: that hangs on the order of
    points, which is random within one second."""
    done = decrypting(item, out, *more)
    shutil.rmtree(out, ignore_errors=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    return done.stderr


@pytest.mark.parametrize("is_encrypted", [False, True], ids=["readable", "encrypted"])
def test_the_page_restores_to_the_instant_with_stock_tools_alone(
    tmp_path: Path, cluster: Cluster, is_encrypted: bool
) -> None:
    site = (
        encrypted_site(tmp_path, cluster.dsn()) if is_encrypted else Site(tmp_path, cluster.dsn())
    )
    cluster.execute("DROP TABLE IF EXISTS marker")
    cluster.execute("CREATE TABLE marker (n int)")
    site.backup("full")
    cluster.execute("INSERT INTO marker VALUES (1)")
    logs = [site.backup("log")["id"]]
    cluster.execute("INSERT INTO marker VALUES (2)")
    (stop_at,) = cluster.execute("SELECT clock_timestamp()::text")[0]
    cluster.execute("INSERT INTO marker VALUES (3)")
    logs.append(site.backup("log")["id"])
    full = next(p["id"] for p in site.run("list").ok()["points"] if p["type"] == "full")
    (item,) = (site.root / "vault" / "items").iterdir()
    if is_encrypted:
        item = decrypted(item, tmp_path / "plain", tmp_path / "vault.key")

    with scratch_directory() as home:
        target = home / "data"
        target.mkdir(mode=0o700)
        done = subprocess.run(
            ["sh", "-c", script()],
            env={
                "PATH": "/usr/local/bin:/usr/bin:/bin",
                "ITEM": str(item),
                "FULL": full,
                "LOGS": " ".join(logs),
                "TARGET": str(target),
                "STOP_AT": stop_at,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        for path in (target, *target.rglob("*")):
            give_to_server_user(path)
        if has_working_program(cluster.major, "pg_verifybackup"):
            run_as_server_user([cluster.programs / "pg_verifybackup", target])
        restored = Cluster(cluster.major, home)
        restored.port = free_port()
        restored.data_directory = target
        restored.configure(
            {"port": str(restored.port), "unix_socket_directories": str(home), "fsync": "off"}
        )
        restored.start()
        try:
            rows = restored.execute("SELECT n FROM marker ORDER BY n")
        finally:
            restored.stop()
    assert rows == [(1,), (2,)]


def test_the_page_stops_at_a_manifest_that_was_changed(tmp_path: Path, cluster: Cluster) -> None:
    site = encrypted_site(tmp_path, cluster.dsn())
    site.backup("full")
    (manifest,) = (tmp_path / "vault" / "items").glob("*/points/*")
    manifest.chmod(0o600)
    text = manifest.read_text()
    manifest.write_text(text.replace('"slot": null', '"slot": "2026-05-01T00:00:00.000000Z"'))
    assert manifest.read_text() != text
    key = tmp_path / "vault.key"
    assert "was changed" in refusal(manifest.parents[1], tmp_path / "plain", key)
    assert not (tmp_path / "plain").exists()


def test_the_page_decrypts_shipped_log_too(tmp_path: Path) -> None:
    key = VaultKey.new()
    (tmp_path / "vault.key").write_text(key.text())
    now = datetime.now(UTC)
    vault = create_vault(
        FileStore(tmp_path / "vault"), redundancy="local", now=now, keys=KeySettings(lambda: key)
    )
    item = vault.find_or_create_item(
        EngineName.POSTGRES, "orders", None, "7", configured_names=["orders"], now=now
    )
    log = b"log" * 1000
    for first, last in ((0, 1000), (1000, 1000), (1000, 3000)):
        put_piece(
            vault.store,
            item.id,
            ShippedPiece(first, last, log[first:last], now, now, {"log_tail": None}),
            lineage="1",
            run="0123456789ab",
            anchor_id="20240501T120000Z-abcdefghij",
            facts={},
            key=vault.keys.new(about_shipped_log(item.id)),
        )
    folder = tmp_path / "vault" / "items" / item.id
    (folder / "points").mkdir()
    out = decrypted(folder, tmp_path / "plain", tmp_path / "vault.key")
    done = subprocess.run(
        ["sh", "-ec", f"cat {out}/tail/n1/*.wal | zstd -dc"], capture_output=True, check=True
    )
    assert done.stdout == log


def test_the_page_takes_several_keys_and_says_which_one_is_missing(tmp_path: Path) -> None:
    """A vault that was readable first, then encrypted, then under another key."""
    keys = [VaultKey.new() for _ in range(2)]
    files = [tmp_path / "new.key", tmp_path / "old.key"]
    for file, key in zip(files, keys, strict=True):
        file.write_text(key.text() + "\n")
    store = FileStore(tmp_path / "vault")
    create_vault(store, redundancy="local", now=NOW)
    store.put(f"items/{ITEM.id}/item.json", encode({"id": ITEM.id}))
    old, new = KeySettings(lambda: keys[1]), KeySettings(lambda: keys[0])
    points = [Job(store, keys=settings).run() for settings in (KeySettings(), old, new)]
    item = tmp_path / "vault" / "items" / ITEM.id
    out = decrypted(item, tmp_path / "plain", *files, "--plain-points")
    for point in points:
        whole = f"cat {out}/data/{point.id}/base.tar.[0-9]*.zst | zstd -dc"
        found = subprocess.run(["sh", "-ec", whole], capture_output=True, check=True).stdout
        assert found == CONTENT
    elsewhere = tmp_path / "elsewhere"
    assert "--plain-points" in refusal(item, elsewhere, *files)
    assert keys[1].id in refusal(item, elsewhere, "--plain-points", files[0])
    (tmp_path / "no.key").write_text("hunter2")
    assert "no.key holds no vault key" in refusal(item, elsewhere, tmp_path / "no.key")
    assert "usage" in refusal(item, elsewhere)
    assert "is there already" in decrypting(item, out, *files).stderr
    volume = next(item.glob(f"data/{points[1].id}/*.aes"))
    volume.chmod(0o600)
    volume.write_bytes(bytes([volume.read_bytes()[0] ^ 1]) + volume.read_bytes()[1:])
    changed = refusal(item, elsewhere, "--plain-points", *files)
    assert volume.name in changed
    assert "changed or damaged" in changed
