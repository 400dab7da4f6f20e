"""The loop itself, with a log slot every second instead of every 15 minutes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from sqlbak.model import PointType
from sqlbak.scheduler.configuration_watch import ConfigurationWatch
from sqlbak.scheduler.due import DueJob, Protected, due
from sqlbak.scheduler.logs import event_log
from sqlbak.scheduler.service import Limits, Service
from sqlbak.stopping import StopSignal
from sqlbak.vault.names import point_id_instant
from tests.acceptance.site import Site
from tests.engines.postgres.clusters import available_majors, running_cluster

pytestmark = pytest.mark.postgres

PATIENCE_SECONDS = 60.0


def due_every_second(protected: Iterable[Protected], now: datetime) -> list[DueJob]:
    jobs: list[DueJob] = []
    for item in protected:
        if not item.points:
            jobs += due([item], now)
            continue
        newest = max(point_id_instant(point.id) or point.started_at for point in item.points)
        if now - newest >= timedelta(seconds=1):
            jobs.append(DueJob(item.name, PointType.LOG, None, "the test says so"))
    return jobs


@contextmanager
def serving(site: Site, diary: StringIO, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ORDERS_DSN", site.dsn)
    stop = StopSignal()
    service = Service(
        ConfigurationWatch(site.config),
        event_log(diary, as_json=True),
        stop,
        limits=Limits(tick_seconds=0.1, catalog_age_seconds=0.0, grace_seconds=20.0),
        decide=due_every_second,
    )
    thread = threading.Thread(target=service.run)
    thread.start()
    try:
        yield
    finally:
        stop.request()
        thread.join()


def until(done: Callable[[], Any], diary: StringIO) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not done():
        assert time.monotonic() < deadline, diary.getvalue()
        time.sleep(0.1)


def names(site: Site, letter: str) -> list[Path]:
    return list((site.root / "vault").glob(f"items/*/points/*_t{letter}_*"))


def test_a_server_that_is_replaced_by_another_gets_a_full_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diary = StringIO()
    major = available_majors()[-1]
    with running_cluster(major) as old, running_cluster(major) as new:
        site = Site(tmp_path, old.dsn())
        with serving(site, diary, monkeypatch):
            until(lambda: names(site, "l"), diary)
            file = site.config / "orders.yaml"
            file.write_text(site.text().replace("env:ORDERS_DSN", f'"{new.dsn()}"'))
            until(lambda: len(names(site, "f")) == 2, diary)
            seen = len(names(site, "l"))
            until(lambda: len(names(site, "l")) > seen, diary)
    events = [json.loads(line) for line in diary.getvalue().splitlines()]
    notes = [event["note"] for event in events if event["event"] == "backup note"]
    assert any("no full backup yet" in note for note in notes)
    assert not [event for event in events if event["event"] == "backup failed"]
    assert len(site.windows()) == 2


def test_logs_go_on_after_the_log_was_lost_by_a_full_that_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diary = StringIO()
    with running_cluster(available_majors()[-1]) as cluster:
        site = Site(tmp_path, cluster.dsn())
        with serving(site, diary, monkeypatch):
            until(lambda: names(site, "l"), diary)
            cluster.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
            until(lambda: len(names(site, "f")) == 2, diary)
            seen = len(names(site, "l"))
            until(lambda: len(names(site, "l")) > seen, diary)
    events = [json.loads(line) for line in diary.getvalue().splitlines()]
    notes = [event["note"] for event in events if event["event"] == "backup note"]
    assert any("a full was taken instead of a log" in note for note in notes)
