"""Leases: at most one process works under a name at a time, on however many machines.

A lease is one object, changed only by conditional writes. No clock is compared with another
machine's. The holder counts its time to live from just before the request of its last renewal,
on its own clock. Who waits for a lease counts, on its own clock too, how long the record has not
changed; only after the whole time to live and a margin does it take over. So the holder always
knows of its loss before anybody else acts, as long as both clocks run at about the same speed
and go on while a machine sleeps (CLOCK_BOOTTIME). A machine that its hypervisor stopped notices
nothing: that is why a commit does not rest on its lease (vault/running.py).

Releasing keeps the object and marks it free, so that its number only grows; every grant has a
random id as well, by which a record of a crashed job is told from its successors'.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Self

from sqlbak.errors import (
    LeaseHeld,
    LeaseLost,
    ObjectNotFound,
    PreconditionFailed,
    SqlbakError,
    StoreUnreachable,
)
from sqlbak.stopping import NEVER, StopSignal
from sqlbak.vault.layout import LEASES_PREFIX, lease_key
from sqlbak.vault.lease_record import LeaseRecord
from sqlbak.vault.store import ObjectStore
from sqlbak.vault.work_progress import WorkProgress

__all__ = ["TTL_SECONDS", "Lease", "Leases"]

TTL_SECONDS = 60.0

_MARGIN = 0.5
"""Part of the time to live that a waiter waits longer: for clocks of different speed."""


def steady_clock() -> float:
    """Seconds on a clock that is never set and goes on while the machine sleeps."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class _Sight:
    """What a waiter saw, and when it saw it first."""

    grant: str
    renewals: int
    since: float


class Leases:
    """The leases of one vault, as one process sees them.

    Keep it as long as the process lives: what it has seen of other holders' leases is what lets
    it take over an expired one without waiting anew. Safe for several threads.
    ``is_known_dead`` may know that a holder is gone for sure (vault/holder.py): its lease has then
    expired at once.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        holder: str,
        ttl_seconds: float = TTL_SECONDS,
        clock: Callable[[], float] = steady_clock,
        now: Callable[[], datetime] = _utc_now,
        is_known_dead: Callable[[str], bool] = lambda _holder: False,
    ) -> None:
        self._store = store
        self._holder = holder
        self._is_known_dead = is_known_dead
        self._ttl_seconds = ttl_seconds
        self._clock = clock
        self._now = now
        self._lock = threading.Lock()
        self._sights: dict[str, _Sight] = {}

    def acquire(
        self,
        name: str,
        *,
        purpose: str,
        wait_seconds: float = 0.0,
        stop: StopSignal = NEVER,
        heartbeat: bool = True,
    ) -> Lease:
        """Take the lease, free or expired, waiting up to ``wait_seconds`` for it. LeaseHeld tells
        who holds it. To outwait a crashed holder takes one and a half times its time to live,
        counted from when this object first saw its last heartbeat.

        ``heartbeat``: renew it from a thread until it is released; without it, call ``renew``.
        """
        deadline = self._clock() + wait_seconds
        while True:
            try:
                return self._try(name, purpose, heartbeat)
            except LeaseHeld:
                left = deadline - self._clock()
                if left <= 0:
                    raise
                if stop.wait(min(left, max(self._ttl_seconds / 20, 0.01))):
                    stop.check()

    def read(self, name: str) -> LeaseRecord | None:
        """What the lease's object says now; None: it was never taken."""
        key = lease_key(name)
        try:
            return LeaseRecord.decode(key, self._store.get(key))
        except ObjectNotFound:
            return None

    def taken(self, prefix: str = "") -> list[LeaseRecord]:
        """The leases whose names begin with ``prefix`` and that are not free; some may have
        expired (``is_lost`` finds out)."""
        names = [
            info.key.removeprefix(LEASES_PREFIX).removesuffix(".json")
            for info in self._store.list(LEASES_PREFIX + prefix)
        ]
        records = [self.read(name) for name in names]
        return [record for record in records if record is not None and not record.is_free]

    def is_lost(self, name: str, grant: str) -> bool:
        """Whether the holder of ``grant`` can no longer pass a check of its lease: it was
        released, is another's, or has been seen unchanged for so long that it has expired. When
        in doubt False: ask again later."""
        record = self.read(name)
        if record is None or record.is_free or record.grant != grant:
            return True
        return self._has_expired(record)

    def forget(self, name: str) -> None:
        """Delete the object of a free lease whose name will never be used again."""
        key = lease_key(name)
        try:
            info = self._store.head(key)
            record = LeaseRecord.decode(key, self._store.get(key))
            if record.is_free:
                self._store.delete_if(key, if_match=info.etag)
        except (ObjectNotFound, PreconditionFailed):
            return  # gone already, or taken again

    def _try(self, name: str, purpose: str, heartbeat: bool) -> Lease:
        key = lease_key(name)
        begun = self._clock()
        record = LeaseRecord(
            name=name,
            token=1,
            grant=secrets.token_hex(8),
            renewals=0,
            holder=self._holder,
            purpose=purpose,
            acquired_at=self._now(),
            ttl_seconds=self._ttl_seconds,
            is_free=False,
        )
        try:
            # The tag is read before the content: a change in between fails the conditional write.
            etag = self._store.head(key).etag
            current = LeaseRecord.decode(key, self._store.get(key))
        except ObjectNotFound:
            try:
                etag = self._store.put(key, record.encode(), if_absent=True).etag
            except PreconditionFailed:
                etag = self._own_etag(key, record)
        else:
            if not current.is_free and not self._has_expired(current):
                raise _held(current)
            record = replace(record, token=current.token + 1)
            try:
                etag = self._store.replace(key, record.encode(), if_match=etag).etag
            except PreconditionFailed:
                etag = self._own_etag(key, record)
        return Lease(self._store, record, etag, begun, self._clock, heartbeat=heartbeat)

    def _own_etag(self, key: str, record: LeaseRecord) -> str:
        # A repeated request fails on its own first success, whose answer was lost.
        try:
            etag = self._store.head(key).etag
            current = LeaseRecord.decode(key, self._store.get(key))
        except ObjectNotFound:
            raise LeaseHeld(f"{record.name} was taken and given back by another just now") from None
        if current.grant != record.grant:
            raise _held(current)
        return etag

    def _has_expired(self, record: LeaseRecord) -> bool:
        if self._is_known_dead(record.holder):
            return True
        with self._lock:
            now = self._clock()
            sight = self._sights.get(record.name)
            if sight is None or (sight.grant, sight.renewals) != (record.grant, record.renewals):
                self._sights[record.name] = _Sight(record.grant, record.renewals, now)
                return False
            return now - sight.since > record.ttl_seconds * (1 + _MARGIN)


