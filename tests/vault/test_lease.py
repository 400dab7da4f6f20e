"""At most one process works under a name at a time, and a holder knows when it lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from itertools import chain, repeat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlbak.errors import (
    Interrupted,
    LeaseHeld,
    LeaseLost,
    PreconditionFailed,
    StoreUnreachable,
    VaultError,
)
from sqlbak.stopping import StopSignal
from sqlbak.vault.layout import lease_key
from sqlbak.vault.lease import Lease, Leases
from sqlbak.vault.memory_store import MemoryStore
from sqlbak.vault.store import ObjectInfo, ObjectStore
from tests.vault.turns import Turns

NAME = "orders-0123456789abcdef"
NOW = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)


class Clock:
    """A clock that a test sets; each machine may have its own."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds


def leases(store: ObjectStore, holder: str = "host-a:1", clock: Clock | None = None) -> Leases:
    return Leases(store, holder=holder, clock=clock or Clock(), now=lambda: NOW)


def test_a_lease_is_held_by_one_and_says_by_whom(store: ObjectStore) -> None:
    first, second = leases(store, "host-a:1 boot/ns:77"), leases(store, "host-b:2")
    with first.acquire(NAME, purpose="full backup", heartbeat=False) as lease:
        lease.check()
        with pytest.raises(LeaseHeld) as caught:
            second.acquire(NAME, purpose="log", heartbeat=False)
        message = caught.value.message
        assert "by host-a:1 (full backup) since 2024-05-01 12:00:00Z" in message
        assert first.taken() == [first.read(NAME)]
    second.acquire(NAME, purpose="log", heartbeat=False).release()
    assert second.taken() == []


def test_the_number_of_a_lease_only_grows(store: ObjectStore) -> None:
    mine = leases(store)
    tokens, grants = [], set()
    for _ in range(4):
        with mine.acquire(NAME, purpose="log", heartbeat=False) as lease:
            tokens.append(lease.token)
            grants.add(lease.grant)
    assert tokens == sorted(set(tokens))
    assert len(grants) == 4


def test_a_released_lease_passes_no_check(store: ObjectStore) -> None:
    lease = leases(store).acquire(NAME, purpose="log", heartbeat=False)
    lease.release()
    lease.release()
    with pytest.raises(LeaseLost, match="released"):
        lease.check()
    with pytest.raises(LeaseLost):
        lease.renew()


def test_a_holder_that_cannot_renew_knows_before_anybody_takes_over(store: ObjectStore) -> None:
    # The two machines' clocks show wholly different times.
    hers, his = Clock(1000.0), Clock(5.0)
    lease = leases(store, clock=hers).acquire(NAME, purpose="full", heartbeat=False)
    waiter = leases(store, "host-b:2", his)
    elapsed = 0.0
    while True:
        try:
            taken = waiter.acquire(NAME, purpose="log", heartbeat=False)
            break
        except LeaseHeld:
            elapsed += 1.0
            hers.seconds += 1.0
            his.seconds += 1.0
    assert 60 < elapsed < 120
    with pytest.raises(LeaseLost):
        lease.check()
    taken.check()
    assert taken.token > lease.token
    lease.release()
    taken.check()
    taken.renew()


def test_a_lease_that_is_renewed_is_never_taken_over(store: ObjectStore) -> None:
    clock = Clock()
    lease = leases(store, clock=clock).acquire(NAME, purpose="full", heartbeat=False)
    waiter = leases(store, "host-b:2", clock)
    for _ in range(50):
        clock.seconds += 20.0
        lease.renew()
        clock.seconds += 20.0
        lease.check()
        with pytest.raises(LeaseHeld):
            waiter.acquire(NAME, purpose="log", heartbeat=False)
        assert not waiter.is_lost(NAME, lease.grant)


def test_one_look_after_a_long_time_is_no_proof_of_expiry(store: ObjectStore) -> None:
    clock = Clock()
    leases(store, clock=clock).acquire(NAME, purpose="full", heartbeat=False)
    clock.seconds += 10_000
    with pytest.raises(LeaseHeld):
        leases(store, "host-b:2", clock).acquire(NAME, purpose="log", heartbeat=False)


