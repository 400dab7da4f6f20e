"""The log of one restore chain as one continuous range of bytes, whatever recovery points hold it.

Segments are rebuilt from it under the names that PostgreSQL asks for on one line of descent.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

from sqlbak.engines.port import PayloadSource, RestoreStep
from sqlbak.engines.postgres.frames import FrameReader, Range
from sqlbak.engines.postgres.timelines import (
    HistoryDamaged,
    TimelineHistory,
    format_lsn,
    history_name,
    parse_history,
    parse_segment_name,
    segment_name,
)
from sqlbak.errors import RestoreFailed
from sqlbak.model import PointType

__all__ = ["WAL_STREAM", "WalChain"]

WAL_STREAM = "wal"
_ZEROS = bytes(1 << 20)


@dataclass(frozen=True, slots=True)
class _Piece:
    """``[first, last)`` lies in ``source`` from byte ``offset`` of its log stream on."""

    first: int
    last: int
    source: PayloadSource
    offset: int


class WalChain:
    """The log from the base's first byte to the chain's end, on the line of descent of
    ``lineage``. Raises RestoreFailed if the steps do not join or leave that line."""

    def __init__(
        self,
        steps: Sequence[RestoreStep],
        *,
        lineage: str,
        histories: Mapping[str, bytes],
        segment_size: int,
    ) -> None:
        self.segment_size = segment_size
        self.timeline = int(lineage)
        self.histories = {int(name): content for name, content in histories.items()}
        self.descent = self._line_of_descent()
        self._pieces: list[_Piece] = []
        for step in steps:
            self._append(step)
        self.first_lsn = self._pieces[0].first
        self.last_lsn = self._pieces[-1].last

    def _line_of_descent(self) -> TimelineHistory:
        content = self.histories.get(self.timeline)
        if content is None and self.timeline != 1:
            raise RestoreFailed(
                f"the history of timeline {self.timeline} is not in the vault",
                hint="without it the log of that timeline cannot be told from its parents'",
            )
        try:
            return parse_history(self.timeline, content or b"")
        except HistoryDamaged as error:
            raise RestoreFailed(f"a timeline history in the vault is damaged: {error}") from error

    def _append(self, step: RestoreStep) -> None:
        point, facts = step.point, step.facts
        is_base = point.type is not PointType.LOG
        first = int(facts["wal_first_lsn"]) if is_base else point.first_lsn
        last = point.last_lsn
        if step.source.size(WAL_STREAM) != last - first:
            raise RestoreFailed(
                f"recovery point {point.id} should hold {last - first} bytes of log "
                f"and holds {step.source.size(WAL_STREAM)}"
            )
        for timeline in {point.lineage, point.first_lineage or point.lineage}:
            if int(timeline) != self.timeline and self.descent.left_at(int(timeline)) is None:
                raise RestoreFailed(
                    f"recovery point {point.id} is on timeline {timeline}, which timeline "
                    f"{self.timeline} does not descend from"
                )
        left_at = self.descent.left_at(int(point.lineage))
        if left_at is not None:
            last = min(last, left_at)  # what the parent wrote after the fork is not our log
        if self._pieces:
            end = self._pieces[-1].last
            if first > end:
                raise RestoreFailed(
                    f"the log between {format_lsn(end)} and {format_lsn(first)} is missing "
                    f"before recovery point {point.id}"
                )
            # Log from before the base began is of no use: restores start in its first segment.
            first = max(first, self._pieces[0].first)
            if last > first:
                self._cut(first)
        elif not is_base:
            raise RestoreFailed(f"the chain begins with {point.id}, which is no base backup")
        if last > first:
            begin = int(facts["wal_first_lsn"]) if is_base else point.first_lsn
            self._pieces.append(_Piece(first, last, step.source, first - begin))

    def _cut(self, lsn: int) -> None:
        """Later recovery points win: after a fork, what an earlier one holds may be another's."""
        while self._pieces and self._pieces[-1].first >= lsn:
            self._pieces.pop()
        if self._pieces and self._pieces[-1].last > lsn:
            piece = self._pieces[-1]
            self._pieces[-1] = _Piece(piece.first, lsn, piece.source, piece.offset)

    def end_at(self, lsn: int) -> None:
        """Leave out what lies behind ``lsn``, which must lie in the chain."""
        self._cut(lsn)
        self.last_lsn = lsn

    def read(self, frames: FrameReader, first: int, last: int) -> Iterator[memoryview]:
        """The log's bytes ``[first, last)``, which must lie in the chain, in pieces. What comes
        after them is fetched meanwhile, whatever recovery point holds it."""
        while first < last:
            piece = next(self._from(first))
            end = min(last, piece.last)
            shift = piece.offset - piece.first
            yield from frames.read(
                piece.source,
                WAL_STREAM,
                first + shift,
                end + shift,
                following=partial(self._ranges_from, end),
            )
            first = end

    def _from(self, lsn: int) -> Iterator[_Piece]:
        """The piece that holds ``lsn``, and those behind it."""
        index = bisect_right(self._pieces, lsn, key=lambda piece: piece.last)
        yield from islice(self._pieces, index, None)

    def _ranges_from(self, lsn: int) -> Iterator[Range]:
        for piece in self._from(lsn):
            shift = piece.offset - piece.first
            yield Range(piece.source, WAL_STREAM, max(lsn, piece.first) + shift, piece.last + shift)

    def segments(self) -> Iterator[tuple[str, int]]:
        """Name and first position of every segment of the chain, in order."""
        start = self.first_lsn - self.first_lsn % self.segment_size
        for lsn in range(start, self.last_lsn, self.segment_size):
            yield self.name_of(lsn), lsn

    def name_of(self, lsn: int) -> str:
        """The name of the segment that holds ``lsn``. A segment in which a fork lies bears the
        child's name: the server looks for it first (XLogFileReadAnyTLI in xlogrecovery.c)."""
        end = lsn - lsn % self.segment_size + self.segment_size
        return segment_name(self.descent.timeline_of(end - 1), lsn, self.segment_size)

    def position_of(self, name: str) -> int | None:
        """The first position of the segment called ``name``; None if this chain proves that there
        is no such segment."""
        try:
            _, lsn = parse_segment_name(name, self.segment_size)
        except ValueError:
            return None
        if lsn >= self.last_lsn or lsn + self.segment_size <= self.first_lsn:
            return None
        return lsn if name == self.name_of(lsn) else None

    def segment(self, frames: FrameReader, lsn: int) -> Iterator[memoryview]:
        """The whole segment that begins at ``lsn``, zeros where the chain has nothing."""
        end = lsn + self.segment_size
        first, last = max(lsn, self.first_lsn), min(end, self.last_lsn)
        yield from _zeros(first - lsn)
        yield from self.read(frames, first, last)
        yield from _zeros(end - last)

    def history_files(self) -> Mapping[str, bytes]:
        """File name and content of every timeline's history that is known."""
        return {
            history_name(timeline): content
            for timeline, content in sorted(self.histories.items())
            if content
        }


def _zeros(count: int) -> Iterator[memoryview]:
    view = memoryview(_ZEROS)
    while count > 0:
        yield view[:count]
        count -= min(count, len(view))
