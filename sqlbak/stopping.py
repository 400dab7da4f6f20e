"""Cancellation: one object that a signal handler sets and every wait looks at."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlbak.errors import Interrupted

__all__ = ["NEVER", "StopSignal"]


class StopSignal:
    """Set once, seen by all threads of a job."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._reason = "interrupted"
        self._branches: tuple[StopSignal, ...] = ()
        self._branching = threading.Lock()

    def request(self, reason: str = "interrupted") -> None:
        """Ask everything that watches this signal to stop soon. Safe in a signal handler."""
        self._reason = reason
        self._event.set()
        # A handler takes no lock. A branch that is being added sees the event that is set by now.
        for branch in self._branches:
            branch.request(reason)

    @contextmanager
    def branch(self) -> Iterator[StopSignal]:
        """A signal for one part of the work: asked to stop with this one, and by itself."""
        own = StopSignal()
        with self._branching:
            self._branches = (*self._branches, own)
        if self.is_requested:
            own.request(self._reason)
        try:
            yield own
        finally:
            with self._branching:
                self._branches = tuple(each for each in self._branches if each is not own)

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
