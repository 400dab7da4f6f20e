"""Streaming standbys of real clusters."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.engines.postgres.clusters import Cluster, give_to_server_user, scratch_directory

__all__ = ["running_standby", "standby_of", "wait_for_replay"]

PATIENCE_SECONDS = 60.0


def standby_of(primary: Cluster, home: Path, settings: Mapping[str, str] | None = None) -> Cluster:
    """A standby below ``home`` that follows ``primary``; it runs."""
    standby = Cluster(primary.major, home)
    primary.run(
        "pg_basebackup", "-h", str(primary.home), "-p", str(primary.port), "-U", "postgres",
        "-D", standby.data_directory, "-c", "fast", "-R", "--no-sync",
    )  # fmt: skip
    standby.configure(
        {
            "port": str(standby.port),
            "unix_socket_directories": str(home),
            "wal_receiver_status_interval": "1",
            "wal_retrieve_retry_interval": "200ms",
            **(settings or {}),
        }
    )
    give_to_server_user(home)
    standby.start()
    return standby


@contextmanager
def running_standby(
    primary: Cluster, settings: Mapping[str, str] | None = None
) -> Iterator[Cluster]:
    """A new standby of ``primary`` until the block ends."""
    with scratch_directory() as home:
        standby = standby_of(primary, home, settings)
        try:
            yield standby
        finally:
            standby.stop("immediate")


def wait_for_replay(primary: Cluster, standby: Cluster) -> None:
    """Until the standby has replayed all that the primary has flushed now."""
    ((end,),) = primary.execute("SELECT pg_current_wal_flush_lsn()::text")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while standby.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", [end]) != [(True,)]:
        assert time.monotonic() < deadline, standby.log_file.read_text()
        time.sleep(0.05)
