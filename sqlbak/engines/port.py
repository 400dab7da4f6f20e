"""The engine port: what sqlbak asks of a database server, whichever it is.

An engine streams payload into a PayloadSink and returns what it proved; it reads payload from a
PayloadSource. It knows nothing of vaults, policies or schedules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from sqlbak.model import DifferentialMethod, EngineName, Fork, LogPosition, Note, Point, PointType
from sqlbak.progress import Progress
from sqlbak.stopping import StopSignal

__all__ = [
    "DEFAULT_LOG_SPACE_BYTES",
    "BackupResult",
    "DatabaseOutcome",
    "DatabaseTarget",
    "DifferentialBase",
    "DiscoveredItem",
    "Engine",
    "Inspection",
    "LogGap",
    "PayloadSink",
    "PayloadSource",
    "PlacedSink",
    "Problem",
    "RestoreOutcome",
    "RestoreStep",
    "RestoreTarget",
    "Severity",
    "Shipment",
    "ShippedPiece",
    "StreamSink",
    "TailChoice",
]


DEFAULT_LOG_SPACE_BYTES = 1 << 30
"""How much log may lie on disk ahead of its replay, unless somebody says otherwise."""


class Severity(StrEnum):
    """How much a problem matters: BLOCKING stops backups, WARNING does not."""

    BLOCKING = "blocking"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something on the server that keeps backups from working, and the statement, setting or
    pg_hba line that mends it (``remedy``, ready to paste). ``database``: the only one that it
    concerns; None: the whole instance."""

    code: str
    severity: Severity
    what: str
    remedy: str
    database: str | None = None


@dataclass(frozen=True, slots=True)
class DiscoveredItem:
    """One thing that can be protected, under the engine's own identity, and where it stands.

    Attributes:
        position: the end of its log, where the engine tells it.
        may_lag: this server follows another one, and may not have come as far yet as log that was
            backed up already.
        why_no_log: why the server holds no log for us, as the end of a sentence for people; empty
            where it does.
        lineage: the lineage it is on, where there is no position.
        next_log_lsn: where its next log backup begins, for an engine whose log backups follow each
            other exactly; None elsewhere, or when there is none to take.
        paused: what cannot be taken of it as its owner keeps it now, and why.
        group_database: what its availability group calls it, the same on every server that has a
            replica; None: it is in no group.
    """

    identity: str
    database: str | None
    position: LogPosition | None
    may_lag: bool = False
    why_no_log: str = ""
    lineage: str | None = None
    next_log_lsn: int | None = None
    paused: Mapping[PointType, str] = field(default_factory=dict)
    group_database: str | None = None


@dataclass(frozen=True, slots=True)
class Inspection:
    """What the engine says of itself. ``server_clock`` is UTC; ``facts`` are for showing."""

    engine: EngineName
    version: str
    server_clock: datetime | None
    items: tuple[DiscoveredItem, ...]
    problems: tuple[Problem, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)


class StreamSink(Protocol):
    """One stream of payload bytes. Closed by the ``with`` block of ``PayloadSink.stream``."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append raw bytes; blocks while compression or the store lag behind. The caller may
        reuse the buffer as soon as this returns."""


class PayloadSink(Protocol):
    """Where a backup's payload goes. Several streams may be open at once, from several threads."""

    def stream(self, name: str) -> AbstractContextManager[StreamSink]:
        """Open a new stream; ``name`` is ``[a-z0-9._-]+``, unique in the point. Leaving the block
        normally seals the stream, leaving it by an exception discards it."""


@runtime_checkable
class PlacedSink(PayloadSink, Protocol):
    """A sink into whose place a database server can write by itself, past sqlbak. Whatever lies
    there is removed again unless the point is committed."""

    @property
    def witness(self) -> str:
        """Key (below the vault's root) of an object that this job alone made, and that is there:
        whoever can read it looks into this vault and no other."""

    def place(self, name: str) -> str:
        """The key below the vault's root at which the server is to write; ``name`` as of a
        stream."""

    def note(self, name: str) -> int:
        """The server has written it: it becomes a part of the point. Its size in bytes.
        ObjectNotFound when it is not there."""

    def take_over(self, point_id: str, name: str) -> str:
        """Copy, within the store, what the server wrote for the point of a job that died. The key
        of the copy, which is still to be noted."""

    def keep(self, is_kept: bool) -> None:
        """Whether what was written is left for a later run where no point comes of it: it may hold
        what the server gives out once only."""

    def discard(self) -> None:
        """Remove what was written, and uploads that were not finished; nothing is kept then."""


