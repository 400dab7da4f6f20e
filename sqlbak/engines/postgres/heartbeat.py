"""Choosing where a backup ends, so that the instant it promises can really be reached.

Recovery to an instant stops only at a commit or abort record later than it (recoveryStopsBefore
in xlogrecovery.c); on an idle server none would ever come, and PostgreSQL then refuses the
target. So a transaction of our own is written between reading the clock and reading the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlbak.engines.postgres.connection import SqlConnection
from sqlbak.engines.postgres.timelines import parse_lsn
from sqlbak.errors import BackupFailed

__all__ = ["Cut", "read_clock", "take_cut", "write_heartbeat"]

_TEXT = "heartbeat"


@dataclass(frozen=True, slots=True)
class Cut:
    """Every transaction that was committed by ``covers_until`` (server clock, UTC) lies before
    ``lsn``, and so does a commit record that is later than it. ``heartbeat_end``: where the
    heartbeat's message ends in the log."""

    covers_until: datetime
    lsn: int
    heartbeat_end: int


def read_clock(session: SqlConnection) -> datetime:
    """The server's clock, in UTC."""
    now: datetime = session.value("SELECT clock_timestamp()", doing="reading the server's clock")
    return now.astimezone(UTC)


def write_heartbeat(session: SqlConnection, *, text: str = _TEXT) -> int:
    """Commit a transaction of our own, flushed when this returns, and with it all log before it.
    Where its message, which holds ``text``, ends in the log."""
    with session.transaction(doing="writing the heartbeat transaction"):
        session.execute("SET LOCAL synchronous_commit = local", doing="writing the heartbeat")
        written = session.value(
            "SELECT pg_logical_emit_message(true, 'sqlbak', %s::text)::text",
            [text],
            doing="writing the heartbeat",
        )
    return parse_lsn(written)


def take_cut(session: SqlConnection, *, text: str = _TEXT) -> Cut:
    """Read the clock, commit a heartbeat strictly later (its message holds ``text``), read the end
    of the flushed log."""
    covers_until = read_clock(session)
    with session.transaction(doing="writing the heartbeat transaction"):
        # A synchronous standby that is down must not hang backups; flushed here is enough.
        session.execute("SET LOCAL synchronous_commit = local", doing="writing the heartbeat")
        written = session.value(
            "SELECT pg_logical_emit_message(true, 'sqlbak', %s::text)::text",
            [text],
            doing="writing the heartbeat",
        )
        # The commit record's time has microseconds and is read after this.
        for _ in range(200):
            if read_clock(session) > covers_until:
                break
            session.execute("SELECT pg_sleep(0.01)", doing="waiting for the clock to move")
        else:
            raise BackupFailed(
                "the database server's clock stands still or was set back while the backup ran",
                hint="check time synchronisation on the database server, then try again",
            )
    lsn = parse_lsn(
        session.value("SELECT pg_current_wal_flush_lsn()::text", doing="reading the log's end")
    )
    if lsn <= parse_lsn(written):
        raise BackupFailed("the server did not flush the heartbeat that it said was committed")
    return Cut(covers_until, lsn, parse_lsn(written))
