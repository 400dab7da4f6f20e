"""Handing due backups to a queue instead of to threads: what waits or runs there already is not put
in again, and limits hold over the whole fleet of workers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from sqlbak.errors import QueueUnreachable
from sqlbak.fleet import Fleet, instance_of
from sqlbak.model import PointType
from sqlbak.scheduler.admission import Busy, Candidate, Waiting, admit
from sqlbak.scheduler.candidates import room_of
from sqlbak.scheduler.job_queue import JobQueue
from sqlbak.scheduler.logs import EventLog

__all__ = ["QueueDispatch"]

_ANY_NUMBER = 1_000_000
"""How many run at once is for the workers to say."""

Key = tuple[str, PointType]


class QueueDispatch:
    """The queue as the loop uses it, from one thread. While its server does not answer, nothing is
    put in, which is told once; schedulers need no order among each other."""

    def __init__(self, queue: JobQueue, log: EventLog) -> None:
        self._queue = queue
        self._log = log
        self._seen: set[Key] = set()
        self._is_away = False
        self._counts: Mapping[str, int] = {}

    @property
    def counts(self) -> Mapping[str, int]:
        """Jobs to do (``todo``) and being done (``doing``) at the last look."""
        return self._counts

    def hand_over(
        self,
        candidates: Sequence[Candidate],
        fleet: Fleet,
        now: datetime,
        forget: Callable[[str], None],
    ) -> tuple[Waiting, ...]:
        """Put in what may start; what waits, and for what. ``forget`` is called with each item of
        which a job has ended since the last call: its catalog has changed."""
        try:
            waiting = self._handed_over(candidates, fleet, now, forget)
        except QueueUnreachable as error:
            if not self._is_away:
                self._log.error("queue away", error=error.message, hint=error.hint)
            self._is_away = True
            return tuple(Waiting(one.job, "for the queue's server") for one in candidates)
        if self._is_away:
            self._log.info("queue back")
        self._is_away = False
        return waiting

    def _handed_over(
        self,
        candidates: Sequence[Candidate],
        fleet: Fleet,
        now: datetime,
        forget: Callable[[str], None],
    ) -> tuple[Waiting, ...]:
        jobs = self._queue.jobs("todo", "doing", "aborted")
        found = Counter(job.status for job in jobs)
        self._counts = {status: found[status] for status in ("todo", "doing")}
        active = {(job.item, job.type) for job in jobs if job.is_active}
        ended = {item for item, _ in self._seen - active}
        self._seen = set(active)
        for item in ended:
            forget(item)
        # Of what somebody aborted, the next slot is the next try.
        aborted = {(job.item, job.type, job.slot) for job in jobs if not job.is_active}
        wanted = [
            one
            for one in candidates
            if (one.job.item, one.job.type) not in active
            and (one.job.item, one.job.type, _slot(one)) not in aborted
            and one.job.item not in ended
        ]
        configured = fleet.configuration.instances
        busy = [
            Busy(item, kind, instance_of(item), fleet.policy(item).vault)
            for item, kind in active
            if instance_of(item) in configured
        ]
        admission = admit(wanted, busy, room_of(fleet, _ANY_NUMBER), now)
        # A worker may be done with them before the next look.
        self._seen |= {(job.item, job.type) for job in admission.start}
        for job in self._queue.put(admission.start):
            self._log.info("backup queued", item=job.item, type=job.type.value, why=job.reason)
        return admission.waiting


def _slot(one: Candidate) -> str:
    return "" if one.job.slot is None else one.job.slot.identity
