"""What the service says while it runs: for people on a terminal, as JSON lines otherwise."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog

__all__ = ["EventLog", "event_log"]

EventLog = structlog.typing.FilteringBoundLogger


def event_log(stream: TextIO | None = None, *, as_json: bool | None = None) -> EventLog:
    """A logger of events with fields; ``as_json`` None decides by the stream being a terminal."""
    out = sys.stderr if stream is None else stream
    if as_json is None:
        as_json = not out.isatty()
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    )
    logger: EventLog = structlog.wrap_logger(
        structlog.PrintLogger(out),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )
    return logger
