"""How long work tells what it has done: a small port that the edge implements."""

from __future__ import annotations

from typing import Protocol

__all__ = ["NO_PROGRESS", "Progress", "Silent"]


class Progress(Protocol):
    """Receives the progress of one job. Safe to call from several threads."""

    def phase(self, name: str, total_bytes: int | None = None) -> None:
        """A new phase begins (``name`` is shown to people); ``total_bytes`` is an estimate."""

    def advance(self, size_bytes: int) -> None:
        """``size_bytes`` more bytes of the current phase are done."""


class Silent:
    """Shows nothing."""

    def phase(self, name: str, total_bytes: int | None = None) -> None:
        """Ignored."""

    def advance(self, size_bytes: int) -> None:
        """Ignored."""


NO_PROGRESS: Progress = Silent()
