"""What must be true of a vault and of a server after whatever happened to sqlbak."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.acceptance.site import Site
from tests.engines.postgres.clusters import Cluster, run_as_server_user

__all__ = [
    "assert_logs_chain",
    "assert_no_slot_left",
    "assert_nothing_left",
    "assert_one_window",
    "drop_slots",
    "own_slots",
    "payload_without_point",
    "remove_restored",
    "restored",
    "servers_on",
]

PATIENCE_SECONDS = 20.0


def payload_without_point(vault: Path) -> list[str]:
    """Folders of payload that no manifest names."""
    points = {path.name.partition("_")[0] for path in vault.glob("items/*/points/*")}
    return sorted(p.name for p in vault.glob("items/*/data/*") if p.name not in points)


def assert_nothing_left(site: Site, cluster: Cluster) -> None:
    """No trace of a run that did not end well: in the vault (a folder), or on the server."""
    vault = site.root / "vault"
    assert [str(path) for path in vault.glob("items/*/running/*")] == []
    unfinished = vault / ".sqlbak" / "unfinished"
    assert [str(path) for path in unfinished.rglob("*") if path.is_file()] == []
    assert payload_without_point(vault) == []
    assert_no_slot_left(cluster)


def assert_no_slot_left(cluster: Cluster) -> None:
    """The server has our one permanent slot and no session of ours."""
    deadline = time.monotonic() + PATIENCE_SECONDS  # a server notices a dead client when it writes
    while True:
        left = cluster.execute(
            "SELECT slot_name::text FROM pg_replication_slots WHERE temporary"
            " UNION ALL SELECT 'walsender ' || pid FROM pg_stat_replication"
        )
        if not left:
            break
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    slots = cluster.execute("SELECT slot_name FROM pg_replication_slots")
    assert len(slots) == 1, slots


@contextmanager
def own_slots(cluster: Cluster) -> Iterator[None]:
    """The server has no slots before and after: each vault makes one of its own."""
    drop_slots(cluster)
    try:
        yield
    finally:
        drop_slots(cluster)


def drop_slots(cluster: Cluster) -> None:
    """Drop every slot that no session uses."""
    cluster.execute(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active"
    )


def assert_logs_chain(points: list[dict[str, Any]]) -> None:
    """The logs follow each other without a gap from the end of the first full on."""
    logs = sorted((p for p in points if p["type"] == "log"), key=lambda p: int(p["first_lsn"]))
    first = min((p for p in points if p["type"] == "full"), key=lambda p: str(p["id"]))
    assert logs
    assert logs[0]["first_lsn"] == first["last_lsn"]
    for one, following in pairwise(logs):
        assert following["first_lsn"] == one["last_lsn"], (one, following)


def assert_one_window(site: Site, points: list[dict[str, Any]]) -> tuple[datetime, datetime]:
    """One window without a hole, from the first full to the last log; its ends."""
    windows = site.windows()
    fulls = [datetime.fromisoformat(p["reachable_from"]) for p in points if p["type"] == "full"]
    covered = [datetime.fromisoformat(p["covers_until"]) for p in points if p["covers_until"]]
    assert windows == [(min(fulls), max(covered))], [
        (p["type"], p["first_lsn"], p["last_lsn"], p["reachable_from"], p["covers_until"])
        for p in points
    ]
    return windows[0]


def servers_on(directory: Path) -> list[str]:
    """The processes that name ``directory`` on their command line."""
    listed = subprocess.run(["ps", "-wweo", "args"], capture_output=True, text=True, check=True)
    return [line for line in listed.stdout.splitlines() if str(directory) in line]


def remove_restored(cluster: Cluster, directory: Path) -> None:
    """What an operator does to get rid of a restored cluster, whole or half: stop it, remove it."""
    if (directory / "postmaster.pid").exists():
        run_as_server_user(
            [cluster.programs / "pg_ctl", "-D", directory, "-m", "immediate", "-W", "stop"],
            check=False,  # it may have ended by itself meanwhile
        )
        deadline = time.monotonic() + PATIENCE_SECONDS
        while servers_on(directory):
            assert time.monotonic() < deadline, servers_on(directory)
            time.sleep(0.05)
    shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def restored(
    site: Site, cluster: Cluster, to: str, into: Path, *more: str
) -> Iterator[dict[str, Any]]:
    """Restore and start; the answer's document. The server is gone afterwards."""
    answer = site.restore(to, into, "--start", *more)
    try:
        yield answer.ok()
    finally:
        remove_restored(cluster, into)
