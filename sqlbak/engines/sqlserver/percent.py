"""How far a backup is: by the messages of the statement itself, and by a second session where
those are far apart."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Final, Self

from sqlbak.engines.sqlserver.address import ServerAddress
from sqlbak.engines.sqlserver.connection import Session
from sqlbak.errors import SqlbakError
from sqlbak.progress import Progress
from sqlbak.stopping import StopSignal

__all__ = ["PercentWatch"]

_FIRST_LOOK_SECONDS: Final = 10.0
_INTERVAL_SECONDS: Final = 10.0


class PercentWatch:
    """Tells ``progress`` of bytes as the percentage grows, inside its ``with`` block.

    The second session is opened only for a statement that runs longer than a few seconds; where
    the login may not look at other sessions, or nothing answers, the messages alone have to do.
    """

    def __init__(
        self, address: ServerAddress, session_id: int, progress: Progress, size_bytes: int
    ) -> None:
        self._address = address
        self._session_id = session_id
        self._progress = progress
        self._size_bytes = size_bytes
        self._told_bytes = 0
        self._lock = threading.Lock()
        self._end = StopSignal()
        self._thread = threading.Thread(target=self._look, name="backup percent", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end.request("the backup has ended")
        self._thread.join()

    def at(self, percent: float) -> None:
        """So much is done; never goes back."""
        with self._lock:
            done = int(self._size_bytes * min(percent, 100.0) / 100)
            step = done - self._told_bytes
            if step > 0:
                self._told_bytes = done
                self._progress.advance(step)

    def _look(self) -> None:
        if self._end.wait(_FIRST_LOOK_SECONDS):
            return
        # Only for showing: whatever goes wrong here must not end a backup.
        try:
            with Session.open(self._address, stop=self._end) as session:
                while not self._end.is_requested:
                    rows = session.rows(
                        "SELECT percent_complete FROM sys.dm_exec_requests"
                        f" WHERE session_id = {self._session_id:d}",
                        doing="looking how far the backup is",
                        stop=self._end,
                    )
                    if rows:
                        self.at(float(rows[0]["percent_complete"] or 0))
                    self._end.wait(_INTERVAL_SECONDS)
        except SqlbakError:
            return
