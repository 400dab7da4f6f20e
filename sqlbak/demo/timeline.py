"""A window and its recovery points as a small picture made of characters. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlbak.model import Point, PointType, Window

__all__ = ["draw"]

WIDTH = 64


def draw(
    points: Sequence[Point], windows: Sequence[Window], target: datetime, lost_at: datetime
) -> list[str]:
    """Lines that show the windows as a bar, the full as F, logs as |, and two instants below."""
    ends = [point.covers_until or point.finished_at for point in points]
    first = min(window.start for window in windows)
    last = max([*ends, lost_at])
    span = max((last - first).total_seconds(), 0.001)

    def column(moment: datetime) -> int:
        share = (moment - first).total_seconds() / span
        return max(0, min(WIDTH - 1, round(share * (WIDTH - 1))))

    bar = [" "] * WIDTH
    for window in windows:
        for place in range(column(window.start), column(window.end) + 1):
            bar[place] = "="
    for point, end in zip(points, ends, strict=True):
        bar[column(end)] = "F" if point.type is PointType.FULL else "|"
    marks = [" "] * WIDTH
    marks[column(lost_at)] = "X"
    marks[column(target)] = "^"
    start, stop = (f"{moment.astimezone(UTC):%H:%M:%S}" for moment in (first, last))
    return [
        f"{start} {''.join(bar)} {stop}",
        f"{'':8} {''.join(marks)}",
        "F full backup   | log backup   = every instant can be restored",
        "^ restored to   X table dropped",
    ]
