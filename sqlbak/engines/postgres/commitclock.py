"""Up to which instant log is complete: asked of the server whose clock stamps the commits.

On a primary that is the server itself. A standby's own clock says nothing of what its primary had
committed by then, so there are two ways: ask the primary, and wait until the standby has received
the heartbeat that was written there; or promise no more than the time of the last transaction that
the standby has replayed.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from sqlbak.engines.postgres.connection import ReplicationConnection, SqlConnection, Watch
from sqlbak.engines.postgres.dsn import ConnectionString
from sqlbak.engines.postgres.heartbeat import read_clock, take_cut, write_heartbeat
from sqlbak.engines.postgres.identity import SystemIdentity, identify
from sqlbak.engines.postgres.recentlog import RecentLog
from sqlbak.engines.postgres.timelines import format_lsn, parse_lsn
from sqlbak.errors import BackupFailed, EngineError, ServerBehind
from sqlbak.model import Note, NoteCode

__all__ = [
    "PATIENCE_SECONDS",
    "CommitClock",
    "FollowedClock",
    "LogEnd",
    "Primary",
    "PrimaryClock",
    "StandbyClock",
    "commit_clock",
    "open_primary",
    "wait_until_received",
]

PATIENCE_SECONDS = 30.0
"""How long a standby may stand still before we stop waiting for it."""

_LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class LogEnd:
    """Where the log is to be cut. Every transaction that was committed by ``covers_until`` lies
    before ``lsn``; None: no instant is proven."""

    covers_until: datetime | None
    lsn: int


class CommitClock(Protocol):
    """Tells for one backup how far the log proves to be complete. ``notes`` are sentences for
    people about what it could not prove."""

    notes: list[Note]

    def now(self) -> datetime:
        """An instant after which nothing was committed of what lies before the last cut."""

    def cut(self, at_least: int, watch: Watch, /) -> LogEnd:
        """Where to end a backup that holds the log up to ``at_least``, or needs it."""

    def confirmed(self, covers_until: datetime | None, log: RecentLog | None, /) -> datetime | None:
        """What of ``covers_until`` stands once the log is here: BackupFailed when it is not the
        log that was promised."""


class PrimaryClock:
    """The server writes its log itself."""

    def __init__(self, session: SqlConnection) -> None:
        self._session = session
        self.notes: list[Note] = []

    def now(self) -> datetime:
        """See CommitClock."""
        return read_clock(self._session)

    def cut(self, _at_least: int, _watch: Watch, /) -> LogEnd:
        """See CommitClock."""
        cut = take_cut(self._session)
        return LogEnd(cut.covers_until, cut.lsn)

    def confirmed(
        self, covers_until: datetime | None, _log: RecentLog | None, /
    ) -> datetime | None:
        """See CommitClock."""
        return covers_until


class StandbyClock:
    """A standby that nobody can ask the primary for. It is cut at what was replayed: what was
    received only may still turn out to lie behind the point where a promotion ends the timeline."""

    def __init__(self, session: SqlConnection) -> None:
        self._session = session
        self.notes: list[Note] = []

    def last_transaction_end(self) -> datetime | None:
        """When, on the primary's clock, the last transaction replayed was ended; None when none
        was since the standby was started."""
        at: datetime | None = self._session.value(
            "SELECT pg_last_xact_replay_timestamp()", doing="asking for the last transaction"
        )
        return None if at is None else at.astimezone(UTC)

    def replayed(self) -> int:
        """Up to where log was replayed."""
        lsn = self._session.value(
            "SELECT pg_last_wal_replay_lsn()::text", doing="reading how far log was replayed"
        )
        if lsn is None:
            raise BackupFailed("the standby does not say how far it has replayed")
        return parse_lsn(lsn)

    def wait_until_replayed(self, lsn: int, watch: Watch) -> int:
        """Wait until log up to ``lsn`` was replayed; how far it is then. ServerBehind when replay
        stands still before."""
        return _wait(self.replayed, lsn, watch, what="replayed")

    def now(self) -> datetime:
        """See CommitClock: the later of two clocks, as the standby's may go slow."""
        own, last = read_clock(self._session), self.last_transaction_end()
        return own if last is None else max(own, last)

    def covered(self) -> LogEnd:
        """How far log is replayed, and up to which instant that is complete."""
        # In this order: whatever was replayed by then lies before the position read next.
        covers_until = self.last_transaction_end()
        return LogEnd(covers_until, self.replayed())

    def cut(self, at_least: int, watch: Watch, /) -> LogEnd:
        """See CommitClock."""
        self.wait_until_replayed(at_least, watch)
        return self.covered()

    def confirmed(self, covers_until: datetime | None, log: RecentLog | None, /) -> datetime | None:
        """See CommitClock. The log itself may know of a later end of a transaction."""
        told = None if log is None else log.newest_transaction_end()
        if covers_until is None or told is None:
            return covers_until
        return max(covers_until, told)


