"""A simulated server: commits with times and LSNs on forking lineages, and backups taken of them.

It knows the truth, so a plan can be carried out on it and the outcome compared.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from sqlbak.model import Catalog, Fork, Point, PointType
from sqlbak.restore.planner import RestorePlan

START = datetime(2024, 5, 1, 10, 0, tzinfo=UTC)
TICK = timedelta(microseconds=1)


def at(tick: int) -> datetime:
    """The instant ``tick`` microseconds after the start of the simulation."""
    return START + tick * TICK


@dataclass(frozen=True)
class Event:
    """Something that happened at ``clock``; commits hold log from ``lsn`` to ``end``."""

    clock: int
    lineage: str
    lsn: int
    end: int
    is_commit: bool


@dataclass
class Server:
    """All lineages share one wall clock; ``current`` is the lineage that is written to."""

    clock: int = 0
    current: str = "a"
    lsn: dict[str, int] = field(default_factory=lambda: {"a": 10})
    forks: dict[str, Fork] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)

    def path(self, lineage: str) -> list[tuple[str, int]]:
        """The lineages of a path with the LSN at which each is left, oldest first."""
        found = [(lineage, 10**9)]
        while lineage in self.forks:
            fork = self.forks[lineage]
            found.append((fork.parent, fork.lsn))
            lineage = fork.parent
        return found[::-1]

    def history(self, lineage: str) -> list[Event]:
        """What happened on the path of ``lineage``, in order."""
        left = dict(self.path(lineage))
        return [e for e in self.events if e.lineage in left and e.end <= left[e.lineage]]

    def look(self) -> int:
        """Read the clock; that it was read at this place of the log is part of the truth."""
        here = self.lsn[self.current]
        self.events.append(Event(self.clock, self.current, here, here, is_commit=False))
        return self.clock

    def commit(self, *, after: int = 1, length: int = 1) -> None:
        self.clock += after
        here = self.lsn[self.current]
        self.lsn[self.current] = here + length
        self.events.append(Event(self.clock, self.current, here, here + length, is_commit=True))

    def set_back(self, ticks: int) -> None:
        self.clock -= ticks
        for lineage, here in self.lsn.items():
            self.events.append(Event(self.clock, lineage, here, here, is_commit=False))

    def fork(self, parent: str, lsn: int) -> None:
        child = chr(ord("a") + len(self.lsn))
        self.clock += 1
        self.forks[child] = Fork(child, parent, lsn)
        self.lsn[child] = lsn
        self.current = child

    def boundaries(self, lineage: str) -> list[int]:
        """Where a fork may leave ``lineage``: between its own commits."""
        start = self.forks[lineage].lsn if lineage in self.forks else 10
        ends = [e.end for e in self.events if e.lineage == lineage and e.is_commit]
        return [start, *ends]

    def data(
        self, kind: PointType, *, during: int, size: int, base: Point | None, copy_only: bool
    ) -> None:
        """A full or differential, with commits while it is taken."""
        self.clock += 1
        started, first = self.clock, self.lsn[self.current]
        for _ in range(during):
            self.commit()
        self._keep(
            Point(
                id="",
                type=kind,
                lineage=self.current,
                first_lsn=first,
                last_lsn=self.lsn[self.current],
                started_at=at(started),
                finished_at=at(self.clock),
                reachable_from=at(self.look()),
                base_id=base.id if base else None,
                is_copy_only=copy_only,
                size_bytes=size,
            )
        )

    def log(
        self, *, back: int, heartbeat: bool, racing: int, size: int, bulk: bool, copy_only: bool
    ) -> None:
        """A log from ``back`` log backups ago (0: where the last one ended) to now."""
        lineage = self.current
        self.clock += 1
        started = covers = self.look()
        first, first_lineage = self._since(back)
        if heartbeat:
            self.commit(after=0)
        for _ in range(racing):
            self.commit()
        last = self.lsn[lineage]
        left_here = any(f.parent == lineage and f.lsn == last for f in self.forks.values())
        proves = heartbeat or racing > 0 or first == last or not left_here
        self.clock += 1
        held = [e.clock for e in self.history(lineage) if e.is_commit and e.end > first]
        self._keep(
            Point(
                id="",
                type=PointType.LOG,
                lineage=lineage,
                first_lsn=first,
                last_lsn=last,
                started_at=at(started),
                finished_at=at(max([self.look(), *held])),
                covers_until=at(covers) if proves else None,
                first_lineage=first_lineage,
                has_bulk_logged=bulk,
                is_copy_only=copy_only,
                size_bytes=size,
            )
        )

    def _since(self, back: int) -> tuple[int, str | None]:
        mine = [p for p in self.points if p.type is PointType.LOG and p.lineage == self.current]
        if len(mine) > back:
            return mine[-1 - back].last_lsn, None
        fork = self.forks.get(self.current)
        if fork is None:
            return 10, None
        before = [
            p.last_lsn
            for p in self.points
            if p.type is PointType.LOG and p.lineage == fork.parent and p.last_lsn < fork.lsn
        ]
        if back == 1 and before and before[-1] >= self.boundaries(fork.parent)[0]:
            return before[-1], fork.parent
        return fork.lsn, None

    def _keep(self, point: Point) -> None:
        self.points.append(replace(point, id=f"p{len(self.points):02}"))

    def catalog(self, points: list[Point]) -> Catalog:
        return Catalog("shop", tuple(points), tuple(self.forks.values()))

    def carry_out(self, plan: RestorePlan) -> list[Event]:
        """Restore: the commits that the database then holds. Asserts that every step fits."""
        first, *others = plan.steps
        assert first.type is PointType.FULL
        position, lineage = first.last_lsn, first.lineage
        if others and others[0].type is PointType.DIFFERENTIAL:
            differential = others.pop(0)
            assert differential.base_id == first.id
            assert not first.is_copy_only
            position, lineage = differential.last_lsn, differential.lineage
        restored = self._commits(lineage, position)
        cuts = {cut.point_id: cut.lsn for cut in plan.cuts}
        for step in others:
            assert step.type is PointType.LOG
            assert not step.is_copy_only
            assert step.first_lsn <= position < step.last_lsn, "the log does not fit"
            held = self._commits(step.lineage, step.last_lsn)
            assert held[: len(restored)] == restored, "the log is of another history"
            end = cuts.get(step.id, step.last_lsn)
            for event in held[len(restored) :]:
                if event.lsn >= end:
                    break
                if plan.stop_lsn is not None and event.end > plan.stop_lsn:
                    assert not step.has_bulk_logged, "the server cannot stop in here"
                    return restored
                if plan.stop_at is not None and at(event.clock) > plan.stop_at:
                    assert not step.has_bulk_logged, "the server cannot stop in here"
                    return restored
                restored.append(event)
            position = end
        return restored

    def _commits(self, lineage: str, position: int) -> list[Event]:
        return [e for e in self.history(lineage) if e.is_commit and e.end <= position]

    def truth(self, lineage: str, to: datetime) -> tuple[int, int]:
        """How many commits of ``lineage`` the state at ``to`` holds: at least, at most.

        Both are equal unless the clock was set back. At least: those before the clock was first
        seen to pass ``to``; at most: those before the first commit after it.
        """
        least: int | None = None
        count, highest = 0, 0
        for event in self.history(lineage):
            passed = at(event.clock) > to or (event.clock < highest and at(highest) >= to)
            if passed and least is None:
                least = count
            if event.is_commit:
                if at(event.clock) > to:
                    break
                count += 1
            highest = max(highest, event.clock)
        return (count if least is None else least), count
