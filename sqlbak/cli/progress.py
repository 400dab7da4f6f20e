"""Progress of long work: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from sqlbak.cli.output import size_text

__all__ = ["ProgressLines", "TerminalProgress", "progress_for"]

LINE_EVERY_SECONDS = 30.0


class TerminalProgress:
    """One bar a phase, with bytes, rate and time left, on stderr."""

    def __init__(self) -> None:
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def phase(self, name: str, total_bytes: int | None = None) -> None:
        """Begin a new bar."""
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._task = self._bars.add_task(name, total=total_bytes)

    def advance(self, size_bytes: int) -> None:
        """Move the current bar."""
        if self._task is not None:
            self._bars.advance(self._task, size_bytes)


class ProgressLines:
    """A line on stderr when a phase begins and every 30 seconds while it lasts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._name = ""
        self._total: int | None = None
        self._done = 0
        self._began = self._told = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None

    def phase(self, name: str, total_bytes: int | None = None) -> None:
        """Begin a new phase and say so."""
        with self._lock:
            self._name, self._total, self._done = name, total_bytes, 0
            self._began = self._told = time.monotonic()
        about = f" (about {size_text(total_bytes)})" if total_bytes else ""
        sys.stderr.write(f"{name}{about}\n")

    def advance(self, size_bytes: int) -> None:
        """Count, and tell now and then."""
        with self._lock:
            self._done += size_bytes
            now = time.monotonic()
            if now - self._told < LINE_EVERY_SECONDS:
                return
            self._told = now
            rate = self._done / max(now - self._began, 0.001)
            left = ""
            if self._total and rate > 0 and self._total > self._done:
                left = f", {(self._total - self._done) / rate:.0f} s left"
            line = f"{self._name}: {size_text(self._done)} at {size_text(rate)}/s{left}\n"
        sys.stderr.write(line)


def progress_for(*, quiet: bool = False) -> TerminalProgress | ProgressLines:
    """Bars when stderr is a terminal and nobody asked for quiet, lines otherwise."""
    if sys.stderr.isatty() and not quiet:
        return TerminalProgress()
    return ProgressLines()
