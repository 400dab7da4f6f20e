"""Signals become a StopSignal: the first asks, the second insists."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from sqlbak.stopping import StopSignal

__all__ = ["stop_on_signals"]


@contextmanager
def stop_on_signals() -> Iterator[StopSignal]:
    """While inside, SIGINT and SIGTERM set the returned signal; a second one raises
    KeyboardInterrupt at once.
    """
    stop = StopSignal()

    def handle(number: int, _frame: FrameType | None) -> None:
        if stop.is_requested:
            raise KeyboardInterrupt
        stop.request(f"stopped by {signal.Signals(number).name}")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
