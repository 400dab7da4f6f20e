"""Timelines, positions in the log and names of its segments. Pure.

A timeline's history file names each of its ancestors and the position where the line of descent
left it (PostgreSQL source, timeline.c). Segments have 1 MB to 1 GB: their size is always an
argument, and names are computed here, since ``pg_walfile_name`` changed its mind about exact
boundaries between major versions.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

from sqlbak.model import Fork, LogPosition

__all__ = [
    "HistoryDamaged",
    "TimelineHistory",
    "format_lsn",
    "history_name",
    "parse_history",
    "parse_lsn",
    "parse_segment_name",
    "segment_name",
    "segment_start",
]

_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")
_SEGMENT_NAME = re.compile(r"[0-9A-F]{24}")
_LINE = re.compile(r"\s*(\d+)\s+([0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8})(\s.*)?")


class HistoryDamaged(ValueError):
    """A text that is no timeline history."""


def parse_lsn(text: str) -> int:
    """``16/B374D848`` as the 64-bit number it stands for. ValueError if it is something else."""
    match = _LSN.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a log position")
    return (int(match[1], 16) << 32) | int(match[2], 16)


def format_lsn(lsn: int) -> str:
    """The number as PostgreSQL writes it: ``16/B374D848``."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def segment_start(lsn: int, segment_size: int) -> int:
    """The first position of the segment that holds ``lsn``."""
    return lsn - lsn % segment_size


def segment_name(timeline: int, lsn: int, segment_size: int) -> str:
    """The file name of the segment that holds the byte at ``lsn``."""
    number = lsn // segment_size
    per_log = 0x1_0000_0000 // segment_size
    return f"{timeline:08X}{number // per_log:08X}{number % per_log:08X}"


def parse_segment_name(name: str, segment_size: int) -> tuple[int, int]:
    """The timeline and the first position of the segment of that file name. ValueError if it is
    not the name of a segment of that size."""
    per_log = 0x1_0000_0000 // segment_size
    if _SEGMENT_NAME.fullmatch(name) is None or int(name[16:], 16) >= per_log:
        raise ValueError(f"{name!r} is not the name of a segment of {segment_size} bytes")
    number = int(name[8:16], 16) * per_log + int(name[16:], 16)
    return int(name[:8], 16), number * segment_size


def history_name(timeline: int) -> str:
    """The file name of a timeline's history."""
    return f"{timeline:08X}.history"


@dataclass(frozen=True, slots=True)
class TimelineHistory:
    """How ``timeline`` descends. ``ancestors`` are (timeline, position where it was left), the
    oldest first; timeline 1 and others begun from nothing have none."""

    timeline: int
    ancestors: tuple[tuple[int, int], ...] = ()

    def left_at(self, timeline: int) -> int | None:
        """Where the line of descent left that ancestor; None if it is not an ancestor."""
        return next((lsn for ancestor, lsn in self.ancestors if ancestor == timeline), None)

    def child_of(self, timeline: int) -> int:
        """The next timeline in the line of descent after that ancestor."""
        line = [ancestor for ancestor, _ in self.ancestors] + [self.timeline]
        return line[line.index(timeline) + 1]

    def timeline_of(self, lsn: int) -> int:
        """The timeline that the byte at ``lsn`` was written on, in this line of descent."""
        for ancestor, left_at in self.ancestors:
            if lsn < left_at:
                return ancestor
        return self.timeline

    def holds(self, position: LogPosition) -> bool:
        """Whether that position lies on this line of descent (an ancestor's end included)."""
        if position.lineage == str(self.timeline):
            return not self.ancestors or position.lsn >= self.ancestors[-1][1]
        for index, (ancestor, left_at) in enumerate(self.ancestors):
            if position.lineage == str(ancestor):
                begins_at = self.ancestors[index - 1][1] if index else 0
                return begins_at <= position.lsn <= left_at
        return False

    def forks(self) -> tuple[Fork, ...]:
        """Each split of the line of descent, the oldest first."""
        return tuple(
            Fork(lineage=str(self.child_of(ancestor)), parent=str(ancestor), lsn=left_at)
            for ancestor, left_at in self.ancestors
        )


def parse_history(timeline: int, content: bytes) -> TimelineHistory:
    """Read a history file. HistoryDamaged if a line has another form, or if timelines or
    positions do not ascend (readTimeLineHistory in timeline.c demands the former)."""
    ancestors: list[tuple[int, int]] = []
    for line in content.decode("utf-8", errors="replace").splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise HistoryDamaged(f"{history_name(timeline)} has a line that is none: {line!r}")
        ancestors.append((int(match[1]), parse_lsn(match[2])))
    line_of_descent = [*ancestors, (timeline, None)]
    for (older, older_end), (newer, newer_end) in itertools.pairwise(line_of_descent):
        went_back = older_end is not None and newer_end is not None and newer_end < older_end
        if newer <= older or went_back:
            raise HistoryDamaged(f"{history_name(timeline)} does not ascend")
    return TimelineHistory(timeline, tuple(ancestors))
