"""Runs a restored cluster through its recovery, proves what it reached, and only then lets it
become a database of its own."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from sqlbak.engines.postgres.chain import Chain
from sqlbak.engines.postgres.frames import FrameReader
from sqlbak.engines.postgres.ground import write_file
from sqlbak.engines.postgres.programs import Programs
from sqlbak.engines.postgres.proof import (
    Reached,
    ask_standby,
    prove_history,
    prove_log,
    prove_standby,
)
from sqlbak.engines.postgres.recovery import StopPoint, recovery_overrides
from sqlbak.engines.postgres.server import (
    Server,
    ServerUser,
    free_port,
    last_complaint,
    socket_directory_fits,
)
from sqlbak.engines.postgres.timelines import history_name
from sqlbak.engines.postgres.unloggedfiles import has_emptied_relations
from sqlbak.engines.postgres.walfeed import TablespaceInTheWay, WalFeed
from sqlbak.engines.postgres.walrecords import Record
from sqlbak.engines.postgres.walspool import WalSpool
from sqlbak.errors import RestoreFailed, RestoreNotProven
from sqlbak.progress import Progress
from sqlbak.stopping import StopSignal

__all__ = ["Recovery", "TargetNotReached", "socket_directory"]

_LOOK_SECONDS = 0.1
_NOT_YET = re.compile(
    r"starting up|not yet accepting|No such file|refused|shutting down|in recovery mode"
    r"|not accepting connections|timeout"
    # It ends just now; what it died of is in its log.
    r"|closed the connection|terminating connection|reset by peer|Broken pipe"
)
_TOO_SMALL = "hot standby is not possible because of insufficient parameter settings"
_NOT_REACHED = "recovery ended before configured recovery target was reached"


class TargetNotReached(RestoreFailed):
    """The log holds no commit after the instant asked for, so PostgreSQL did not stop by it."""


def socket_directory(home: Path, user: ServerUser) -> Path:
    """A private directory for the server's socket: ``home`` itself unless its path is too long
    for a socket."""
    if socket_directory_fits(home):
        return home
    short = Path(tempfile.mkdtemp(prefix="sqlbak-"))
    user.own(short)
    return short


@dataclass(frozen=True, slots=True)
class Recovery:
    """Everything that recovering one unpacked cluster needs. ``home`` is a private directory
    inside the target for what the server needs meanwhile; its ``server.log`` stays.
    ``log_space_bytes``: how much log may lie ready for it; ``give_up_seconds``: after which it
    gives up when we are gone."""

    chain: Chain
    record: Record
    directory: Path
    home: Path
    programs: Programs
    user: ServerUser
    frames: FrameReader
    role: str
    progress: Progress
    stop: StopSignal
    log_space_bytes: int
    give_up_seconds: float

    @property
    def log_path(self) -> Path:
        """What the server says."""
        return self.home / "server.log"

    def run_any(self, stop_points: Sequence[StopPoint]) -> Reached:
        """``run`` with the first stop point that the log allows."""
        for stop_point in stop_points[:-1]:
            try:
                return self.run(stop_point)
            except TargetNotReached:
                continue
        return self.run(stop_points[-1])

    def run(self, stop_point: StopPoint) -> Reached:
        """Recover to ``stop_point``, prove it, promote, prove again, and stop the server.

        Raises TargetNotReached, RestoreNotProven (the server was stopped and not promoted),
        RestoreFailed with the server's own words, TablespaceInTheWay, or Interrupted.
        """
        try:
            return self._run(stop_point, {})
        except TablespaceInTheWay:
            if self.chain.major < 15 or stop_point.time is None:
                raise
        # Since 15 a server reads some log ahead of its replay: it may have asked for what lies
        # behind the target. Without reading ahead it only asks for what it will replay.
        return self._run(stop_point, {"recovery_prefetch": "off"})

    def _run(self, stop_point: StopPoint, more_options: Mapping[str, str]) -> Reached:
        self.progress.phase("replay", self.chain.log_bytes)
        began_at = self.log_path.stat().st_size if self.log_path.exists() else 0
        with self._scaffold() as (spool, sockets):
            feed = WalFeed(
                self.chain.log,
                spool,
                frames=self.frames,
                progress=self.progress,
                budget_bytes=self.log_space_bytes,
            )
            port = free_port()
            options = recovery_overrides(
                stop_point,
                directory=self.directory,
                home=self.home,
                socket_directory=sockets,
                port=port,
                restore_command=spool.restore_command(),
                source_settings=self.chain.settings,
                segment_size=self.chain.log.segment_size,
            )
            server = Server(
                self.programs,
                self.directory,
                user=self.user,
                log_path=self.log_path,
                options={**options, **more_options},
            )
            with feed, server:
                session = _Session(self, server, feed, sockets, port, began_at)
                try:
                    reached = session.follow(stop_point)
                finally:
                    session.close()
                if has_emptied_relations(self.directory):
                    # It has just written a checkpoint: nothing is lost by a crash.
                    server.stop(is_clean=False)
                return reached

    @contextmanager
    def _scaffold(self) -> Iterator[tuple[WalSpool, Path]]:
        """Our own configuration files, the spool's place and the socket's; all removed again."""
        contents = {
            "postgresql.conf": b"# Written by sqlbak restore, for the recovery only.\n",
            "pg_hba.conf": b"local all all trust\n",
            "pg_ident.conf": b"",
        }
        spool = WalSpool(self.home / "feed", self.user, give_up_seconds=self.give_up_seconds)
        sockets = socket_directory(self.home, self.user)
        try:
            for name, content in contents.items():
                write_file(self.home / name, content, self.user)
            yield spool, sockets
        finally:
            for name in contents:
                (self.home / name).unlink(missing_ok=True)
            if spool.directory.exists():
                shutil.rmtree(spool.directory)
            if sockets != self.home:
                shutil.rmtree(sockets)


class _Session:
    """One run of the recovering server, followed to its promotion."""

    def __init__(
        self,
        recovery: Recovery,
        server: Server,
        feed: WalFeed,
        sockets: Path,
        port: int,
        log_began_at: int,
    ) -> None:
        self._recovery = recovery
        self._server = server
        self._feed = feed
        self._sockets = sockets
        self._port = port
        self._log_began_at = log_began_at
        self._connection: psycopg.Connection[Any] | None = None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def follow(self, stop_point: StopPoint) -> Reached:
        ends_at = self._recovery.record.end
        paused: Reached | None = None
        while not self._feed.is_at_gate:
            self._check_alive()
            if paused is None and self._connect() and self._is_paused():
                paused = self._prove_paused(stop_point)
                self._execute("SELECT pg_wal_replay_resume()")
            self._recovery.stop.wait(_LOOK_SECONDS)
        last_commit_at = prove_log(self._log(), stop_point, ends_at=ends_at)
        self._feed.permit_promotion()
        history = self._promoted(stop_point)
        reached_lsn = prove_history(history, stop_point, paused.lsn if paused else None)
        if reached_lsn > ends_at:
            raise RestoreNotProven("the new timeline begins after the chain's end")
        self._execute("CHECKPOINT")
        return paused or Reached(stop_point.timeline, reached_lsn, last_commit_at)

    def _check_alive(self) -> None:
        """Raise whatever ended this recovery, our own failures before the server's."""
        self._recovery.stop.check()
        self._feed.check()
        if self._server.exit_code() is None:
            return
        path = self._recovery.log_path
        complaint = last_complaint(path, self._log_began_at)
        if complaint is not None and _NOT_REACHED in complaint:
            raise TargetNotReached(f"the log ends before a transaction that is later: {complaint}")
        raise RestoreFailed(
            f"the recovering server ended: {complaint or 'it gave no reason'}",
            hint=f"its log is {path}",
        )

    def _log(self) -> str:
        with self._recovery.log_path.open("rb") as log:
            log.seek(self._log_began_at)
            return log.read().decode("utf-8", "replace")

    def _connect(self) -> bool:
        if self._connection is not None:
            return True
        try:
            self._connection = psycopg.connect(
                host=str(self._sockets),
                port=self._port,
                user=self._recovery.role,
                dbname="template1",
                connect_timeout=10,
                options="",
                autocommit=True,
            )
        except psycopg.OperationalError as error:
            if _NOT_YET.search(str(error)):
                return False
            raise RestoreFailed(
                f"the recovering server lets {self._recovery.role} not in: {error}"
            ) from error
        return True

    def _execute(self, statement: str) -> None:
        assert self._connection is not None  # noqa: S101 - callers connected
        self._connection.execute(statement)

    def _is_paused(self) -> bool:
        assert self._connection is not None  # noqa: S101 - callers connected
        try:
            return ask_standby(self._connection).is_paused
        except psycopg.OperationalError:
            self._connection.close()
            self._connection = None
            return False

    def _prove_paused(self, stop_point: StopPoint) -> Reached:
        assert self._connection is not None  # noqa: S101 - callers connected
        log = self._log()
        if _TOO_SMALL in log and "recovery stopping" not in log:
            raise RestoreFailed(
                "the source raised max_connections or a setting like it while the log was "
                "written, beyond what its recovery points recorded",
                hint=f"the server's log is {self._recovery.log_path}",
            )
        return prove_standby(
            ask_standby(self._connection),
            log,
            stop_point,
            consistent_from=int(self._recovery.chain.base.facts["stop_lsn"]),
            ends_at=self._recovery.record.end,
        )

    def _promoted(self, stop_point: StopPoint) -> str:
        """Wait until the server has left recovery; the history file of its new timeline."""
        while True:
            self._check_alive()
            if self._connect() and self._connection is not None:
                try:
                    row = self._connection.execute(
                        "SELECT pg_is_in_recovery(),"
                        " substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"
                        if not ask_standby(self._connection).is_in_recovery
                        else "SELECT true, ''"
                    ).fetchone()
                except psycopg.OperationalError:
                    self._connection.close()
                    self._connection = None
                    row = None
                if row is not None and not row[0]:
                    timeline = int(row[1], 16)
                    break
            self._recovery.stop.wait(_LOOK_SECONDS)
        if timeline <= stop_point.timeline:
            raise RestoreNotProven(f"the server left recovery on timeline {timeline}")
        path = self._recovery.directory / "pg_wal" / history_name(timeline)
        return path.read_text(errors="replace")
