"""A payload sink in memory, and a data directory rebuilt from what it holds, by hand: with tar
and plain file writes, so that no code of sqlbak's restore vouches for its backups."""

from __future__ import annotations

import io
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from sqlbak.engines.port import BackupResult
from sqlbak.engines.postgres.timelines import segment_name, segment_start
from tests.engines.postgres.clusters import Cluster, give_to_server_user, program_directory

__all__ = ["MemorySink", "Taken", "rebuild", "recover", "stored_log"]


class MemorySink:
    """Keeps sealed streams. ``before_write(stream name, bytes so far)`` runs before each write."""

    def __init__(self, before_write: Callable[[str, int], None] = lambda name, size: None) -> None:
        self.streams: dict[str, bytes] = {}
        self.order: list[str] = []
        self.discarded: list[str] = []
        self.threads: set[str] = set()
        self._before_write = before_write

    @contextmanager
    def stream(self, name: str) -> Iterator[_MemoryStream]:
        assert name not in self.order
        self.order.append(name)
        stream = _MemoryStream(name, self._before_write)
        try:
            yield stream
        except BaseException:
            self.discarded.append(name)
            raise
        self.streams[name] = bytes(stream.data)


@dataclass
class _MemoryStream:
    name: str
    before_write: Callable[[str, int], None]
    data: bytearray = field(default_factory=bytearray)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.before_write(self.name, len(self.data))
        self.data += data


@dataclass(frozen=True)
class Taken:
    """One backup: what the engine proved and what it stored."""

    result: BackupResult
    streams: dict[str, bytes]


def stored_log(taken: Sequence[Taken]) -> tuple[int, bytes]:
    """Where the log of these backups begins, and all its bytes; they must join without a gap."""
    first = taken[0].result
    start = int(first.facts["wal_first_lsn"]) if "wal_first_lsn" in first.facts else first.first_lsn
    log = bytearray(taken[0].streams["wal"])
    assert start + len(log) == first.last_lsn
    for piece in taken[1:]:
        assert piece.result.first_lsn == start + len(log)
        log += piece.streams["wal"]
        assert piece.result.last_lsn == start + len(log)
    return start, bytes(log)


def rebuild(directory: Path, taken: Sequence[Taken]) -> None:
    """Untar a full into ``directory`` (tablespaces beside it) and lay the log of it and of the
    log backups after it into pg_wal as whole segments, the last one filled up with zeros."""
    full = taken[0]
    directory.mkdir(mode=0o700)
    _untar(full.streams["base.tar"], directory)
    for tablespace in full.result.facts["tablespaces"]:
        oid = tablespace["oid"]
        place = directory.with_name(f"{directory.name}-{oid}")
        place.mkdir(mode=0o700)
        _untar(full.streams[f"{oid}.tar"], place)
        link = directory / "pg_tblspc" / str(oid)
        link.unlink(missing_ok=True)
        link.symlink_to(place)
        give_to_server_user(place)
    (directory / "backup_manifest").write_bytes(full.streams["backup_manifest"])
    start, log = stored_log(taken)
    size = full.result.facts["wal_segment_size"]
    assert start == segment_start(start, size)
    for offset in range(0, len(log), size):
        name = segment_name(int(full.result.lineage), start + offset, size)
        segment = log[offset : offset + size].ljust(size, b"\0")
        (directory / "pg_wal" / name).write_bytes(segment)
    give_to_server_user(directory)


def _untar(archive: bytes, directory: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(directory, filter="tar")


@contextmanager
def recover(directory: Path, taken: Sequence[Taken], *, to: datetime) -> Iterator[Cluster]:
    """Run a server on a rebuilt directory, recovered to ``to`` and promoted there."""
    full = taken[0].result
    for tablespace in full.facts["tablespaces"]:
        oid = tablespace["oid"]
        place = directory.with_name(f"{directory.name}-{oid}")
        (directory / "tablespace_map").write_text(f"{oid} {place}\n")
    home = directory.parent / f"{directory.name}-home"
    home.mkdir()
    cluster = Cluster(full.facts["server_version_num"] // 10000, home)
    cluster.data_directory = directory
    assert cluster.programs == program_directory(cluster.major)
    cluster.configure(
        {
            "port": str(cluster.port),
            "unix_socket_directories": str(home),
            "archive_mode": "off",
            "restore_command": "false",
            "recovery_target_time": to.isoformat(sep=" ", timespec="microseconds"),
            "recovery_target_timeline": full.lineage,
            "recovery_target_action": "promote",
        }
    )
    (directory / "recovery.signal").touch()
    give_to_server_user(directory)
    give_to_server_user(home)
    cluster.start()
    try:
        while cluster.execute("SELECT pg_is_in_recovery()") == [(True,)]:
            time.sleep(0.05)
        yield cluster
    finally:
        cluster.stop("immediate")


def running_backup_threads() -> list[str]:
    """Names of the engine's threads that are still alive."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("wal-")]