def test_time_counts_from_before_the_renewal_was_sent(store: ObjectStore) -> None:
    clock = Clock()

    class Slow(MemoryStore):
        def replace(self, key: str, data: bytes, *, if_match: str) -> ObjectInfo:
            info = super().replace(key, data, if_match=if_match)
            clock.seconds += 70.0
            return info

    lease = leases(Slow(), clock=clock).acquire(NAME, purpose="full", heartbeat=False)
    with pytest.raises(LeaseLost):
        lease.renew()


def test_a_lost_lease_is_noticed_at_the_next_renewal(store: ObjectStore) -> None:
    lease = leases(store).acquire(NAME, purpose="full", heartbeat=False)
    record = leases(store).read(NAME)
    assert record is not None
    store.delete([lease_key(NAME)])
    with pytest.raises(LeaseLost, match="gone"):
        lease.renew()
    with pytest.raises(LeaseLost):
        lease.check()


def test_an_outage_shorter_than_the_time_to_live_costs_nothing() -> None:
    clock = Clock()
    is_down = False

    class Flaky(MemoryStore):
        def replace(self, key: str, data: bytes, *, if_match: str) -> ObjectInfo:
            if is_down:
                raise StoreUnreachable("no answer")
            return super().replace(key, data, if_match=if_match)

    lease = leases(Flaky(), clock=clock).acquire(NAME, purpose="full", heartbeat=False)
    is_down = True
    clock.seconds += 50
    with pytest.raises(StoreUnreachable):
        lease.renew()
    lease.check()
    is_down = False
    lease.renew()
    clock.seconds += 50
    lease.check()


@pytest.mark.parametrize("method", ["put", "replace"])
def test_a_repeated_request_whose_first_answer_was_lost_is_no_loss(method: str) -> None:
    class Repeating(MemoryStore):
        def put(self, key: str, data: bytes, *, if_absent: bool = True) -> ObjectInfo:
            info = super().put(key, data, if_absent=if_absent)
            if method == "put":
                raise PreconditionFailed(key)
            return info

        def replace(self, key: str, data: bytes, *, if_match: str) -> ObjectInfo:
            info = super().replace(key, data, if_match=if_match)
            if method == "replace":
                raise PreconditionFailed(key)
            return info

    mine = leases(Repeating())
    lease = mine.acquire(NAME, purpose="full", heartbeat=False)
    lease.renew()
    lease.renew()
    lease.check()
    lease.release()
    mine.acquire(NAME, purpose="full", heartbeat=False).check()


@pytest.mark.parametrize("before", ["never taken", "released", "expired"])
@settings(deadline=None, max_examples=40)
@given(choices=st.lists(st.integers(0, 5), max_size=30))
def test_one_of_several_racers_wins(before: str, choices: list[int]) -> None:
    store, clock = MemoryStore(), Clock()
    old: Lease | None = None
    if before != "never taken":
        old = leases(store, "host-z:9", clock).acquire(NAME, purpose="full", heartbeat=False)
    if old is not None and before == "released":
        old.release()
    books = {name: leases(store, name, clock) for name in ("host-a:1", "host-b:2", "host-c:3")}
    if before == "expired":
        for book in books.values():
            with pytest.raises(LeaseHeld):
                book.acquire(NAME, purpose="log", heartbeat=False)
        clock.seconds += 91
    turns = Turns(store, chain(choices, repeat(0)))
    winners: list[Lease] = []

    def compete(name: str, turn_store: ObjectStore) -> None:
        books[name]._store = turn_store
        winners.append(books[name].acquire(NAME, purpose="log", heartbeat=False))

    for name in books:
        turns.party(name, partial(compete, name))
    turns.run()
    assert all(isinstance(error, LeaseHeld) for error in turns.failures.values())
    assert len(winners) == 1
    winners[0].check()
    assert old is None or winners[0].token > old.token


