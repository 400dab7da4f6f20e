"""Due backups joined with what the policy files say of limits and quiet hours. Pure."""

from __future__ import annotations

import zlib
from datetime import datetime, timedelta

from sqlbak.fleet import Fleet, instance_of
from sqlbak.policy.quiet_hours import quiet_until
from sqlbak.scheduler.admission import Candidate, Room
from sqlbak.scheduler.due import DueJob

__all__ = ["candidate_of", "room_of", "turn_of"]


def candidate_of(
    fleet: Fleet, job: DueJob, now: datetime, *, not_before: datetime | None = None
) -> Candidate:
    """``job`` with its instance and vault, and the quiet hours that hold at ``now``."""
    policy = fleet.policy(job.item)
    return Candidate(
        job,
        instance_of(job.item),
        policy.vault,
        not_before=not_before,
        quiet_until=quiet_until(policy.quiet_hours, policy.zone, now),
    )


def room_of(fleet: Fleet, jobs_at_once: int) -> Room:
    """How much may run at once: ``jobs_at_once`` over everything, and the limits of the files."""
    configuration = fleet.configuration
    return Room(
        jobs_at_once,
        {
            name: instance.limits.jobs
            for name, instance in configuration.instances.items()
            if instance.limits.jobs is not None
        },
        {
            name: vault.limits.jobs
            for name, vault in configuration.vaults.items()
            if vault.limits.jobs is not None
        },
    )


def turn_of(job: DueJob, spread_seconds: float) -> datetime | None:
    """When an item's turn comes after its slot: always as long after, so that its backups stay as
    far apart as its slots."""
    if job.slot is None:
        return None
    part = (zlib.crc32(job.item.encode()) % 4096) / 4096
    return job.slot.instant + timedelta(seconds=spread_seconds * part)