class PayloadSource(Protocol):
    """Payload of one recovery point. Every method may be called from several threads at once."""

    def streams(self) -> Sequence[str]:
        """Names of the streams, in the order in which they were opened."""

    def size(self, stream: str) -> int:
        """Raw size of one stream in bytes."""

    def frame_starts(self, stream: str) -> Sequence[int]:
        """Raw offset at which each frame begins, ascending; frame i ends where i+1 begins."""

    def read_frame(self, stream: str, index: int) -> bytes:
        """Fetch, verify and decode one frame. ObjectDamaged if its checksum does not match."""


@dataclass(frozen=True, slots=True)
class BackupResult:
    """What a backup proved. Fields as in model.Point; ``forks`` are all that the server told of
    its lineages, with ``histories`` the engine's own record of each (kept byte for byte; keys are
    lineages). ``facts`` go into the manifest as they are (JSON values).

    ``continues_on``: a log backup stopped at a fork; another, from there, follows at once.
    ``notes``: what is worth knowing, such as why another method was used than the one asked for.
    ``after_commit`` is called once, after the manifest is in the vault; it may raise EngineError,
    which is told and does not undo anything.
    """

    type: PointType
    lineage: str
    first_lsn: int
    last_lsn: int
    started_at: datetime
    finished_at: datetime
    reachable_from: datetime | None = None
    covers_until: datetime | None = None
    first_lineage: str | None = None
    has_bulk_logged: bool = False
    forks: tuple[Fork, ...] = ()
    histories: Mapping[str, bytes] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    continues_on: LogPosition | None = None
    notes: tuple[Note, ...] = ()
    after_commit: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class LogGap:
    """Why log is not held any more: ``why`` in words that begin a sentence, ``findings`` what the
    server told of how it came to that."""

    why: str
    findings: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class DifferentialBase:
    """The full that a differential builds on: its planner's facts, the engine's facts of its
    manifest, its payload, and how to find out what changed since."""

    point: Point
    facts: Mapping[str, Any]
    source: PayloadSource
    method: DifferentialMethod = DifferentialMethod.AUTO


@dataclass(frozen=True, slots=True)
class ShippedPiece:
    """Log as it was written: ``data`` is exactly ``[first_lsn, last_lsn)``. ``covers_until`` and
    ``finished_at`` as in model.ShippedLog. ``known_by`` is a fact like those of a log backup: the
    engine can tell by it later whether the server's log before ``last_lsn`` is still this one."""

    first_lsn: int
    last_lsn: int
    data: bytes
    covers_until: datetime | None
    finished_at: datetime
    known_by: Mapping[str, Any]


class Shipment(Protocol):
    """A server's log while it is written; closed by the ``with`` block of ``Engine.ship``."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """The engine's facts, as a log backup taken now would have them (JSON values)."""

    def pieces(self) -> Iterator[ShippedPiece]:
        """Piece after piece without a gap, until the stop signal (Interrupted) or an error of the
        engine. One at least each interval, whether anything was written or not."""


@dataclass(frozen=True, slots=True)
class RestoreStep:
    """One recovery point of a chain: its planner's facts, the engine's facts of its manifest, and
    its payload."""

    point: Point
    facts: Mapping[str, Any]
    source: PayloadSource


@dataclass(frozen=True, slots=True)
class RestoreTarget:
    """Where to restore to. ``start``: run the server there, prove the state and leave it running;
    ``port`` for it (None: the engine's choice). ``program_dir``: where its programs are.
    ``tablespaces``: where tablespaces go, by their location on the source; the engine has a place
    for those that are not named. ``replaces``: ``directory`` holds a stopped cluster, an older
    state of which is to take its place; it is kept beside. ``reuses``: ``directory`` holds a
    stopped cluster of the same origin, which is given up; what of it is right is kept.
    ``log_space_bytes``: how much log may lie on disk ahead of its replay; a longer one is fed while
    the server replays it, and where the operator starts the server, by ``feed_command`` and the
    directory."""

    directory: Path
    start: bool = False
    port: int | None = None
    program_dir: Path | None = None
    tablespaces: Mapping[str, Path] = field(default_factory=dict)
    replaces: bool = False
    reuses: bool = False
    log_space_bytes: int = DEFAULT_LOG_SPACE_BYTES
    feed_command: tuple[str, ...] = ("sqlbak", "feed")


