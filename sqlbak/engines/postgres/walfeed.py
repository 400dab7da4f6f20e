"""Feeds log to a recovering server, a bounded distance ahead of its replay.

The gate: before a server leaves recovery it asks for the history files of timelines above its own
(findNewestTimeLine in timeline.c). Those questions stay unanswered until ``permit_promotion``, so
no server leaves recovery without us having said so.
"""

from __future__ import annotations

import re
import threading
from types import TracebackType
from typing import Self

from sqlbak.engines.postgres.frames import FrameReader
from sqlbak.engines.postgres.walrecords import TablespaceFinder
from sqlbak.engines.postgres.walsource import WalChain
from sqlbak.engines.postgres.walspool import WalSpool
from sqlbak.errors import RestoreFailed, SqlbakError, TargetNotUsable
from sqlbak.progress import Progress
from sqlbak.stopping import StopSignal

__all__ = ["TablespaceInTheWay", "WalFeed"]

_HISTORY = re.compile(r"([0-9A-F]{8})\.history")
_BUDGET_BYTES = 1 << 30
_BEAT_SECONDS = 1.0
_LOOK_SECONDS = 0.02


class TablespaceInTheWay(TargetNotUsable):
    """The server asked for log that creates a tablespace, which would empty its directory."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"the log creates a tablespace at {path}; replaying that would empty the directory on "
            "this machine",
            hint="restore to an instant before it was created, or from a full backup taken after",
        )


class WalFeed:
    """A spool and the threads that fill it. Use it in a ``with`` block around the server's life;
    leaving it joins them, and from then on the server is told nothing but 255.

    ``budget_bytes``: how much may lie ready, at least two segments.
    """

    def __init__(
        self,
        chain: WalChain,
        spool: WalSpool,
        *,
        frames: FrameReader,
        progress: Progress,
        budget_bytes: int = _BUDGET_BYTES,
    ) -> None:
        self._chain = chain
        self._spool = spool
        self._frames = frames
        self._progress = progress
        self._budget_segments = max(2, budget_bytes // chain.segment_size)
        self._next_lsn = chain.first_lsn - chain.first_lsn % chain.segment_size
        self._reported_lsn = self._next_lsn
        self._histories = chain.history_files()
        self._tablespaces = TablespaceFinder(chain.segment_size)
        self._held_back_lsn: int | None = None
        self._leaving = StopSignal()
        self._at_gate = threading.Event()
        self._permitted = threading.Event()
        self._failure: BaseException | None = None
        self._threads: list[threading.Thread] = []

    @property
    def is_at_gate(self) -> bool:
        """Whether the server has finished recovery and waits for permission to promote."""
        return self._at_gate.is_set()

    def permit_promotion(self) -> None:
        """Open the gate: the state has been proven."""
        self._permitted.set()

    def check(self) -> None:
        """Raise what made feeding impossible, if anything did."""
        failure = self._failure
        if isinstance(failure, SqlbakError):
            raise failure
        if failure is not None:
            raise RestoreFailed(f"feeding log to the server failed: {failure}") from failure

    def __enter__(self) -> Self:
        self._spool.open()
        for target in (self._feed, self._beat):
            thread = threading.Thread(target=target, name=f"sqlbak-wal{target.__name__}")
            self._threads.append(thread)
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leaving.request()
        for thread in self._threads:
            thread.join()
        self._spool.shut()

    def _beat(self) -> None:
        beats = 0
        while not self._leaving.wait(_BEAT_SECONDS) and self._failure is None:
            beats += 1
            try:
                self._spool.beat(beats)
            except OSError as error:
                self._failure = error

    def _feed(self) -> None:
        try:
            while not self._leaving.is_requested and self._failure is None:
                busy = self._answer()
                busy = self._prepare_next() or busy
                if not busy:
                    self._leaving.wait(_LOOK_SECONDS)
        except BaseException as error:  # noqa: BLE001 - raised again by check()
            self._failure = error
            self._spool.shut()

    def _answer(self) -> bool:
        """Answer what the server asked for; whether there was anything to do."""
        busy = False
        for name in self._spool.asked():
            if not self._spool.has(name) and not self._answer_one(name):
                continue
            busy = True
            self._spool.answered(name)
        return busy

    def _answer_one(self, name: str) -> bool:
        history = _HISTORY.fullmatch(name)
        if history is not None:
            if int(history[1], 16) > self._chain.timeline and not self._permitted.is_set():
                self._at_gate.set()
                return False
            content = self._histories.get(name)
            if content is None:
                self._spool.put_absent(name)
            else:
                self._spool.put_small(name, content)
            return True
        lsn = self._chain.position_of(name)
        if lsn is None:
            self._spool.put_absent(name)
            return True
        # Usually the next one; an earlier one after the server began recovery again. What lies
        # ready before it was prepared twice and is not wanted.
        for ready in self._ready():
            if ready < name:
                self._spool.take_back(ready)
        created = self._prepare(name, lsn)
        if created:
            raise TablespaceInTheWay(created[0])
        self._next_lsn = lsn + self._chain.segment_size
        return True

    def _ready(self) -> list[str]:
        return [name for name in self._spool.ready() if _HISTORY.fullmatch(name) is None]

    def _prepare_next(self) -> bool:
        """Put one more segment into the spool if there is room."""
        lsn = self._next_lsn
        if min(self._chain.last_lsn, self._held_back_lsn or self._chain.last_lsn) <= lsn:
            return False
        if len(self._ready()) >= self._budget_segments:
            return False
        name = self._chain.name_of(lsn)
        if not self._spool.has(name) and self._prepare(name, lsn):
            # Replay may well stop before it: only refuse once the server really asks for it.
            self._held_back_lsn = lsn
            return False
        self._next_lsn = lsn + self._chain.segment_size
        return True

    def _prepare(self, name: str, lsn: int) -> list[str]:
        """Make one segment ready, unless it creates tablespaces: then returns their paths."""
        created: list[str] = []
        with self._spool.draft() as out:
            position = lsn
            for piece in self._chain.segment(self._frames, lsn):
                self._leaving.check()
                created += self._tablespaces.feed(position, piece)
                position += len(piece)
                while piece:
                    piece = piece[out.write(piece) :]
        if created:
            return created
        self._spool.put_draft(name)
        if lsn >= self._reported_lsn:
            self._progress.advance(self._chain.segment_size)
            self._reported_lsn = lsn + self._chain.segment_size
        return []
