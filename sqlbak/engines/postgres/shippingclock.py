"""What proves the instants of log that is shipped while it is written, on a primary and on a
standby. See shipping.py for why the first needs no transaction of ours.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import Protocol

from sqlbak.engines.postgres.commitclock import FollowedClock, LogEnd, StandbyClock
from sqlbak.engines.postgres.connection import ReplicationConnection, SqlConnection, Watch
from sqlbak.engines.postgres.heartbeat import read_clock, write_heartbeat
from sqlbak.engines.postgres.identity import SystemIdentity, identify
from sqlbak.engines.postgres.recentlog import RecentLog
from sqlbak.engines.postgres.timelines import parse_lsn
from sqlbak.errors import LogChainBroken, ServerUnreachable

__all__ = [
    "FollowedShippingClock",
    "PrimaryShippingClock",
    "ShippingClock",
    "StandbyShippingClock",
    "flushed_end",
]

_PAGE = 8192
_SHORT_HEADER = 24
_LONG_HEADER = 40
_ASK_AGAIN_SECONDS = 300.0


def flushed_end(inserted: int, segment_size: int) -> int:
    """How far log has to be flushed so that everything before the insert position ``inserted`` is.

    At the start of a page the server tells where the next record will begin, behind the page's
    header that is not written yet (XLogBytePosToRecPtr in xlog.c).
    """
    header = _LONG_HEADER if inserted % segment_size == _LONG_HEADER else _SHORT_HEADER
    return inserted - header if inserted % _PAGE == header else inserted


class ShippingClock(Protocol):
    """Asked once an interval."""

    def covered(self) -> LogEnd:
        """An instant, and how far log has to come until it is covered."""

    def push(self) -> None:
        """Have the server flush what it left unflushed."""

    def now(self, end: int, watch: Watch, /) -> datetime:
        """An instant after which nothing was committed of what lies before ``end``."""

    def look(self, log: RecentLog, /) -> None:
        """Look at log that came; raises when it is not the log that is asked for."""


class PrimaryShippingClock:
    """The server that writes the log."""

    def __init__(self, session: SqlConnection, segment_size: int) -> None:
        self._session = session
        self._segment_size = segment_size

    def covered(self) -> LogEnd:
        """See ShippingClock."""
        covers_until = read_clock(self._session)
        inserted = parse_lsn(
            self._session.value(
                "SELECT pg_current_wal_insert_lsn()::text", doing="reading the log's end"
            )
        )
        return LogEnd(covers_until, flushed_end(inserted, self._segment_size))

    def push(self) -> None:
        """See ShippingClock."""
        write_heartbeat(self._session)

    def now(self, _end: int, _watch: Watch, /) -> datetime:
        """See ShippingClock."""
        return read_clock(self._session)

    def look(self, _log: RecentLog, /) -> None:
        """See ShippingClock."""


class _OneTimeline:
    """Watches that a standby stays on the timeline that it is asked for. Needs a WAL sender of its
    own, as the one that sends the log answers nothing else."""

    def __init__(
        self, connection: ReplicationConnection, identity: SystemIdentity, watch: Watch
    ) -> None:
        self._connection = connection
        self._identity = identity
        self._watch = watch

    def check(self) -> None:
        """LogChainBroken when it left it: what was read before this may be of the next one."""
        now = identify(self._connection, self._watch)
        if (now.timeline, now.is_standby) != (self._identity.timeline, True):
            raise LogChainBroken(
                f"the standby was promoted, or follows another timeline than"
                f" {self._identity.timeline} now",
                hint="the next log backup follows; shipping goes on after it",
            )


class FollowedShippingClock:
    """The primary of the standby that sends the log. One heartbeat, at the beginning, proves that
    it is its primary; the session cannot outlive the primary's timeline."""

    def __init__(
        self,
        followed: FollowedClock,
        primary: SqlConnection,
        segment_size: int,
        connection: ReplicationConnection,
        identity: SystemIdentity,
        watch: Watch,
    ) -> None:
        self._followed = followed
        self._primary = PrimaryShippingClock(primary, segment_size)
        self._timeline = _OneTimeline(connection, identity, watch)
        self._unseen: int | None = followed.write()

    def covered(self) -> LogEnd:
        """See ShippingClock."""
        end = self._primary.covered()
        self._timeline.check()
        return end

    def push(self) -> None:
        """See ShippingClock."""
        self._primary.push()

    def now(self, end: int, watch: Watch, /) -> datetime:
        """See ShippingClock."""
        return self._primary.now(end, watch)

    def look(self, log: RecentLog, /) -> None:
        """See ShippingClock."""
        if self._unseen is not None and log.end >= self._unseen:
            self._followed.confirmed(None, log)
            self._unseen = None


class StandbyShippingClock:
    """A standby whose primary cannot be asked. ``why_not``: the reason where it should be; then
    this is given up after a while (ServerUnreachable), for another try."""

    def __init__(
        self,
        standby: StandbyClock,
        connection: ReplicationConnection,
        identity: SystemIdentity,
        watch: Watch,
        *,
        why_not: str,
    ) -> None:
        self._standby = standby
        self._timeline = _OneTimeline(connection, identity, watch)
        self._why_not = why_not
        self._until = time.monotonic() + _ASK_AGAIN_SECONDS

    def covered(self) -> LogEnd:
        """See ShippingClock."""
        if self._why_not and time.monotonic() > self._until:
            raise ServerUnreachable(
                f"log was shipped without asking the primary: {self._why_not}",
                hint="only what the standby has replayed was covered meanwhile; shipping goes on",
            )
        end = self._standby.covered()
        self._timeline.check()
        return end

    def push(self) -> None:
        """See ShippingClock: there is nothing that a standby could flush."""

    def now(self, end: int, watch: Watch, /) -> datetime:
        """See ShippingClock."""
        self._standby.wait_until_replayed(end, watch)
        return self._standby.now()

    def look(self, _log: RecentLog, /) -> None:
        """See ShippingClock."""
