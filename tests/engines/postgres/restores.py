"""Chains of real backups for the tests of restore, in memory."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlbak.engines.port import (
    DEFAULT_LOG_SPACE_BYTES,
    BackupResult,
    DifferentialBase,
    RestoreOutcome,
    RestoreStep,
    RestoreTarget,
)
from sqlbak.engines.postgres.engine import PostgresEngine
from sqlbak.engines.postgres.restoring import restore_cluster
from sqlbak.errors import ObjectDamaged
from sqlbak.model import DifferentialMethod, LogPosition, Point
from sqlbak.progress import NO_PROGRESS
from sqlbak.stopping import NEVER, StopSignal
from tests.engines.postgres.backups import MemorySink
from tests.engines.postgres.clusters import Cluster, program_directory

__all__ = ["MemorySource", "Recorder", "as_step", "restore"]


class MemorySource:
    """Streams in memory, as frames with checksums. ``before_read(stream, frame)`` runs before
    each frame is read."""

    def __init__(
        self,
        streams: dict[str, bytes],
        frame_size: int = 256 * 1024,
        before_read: Callable[[str, int], None] = lambda stream, index: None,
    ) -> None:
        self._frame_size = frame_size
        self.before_read = before_read
        self.contents = streams
        self.sizes = {name: len(data) for name, data in streams.items()}
        self.frames = {
            name: [bytearray(data[at : at + frame_size]) for at in self._starts(len(data))]
            for name, data in streams.items()
        }
        self._sums = {n: [zlib.crc32(f) for f in frames] for n, frames in self.frames.items()}

    def _starts(self, size: int) -> range:
        return range(0, size, self._frame_size)

    def streams(self) -> Sequence[str]:
        return list(self.frames)

    def size(self, stream: str) -> int:
        return self.sizes[stream]

    def frame_starts(self, stream: str) -> Sequence[int]:
        return self._starts(self.sizes[stream])

    def read_frame(self, stream: str, index: int) -> bytes:
        self.before_read(stream, index)
        frame = bytes(self.frames[stream][index])
        if zlib.crc32(frame) != self._sums[stream][index]:
            raise ObjectDamaged(f"frame {index} of {stream} is not what was written")
        return frame


_numbers = itertools.count(1)


def as_step(result: BackupResult, streams: dict[str, bytes], **options: Any) -> RestoreStep:
    """What the jobs make of an engine's result."""
    point = Point(
        id=f"{result.type}-{next(_numbers)}",
        type=result.type,
        lineage=result.lineage,
        first_lsn=result.first_lsn,
        last_lsn=result.last_lsn,
        started_at=result.started_at,
        finished_at=result.finished_at,
        reachable_from=result.reachable_from,
        covers_until=result.covers_until,
        first_lineage=result.first_lineage,
        base_id=(result.facts.get("differential") or {}).get("base_id"),
    )
    return RestoreStep(point, result.facts, MemorySource(streams, **options))


@dataclass
class Recorder:
    """Takes backups of a cluster and keeps them as restore steps; writes marker rows and knows
    when each was committed."""

    cluster: Cluster
    steps: list[RestoreStep] = field(default_factory=list)
    histories: dict[str, bytes] = field(default_factory=dict)
    _continues_on: LogPosition | None = None

    @property
    def engine(self) -> PostgresEngine:
        return PostgresEngine(self.cluster.dsn(), slot_name="sqlbak_restore_test")

    def prepare(self) -> None:
        self.cluster.execute("CREATE TABLE marks (id int PRIMARY KEY, filler text)")

    def full(self) -> RestoreStep:
        sink = MemorySink()
        result = self.engine.full(sink, label="test", progress=NO_PROGRESS, stop=NEVER)
        self.histories.update(result.histories)
        self.steps.append(as_step(result, sink.streams))
        return self.steps[-1]

    def differential(
        self, full: RestoreStep, method: DifferentialMethod = DifferentialMethod.AUTO
    ) -> RestoreStep:
        sink = MemorySink()
        base = DifferentialBase(full.point, full.facts, full.source, method)
        result = self.engine.differential(
            base, sink, label="test", progress=NO_PROGRESS, stop=NEVER
        )
        self.histories.update(result.histories)
        return as_step(result, sink.streams)

    def log(self, *, since: LogPosition | None = None) -> RestoreStep:
        sink = MemorySink()
        since = since or self._continues_on or self.steps[-1].point.position
        result = self.engine.log(since, sink, progress=NO_PROGRESS, stop=NEVER)
        self._continues_on = result.continues_on
        self.histories.update(result.histories)
        self.steps.append(as_step(result, sink.streams))
        return self.steps[-1]

    def mark(self, first: int, count: int, *, filler: int = 10) -> None:
        """One transaction a row."""
        with self.cluster.connect() as connection:
            for number in range(first, first + count):
                connection.execute(
                    "INSERT INTO marks VALUES (%s, repeat('x', %s))", (number, filler)
                )

    def commit_times(self) -> list[tuple[int, datetime]]:
        """Each marker row and when it was committed, on the server's clock."""
        return [
            (int(number), at)
            for number, at in self.cluster.execute(
                "SELECT id, pg_xact_commit_timestamp(xmin) FROM marks ORDER BY id"
            )
        ]


def restore(
    steps: Sequence[RestoreStep],
    directory: Path,
    *,
    to: datetime | None = None,
    start: bool = False,
    lineage: str | None = None,
    histories: dict[str, bytes] | None = None,
    stop: StopSignal = NEVER,
    port: int | None = None,
    give_up_seconds: float = 60,
    log_space_bytes: int = DEFAULT_LOG_SPACE_BYTES,
    tablespaces: Mapping[str, Path] | None = None,
    stop_lsn: int | None = None,
    replaces: bool = False,
    reuses: bool = False,
) -> RestoreOutcome:
    """restore_cluster, with what most tests do not care about filled in."""
    major = int(steps[0].facts["server_version_num"]) // 10000
    return restore_cluster(
        steps,
        stop_at=to,
        lineage=lineage or steps[-1].point.lineage,
        histories=histories or {},
        target=RestoreTarget(
            directory,
            start,
            port,
            program_directory(major),
            tablespaces or {},
            replaces,
            reuses,
            log_space_bytes,
        ),
        progress=NO_PROGRESS,
        stop=stop,
        stop_lsn=stop_lsn,
        item_id="orders",
        give_up_seconds=give_up_seconds,
    )