def test_the_heartbeat_keeps_a_lease_and_ends_with_it(store: ObjectStore) -> None:
    before = set(threading.enumerate())
    beats = threading.Event()

    class Counting(MemoryStore):
        count = 0

        def replace(self, key: str, data: bytes, *, if_match: str) -> ObjectInfo:
            self.count += 1
            if self.count == 3:
                beats.set()
            return super().replace(key, data, if_match=if_match)

    book = Leases(Counting(), holder="host-a:1", ttl_seconds=0.3)
    with book.acquire(NAME, purpose="full"):
        assert beats.wait(60)
    assert set(threading.enumerate()) == before


def test_the_heartbeat_tries_again_until_the_time_is_over() -> None:
    tried = threading.Event()

    class Down(MemoryStore):
        count = 0

        def replace(self, key: str, data: bytes, *, if_match: str) -> ObjectInfo:
            self.count += 1
            if self.count == 2:
                tried.set()
            raise StoreUnreachable("no answer")

    lease = Leases(Down(), holder="host-a:1", ttl_seconds=0.3).acquire(NAME, purpose="full")
    assert tried.wait(60)
    assert lease._thread is not None
    lease._thread.join(60)
    with pytest.raises(LeaseLost, match="in time"):
        lease.check()
    lease.release()


def test_waiting_ends_when_the_lease_is_free(store: ObjectStore) -> None:
    holder = Leases(store, holder="host-a:1").acquire(NAME, purpose="full", heartbeat=False)
    threading.Timer(0.05, holder.release).start()
    waiter = Leases(store, holder="host-b:2", ttl_seconds=0.5)
    waiter.acquire(NAME, purpose="log", wait_seconds=60, heartbeat=False).check()


def test_waiting_ends_when_somebody_asks_to_stop(store: ObjectStore) -> None:
    Leases(store, holder="host-a:1").acquire(NAME, purpose="full", heartbeat=False)
    stop = StopSignal()
    stop.request()
    with pytest.raises(Interrupted):
        Leases(store, holder="host-b:2").acquire(NAME, purpose="log", wait_seconds=60, stop=stop)


def test_a_job_is_lost_when_its_lease_is_free_anothers_or_long_unchanged(
    store: ObjectStore,
) -> None:
    clock = Clock()
    book, observer = leases(store, clock=clock), leases(store, "host-b:2", clock)
    assert observer.is_lost(NAME, "any")
    lease = book.acquire(NAME, purpose="full", heartbeat=False)
    assert not observer.is_lost(NAME, lease.grant)
    assert observer.is_lost(NAME, "another")
    clock.seconds += 89
    assert not observer.is_lost(NAME, lease.grant)
    clock.seconds += 2
    assert observer.is_lost(NAME, lease.grant)
    again = observer.acquire(NAME, purpose="log", heartbeat=False)
    assert book.is_lost(NAME, lease.grant)
    assert not book.is_lost(NAME, again.grant)
    again.release()
    assert book.is_lost(NAME, again.grant)


def test_a_holder_known_to_be_dead_is_not_waited_for(store: ObjectStore) -> None:
    leases(store, "host-a:1").acquire(NAME, purpose="full", heartbeat=False)
    heir = Leases(store, holder="host-a:2", is_known_dead=lambda holder: holder == "host-a:1")
    heir.acquire(NAME, purpose="log", heartbeat=False).check()


def test_only_a_free_lease_is_forgotten(store: ObjectStore) -> None:
    book = leases(store)
    lease = book.acquire(NAME, purpose="restore", heartbeat=False)
    book.forget(NAME)
    lease.renew()
    lease.release()
    book.forget(NAME)
    book.forget(NAME)
    assert list(store.list("leases/")) == []


def test_a_damaged_lease_is_told(store: ObjectStore) -> None:
    store.put(lease_key(NAME), b"{}")
    with pytest.raises(VaultError, match=lease_key(NAME)):
        leases(store).acquire(NAME, purpose="log", heartbeat=False)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(60)
    assert set(threading.enumerate()) <= before
