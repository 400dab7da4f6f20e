"""Cancellation: one object that a signal handler sets and every wait looks at."""

from __future__ import annotations

import threading

from sqlbak.errors import Interrupted

__all__ = ["NEVER", "StopSignal"]


class StopSignal:
    """Set once, seen by all threads of a job."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._reason = "interrupted"

    def request(self, reason: str = "interrupted") -> None:
        """Ask everything that watches this signal to stop soon. Safe in a signal handler."""
        self._reason = reason
        self._event.set()

    @property
    def is_requested(self) -> bool:
        """Whether somebody asked to stop."""
        return self._event.is_set()

    def check(self) -> None:
        """Raise Interrupted if somebody asked to stop."""
        if self._event.is_set():
            raise Interrupted(self._reason)

    def wait(self, timeout_seconds: float) -> bool:
        """Sleep up to ``timeout_seconds``; True as soon as somebody asks to stop."""
        return self._event.wait(timeout_seconds)


NEVER = StopSignal()
"""A signal that nobody sets."""