@dataclass(frozen=True, slots=True)
class RestoreOutcome:
    """What a restore reached. ``proven``: the server ran and its state is the one asked for;
    ``last_commit_at`` (UTC) and ``reached`` then say how far it got. ``connection`` is how to
    connect to the running server, ``next_steps`` are sentences for the operator."""

    directory: Path
    proven: bool
    reached: LogPosition | None
    last_commit_at: datetime | None
    connection: str | None
    next_steps: tuple[str, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)


class TailChoice(StrEnum):
    """What becomes of log that is in no backup yet when its database is replaced."""

    BACKUP = "backup"
    DISCARD = "discard"


@dataclass(frozen=True, slots=True)
class DatabaseTarget:
    """Which database of a server a restore makes (SQL Server).

    Attributes:
        name: of the database there.
        replaces: there is a database of that name, and its older state is to take its place.
        moves: where files go, by their logical names; the others go where the server puts its own.
        recovers: open the database at the end; else it is left waiting for more log.
        tail: what becomes of the replaced database's log that is in no backup; None: refuse then.
        disconnects: end the sessions that use the database; else refuse while there are any.
        resumes: go on with a restore of the same chain that was interrupted.
    """

    name: str
    replaces: bool = False
    moves: Mapping[str, str] = field(default_factory=dict)
    recovers: bool = True
    tail: TailChoice | None = None
    disconnects: bool = False
    resumes: bool = False


@dataclass(frozen=True, slots=True)
class DatabaseOutcome:
    """What the restore of a database reached. ``state`` is the server's own word for it, ONLINE
    where it was recovered; ``proven``: it is ONLINE, and nothing up to the instant asked for can be
    missing. ``resumed_after``: how many steps an earlier run had done."""

    server: str
    database: str
    state: str
    proven: bool
    reached: LogPosition | None
    stop_at: str | None
    files: Mapping[str, str]
    next_steps: tuple[str, ...]
    resumed_after: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)


class Engine(Protocol):
    """One database server instance. Methods open and close their own connections."""

    def inspect(self) -> Inspection:
        """Look without changing anything. Never raises for what a Problem can say; raises
        ServerUnreachable or ServerRefused when nothing could be asked at all."""

    def full(
        self,
        sink: PayloadSink,
        *,
        label: str,
        progress: Progress,
        stop: StopSignal,
        is_copy_only: bool = False,
    ) -> BackupResult:
        """A full backup that restores to its own end without any log. ``is_copy_only``: no
        differential will ever be of it, where the server itself keeps account of that."""

    def differential(
        self,
        base: DifferentialBase,
        sink: PayloadSink,
        *,
        label: str,
        progress: Progress,
        stop: StopSignal,
    ) -> BackupResult:
        """What changed since the full ``base``: with it, it restores to its own end without any
        log. BaseUnusable when only another full helps, for one when the server is on another
        lineage now or what was kept with the full to compare with is damaged. LogRewritten when
        the server was put back to a state before the full."""

    def log(
        self,
        since: LogPosition,
        sink: PayloadSink,
        *,
        progress: Progress,
        stop: StopSignal,
        since_facts: Mapping[str, Any] | None = None,
        leaves_restoring: bool = False,
    ) -> BackupResult:
        """The log from ``since`` to now. LogChainBroken when the server no longer has it, or is
        on a lineage that does not descend from ``since``. ``since_facts``: the facts of the
        recovery point that ended there, by which the engine proves that the server's log is still
        the same one. LogRewritten when it is not. ``leaves_restoring``: the tail, after which the
        item takes no writes until it is restored; FeatureUnsupported where an engine has none."""

    def oldest_log(self) -> LogPosition | None:
        """The oldest position from which ``log`` can still start; None: nothing is held."""

    def log_gap(self, since: LogPosition) -> LogGap | None:
        """Why the log from ``since`` on is not held any more; None where the engine knows no more
        than that."""

    def acknowledge(self, position: LogPosition) -> None:
        """Everything before ``position`` is in the vault, manifest included: the server may
        discard it. Never called earlier."""

    def ship(
        self,
        since: LogPosition,
        *,
        since_facts: Mapping[str, Any] | None,
        interval_seconds: float,
        stop: StopSignal,
    ) -> AbstractContextManager[Shipment]:
        """The log from ``since`` on, as it is written. Raises as ``log`` does. Promises the server
        nothing: what it may discard is for ``acknowledge`` alone."""

    def is_same_log(self, position: LogPosition, facts: Mapping[str, Any]) -> bool | None:
        """Whether the server's log up to ``position`` is the one that ended there with ``facts``;
        None where that cannot be told (it has left that lineage before, or keeps no log there)."""
