"""A scheduler that hands backups to workers through a queue, as processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.site import Site, kill_hard
from tests.acceptance.test_run import end, manifests, until
from tests.engines.postgres.clusters import Cluster

pytestmark = pytest.mark.postgres


def test_workers_take_what_the_scheduler_hands_out_and_all_end_cleanly(
    tmp_path: Path, cluster: Cluster
) -> None:
    site = Site(tmp_path, cluster.dsn(), environment={"QUEUE_DSN": cluster.dsn()})
    queue = ("--queue", "env:QUEUE_DSN")
    processes = [
        site.start("run", *queue, "--tick", "0.2"),
        site.start("worker", *queue, "--jobs", "2"),
        site.start("worker", *queue, "--jobs", "2"),
    ]
    try:
        until(lambda: manifests(site))
        until(lambda: site.run("queue", *queue, "--ended").ok()["counts"] == {"succeeded": 1})
        diaries = [end(process) for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                kill_hard(process)
    assert [one["event"] for one in diaries[0]].count("backup queued") == 1
    done = [one for diary in diaries[1:] for one in diary if one["event"] == "backup done"]
    assert [one["type"] for one in done] == ["full"]
    assert all(diary[-1]["event"] == "stopped" for diary in diaries)
    assert processes[0].returncode == processes[1].returncode == 0


def test_a_password_on_the_command_line_is_refused_and_not_repeated(site: Site) -> None:
    answer = site.run("worker", "--queue", "postgresql://sqlbak:hidden-word@db/jobs")
    assert answer.code == 2
    assert "password" in answer.err
    assert "hidden-word" not in answer.err + answer.out