class FollowedClock:
    """A standby whose primary answers: the heartbeat is written there, and has to arrive here."""

    def __init__(
        self,
        primary: SqlConnection,
        standby: StandbyClock,
        received: Callable[[], int],
    ) -> None:
        self._primary = primary
        self._standby = standby
        self._received = received
        self._text = f"heartbeat {secrets.token_hex(8)}"
        self._written: int | None = None
        self._is_primary_asked = True
        self.notes: list[Note] = []

    def now(self) -> datetime:
        """See CommitClock."""
        return read_clock(self._primary) if self._is_primary_asked else self._standby.now()

    def cut(self, at_least: int, watch: Watch, /) -> LogEnd:
        """See CommitClock."""
        try:
            cut = take_cut(self._primary, text=self._text)
            if cut.lsn < at_least:
                raise BackupFailed(
                    f"the log of the primary ends at {format_lsn(cut.lsn)}, and the standby's"
                    f" goes on to {format_lsn(at_least)}"
                )
            _wait(self._received, cut.lsn, watch, what="received")
        except EngineError as error:
            self._is_primary_asked = False
            self.notes.append(unproven(error.message))
            return self._standby.cut(at_least, watch)
        self._written = cut.heartbeat_end
        return LogEnd(cut.covers_until, cut.lsn)

    def write(self) -> int:
        """Write the heartbeat that ``confirmed`` looks for, without a cut; where it ends."""
        self._written = write_heartbeat(self._primary, text=self._text)
        return self._written

    def confirmed(self, covers_until: datetime | None, log: RecentLog | None, /) -> datetime | None:
        """See CommitClock. The heartbeat holds a text that no other server can have written, so
        finding it proves that the log is the primary's."""
        if not self._is_primary_asked:
            return self._standby.confirmed(covers_until, log)
        if self._written is None or log is None:
            return None
        if not log.holds(self._text, before=self._written):
            raise BackupFailed(
                "the heartbeat that was written on the primary is not in the standby's log: the"
                " standby follows another server",
                hint="let primary_dsn name the server that the standby gets its log from",
            )
        return covers_until


def unproven(why: str) -> Note:
    """The note of a backup that could not ask the primary."""
    return Note(
        NoteCode.COVERAGE_UNPROVEN,
        "the instant up to which this backup covers is that of the last transaction replayed by"
        f" the standby: {why}",
    )


@dataclass(frozen=True, slots=True)
class Primary:
    """A session on the primary, or why there is none."""

    session: SqlConnection | None
    why_not: str = ""


@contextmanager
def open_primary(target: ConnectionString | None, standby: SystemIdentity) -> Iterator[Primary]:
    """Log in to what the configuration calls the primary of ``standby``, and look whether it is
    one. Needs no right of replication there."""
    if target is None:
        yield Primary(None, "no primary_dsn is configured, so the primary cannot be asked")
        return
    try:
        session = SqlConnection.open(target)
    except EngineError as error:
        yield Primary(None, error.message)
        return
    with session:
        why_not = _not_its_primary(target, session, standby)
        yield Primary(None, why_not) if why_not else Primary(session)


def _not_its_primary(
    target: ConnectionString, session: SqlConnection, standby: SystemIdentity
) -> str:
    try:
        if session.value("SELECT pg_is_in_recovery()", doing="asking whether it is a primary"):
            return f"{target.where}, the primary_dsn, is a standby itself"
        system_identifier, timeline = session.rows(
            "SELECT system_identifier::text, substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"
            " FROM pg_control_system()",
            doing="asking for the system identifier",
        )[0]
    except EngineError as error:
        return error.message
    if system_identifier != standby.system_identifier:
        return (
            f"{target.where}, the primary_dsn, is another cluster (system identifier"
            f" {system_identifier}) than the standby's ({standby.system_identifier})"
        )
    if int(timeline, 16) != standby.timeline:
        return (
            f"{target.where}, the primary_dsn, is on timeline {int(timeline, 16)}, and the standby"
            f" on timeline {standby.timeline}"
        )
    return ""


@contextmanager
def commit_clock(
    session: SqlConnection,
    connection: ReplicationConnection,
    identity: SystemIdentity,
    primary: ConnectionString | None,
    watch: Watch,
) -> Iterator[CommitClock]:
    """The clock for one cut of the log of the server that ``session`` and ``connection`` (idle, for
    as long as the clock is used) lead to."""
    if not identity.is_standby:
        yield PrimaryClock(session)
        return
    standby = StandbyClock(session)
    with open_primary(primary, identity) as asked:
        if asked.session is None:
            if primary is not None:
                standby.notes.append(unproven(asked.why_not))
            yield standby
        else:
            yield FollowedClock(
                asked.session, standby, lambda: identify(connection, watch).flushed_lsn
            )


def wait_until_received(
    connection: ReplicationConnection, identity: SystemIdentity, lsn: int, watch: Watch
) -> SystemIdentity:
    """Give a standby time to receive the log up to ``lsn``; who it is then. ServerBehind when
    nothing arrives any more. A primary is not waited for."""
    if not identity.is_standby or identity.flushed_lsn >= lsn:
        return identity
    _wait(lambda: identify(connection, watch).flushed_lsn, lsn, watch, what="received")
    return identify(connection, watch)


def _wait(position: Callable[[], int], lsn: int, watch: Watch, *, what: str) -> int:
    """Until ``position`` has come to ``lsn``; where it is then."""
    reached = position()
    moved_at = time.monotonic()
    while reached < lsn:
        watch()
        time.sleep(_LOOK_SECONDS)
        now = position()
        if now > reached:
            moved_at = time.monotonic()
        reached = now
        if reached < lsn and time.monotonic() - moved_at > PATIENCE_SECONDS:
            raise ServerBehind(
                f"the standby has {what} log up to {format_lsn(reached)}, not yet up to"
                f" {format_lsn(lsn)}, and nothing moved for {PATIENCE_SECONDS:.0f} s",
                hint="does it still follow its primary? pg_stat_wal_receiver and its log say more",
            )
    return reached
