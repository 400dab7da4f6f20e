"""Receiving log from the server: one thread reads the socket and answers keepalives, whoever
consumes the chunks may take its time.

The server ends a session that does not answer within ``wal_sender_timeout``, so nothing that may
block for long (compression, the vault) ever runs in the receiving thread.
"""

from __future__ import annotations

import queue
import re
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from psycopg import pq

from sqlbak.engines.postgres.connection import (
    END_OF_COPY,
    ReplicationConnection,
    Watch,
)
from sqlbak.engines.postgres.dsn import APPLICATION_NAME
from sqlbak.engines.postgres.replication import (
    MessageDamaged,
    WalData,
    parse_wal_message,
    standby_status,
)
from sqlbak.engines.postgres.timelines import format_lsn
from sqlbak.errors import BackupFailed, ServerUnreachable

__all__ = ["WalCutter", "WalStream", "may_release_commits"]

_STATUS_SECONDS = 1.0
_POLL_SECONDS = 0.2
_ASK_AFTER_SECONDS = 15.0
_SILENCE_SECONDS = 60.0
_QUEUE_CHUNKS = 64  # of at most 128 KiB each: MAX_SEND_SIZE in walsender.c


def may_release_commits(synchronous_standby_names: str | None) -> bool:
    """Whether the server could take us for a synchronous standby, and so release commits because
    of a position that we report: our name or ``*`` is in its list."""
    names = re.split(r"[\s,()\"]+", (synchronous_standby_names or "").lower())
    return "*" in names or APPLICATION_NAME in names


class WalCutter:
    """Takes log messages in order and passes on the bytes up to an end that may become known
    late. Pure. ``position`` is the end of what was passed on."""

    def __init__(self, start: int, end: int | None = None) -> None:
        self.position = start
        self._end = end

    def end_at(self, end: int) -> None:
        """Pass on nothing after ``end``; what was passed on already stays."""
        self._end = end

    @property
    def is_done(self) -> bool:
        """Whether everything up to the end was passed on."""
        return self._end is not None and self.position >= self._end

    def accept(self, message: WalData) -> memoryview:
        """The bytes to keep of this message. MessageDamaged unless it begins where the one before
        it ended: a hole in the log is worse than no log."""
        if message.start != self.position:
            raise MessageDamaged(
                f"the log stream jumped from {format_lsn(self.position)}"
                f" to {format_lsn(message.start)}"
            )
        end = self._end
        data = message.data
        if end is not None and self.position + len(data) > end:
            data = data[: max(0, end - self.position)]
        self.position += len(data)
        return data


