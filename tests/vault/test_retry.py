"""Retries around a store."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlbak.errors import (
    AccessDenied,
    Interrupted,
    ObjectNotFound,
    PreconditionFailed,
    StoreThrottled,
    StoreUnreachable,
)
from sqlbak.stopping import StopSignal
from sqlbak.vault.memory_store import MemoryStore
from sqlbak.vault.retry import Retry, RetryingStore, RetryPolicy
from sqlbak.vault.store import ObjectInfo

QUICK = RetryPolicy(attempts=4, first_wait_seconds=0.001, longest_wait_seconds=0.002)


class Flaky(MemoryStore):
    """Fails as told: ``before`` the operation is done, or ``after`` it was done (its answer is
    lost). Counts what was asked of it."""

    def __init__(self, *faults: str, error: type[StoreUnreachable] = StoreUnreachable) -> None:
        super().__init__()
        self.faults = list(faults)
        self.error = error
        self.asked: list[str] = []

    def _do(self, name: str, *args: Any, **options: Any) -> Any:
        self.asked.append(name)
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "before":
            raise self.error("the network is down")
        result = getattr(MemoryStore, name)(self, *args, **options)
        if fault == "after":
            raise self.error("the answer was lost")
        return result

    def put(self, key: str, data: bytes, *, if_absent: bool = True) -> ObjectInfo:
        return self._do("put", key, data, if_absent=if_absent)  # type: ignore[no-any-return]

    def replace(self, key: str, data: bytes, *, if_match: str) -> ObjectInfo:
        return self._do("replace", key, data, if_match=if_match)  # type: ignore[no-any-return]

    def delete_if(self, key: str, *, if_match: str) -> None:
        self._do("delete_if", key, if_match=if_match)

    def get(self, key: str) -> bytes:
        return self._do("get", key)  # type: ignore[no-any-return]

    def copy(self, source: str, target: str) -> ObjectInfo:
        # not through the flaky put
        self.asked.append("copy")
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "before":
            raise self.error("the network is down")
        info = MemoryStore.put(self, target, MemoryStore.get(self, source))
        if fault == "after":
            raise self.error("the answer was lost")
        return info


def retrying(store: MemoryStore, policy: RetryPolicy = QUICK) -> RetryingStore:
    return RetryingStore(store, Retry(policy))


class TestWaiting:
    @given(st.integers(1, 60), st.floats(0, 1, exclude_max=True))
    def test_waits_grow_to_a_bound(self, failures: int, chance: float) -> None:
        policy = RetryPolicy(first_wait_seconds=0.5, longest_wait_seconds=20)
        wait = policy.wait_seconds(failures, chance)
        assert 0.25 <= wait <= 20
        if failures > 6:
            assert wait >= 10

    def test_it_gives_up_after_so_many_attempts(self) -> None:
        store = Flaky(*["before"] * 10)
        with pytest.raises(StoreUnreachable, match="network is down"):
            retrying(store).get("k")
        assert len(store.asked) == 4

    def test_it_gives_up_after_so_much_time(self) -> None:
        store = Flaky(*["before"] * 10)
        policy = RetryPolicy(attempts=100, total_seconds=5, first_wait_seconds=60)
        with pytest.raises(StoreUnreachable):
            retrying(store, policy).get("k")
        assert len(store.asked) == 1

    def test_throttling_is_retried_and_told_apart_in_the_end(self) -> None:
        store = Flaky(*["before"] * 2, error=StoreThrottled)
        retrying(store).put("k", b"x")
        store.faults = ["before"] * 10
        with pytest.raises(StoreThrottled):
            retrying(store).get("k")

    def test_other_errors_are_not_retried(self) -> None:
        store = Flaky()
        with pytest.raises(ObjectNotFound):
            retrying(store).get("nothing")
        assert store.asked == ["get"]

    def test_a_stop_ends_the_wait(self) -> None:
        stop = StopSignal()
        store = Flaky(*["before"] * 10)
        slow = RetryPolicy(first_wait_seconds=100, total_seconds=1000)
        timer = threading.Timer(0.05, stop.request, ["asked to stop"])
        timer.start()
        with pytest.raises(Interrupted, match="asked to stop"):
            RetryingStore(store, Retry(slow, stop)).get("k")
        timer.join()

    def test_cleaning_up_after_a_stop_is_still_possible(self) -> None:
        stop = StopSignal()
        stop.request()
        store = RetryingStore(MemoryStore(), Retry(QUICK, stop))
        store.put("k", b"x")
        store.delete(["k"])
        assert list(store.list("")) == []


class TestConditionalWrites:
    def test_a_create_whose_answer_was_lost_is_ours(self) -> None:
        store = Flaky("after")
        info = retrying(store).put("k", b"mine")
        assert info == store.head("k")

    def test_a_create_that_lost_the_race_meanwhile_is_not_ours(self) -> None:
        store = Flaky("before")
        MemoryStore.put(store, "k", b"theirs")
        with pytest.raises(PreconditionFailed):
            retrying(store).put("k", b"mine")
        assert MemoryStore.get(store, "k") == b"theirs"

    def test_equal_bytes_are_not_ours_when_no_attempt_was_in_doubt(self) -> None:
        store = Flaky()
        MemoryStore.put(store, "k", b"same")
        with pytest.raises(PreconditionFailed):
            retrying(store).put("k", b"same")

    def test_the_look_whether_it_is_ours_is_retried_too(self) -> None:
        store = Flaky("after", "", "before", "before")
        assert retrying(store).put("k", b"mine") == store.head("k")

    def test_a_replacement_whose_answer_was_lost_is_ours(self) -> None:
        store = Flaky()
        etag = store.put("lease", b"one").etag
        store.faults = ["after"]
        info = retrying(store).replace("lease", b"two", if_match=etag)
        assert info == store.head("lease")

    def test_a_replacement_that_lost_the_race_meanwhile_is_not_ours(self) -> None:
        store = Flaky()
        etag = store.put("lease", b"one").etag
        MemoryStore.replace(store, "lease", b"theirs", if_match=etag)
        store.faults = ["before"]
        with pytest.raises(PreconditionFailed):
            retrying(store).replace("lease", b"mine", if_match=etag)

    def test_the_tag_returned_is_never_that_of_a_later_version(self) -> None:
        class Overtaken(Flaky):
            def get(self, key: str) -> bytes:
                data = super().get(key)
                MemoryStore.put(self, key, b"later", if_absent=False)
                return data

        store = Overtaken("after")
        with pytest.raises(PreconditionFailed):
            retrying(store).put("lease", b"mine.")

    def test_a_deletion_whose_answer_was_lost_is_ours(self) -> None:
        store = Flaky()
        etag = store.put("lease", b"x").etag
        store.faults = ["after"]
        retrying(store).delete_if("lease", if_match=etag)
        assert store.asked == ["put", "delete_if", "delete_if"]

    def test_a_lease_taken_by_another_meanwhile_is_not_deleted(self) -> None:
        store = Flaky()
        etag = store.put("lease", b"x").etag
        MemoryStore.replace(store, "lease", b"theirs", if_match=etag)
        store.faults = ["before"]
        with pytest.raises(PreconditionFailed):
            retrying(store).delete_if("lease", if_match=etag)

    def test_a_copy_whose_answer_was_lost_is_ours(self) -> None:
        store = Flaky()
        store.put("a", b"x" * 100)
        store.faults = ["after"]
        assert retrying(store).copy("a", "b").size == 100

    def test_a_copy_onto_something_else_is_not_ours(self) -> None:
        store = Flaky()
        store.put("a", b"x" * 100)
        store.put("b", b"y" * 100)
        store.faults = ["before"]
        with pytest.raises(PreconditionFailed):
            retrying(store).copy("a", "b")


class TestListing:
    class BreakingOff(MemoryStore):
        """Every listing breaks off after three objects it had not told before."""

        def __init__(self) -> None:
            super().__init__()
            self.told = 0

        def list(self, prefix: str) -> Iterator[ObjectInfo]:
            self.told += 3
            for number, info in enumerate(super().list(prefix)):
                if number == self.told:
                    raise StoreUnreachable("the connection broke")
                yield info

    def test_a_listing_that_breaks_off_goes_on_where_it_was(self) -> None:
        store = self.BreakingOff()
        for number in range(30):
            store.put(f"{number:02}", b"")
        policy = RetryPolicy(attempts=2, first_wait_seconds=0.001)
        found = [info.key for info in retrying(store, policy).list("")]
        assert found == [f"{number:02}" for number in range(30)]

    def test_a_listing_that_gets_no_further_is_given_up(self) -> None:
        class Dead(MemoryStore):
            def list(self, prefix: str) -> Iterator[ObjectInfo]:
                return map(self._fail, [prefix])

            def _fail(self, prefix: str) -> ObjectInfo:
                raise StoreUnreachable("down")

        with pytest.raises(StoreUnreachable):
            list(retrying(Dead()).list(""))


def test_deletions_of_many_keys_are_cut_into_batches() -> None:
    class Counting(MemoryStore):
        batches: list[int] = []  # noqa: RUF012

        def delete(self, keys: Any) -> None:
            keys = list(keys)
            self.batches.append(len(keys))
            super().delete(keys)

    store = Counting()
    retrying(store).delete(f"k/{number}" for number in range(2500))
    assert store.batches == [1000, 1000, 500]


def test_the_rest_is_passed_on() -> None:
    inner = MemoryStore(url="memory://x")
    store = retrying(inner)
    assert store.url == "memory://x"
    with store.writer("k") as writer:
        writer.write(b"12345")
        writer.commit()
    assert store.read("k", 1, 2) == b"23"
    assert store.head("k").size == 5
    assert store.sweep_unfinished("", older_than=datetime.now(UTC)) == 0
    with pytest.raises(AccessDenied):
        Retry(QUICK).call(lambda: (_ for _ in ()).throw(AccessDenied("no")))
    store.close()
