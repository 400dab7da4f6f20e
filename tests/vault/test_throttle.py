from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlbak.errors import Interrupted
from sqlbak.stopping import StopSignal
from sqlbak.vault.memory_store import MemoryStore
from sqlbak.vault.throttle import BandwidthCap, ThrottledStore, ended_by


@given(st.lists(st.tuples(st.integers(1, 1 << 20), st.floats(0, 2)), min_size=1, max_size=40))
def test_no_more_is_sent_than_the_cap_allows_however_it_is_asked_for(
    asks: list[tuple[int, float]],
) -> None:
    clock = [0.0]
    cap = BandwidthCap(100_000, clock=lambda: clock[0])
    sent, done_at = 0, 0.0
    for size, pause in asks:
        clock[0] += pause
        clock[0] += cap.wait_seconds(size)
        sent += size
        done_at = max(done_at, clock[0])
        # All but the last ask, which begins now, has had its time, but for a short burst.
        assert sent - size <= 100_000 * (done_at + 0.25) + 1


def test_writers_of_one_cap_share_it_and_small_objects_pass() -> None:
    cap = BandwidthCap(4 << 20)
    stores = [ThrottledStore(MemoryStore(), [cap]) for _ in range(2)]
    begun = time.monotonic()

    def send(store: ThrottledStore) -> None:
        with store.writer("items/a/data/x") as writer:
            writer.write(memoryview(bytes(2 << 20)))
            writer.commit()

    threads = [threading.Thread(target=send, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    stores[0].put("leases/a.json", b"x")
    for thread in threads:
        thread.join()
    assert time.monotonic() - begun >= 0.4  # 4 MiB, the last of which is not waited for
    assert stores[0].get("leases/a.json") == b"x"
    assert stores[1].head("items/a/data/x").size == 2 << 20


def test_a_stop_ends_the_wait() -> None:
    stop = StopSignal()
    store = ThrottledStore(MemoryStore(), [BandwidthCap(65536)], stop=stop)
    threading.Timer(0.1, stop.request).start()
    with pytest.raises(Interrupted), store.writer("a") as writer:
        for _ in range(100):
            writer.write(bytes(1 << 20))
    with pytest.raises(Exception, match="no object"):
        store.head("a")


def test_the_end_of_one_piece_of_work_ends_its_wait_alone() -> None:
    plain = MemoryStore()
    assert ended_by(plain, StopSignal()) is plain
    everything, own = StopSignal(), StopSignal()
    shared = ThrottledStore(plain, [BandwidthCap(1 << 20)], stop=everything)
    own.request()
    with pytest.raises(Interrupted), ended_by(shared, own).writer("a") as writer:
        for _ in range(100):
            writer.write(bytes(1 << 20))
    with shared.writer("b") as writer:
        writer.write(b"goes on")
        writer.commit()
    assert plain.head("b").size == 7
