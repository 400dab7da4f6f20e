"""Rows whose commit times are known: the witnesses of what a restore brought back."""

from __future__ import annotations

import threading
from datetime import datetime
from typing import Any, Self

import psycopg

from tests.engines.postgres.clusters import Cluster

__all__ = ["Writer", "assert_restored_exactly", "commit_times", "make_markers"]


def make_markers(cluster: Cluster) -> None:
    """The table; harmless when it is there."""
    cluster.execute("CREATE TABLE IF NOT EXISTS markers (id bigserial PRIMARY KEY, filler text)")
    cluster.execute("ALTER TABLE markers ALTER filler SET STORAGE EXTERNAL")


def commit_times(cluster: Cluster) -> dict[int, datetime]:
    """When each marker was committed, on the server's clock."""
    return dict(
        cluster.execute("SELECT id, pg_xact_commit_timestamp(xmin) FROM markers")  # type: ignore[arg-type]
    )


class Writer:
    """Commits one marker after the other, some of them large, until the block is left. Goes on
    after its session was ended."""

    def __init__(self, cluster: Cluster, *, pause_seconds: float = 0.005) -> None:
        make_markers(cluster)
        self._cluster = cluster
        self._pause_seconds = pause_seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="writer")

    def _run(self) -> None:
        number = 0
        while not self._ended.is_set():
            try:
                with self._cluster.connect() as connection:
                    while not self._ended.wait(self._pause_seconds):
                        number += 1
                        size = 100_000 if number % 20 == 0 else 50
                        connection.execute(
                            "INSERT INTO markers (filler) VALUES (repeat('x', %s))", [size]
                        )
            except psycopg.Error:
                self._ended.wait(0.1)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def assert_restored_exactly(
    restored: dict[str, Any], source: dict[int, datetime], to: datetime
) -> None:
    """The restored server (the document of ``sqlbak restore --start``) holds exactly the markers
    of ``source`` that were committed by ``to``."""
    assert restored["proven"] is True
    with psycopg.connect(restored["connection"], autocommit=True) as connection:
        found = {row[0] for row in connection.execute("SELECT id FROM markers")}
    expected = {number for number, at in source.items() if at <= to}
    assert found == expected, (
        f"restored to {to}: {len(found - expected)} too many {sorted(found - expected)[:5]}, "
        f"{len(expected - found)} missing {sorted(expected - found)[:5]}"
    )
