"""The rules of a restore chain, tried by brute force: every chain of a small catalog.

Written from the rules alone and without any of the planner's code, slow and plain on purpose.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlbak.model import Catalog, Point, PointType
from sqlbak.restore.estimate import RestoreRates

NEVER = 10**9


@dataclass(frozen=True)
class Answer:
    """The cheapest chains' cost, as time, bytes and steps."""

    microseconds: int
    bytes: int
    steps: int


class Oracle:
    """Tries every chain on the path of one lineage."""

    def __init__(self, catalog: Catalog, lineage: str, rates: RestoreRates) -> None:
        self.points = catalog.points
        self.rates = rates
        self.segments: dict[str, tuple[int, int]] = {}
        self.parents: dict[str, str] = {}
        end = NEVER
        while True:
            fork = next((f for f in catalog.forks if f.lineage == lineage), None)
            self.segments[lineage] = (fork.lsn if fork else 0, end)
            if fork is None:
                break
            self.parents[lineage] = fork.parent
            lineage, end = fork.parent, fork.lsn

    def log_range(self, log: Point) -> tuple[int, int] | None:
        if log.lineage not in self.segments or log.is_copy_only:
            return None
        low, high = self.segments[log.lineage]
        if log.first_lineage is not None:
            if self.parents.get(log.lineage) != log.first_lineage:
                return None
            low = self.segments[log.first_lineage][0]
        start, end = max(low, log.first_lsn), min(high, log.last_lsn)
        if log.last_lsn > high and log.has_bulk_logged:
            return None
        return (start, end) if start < end else None

    def witnesses(self) -> Iterator[tuple[int, datetime]]:
        for log in self.points:
            if log.type is not PointType.LOG or log.covers_until is None or log.is_copy_only:
                continue
            if log.first_lsn == log.last_lsn:
                low, high = self.segments.get(log.lineage, (0, -1))
                if low <= log.last_lsn < high:
                    yield log.last_lsn, log.covers_until
            elif self.log_range(log) and log.last_lsn <= self.segments[log.lineage][1]:
                yield log.last_lsn, log.covers_until

    def on_path(self, data: Point) -> bool:
        low, high = self.segments.get(data.lineage, (0, -1))
        return data.type is not PointType.LOG and low <= data.last_lsn <= high

    def bases(self, to: datetime) -> Iterator[tuple[Point, ...]]:
        for full in self.points:
            if full.type is not PointType.FULL or not self.serves(full, to):
                continue
            yield (full,)
            for diff in self.points:
                if (
                    diff.type is PointType.DIFFERENTIAL
                    and diff.base_id == full.id
                    and not full.is_copy_only
                    and full.last_lsn <= diff.last_lsn
                    and self.serves(diff, to)
                ):
                    yield (full, diff)

    def serves(self, data: Point, to: datetime) -> bool:
        if not self.on_path(data) or data.reachable_from is None or data.reachable_from > to:
            return False
        earlier = [
            p
            for p in self.points
            if self.on_path(p) and not self.at_fork(p) and p.last_lsn < data.last_lsn
        ]
        return all(p.reachable_from is None or p.reachable_from <= to for p in earlier)

    def at_fork(self, data: Point) -> bool:
        """It ends where the path leaves its lineage: its clock may be younger than the fork."""
        return self.segments[data.lineage][1] == data.last_lsn

    def chains(self, to: datetime) -> Iterator[list[Point]]:
        """Every valid chain to ``to``."""
        ends = [end for end, covers in self.witnesses() if covers >= to]
        goal = min(ends, default=None)
        for base in self.bases(to):
            position = base[-1].last_lsn
            is_end = base[-1].reachable_from == to and not self.at_fork(base[-1])
            if is_end and (goal is None or position <= goal):
                yield list(base)
            if goal is not None:
                for logs in self.logs(position, goal, to):
                    yield [*base, *logs]

    def logs(self, position: int, goal: int, to: datetime) -> Iterator[list[Point]]:
        if position == goal:
            yield []
            return
        for log in self.points:
            held = self.log_range(log) if log.type is PointType.LOG else None
            if held is None or not held[0] <= position < held[1] or held[1] > goal:
                continue
            if log.has_bulk_logged and log.finished_at > to:
                continue
            for rest in self.logs(held[1], goal, to):
                yield [log, *rest]

    def answer(self, to: datetime) -> Answer | None:
        costs = [
            (sum(map(self.time, chain)), sum(p.size_bytes for p in chain), len(chain))
            for chain in self.chains(to)
        ]
        return Answer(*min(costs)) if costs else None

    def time(self, point: Point) -> int:
        rates = self.rates
        is_log = point.type is PointType.LOG
        rate = rates.log_bytes_per_second if is_log else rates.data_bytes_per_second
        return rates.microseconds_a_step + point.size_bytes * 1_000_000 // rate
