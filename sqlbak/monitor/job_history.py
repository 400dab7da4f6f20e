"""Runs that have ended, of one item or of all, newest first."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from sqlbak.fleet import StoredItem
from sqlbak.monitor.at_once import at_once
from sqlbak.vault.job_records import JobName, JobOutcome, JobRecord, list_job_names, read_job

__all__ = [
    "MOST_LOOKED_AT",
    "PastJob",
    "is_failure",
    "newest_runs",
    "past_jobs",
    "read_runs",
]

MOST_LOOKED_AT = 2000
"""How many of the newest runs are read while looking for failed ones."""


@dataclass(frozen=True, slots=True)
class PastJob:
    """One run that ended."""

    stored: StoredItem
    record: JobRecord


def past_jobs(
    stored: Iterable[StoredItem], *, limit: int, is_failed_only: bool = False
) -> list[PastJob]:
    """The newest ``limit`` runs of all these items together, newest first; with
    ``is_failed_only`` those that failed or were ended, among the newest MOST_LOOKED_AT.

    Names alone say which are the newest, so only what is shown is read.
    """
    depth = MOST_LOOKED_AT if is_failed_only else limit
    newest = newest_runs(stored, depth)
    found: list[PastJob] = []
    step = max(limit, 64 if is_failed_only else 1)
    for start in range(0, len(newest), step):
        found += read_runs(newest[start : start + step])
        if is_failed_only:
            found = [job for job in found if is_failure(job.record)]
        if len(found) >= limit:
            break
    return found[:limit]


def newest_runs(stored: Iterable[StoredItem], depth: int) -> list[tuple[StoredItem, JobName]]:
    """The newest ``depth`` runs of all these items together, newest first, from listings alone."""

    def names(each: StoredItem) -> list[tuple[StoredItem, JobName]]:
        listed = islice(list_job_names(each.vault.store, each.item.id), depth)
        return [(each, name) for name in listed]

    return heapq.nlargest(
        depth,
        (pair for pairs in at_once(names, stored) for pair in pairs),
        key=lambda pair: (pair[1].started_at, pair[1].job_id),
    )


def read_runs(runs: Iterable[tuple[StoredItem, JobName]]) -> list[PastJob]:
    """Their records, in the same order, without those removed meanwhile."""
    return [job for job in at_once(_read, runs) if job is not None]


def is_failure(record: JobRecord) -> bool:
    """Whether the run made nothing although it should have."""
    return record.outcome in (JobOutcome.FAILED, JobOutcome.INTERRUPTED, JobOutcome.CANCELLED)


def _read(pair: tuple[StoredItem, JobName]) -> PastJob | None:
    stored, name = pair
    record = read_job(stored.vault.store, name)
    return None if record is None else PastJob(stored, record)
