"""The pulse of a running job: what connects it with people on other machines while it runs.

Outwards, its lease's heartbeats carry its progress. Inwards, it looks every few seconds whether
somebody asked it to end. Neither can hold it up or harm it.
"""

from __future__ import annotations

import threading
from typing import Self

from sqlbak.errors import Cancelled, Interrupted, SqlbakError, VaultError
from sqlbak.stopping import StopSignal
from sqlbak.vault.lease import Lease
from sqlbak.vault.running import Cancellation, RunningRecord, read_cancellation
from sqlbak.vault.store import ObjectStore
from sqlbak.vault.work_progress import CountedProgress

__all__ = ["LOOK_EVERY_SECONDS", "Pulse"]

LOOK_EVERY_SECONDS = 5.0
"""How long a job that was asked to end may not know of it."""


class Pulse:
    """Beats inside its ``with`` block. ``cancelled``: what made it ask ``stop`` to end the job."""

    def __init__(
        self,
        store: ObjectStore,
        item_id: str,
        record: RunningRecord,
        lease: Lease,
        progress: CountedProgress,
        stop: StopSignal,
    ) -> None:
        self._store = store
        self._item_id = item_id
        self._job_id = record.job_id
        self._stop = stop
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name=f"sqlbak-pulse-{record.job_id}")
        self.cancelled: Cancellation | None = None
        lease.show(lambda: progress.so_far(record.job_id))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: object, value: object, traceback: object) -> None:
        self._ended.set()
        self._thread.join()

    def told(self, error: SqlbakError) -> SqlbakError:
        """``error``, which ended the job, as it is told: that somebody cancelled it, if that was
        why."""
        if self.cancelled is None or not isinstance(error, Interrupted):
            return error
        wish = self.cancelled
        return Cancelled(
            f"cancelled by {wish.asked_by} at {wish.asked_at:%Y-%m-%d %H:%M:%S}Z; nothing of it "
            "was kept"
        )

    def _look(self) -> None:
        while not self._ended.wait(LOOK_EVERY_SECONDS):
            try:
                wish = read_cancellation(self._store, self._item_id, self._job_id)
            except VaultError:
                continue  # the job itself meets whatever is wrong with the vault; look again
            if wish is not None:
                self.cancelled = wish
                self._stop.request(f"cancelled by {wish.asked_by}")
                return
