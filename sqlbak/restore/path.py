"""Which recovery points lie on the history of one lineage, and how far.

A lineage's path is its own log and, before each fork, its parent's. LSNs repeat beyond forks, so a
recovery point counts only inside the segment of its own lineage. Pure: values in, values out.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate
from typing import Final

from sqlbak.errors import LineageContradictory, UnknownName
from sqlbak.model import Catalog, Fork, Point, PointType

__all__ = [
    "UNBOUNDED",
    "Base",
    "LogOnPath",
    "Path",
    "Proof",
    "Segment",
    "lineages_of",
    "path_of",
    "segments_of",
]

UNBOUNDED: Final = 10**30
"""Beyond every LSN (PostgreSQL: 64 bit, SQL Server: 25 digits)."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A path runs on ``lineage`` from LSN ``start`` up to ``end``."""

    lineage: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class LogOnPath:
    """A log that can be applied: from any LSN in ``[start, end)`` it carries a restore to ``end``.

    ``is_cut``: the path leaves its lineage at ``end``, before the log itself ends.
    """

    point: Point
    start: int
    end: int
    is_cut: bool


@dataclass(frozen=True, slots=True)
class Base:
    """What a chain can begin with: a full, or a full and one differential.

    ``order``: its place among the path's bases, by position, then id.
    ``usable_from``: the earliest instant that it can serve; None: it says no time. That is when it
    ended, or later where an older one proves that the clock was set back since. ``own_end``: the
    instant at which it alone is the state; None: it proves no such instant on this path.
    """

    order: int
    points: tuple[Point, ...]
    position: int
    own_end: datetime | None
    usable_from: datetime | None

    @property
    def size_bytes(self) -> int:
        """What fetching it costs."""
        return sum(point.size_bytes for point in self.points)


@dataclass(frozen=True, slots=True)
class Proof:
    """On the path, everything committed up to ``until`` lies before LSN ``end``: log ``point``
    says so."""

    point: Point
    end: int
    until: datetime


@dataclass(frozen=True, slots=True)
class Path:
    """One lineage's history as a planner sees it.

    Attributes:
        logs: what can be applied, ordered by end.
        bases: what a chain can begin with, ordered by position.
        proofs: the first log that proves each instant, with both ``end`` and ``until`` rising.
        likely: as ``proofs``, with what is only probable.
        off_path: why every other point can never be part of a chain, by id.
        set_back: spans of clock time that happened more than once, ends excluded.
    """

    item: str
    lineage: str
    segments: tuple[Segment, ...]
    logs: tuple[LogOnPath, ...]
    bases: tuple[Base, ...]
    proofs: tuple[Proof, ...]
    likely: tuple[Proof, ...]
    off_path: Mapping[str, str]
    set_back: tuple[tuple[datetime, datetime], ...]

    def proof_of(self, instant: datetime) -> Proof | None:
        """The first log in log order that proves ``instant``."""
        return first_reaching(self.proofs, instant)

    def likely_proof_of(self, instant: datetime) -> Proof | None:
        """The first log in log order that proves ``instant`` or makes it probable."""
        return first_reaching(self.likely, instant)


def first_reaching(proofs: tuple[Proof, ...], instant: datetime) -> Proof | None:
    """The first of ``proofs`` (rising) that holds up to ``instant``."""
    index = bisect_left(proofs, instant, key=lambda proof: proof.until)
    return proofs[index] if index < len(proofs) else None


def lineages_of(catalog: Catalog) -> tuple[str, ...]:
    """Every lineage that a recovery point ends on, sorted."""
    return tuple(sorted({point.lineage for point in catalog.points}))


