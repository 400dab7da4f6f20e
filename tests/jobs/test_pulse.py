"""What connects a running job with people on other machines."""

from __future__ import annotations

import pytest

from sqlbak.errors import Cancelled, Interrupted, ServerUnreachable, StoreUnreachable
from sqlbak.jobs import pulse as pulse_module
from sqlbak.jobs.pulse import Pulse
from sqlbak.progress import NO_PROGRESS
from sqlbak.stopping import StopSignal
from sqlbak.vault.lease import Leases
from sqlbak.vault.memory_store import MemoryStore
from sqlbak.vault.running import Cancellation, ask_to_cancel
from sqlbak.vault.work_progress import CountedProgress
from tests.vault.making import ITEM, NOW, Job

PATIENCE_SECONDS = 60.0


class Failing(MemoryStore):
    """Cannot be asked for wishes ``failures`` times."""

    failures = 0

    def get(self, key: str) -> bytes:
        if key.endswith(".cancel") and self.failures > 0:
            self.failures -= 1
            raise StoreUnreachable("away")
        return super().get(key)


def pulse(store: MemoryStore, job: Job, stop: StopSignal) -> Pulse:
    lease = Leases(store, holder="host:1").acquire("lease", purpose="test", heartbeat=False)
    progress = CountedProgress(NO_PROGRESS)
    return Pulse(store, ITEM.id, job.record, lease, progress, stop)


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse_module, "LOOK_EVERY_SECONDS", 0.01)


@pytest.mark.parametrize("failures", [0, 3])
def test_a_job_ends_when_somebody_asks_even_after_the_store_was_away(failures: int) -> None:
    store = Failing()
    stop = StopSignal()
    job = Job(store)
    job.begin()
    with pulse(store, job, stop) as beating:
        assert not stop.wait(0.05)
        store.failures = failures
        ask_to_cancel(store, ITEM.id, job.record.job_id, Cancellation(NOW, "ops@desk"))
        assert stop.wait(PATIENCE_SECONDS)
    told = beating.told(Interrupted())
    assert isinstance(told, Cancelled)
    assert "cancelled by ops@desk at 2024-05-01 12:00:00Z" in told.message
    # Something else that went wrong meanwhile is told as what it is.
    other = ServerUnreachable("gone")
    assert beating.told(other) is other


def test_an_interruption_that_nobody_asked_for_is_told_as_it_is() -> None:
    store = MemoryStore()
    job = Job(store)
    with pulse(store, job, StopSignal()) as beating:
        pass
    error = Interrupted("stopped by SIGTERM")
    assert beating.told(error) is error
