"""Doing what is due, once: each due backup is tried one time, within the limits, and waited for."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from sqlbak.fleet import Fleet
from sqlbak.scheduler.admission import Busy, Waiting, admit
from sqlbak.scheduler.candidates import candidate_of, room_of
from sqlbak.scheduler.due import DueJob
from sqlbak.scheduler.working import Ended, Work

__all__ = ["Done", "do_all"]


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one due backup: it ended, or it waits for something that lasts."""

    job: DueJob
    ended: Ended | None
    waiting: Waiting | None = None


def do_all(
    fleet: Fleet,
    jobs: list[DueJob],
    work: Work,
    *,
    jobs_at_once: int,
    now: Callable[[], datetime],
) -> list[Done]:
    """Take all of ``jobs``, as many at once as the limits allow. What would wait for anything but
    one of these backups is left, with the reason."""
    left = list(jobs)
    done: list[Done] = []
    running: dict[int, Busy] = {}
    ended: queue.SimpleQueue[tuple[DueJob, Ended | BaseException]] = queue.SimpleQueue()

    def run(job: DueJob) -> None:
        try:
            ended.put((job, work.take(fleet, job)))
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            ended.put((job, error))

    with ThreadPoolExecutor(jobs_at_once, thread_name_prefix="job") as pool:
        while left or running:
            moment = now()
            candidates = (
                [] if work.stop.is_requested else [candidate_of(fleet, j, moment) for j in left]
            )
            admission = admit(candidates, running.values(), room_of(fleet, jobs_at_once), moment)
            for job in admission.start:
                one = candidate_of(fleet, job, moment)
                running[id(job)] = Busy(job.item, job.type, one.instance, one.vault)
                left.remove(job)
                pool.submit(run, job)
            if not running:
                waiting = {id(one.job): one for one in admission.waiting}
                done += [Done(job, None, waiting.get(id(job))) for job in left]
                break
            job, result = ended.get()
            del running[id(job)]
            if isinstance(result, BaseException):
                work.stop.request("a defect ended the run")
                raise result
            done.append(Done(job, result))
    return done
