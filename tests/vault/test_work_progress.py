"""How far a running job has come travels with its lease's heartbeats."""

from __future__ import annotations

from datetime import timedelta

from sqlbak.progress import NO_PROGRESS
from sqlbak.vault.memory_store import MemoryStore
from sqlbak.vault.work_progress import CountedProgress, WorkProgress
from tests.vault.test_lease import NAME, NOW, leases


def test_a_heartbeat_carries_the_progress_and_a_free_lease_has_none() -> None:
    store = MemoryStore()
    progress = CountedProgress(NO_PROGRESS, now=lambda: NOW + timedelta(minutes=1))
    ours, theirs = leases(store), leases(store, "host-b:2")
    with ours.acquire(NAME, purpose="full backup", heartbeat=False) as lease:
        lease.show(lambda: progress.so_far("job-1"))
        progress.phase("base.tar", 1000)
        progress.advance(300)
        progress.advance(100)
        lease.renew()
        seen = theirs.read(NAME)
        assert seen is not None
        assert seen.progress == WorkProgress(
            "job-1", "base.tar", 400, 1000, NOW + timedelta(minutes=1)
        )
        progress.phase("wal")
        lease.renew()
        seen = theirs.read(NAME)
        assert seen is not None
        assert seen.progress is not None
        assert (seen.progress.phase, seen.progress.done_bytes, seen.progress.total_bytes) == (
            "wal",
            0,
            None,
        )
    after = theirs.read(NAME)
    assert after is not None
    assert after.progress is None


def test_a_lease_of_an_older_version_is_read_without_progress() -> None:
    store = MemoryStore()
    with leases(store).acquire(NAME, purpose="log", heartbeat=False):
        key = next(iter(store.list("leases/"))).key
        text = store.get(key).decode().replace('  "progress": null,\n', "")
        assert "progress" not in text
        store.put(key, text.encode(), if_absent=False)
        seen = leases(store).read(NAME)
        assert seen is not None
        assert seen.progress is None
