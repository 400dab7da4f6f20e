"""``sqlbak run`` as an operator meets it: a process that takes backups and obeys signals."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sqlbak.vault.manifest import decode_manifest, encode_manifest
from tests.acceptance.aftermath import restored
from tests.acceptance.markers import assert_restored_exactly, commit_times, make_markers
from tests.acceptance.site import Site, kill_hard
from tests.engines.postgres.clusters import Cluster, scratch_directory

pytestmark = pytest.mark.postgres

PATIENCE_SECONDS = 60.0


@contextmanager
def service(site: Site, *more: str) -> Iterator[subprocess.Popen[str]]:
    process = site.start("run", "--tick", "0.2", "--grace", "10", *more)
    try:
        yield process
    finally:
        if process.poll() is None:
            kill_hard(process)


def until(done: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if found := done():
            return found
        time.sleep(0.1)
    raise AssertionError("waited in vain")


def points(site: Site) -> list[dict[str, Any]]:
    answer = site.run("list")
    found: list[dict[str, Any]] = answer.ok()["points"] if answer.code == 0 else []
    return found


def manifests(site: Site) -> list[Path]:
    return list((site.root / "vault").glob("items/*/points/*"))


@contextmanager
def heard(process: subprocess.Popen[str]) -> Iterator[list[str]]:
    """The names of the events that it logs, while it logs them; it is asked to stop at the end."""
    names: list[str] = []
    assert process.stderr is not None
    lines = process.stderr
    thread = threading.Thread(target=lambda: names.extend(json.loads(x)["event"] for x in lines))
    thread.start()
    try:
        yield names
    finally:
        process.send_signal(signal.SIGTERM)
        thread.join()
        process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0


def end(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """Ask it to stop; the events that it logged."""
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, err
    return [json.loads(line) for line in err.splitlines()]


def test_the_first_full_is_taken_at_once_and_sigterm_ends_it_cleanly(site: Site) -> None:
    with service(site) as process:
        until(lambda: manifests(site))
        events = end(process)
    assert events[0]["event"] == "policies loaded"
    done = [event for event in events if event["event"] == "backup done"]
    assert [event["type"] for event in done] == ["full"]
    assert events[-1]["event"] == "stopped"
    assert [point["type"] for point in points(site)] == ["full"]
    assert not list((site.root / "vault").glob("items/*/running/*"))


def as_of_yesterday(site: Site) -> None:
    """Make the one full in the vault a day older, for schedulers: that is when it was asked for."""
    (path,) = manifests(site)
    manifest = decode_manifest(path.name, path.read_bytes())
    old = manifest.point.id
    day = datetime.now(UTC) - timedelta(days=1)
    new = f"{day:%Y%m%dT%H%M%SZ}-{old.partition('-')[2]}"
    made = replace(manifest, point=replace(manifest.point, id=new))
    path.with_name(made.name).write_bytes(encode_manifest(made))
    path.unlink()
    (data,) = (site.root / "vault").glob(f"items/*/data/{old}")
    data.rename(data.with_name(new))


def test_a_differential_that_is_due_is_taken_once_and_restored_from(
    cluster: Cluster, tmp_path: Path
) -> None:
    make_markers(cluster)
    day_of_full = (datetime.now(UTC).isoweekday() + 2) % 7 + 1
    others = ",".join(str(day) for day in range(1, 8) if day != day_of_full)
    policy = (
        f'full: "0 0 * * {day_of_full}"\n    differential: "0 0 * * {others}"\n    timezone: UTC'
    )
    site = Site(tmp_path, cluster.dsn(), policy=policy)
    full = site.backup("full")
    as_of_yesterday(site)
    cluster.execute("INSERT INTO markers (filler) VALUES ('since the full')")
    with service(site) as process:
        until(lambda: len(manifests(site)) == 2)
        time.sleep(1.0)  # it has looked several times since
        events = end(process)
    done = [event for event in events if event["event"] == "backup done"]
    assert [event["type"] for event in done] == ["differential"]
    kept, differential = sorted(points(site), key=lambda point: str(point["type"]), reverse=True)
    assert (kept["type"], differential["type"]) == ("full", "differential")
    assert differential["base"] == kept["id"]
    assert kept["id"].endswith(full["id"].partition("-")[2])
    with scratch_directory() as home, restored(site, cluster, "latest", home / "data") as document:
        assert [step["type"] for step in document["steps"]] == ["full", "differential"]
        to = datetime.fromisoformat(document["stop_at"])
        assert_restored_exactly(document, commit_times(cluster), to)


def test_two_schedulers_take_one_full_between_them(site: Site) -> None:
    with service(site) as first, service(site) as second:
        until(lambda: manifests(site))
        time.sleep(1.0)  # both have looked several times since
        end(first)
        end(second)
    assert len(points(site)) == 1


def test_a_scheduler_that_is_killed_in_a_full_is_followed_by_one_that_completes_it(
    site: Site,
) -> None:
    with service(site) as first:
        until(lambda: list((site.root / "vault").glob("items/*/running/*")) or manifests(site))
        kill_hard(first)
    with service(site) as second:
        until(lambda: manifests(site))
        end(second)
    assert len(points(site)) == 1
    assert not list((site.root / "vault").glob("items/*/running/*"))


def test_a_full_that_is_cancelled_is_begun_again_by_no_scheduler_but_by_hand(site: Site) -> None:
    # So slow that it lasts; neither scheduler knows of the other.
    slowly = ("--bandwidth", "128KiB/s")
    with service(site, *slowly) as first, service(site, *slowly) as second:
        (running,) = until(lambda: list((site.root / "vault").glob("items/*/running/*.json")))
        asked = site.run("jobs", "--cancel", running.stem).ok()
        assert [slot["type"] for slot in asked["slots"]] == ["full"]
        with heard(first) as one, heard(second) as other:
            until(lambda: "backup cancelled" in [*one, *other])
            until(lambda: not list((site.root / "vault").glob("items/*/running/*")))
            before = [names.count("backup started") for names in (one, other)]
            # They forget all that they know, and look anew.
            for process, names in ((first, one), (second, other)):
                process.send_signal(signal.SIGHUP)
                until(lambda names=names: names.count("policies loaded") == 2)
            time.sleep(1.5)  # both have looked several times since
            assert [names.count("backup started") for names in (one, other)] == before
    assert [*one, *other].count("backup cancelled") == 1
    assert "backup done" not in [*one, *other]
    document = site.run("jobs").ok()
    assert document["running"] == []
    assert [job["outcome"] for job in document["jobs"]] == ["cancelled"]

    site.backup("full")
    assert len(manifests(site)) == 1


def test_a_bad_policy_file_is_reported_and_the_last_good_one_stays_in_force(site: Site) -> None:
    file = site.config / "orders.yaml"
    good = file.read_text()
    with service(site) as process:
        until(lambda: manifests(site))
        file.write_text(good.replace("log: 15m", "log: 7m"))
        process.send_signal(signal.SIGHUP)
        time.sleep(1.0)
        assert process.poll() is None
        file.write_text(good.replace("gold", "silver"))
        time.sleep(1.0)
        events = end(process)
    refused = [event for event in events if event["event"].startswith("policies not reloaded")]
    assert len(refused) == 1
    assert "orders.yaml:" in refused[0]["error"]
    assert sum(event["event"] == "policies loaded" for event in events) == 2


def test_bad_policies_at_the_start_are_a_usage_error(site: Site) -> None:
    (site.config / "orders.yaml").write_text(site.text().replace("0 1 * * *", "61 1 * * *"))
    answer = site.run("run", as_json=False)
    assert answer.code == 2
    assert "orders.yaml:" in answer.err


def test_a_server_that_is_down_is_reported_once_and_tried_again_later(
    site: Site, cluster: Cluster
) -> None:
    away = Site(site.root, cluster.dsn().replace(f"port={cluster.port}", "port=1"))
    with service(away) as process:
        until((site.root / "vault" / "vault.json").exists)
        time.sleep(3.0)
        events = end(process)
    failed = [event for event in events if event["event"] == "backup failed"]
    assert len(failed) == 1
    assert failed[0]["code"] == "server_unreachable"
    assert failed[0]["next_try_seconds"] == 15