def segments_of(catalog: Catalog, lineage: str) -> tuple[Segment, ...]:
    """The segments of ``lineage``'s path, oldest first; the last one is unbounded.

    Raises:
        UnknownName: nothing in the catalog is of that lineage.
        LineageContradictory: its forks form a circle or contradict each other.
    """
    forks: dict[str, set[Fork]] = {}
    for fork in catalog.forks:
        forks.setdefault(fork.lineage, set()).add(fork)
    known = {point.lineage for point in catalog.points} | set(forks)
    known |= {fork.parent for fork in catalog.forks}
    if lineage not in known:
        raise UnknownName("lineage", lineage, sorted(known))
    segments: list[Segment] = []
    seen: set[str] = set()
    current, end = lineage, UNBOUNDED
    while True:
        if current in seen:
            raise LineageContradictory(
                f"{catalog.item}: lineage {current} is recorded as its own ancestor"
            )
        seen.add(current)
        origins = forks.get(current, set())
        if len(origins) > 1:
            told = " and ".join(
                f"{fork.parent} at {fork.lsn}"
                for fork in sorted(origins, key=lambda fork: (fork.parent, fork.lsn))
            )
            raise LineageContradictory(
                f"{catalog.item}: lineage {current} is recorded to fork from {told}"
            )
        origin = next(iter(origins), None)
        start = origin.lsn if origin else 0
        if start > end:
            raise LineageContradictory(
                f"{catalog.item}: lineage {current} begins at {start}, but a fork left it at {end}"
            )
        segments.append(Segment(current, start, end))
        if origin is None:
            return tuple(reversed(segments))
        current, end = origin.parent, origin.lsn


def path_of(catalog: Catalog, lineage: str) -> Path:
    """Sort the catalog's points onto the path of ``lineage``. Raises as ``segments_of``."""
    segments = segments_of(catalog, lineage)
    by_lineage = {segment.lineage: index for index, segment in enumerate(segments)}
    off_path: dict[str, str] = {}
    logs: list[LogOnPath] = []
    witnesses: list[LogOnPath] = []
    data: list[Point] = []
    for point in catalog.points:
        index = by_lineage.get(point.lineage)
        if index is None:
            off_path[point.id] = f"other lineage ({point.lineage})"
        elif point.type is not PointType.LOG:
            reason = data_off_path(point, segments[index])
            if reason is None:
                data.append(point)
            else:
                off_path[point.id] = reason
        else:
            placed = place_log(point, segments, index)
            if isinstance(placed, str):
                off_path[point.id] = placed
            elif point.is_empty_log:
                off_path[point.id] = "empty"
                witnesses.append(placed)
            else:
                logs.append(placed)
                if not placed.is_cut:
                    witnesses.append(placed)
    logs.sort(key=lambda log: (log.end, log.start, log.point.id))
    witnesses.sort(key=lambda log: (log.end, log.start, log.point.id))
    return Path(
        item=catalog.item,
        lineage=lineage,
        segments=segments,
        logs=tuple(logs),
        bases=bases_of(catalog, data, segments, off_path),
        proofs=rising([Proof(w.point, w.end, t) for w in witnesses if (t := proven(w.point))]),
        likely=rising([Proof(w.point, w.end, t) for w in witnesses if (t := probable(w.point))]),
        off_path=off_path,
        set_back=set_back_spans(witnesses),
    )


def proven(log: Point) -> datetime | None:
    """Until when this log proves that it holds everything."""
    return log.covers_until


def probable(log: Point) -> datetime | None:
    """Until when this log holds everything, proven or not."""
    return max((t for t in (log.covers_until, log.probable_until) if t), default=None)


def data_off_path(point: Point, segment: Segment) -> str | None:
    """Why this full or differential is not on the path; None if it is."""
    if point.last_lsn > segment.end:
        return f"lies after the fork at {segment.end}, on an abandoned part of {point.lineage}"
    if point.last_lsn < segment.start:
        return f"ends before its lineage begins at {segment.start}"
    return None


def place_log(point: Point, segments: tuple[Segment, ...], index: int) -> LogOnPath | str:
    """The part of a log that lies on the path, or why there is none."""
    segment = segments[index]
    first = segment
    if point.is_copy_only:
        return "copy-only log"
    if point.first_lineage is not None and point.first_lineage != point.lineage:
        if index == 0 or segments[index - 1].lineage != point.first_lineage:
            return f"begins on another lineage ({point.first_lineage})"
        first = segments[index - 1]
        if not point.first_lsn <= segment.start <= point.last_lsn:
            return f"does not hold the fork at {segment.start} that it is said to cross"
    start, end = max(point.first_lsn, first.start), min(point.last_lsn, segment.end)
    is_cut = point.last_lsn > segment.end
    if point.first_lsn > point.last_lsn:
        return "its end lies before its beginning"
    if point.is_empty_log:
        # At the fork itself an idle parent says nothing of what its child did meanwhile.
        if first.start <= point.first_lsn < segment.end:
            return LogOnPath(point, start, end, is_cut=False)
        return "empty"
    if start >= end:
        if point.first_lsn >= segment.end:
            return f"lies after the fork at {segment.end}, on an abandoned part of {point.lineage}"
        return f"ends before its lineage begins at {segment.start}"
    if is_cut and point.has_bulk_logged:
        return f"bulk-logged, and cut by the fork at {segment.end}"
    return LogOnPath(point, start, end, is_cut)


