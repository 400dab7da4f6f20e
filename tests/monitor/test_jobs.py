"""Past and running jobs of whole fleets, from their vaults alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from sqlbak.fleet import StoredItem
from sqlbak.model import PointType
from sqlbak.monitor.job_history import past_jobs
from sqlbak.monitor.running_jobs import JobState, state_of
from sqlbak.vault.job_records import JobOutcome, write_job
from sqlbak.vault.lease_record import LeaseRecord
from sqlbak.vault.memory_store import MemoryStore
from sqlbak.vault.running import RunningRecord
from sqlbak.vault.vault import Vault, create_vault
from sqlbak.vault.work_progress import WorkProgress
from tests.monitor.watching import MINUTE, NOON, failure
from tests.vault.making import ITEM

RECORD = RunningRecord("j1", "p1", NOON, "host", 1, "lease", "grant", "full")
LEASE = LeaseRecord("lease", 1, "grant", 3, "host:1", "full backup", NOON, 60.0, False)
TOLD = WorkProgress("j1", "base.tar", 10, 100, NOON + 10 * MINUTE)


@pytest.mark.parametrize(
    ("lease", "asked", "dead", "state"),
    [
        (None, False, False, JobState.DEAD),
        (replace(LEASE, is_free=True), False, False, JobState.DEAD),
        (replace(LEASE, grant="another"), False, False, JobState.DEAD),
        (replace(LEASE, progress=TOLD), False, True, JobState.DEAD),
        (LEASE, False, False, JobState.SILENT),
        (LEASE, True, False, JobState.SILENT),
        (replace(LEASE, progress=TOLD), False, False, JobState.RUNNING),
        (replace(LEASE, progress=TOLD), True, False, JobState.CANCELLING),
    ],
)
def test_the_lease_tells_how_a_job_is(
    lease: LeaseRecord | None, asked: bool, dead: bool, state: JobState
) -> None:
    now = NOON + 11 * MINUTE
    found = state_of(RECORD, lease, now, is_asked_to_end=asked, is_dead=lambda _holder: dead)
    assert found is state


def stored(vault: Vault, number: int) -> StoredItem:
    return StoredItem(vault, replace(ITEM, id=f"db{number}-0123456789abcdef"))


def test_the_newest_runs_of_all_items_come_first_and_only_they_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = MemoryStore()
    vault = create_vault(store, redundancy="local", now=NOON)
    items = [stored(vault, number) for number in range(5)]
    for minute in range(40):
        record = replace(
            failure(PointType.LOG, NOON + timedelta(minutes=minute)), job_id=f"j{minute:02d}"
        )
        if minute % 8:
            record = replace(record, outcome=JobOutcome.SUCCEEDED, error_code=None)
        write_job(store, items[minute % 5].item.id, record)
    reads: list[str] = []
    get = store.get
    monkeypatch.setattr(store, "get", lambda key: (reads.append(key), get(key))[1])
    newest = past_jobs(items, limit=7)
    assert [job.record.job_id for job in newest] == [f"j{n}" for n in range(39, 32, -1)]
    assert len(reads) == 7
    failed = past_jobs(items, limit=3, is_failed_only=True)
    assert [job.record.job_id for job in failed] == ["j32", "j24", "j16"]
    assert past_jobs(items, limit=0) == []
    assert past_jobs([], limit=5) == []
