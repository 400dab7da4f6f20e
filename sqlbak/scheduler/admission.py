"""Which of the due backups start now, and what the others wait for. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlbak.model import PointType
from sqlbak.scheduler.due import DueJob

__all__ = ["Admission", "Busy", "Candidate", "Room", "Waiting", "admit"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A due backup, and what bears on its start.

    Attributes:
        job: what is due.
        instance, vault: names of where it is from and goes to.
        not_before: its own turn, so that not all items ask their servers at one instant.
        quiet_until: the end of the quiet hours that hold now; None: none do.
    """

    job: DueJob
    instance: str
    vault: str
    not_before: datetime | None = None
    quiet_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Busy:
    """A backup that runs."""

    item: str
    type: PointType
    instance: str
    vault: str


@dataclass(frozen=True, slots=True)
class Room:
    """How many backups may run at once: over everything, and by instance and vault where that is
    limited."""

    jobs: int
    of_instances: Mapping[str, int] = field(default_factory=dict)
    of_vaults: Mapping[str, int] = field(default_factory=dict)

    @property
    def for_data(self) -> int:
        """How many of them may be fulls and differentials, which may take hours: a quarter, at
        least one of several, is kept for logs."""
        return self.jobs if self.jobs == 1 else self.jobs - max(1, self.jobs // 4)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A due backup that does not start now. ``why`` ends a sentence that begins with "it waits";
    ``until`` is when it can, where that is known."""

    job: DueJob
    why: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Admission:
    """What starts, in that order, and what waits."""

    start: tuple[DueJob, ...]
    waiting: tuple[Waiting, ...]


def admit(
    candidates: Iterable[Candidate], busy: Iterable[Busy], room: Room, now: datetime
) -> Admission:
    """Logs go before fulls, and of each kind the oldest slot first."""
    ordered = sorted(candidates, key=_rank)
    running = _Running(room)
    for each in busy:
        running.add(each)
    start: list[DueJob] = []
    waiting: list[Waiting] = []
    data_waits = any(
        _is_data(one.job.type) and _own_reason(one, now) is None for one in ordered
    ) and not any(_is_data(each.type) for each in running.busy)
    for one in ordered:
        reason = _own_reason(one, now)
        if reason is None:
            why = running.why_full(one, keeps_one_for_data=data_waits)
            reason = None if why is None else Waiting(one.job, why)
        if reason is not None:
            waiting.append(reason)
            continue
        start.append(one.job)
        running.add(Busy(one.job.item, one.job.type, one.instance, one.vault))
    return Admission(tuple(start), tuple(waiting))


def _rank(one: Candidate) -> tuple[int, float, str]:
    job = one.job
    slot = 0.0 if job.slot is None else job.slot.instant.timestamp()
    return (list(_ORDER).index(job.type), slot, job.item)


_ORDER = (PointType.LOG, PointType.FULL, PointType.DIFFERENTIAL)


def _is_data(kind: PointType) -> bool:
    return kind is not PointType.LOG


def _own_reason(one: Candidate, now: datetime) -> Waiting | None:
    if one.quiet_until is not None and _is_data(one.job.type):
        return Waiting(one.job, "for the end of the quiet hours", one.quiet_until)
    if one.not_before is not None and now < one.not_before:
        return Waiting(one.job, "for its turn: starts are spread", one.not_before)
    return None


@dataclass(slots=True)
class _Running:
    """Counts of what runs, and of what is about to."""

    room: Room
    busy: list[Busy] = field(default_factory=list)
    items: set[tuple[str, bool]] = field(default_factory=set)
    by_instance: Counter[str] = field(default_factory=Counter)
    by_vault: Counter[str] = field(default_factory=Counter)
    data: int = 0

    def add(self, one: Busy) -> None:
        self.busy.append(one)
        self.items.add((one.item, _is_data(one.type)))
        self.by_instance[one.instance] += 1
        self.by_vault[one.vault] += 1
        self.data += _is_data(one.type)

    def why_full(self, one: Candidate, *, keeps_one_for_data: bool) -> str | None:
        """What stands in the way of one more; None: nothing."""
        jobs, item, kind = self.room.jobs, one.job.item, one.job.type
        if (item, _is_data(kind)) in self.items:
            return f"for the backup of {item} that runs"
        limit = self.room.of_instances.get(one.instance)
        if limit is not None and self.by_instance[one.instance] >= limit:
            return f"for another backup of {one.instance}: limits.jobs is {limit}"
        limit = self.room.of_vaults.get(one.vault)
        if limit is not None and self.by_vault[one.vault] >= limit:
            return f"for another backup into {one.vault}: limits.jobs is {limit}"
        if len(self.busy) >= jobs:
            return f"for another backup to end: {jobs} run at once"
        if _is_data(kind) and self.data >= self.room.for_data:
            return f"for another full or differential to end: {self.room.for_data} run at once"
        if not _is_data(kind) and keeps_one_for_data and len(self.busy) - self.data >= jobs - 1 > 0:
            return "for another log backup to end: one place is kept for fulls"
        return None
