"""A statement while it runs: stopped when asked to, and given up when nothing helps any more.

The driver's own time-outs are process-wide and kill connections, so none is used. Instead a thread
beside each statement looks at the clock and at the stop signal: first the server is asked to
cancel; if it does not answer in time, the socket is shut down under the driver.

The driver's own cancel is safe only while the other thread sleeps on the socket. Called while that
one is between two packets, both read on, and one waits for ever for what the other has taken, or
the process dies. So it is called at a moment at which the server has been silent for a while.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

from sqlbak.stopping import StopSignal

__all__ = ["Watch", "note_socket"]

_POLL_SECONDS: Final = 0.1
GRACE_SECONDS: Final = 30.0
"""How long a server may take to acknowledge a cancellation."""

_SILENT_SECONDS: Final = 0.25
_PATIENCE_SECONDS: Final = 10.0
"""How long such a silence is waited for. A server that talks without end has its socket shut down
instead."""

_here = threading.local()


def note_socket(descriptor: int) -> None:
    """The driver's wait callback: called in the thread that runs a statement, before it waits."""
    watch = getattr(_here, "watch", None)
    if watch is not None:
        watch.socket_number = descriptor


class Watch:
    """Watches the statement that runs inside the ``with`` block, in the thread that opened it.

    Args:
        cancel: asks the server to end the statement; callable from another thread.
        stop: ends it when requested.
        limit_seconds: ends it when it takes longer; None: it may take as long as it likes.
        grace_seconds: then the connection is broken.

    Attributes:
        was_cancelled: the server was asked to end the statement.
        ran_out: because of the limit.
        socket_number: the file descriptor that the driver waits on.
    """

    def __init__(
        self,
        cancel: Callable[[], Any],
        stop: StopSignal,
        *,
        limit_seconds: float | None = None,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        self.was_cancelled = False
        self.ran_out = False
        self.socket_number: int | None = None
        self._heard_at = time.monotonic()
        self._cancel = cancel
        self._stop = stop
        self._limit_seconds = limit_seconds
        self._grace_seconds = grace_seconds
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="statement watch", daemon=True)

    def __enter__(self) -> Self:
        _here.watch = self
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over.set()
        self._thread.join()
        _here.watch = None

    def heard(self) -> None:
        """The server has said something just now."""
        self._heard_at = time.monotonic()

    def _look(self) -> None:
        began = time.monotonic()
        while not self._is_over.wait(_POLL_SECONDS):
            over = self._limit_seconds is not None and (
                time.monotonic() - began > self._limit_seconds
            )
            if self._stop.is_requested or over:
                self.ran_out = over and not self._stop.is_requested
                self.was_cancelled = True
                if self._is_silent():
                    self._cancel()
                    self._is_over.wait(self._grace_seconds)
                if not self._is_over.is_set():
                    self._break()
                return

    def _is_silent(self) -> bool:
        """Wait for a silence. False: there is none, or the statement is over meanwhile."""
        asked_at = time.monotonic()
        while time.monotonic() - asked_at < _PATIENCE_SECONDS:
            if self._is_over.wait(_POLL_SECONDS):
                return False
            if time.monotonic() - self._heard_at >= _SILENT_SECONDS:
                return True
        return False

    def _break(self) -> None:
        if self.socket_number is None:
            return
        # Closing the connection from this thread would abort the process; a shutdown of the
        # socket beneath it makes the driver see a server that went away.
        try:
            beneath = socket.socket(fileno=os.dup(self.socket_number))
        except OSError:
            return
        try:
            beneath.shutdown(socket.SHUT_RDWR)
        except OSError:
            return
        finally:
            beneath.close()