class WalStream:
    """The log of one timeline from ``start`` on. A context manager: leaving it ends the thread.

    ``reports_flush``: tell the server that what we have may be discarded (for a slot that only
    lives as long as this session). Otherwise nothing is promised.
    ``reports_written``: tell it what we have received, so that a shutdown, which waits for that
    (WalSndDone in walsender.c), does not wait for us. With no flush reported we are never taken
    for a synchronous standby (SyncRepGetCandidateStandbys in syncrep.c).
    """

    def __init__(
        self,
        connection: ReplicationConnection,
        *,
        timeline: int,
        start: int,
        end: int | None = None,
        reports_flush: bool = False,
        reports_written: bool = False,
    ) -> None:
        self._connection = connection
        self._timeline = timeline
        self._start = start
        self._cutter = WalCutter(start, end)
        self._reports_flush = reports_flush
        self._reports_written = reports_written or reports_flush
        self._chunks: queue.Queue[memoryview | None] = queue.Queue(_QUEUE_CHUNKS)
        self._is_abandoned = threading.Event()
        self._failure: BaseException | None = None
        self._next_status = 0.0
        self._heard_at = 0.0
        self._thread = threading.Thread(target=self._receive, name="wal-receiver")

    @property
    def position(self) -> int:
        """The end of what was received; final once ``chunks`` ended."""
        return self._cutter.position

    def begin(self, watch: Watch, *, slot: str | None = None) -> None:
        """Ask for the log and start the thread. LogChainBroken if the server no longer has it."""
        with_slot = f'SLOT "{slot}" ' if slot else ""
        self._connection.begin(
            f"START_REPLICATION {with_slot}PHYSICAL {format_lsn(self._start)}"
            f" TIMELINE {self._timeline}",
            doing=f"streaming log from {format_lsn(self._start)}",
        )
        result = self._connection.next_result(watch)
        if result is None or result.status != pq.ExecStatus.COPY_BOTH:
            raise BackupFailed(
                f"the server has no log of timeline {self._timeline}"
                f" from {format_lsn(self._start)} on"
            )
        self._heard_at = time.monotonic()
        self._thread.start()

    def end_at(self, end: int) -> None:
        """Stop at ``end``, or where the stream is already if that is later."""
        self._cutter.end_at(end)

    def chunks(self, watch: Watch) -> Iterator[memoryview]:
        """Log bytes in order, without a gap. Raises what ended the stream before its end."""
        while True:
            try:
                chunk = self._chunks.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                watch()
                continue
            if chunk is None:
                break
            yield chunk
        if self._failure is not None:
            raise self._failure

    def next_chunk(self, timeout_seconds: float) -> memoryview | None:
        """The next log bytes; None when none came in that time. For a stream without an end:
        raises what ended it."""
        try:
            chunk = self._chunks.get(timeout=timeout_seconds)
        except queue.Empty:
            return None
        if chunk is None:
            raise self._failure or BackupFailed("the log stream has ended")
        return chunk

    def _receive(self) -> None:
        try:
            while not self._cutter.is_done and not self._is_abandoned.is_set():
                message = self._connection.poll_copy()
                if isinstance(message, memoryview):
                    self._take(message)
                elif message is END_OF_COPY:
                    self._raise_early_end()
                else:
                    self._connection.wait_readable(_POLL_SECONDS)
                self._keep_alive()
            if not self._is_abandoned.is_set():
                self._connection.end_copy(lambda: None, within_seconds=30)
        except MessageDamaged as problem:
            self._failure = BackupFailed(str(problem))
        except BaseException as problem:  # noqa: BLE001  raised again where chunks are consumed
            self._failure = problem
        finally:
            self._put(None)

    def _take(self, message: memoryview) -> None:
        self._heard_at = time.monotonic()
        parsed = parse_wal_message(message)
        if isinstance(parsed, WalData):
            data = self._cutter.accept(parsed)
            if data:
                self._put(data)
        elif parsed.wants_reply:
            self._next_status = 0.0

    def _put(self, chunk: memoryview | None) -> None:
        while not self._is_abandoned.is_set():
            try:
                self._chunks.put(chunk, timeout=_POLL_SECONDS)
            except queue.Full:
                if self._failure is None and chunk is not None:
                    # We do not listen now, so silence means nothing.
                    self._heard_at = time.monotonic()
                    self._keep_alive()
                continue
            return

    def _keep_alive(self) -> None:
        now = time.monotonic()
        if now < self._next_status:
            return
        silence = now - self._heard_at
        if silence > _SILENCE_SECONDS:
            raise ServerUnreachable(
                f"the server has sent neither log nor a sign of life for {silence:.0f} s",
                hint="check the server and the network; the next run tries again",
            )
        self._connection.send_copy(
            standby_status(
                written=self.position if self._reports_written else 0,
                flushed=self.position if self._reports_flush else 0,
                now=datetime.now(UTC),
                wants_reply=silence > _ASK_AFTER_SECONDS,
            )
        )
        self._next_status = now + _STATUS_SECONDS

    def _raise_early_end(self) -> None:
        deadline = time.monotonic() + 30

        def watch() -> None:
            if time.monotonic() > deadline:
                raise BackupFailed("the server does not end the log stream that it ended")

        while (result := self._connection.next_result(watch)) is not None:
            if result.status == pq.ExecStatus.COPY_IN:
                # The end of a timeline: the copy is over when we end our side, too; until then
                # libpq gives this very result again and again.
                self._connection.end_upload(watch)
                break
        raise BackupFailed(
            f"the server ended the log stream at {format_lsn(self.position)}, before its end",
            hint="was the server stopped or promoted? its log says more",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_abandoned.set()
        if self._thread.ident is not None:
            self._thread.join()