class Lease:
    """A lease that this process holds, or held. ``with`` releases it."""

    def __init__(
        self,
        store: ObjectStore,
        record: LeaseRecord,
        etag: str,
        begun: float,
        clock: Callable[[], float],
        *,
        heartbeat: bool,
    ) -> None:
        self._store = store
        self._key = lease_key(record.name)
        self._record = record
        self._etag = etag
        self._clock = clock
        self._expires = begun + record.ttl_seconds
        self._lost: str | None = None
        self._progress: Callable[[], WorkProgress | None] = _nothing_known
        self._lock = threading.Lock()
        self._renewing = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        if heartbeat:
            self._thread = threading.Thread(
                target=self._beat, name=f"sqlbak-lease-{record.name}", daemon=True
            )
            self._thread.start()

    @property
    def name(self) -> str:
        """What is leased."""
        return self._record.name

    @property
    def token(self) -> int:
        """The number of this grant; later grants of the same name have larger ones."""
        return self._record.token

    @property
    def grant(self) -> str:
        """The random id of this grant."""
        return self._record.grant

    @property
    def holder(self) -> str:
        """Who holds it, for people."""
        return self._record.holder

    def check(self) -> None:
        """Raise LeaseLost unless the lease is certainly still ours now."""
        with self._lock:
            if self._lost is None and self._clock() >= self._expires:
                self._lost = "it could not be renewed in time"
            if self._lost is not None:
                raise LeaseLost(
                    f"the lease of {self.name} was lost: {self._lost}",
                    hint="nothing was committed; the next run starts anew",
                )

    def show(self, progress: Callable[[], WorkProgress | None]) -> None:
        """From now on each heartbeat carries what ``progress`` answers, for other machines to see.
        It is called in the thread of the heartbeat and must neither wait nor raise."""
        with self._lock:
            self._progress = progress

    def renew(self) -> None:
        """Send one heartbeat. LeaseLost when the lease is another's; errors of the store as they
        are, the lease then stays ours until its time is over."""
        with self._renewing:
            self.check()
            begun = self._clock()
            wanted = replace(
                self._record, renewals=self._record.renewals + 1, progress=self._progress()
            )
            try:
                etag = self._store.replace(self._key, wanted.encode(), if_match=self._etag).etag
            except PreconditionFailed:
                etag, wanted = self._reread()
            with self._lock:
                self._record, self._etag = wanted, etag
                self._expires = begun + wanted.ttl_seconds
            self.check()

    def release(self) -> None:
        """Give the lease back, if it is still ours, and end the heartbeat. Safe to call twice.
        When the store cannot be reached the lease simply expires."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        with self._renewing:
            with self._lock:
                if self._lost is not None:
                    return
                self._lost = "it was released"
            free = replace(self._record, is_free=True, progress=None)
            try:
                self._store.replace(self._key, free.encode(), if_match=self._etag)
            except (PreconditionFailed, StoreUnreachable):
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, value: object, traceback: object) -> None:
        self.release()

    def _reread(self) -> tuple[str, LeaseRecord]:
        """After a refused write: our own earlier write, whose answer was lost, or a loss."""
        lost = "its object is gone"
        try:
            etag = self._store.head(self._key).etag
            current = LeaseRecord.decode(self._key, self._store.get(self._key))
        except ObjectNotFound:
            pass
        else:
            if current.grant == self._record.grant and not current.is_free:
                return etag, current
            lost = f"{current.who} took it ({current.purpose})"
        with self._lock:
            self._lost = lost
        self.check()
        raise AssertionError("unreachable")

    def _beat(self) -> None:
        interval = self._record.ttl_seconds / 3
        wait = interval
        while not self._ended.wait(wait):
            try:
                self.renew()
                wait = interval
            except LeaseLost:
                return  # check() tells it from now on
            except SqlbakError:
                # Tried again until the time is over; then check() tells.
                wait = interval / 4


def _nothing_known() -> WorkProgress | None:
    return None


def _held(record: LeaseRecord) -> LeaseHeld:
    return LeaseHeld(
        f"{record.name} is being worked on by {record.who} ({record.purpose}) "
        f"since {record.acquired_at:%Y-%m-%d %H:%M:%S}Z",
        hint="wait for it to finish; if that process is dead, its lease expires within "
        f"{record.ttl_seconds * (1 + _MARGIN):.0f} seconds",
    )