def bases_of(
    catalog: Catalog, data: list[Point], segments: tuple[Segment, ...], off_path: dict[str, str]
) -> tuple[Base, ...]:
    """Fulls and differentials as beginnings of chains; what cannot be one goes to ``off_path``."""
    data = sorted(data, key=lambda point: (point.last_lsn, point.id))
    # A base that ended at a later clock time, yet at an earlier LSN, proves that the clock was
    # set back: an instant in between happened first before that base.
    ends = [point.last_lsn for point in data]
    # Ending exactly where the path leaves its lineage, it may have been taken after the fork: then
    # its clock says nothing of what the child had done by then.
    at_fork = {(segment.lineage, segment.end) for segment in segments}
    clocks = [
        None if (point.lineage, point.last_lsn) in at_fork else point.reachable_from
        for point in data
    ]
    latest = list(accumulate(clocks, later_of))
    by_id = {point.id: point for point in catalog.points}
    on_path = {point.id for point in data}
    bases: list[Base] = []
    for point in data:
        chain: tuple[Point, ...] = (point,)
        if point.type is PointType.DIFFERENTIAL:
            full = by_id.get(point.base_id) if point.base_id is not None else None
            reason = full_unusable(point, full, on_path)
            if full is None or reason is not None:
                off_path[point.id] = reason or "its full is missing"
                continue
            chain = (full, point)
        before = bisect_left(ends, point.last_lsn)
        own_end = None
        if all(piece.reachable_from for piece in chain):
            own_end = point.reachable_from
        usable_from = own_end
        if usable_from is not None:
            for other in (latest[before - 1] if before else None, chain[0].reachable_from):
                usable_from = later_of(usable_from, other)
        if (point.lineage, point.last_lsn) in at_fork:
            own_end = None
        bases.append(Base(len(bases), chain, point.last_lsn, own_end, usable_from))
    return tuple(bases)


def later_of(one: datetime | None, other: datetime | None) -> datetime | None:
    """The later of two instants, either of which may be unknown."""
    if one is None or other is None:
        return one if other is None else other
    return max(one, other)


def full_unusable(point: Point, full: Point | None, on_path: set[str]) -> str | None:
    """Why a differential cannot be laid over what it names as its full."""
    if full is None:
        return "its full is missing"
    if full.type is not PointType.FULL:
        return "what it names as its full is not one"
    if full.is_copy_only:
        return "its full is copy-only"
    if full.id not in on_path:
        return "its full lies on another lineage"
    if full.last_lsn > point.last_lsn:
        return "ends before its full"
    return None


def rising(proofs: list[Proof]) -> tuple[Proof, ...]:
    """Only those that prove more than all before them; of several at one LSN the strongest."""
    kept: list[Proof] = []
    for proof in proofs:
        if kept and proof.until <= kept[-1].until:
            continue
        if kept and kept[-1].end == proof.end:
            kept.pop()
        kept.append(proof)
    return tuple(kept)


def set_back_spans(witnesses: list[LogOnPath]) -> tuple[tuple[datetime, datetime], ...]:
    """Spans of clock time that, as the logs show, happened more than once."""
    spans: list[tuple[datetime, datetime]] = []
    latest: datetime | None = None
    undated = datetime.min.replace(tzinfo=UTC)
    for log in sorted(witnesses, key=lambda log: (log.end, log.point.covers_until or undated)):
        now = log.point.covers_until
        if now is None:
            continue
        if latest is not None and now < latest:
            spans.append((now, latest))
        latest = later_of(latest, now)
    return tuple(spans)
