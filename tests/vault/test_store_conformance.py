"""What every object store must do. The same tests run against all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from sqlbak.errors import (
    ObjectKeyInvalid,
    ObjectNotFound,
    PreconditionFailed,
    SqlbakError,
)
from sqlbak.vault.store import ObjectStore
from tests.vault.conftest import Bench

LATER = timedelta(hours=1)


def keys(store: ObjectStore, prefix: str = "") -> list[str]:
    return [info.key for info in store.list(prefix)]


def race(count: int, act: Callable[[int], object]) -> list[int]:
    """Run ``act`` in ``count`` threads at once; the numbers of those that won."""
    start = threading.Barrier(count)
    won: list[int] = []
    broken: list[BaseException] = []

    def run(number: int) -> None:
        start.wait()
        try:
            act(number)
        except PreconditionFailed:
            return
        except SqlbakError as error:
            if error.code != "store_throttled":  # S3 may answer a loser with 409 "try again"
                broken.append(error)
            return
        won.append(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not broken
    return won


def needs_atomic_races(bench: Bench) -> None:
    if bench.kind == "moto":
        pytest.skip("moto looks and writes in two steps: in 1 of 20 rounds two writers win")


class TestReading:
    def test_what_was_put_is_what_is_got(self, store: ObjectStore) -> None:
        store.put("items/a/item.json", b"\x00payload\xff")
        assert store.get("items/a/item.json") == b"\x00payload\xff"

    def test_an_empty_object_is_an_object(self, store: ObjectStore) -> None:
        assert store.put("empty", b"").size == 0
        assert store.get("empty") == b""
        assert store.read("empty", 0, 10) == b""
        assert keys(store) == ["empty"]

    def test_a_range_is_read(self, store: ObjectStore) -> None:
        store.put("k", b"0123456789")
        assert store.read("k", 0, 3) == b"012"
        assert store.read("k", 4, 2) == b"45"

    def test_a_range_over_the_end_is_cut_there(self, store: ObjectStore) -> None:
        store.put("k", b"0123456789")
        assert store.read("k", 7, 100) == b"789"
        assert store.read("k", 10, 5) == b""
        assert store.read("k", 99, 5) == b""

    def test_no_bytes_are_read_when_none_are_asked_for(self, store: ObjectStore) -> None:
        store.put("k", b"0123456789")
        assert store.read("k", 3, 0) == b""

    def test_head_tells_what_put_told(self, store: ObjectStore) -> None:
        put = store.put("k", b"12345")
        head = store.head("k")
        assert (head.key, head.size, head.etag) == ("k", 5, put.etag)
        assert head.modified_at.tzinfo is UTC
        assert abs(head.modified_at - datetime.now(UTC)) < LATER

    def test_what_does_not_exist_is_not_found(self, store: ObjectStore) -> None:
        store.put("items/a", b"x")
        for key in ("nothing", "items", "items/b", "items/a/b"):
            for act in (store.get, store.head, lambda key: store.read(key, 0, 1)):
                with pytest.raises(ObjectNotFound, match=key):
                    act(key)

    def test_nothing_is_read_even_where_no_byte_is_asked_for(self, store: ObjectStore) -> None:
        with pytest.raises(ObjectNotFound):
            store.read("nothing", 0, 0)


class TestPut:
    def test_an_existing_object_is_not_overwritten(self, store: ObjectStore) -> None:
        store.put("k", b"first")
        with pytest.raises(PreconditionFailed, match="k"):
            store.put("k", b"second")
        assert store.get("k") == b"first"

    def test_it_overwrites_when_told_to(self, store: ObjectStore) -> None:
        before = store.put("k", b"first")
        after = store.put("k", b"second", if_absent=False)
        assert store.get("k") == b"second"
        assert after.etag != before.etag

    def test_it_creates_when_told_to_overwrite(self, store: ObjectStore) -> None:
        store.put("k", b"first", if_absent=False)
        assert store.get("k") == b"first"

    def test_one_of_many_writers_wins(self, bench: Bench) -> None:
        needs_atomic_races(bench)
        for number in range(5):
            key = f"race/{number}"
            won = race(8, lambda me: bench.store.put(key, b"%d" % me))  # noqa: B023
            assert len(won) == 1
            assert bench.store.get(key) == b"%d" % won[0]


class TestReplace:
    def test_the_known_version_is_replaced(self, store: ObjectStore) -> None:
        etag = store.put("lease", b"one").etag
        replaced = store.replace("lease", b"two!", if_match=etag)
        assert store.get("lease") == b"two!"
        assert replaced.size == 4
        assert replaced.etag == store.head("lease").etag != etag

    def test_another_version_is_left_alone(self, store: ObjectStore) -> None:
        etag = store.put("lease", b"one").etag
        store.replace("lease", b"two", if_match=etag)
        with pytest.raises(PreconditionFailed):
            store.replace("lease", b"three", if_match=etag)
        assert store.get("lease") == b"two"

    def test_what_is_gone_is_not_replaced(self, store: ObjectStore) -> None:
        etag = store.put("lease", b"one").etag
        store.delete(["lease"])
        with pytest.raises(PreconditionFailed):
            store.replace("lease", b"two", if_match=etag)
        assert keys(store) == []

    def test_every_version_in_quick_succession_has_its_own_tag(self, store: ObjectStore) -> None:
        etag = store.put("lease", b"00").etag
        seen = {etag}
        for number in range(1, 20):
            etag = store.replace("lease", b"%02d" % number, if_match=etag).etag
            assert etag == store.head("lease").etag
            seen.add(etag)
        assert len(seen) == 20

    def test_an_object_made_anew_is_another_version(self, store: ObjectStore) -> None:
        for number in range(10):
            old = store.put("lease", b"%d" % number).etag
            store.delete(["lease"])
            store.put("lease", b"x")
            with pytest.raises(PreconditionFailed):
                store.replace("lease", b"y", if_match=old)
            store.delete(["lease"])

    def test_one_of_many_replacers_wins(self, bench: Bench) -> None:
        needs_atomic_races(bench)
        etag = bench.store.put("lease", b"free").etag
        for _ in range(5):
            won = race(
                8,
                lambda me: bench.store.replace("lease", b"%d" % me, if_match=etag),  # noqa: B023
            )
            assert len(won) == 1
            assert bench.store.get("lease") == b"%d" % won[0]
            etag = bench.store.replace(
                "lease", b"free", if_match=bench.store.head("lease").etag
            ).etag


class TestDelete:
    def test_deleted_objects_are_gone(self, store: ObjectStore) -> None:
        for key in ("a/1", "a/2", "b/1"):
            store.put(key, b"x")
        store.delete(iter(["a/1", "b/1"]))
        assert keys(store) == ["a/2"]

    def test_deleting_what_is_gone_is_no_error(self, store: ObjectStore) -> None:
        store.put("a/1", b"x")
        store.delete(["a/1", "a/1", "never/was", "a", "a/1/2"])
        store.delete([])
        assert keys(store) == []

    def test_a_folder_is_not_an_object(self, store: ObjectStore) -> None:
        store.put("a/1", b"x")
        store.delete(["a"])
        assert keys(store) == ["a/1"]

    def test_the_key_can_be_used_again(self, store: ObjectStore) -> None:
        store.put("a/b/c", b"x")
        store.delete(["a/b/c"])
        store.put("a/b", b"y")
        assert keys(store) == ["a/b"]

    def test_the_known_version_is_deleted(self, store: ObjectStore) -> None:
        store.delete_if("lease", if_match=store.put("lease", b"x").etag)
        assert keys(store) == []

    def test_another_version_is_not_deleted(self, store: ObjectStore) -> None:
        old = store.put("lease", b"one").etag
        store.replace("lease", b"two", if_match=old)
        with pytest.raises(PreconditionFailed):
            store.delete_if("lease", if_match=old)
        assert store.get("lease") == b"two"

    def test_what_is_gone_cannot_be_the_known_version(self, store: ObjectStore) -> None:
        etag = store.put("lease", b"one").etag
        store.delete(["lease"])
        with pytest.raises(PreconditionFailed):
            store.delete_if("lease", if_match=etag)


class TestList:
    def test_an_unwritten_vault_is_empty(self, store: ObjectStore) -> None:
        assert keys(store) == []

    def test_keys_come_in_byte_order(self, store: ObjectStore) -> None:
        names = ["a", "a-b", "a.b/c", "a0", "aB/x", "ab", "b/a-/x", "b/a/y", "b/a!", "Z", "a b/c"]
        for name in names:
            store.put(name, b"")
        assert keys(store) == sorted(names)

    def test_a_prefix_ends_anywhere(self, store: ObjectStore) -> None:
        for name in ("items/a/1", "items/ab/2", "items/b/3", "leases/a"):
            store.put(name, b"")
        assert keys(store, "items/a") == ["items/a/1", "items/ab/2"]
        assert keys(store, "items/a/") == ["items/a/1"]
        assert keys(store, "items/a/1") == ["items/a/1"]
        assert keys(store, "items/a/1/") == []
        assert keys(store, "nothing/") == []

    def test_it_tells_what_head_tells(self, store: ObjectStore) -> None:
        store.put("a/1", b"12345")
        (listed,) = store.list("a/")
        head = store.head("a/1")
        assert (listed.key, listed.size, listed.etag) == (head.key, head.size, head.etag)
        # S3 gives whole seconds by HEAD
        assert abs(listed.modified_at - head.modified_at) < timedelta(seconds=2)

    def test_objects_may_be_deleted_while_they_are_listed(self, store: ObjectStore) -> None:
        for number in range(10):
            store.put(f"a/{number}/x", b"")
        seen = []
        for info in store.list("a/"):
            seen.append(info.key)
            store.delete([info.key])
        assert seen == [f"a/{number}/x" for number in range(10)]
        assert keys(store) == []


class TestWriter:
    def test_the_object_is_what_was_written(self, store: ObjectStore) -> None:
        with store.writer("items/a/data") as writer:
            writer.write(b"one ")
            writer.write(bytearray(b"two "))
            writer.write(memoryview(b"xthree")[1:])
            info = writer.commit()
        assert store.get("items/a/data") == b"one two three"
        assert (info.key, info.size) == ("items/a/data", 13)
        assert info.etag == store.head("items/a/data").etag

    def test_nothing_written_makes_an_empty_object(self, store: ObjectStore) -> None:
        with store.writer("k") as writer:
            writer.commit()
        assert store.get("k") == b""

    def test_the_caller_may_reuse_its_buffer(self, store: ObjectStore) -> None:
        buffer = bytearray(b"first.")
        with store.writer("k") as writer:
            writer.write(buffer)
            buffer[:] = b"second"
            writer.write(memoryview(buffer))
            writer.commit()
        assert store.get("k") == b"first.second"

    def test_nothing_is_visible_before_commit(self, store: ObjectStore) -> None:
        with store.writer("k") as writer:
            writer.write(b"x" * 100_000)
            assert keys(store) == []
            with pytest.raises(ObjectNotFound):
                store.head("k")
            writer.commit()
        assert keys(store) == ["k"]

    def test_nothing_is_left_after_abort(self, bench: Bench) -> None:
        writer = bench.store.writer("k")
        writer.write(b"x" * 100_000)
        writer.abort()
        writer.abort()
        assert keys(bench.store) == []
        assert bench.store.sweep_unfinished("", older_than=datetime.now(UTC) + LATER) == 0

    def test_abort_after_commit_does_nothing(self, store: ObjectStore) -> None:
        writer = store.writer("k")
        writer.commit()
        writer.abort()
        assert keys(store) == ["k"]

    def test_an_exception_aborts(self, bench: Bench) -> None:
        def fail() -> None:
            with bench.store.writer("k") as writer:
                writer.write(b"x")
                raise RuntimeError("the server went away")

        with pytest.raises(RuntimeError, match="went away"):
            fail()
        assert keys(bench.store) == []
        assert bench.store.sweep_unfinished("", older_than=datetime.now(UTC) + LATER) == 0

    def test_leaving_without_commit_aborts(self, store: ObjectStore) -> None:
        with store.writer("k") as writer:
            writer.write(b"x")
        assert keys(store) == []

    def test_an_existing_object_is_not_overwritten(self, bench: Bench) -> None:
        with bench.store.writer("k") as writer:
            writer.write(b"mine")
            bench.store.put("k", b"theirs")
            with pytest.raises(PreconditionFailed):
                writer.commit()
        assert bench.store.get("k") == b"theirs"
        assert bench.store.sweep_unfinished("", older_than=datetime.now(UTC) + LATER) == 0

    def test_a_finished_writer_takes_no_more(self, store: ObjectStore) -> None:
        writer = store.writer("k")
        writer.commit()
        for act in (lambda: writer.write(b"x"), writer.commit):
            with pytest.raises(ValueError, match="finished"):
                act()

    def test_one_of_many_writers_wins(self, bench: Bench) -> None:
        needs_atomic_races(bench)

        def write(me: int) -> None:
            with bench.store.writer("k") as writer:
                writer.write(b"%d" % me * 1000)
                writer.commit()

        won = race(4, write)
        assert len(won) == 1
        assert bench.store.get("k") == b"%d" % won[0] * 1000


class TestCopy:
    def test_the_copy_holds_the_same_bytes(self, store: ObjectStore) -> None:
        store.put("points/1.json", b"manifest")
        info = store.copy("points/1.json", "trash/1.json")
        assert store.get("trash/1.json") == store.get("points/1.json") == b"manifest"
        assert (info.key, info.size) == ("trash/1.json", 8)

    def test_an_existing_target_is_left_alone(self, store: ObjectStore) -> None:
        store.put("a", b"one")
        store.put("b", b"two")
        with pytest.raises(PreconditionFailed, match="b"):
            store.copy("a", "b")
        assert store.get("b") == b"two"

    def test_a_missing_source_is_not_found(self, store: ObjectStore) -> None:
        with pytest.raises(ObjectNotFound, match="a"):
            store.copy("a", "b")
        assert keys(store) == []


class TestSweep:
    def test_what_a_crashed_writer_left_is_removed_once(self, bench: Bench) -> None:
        bench.crash_while_writing("items/a/data/1", b"x" * 1000)
        assert keys(bench.store) == []
        future = datetime.now(UTC) + LATER
        assert bench.store.sweep_unfinished("items/a/", older_than=future) == 1
        assert bench.store.sweep_unfinished("items/a/", older_than=future) == 0

    def test_the_young_and_the_others_stay(self, bench: Bench) -> None:
        bench.crash_while_writing("items/a/data/1", b"x")
        past, future = datetime.now(UTC) - LATER, datetime.now(UTC) + LATER
        if bench.kind != "moto":  # it says that every upload was begun in November 2010
            assert bench.store.sweep_unfinished("items/a/", older_than=past) == 0
        assert bench.store.sweep_unfinished("items/ab", older_than=future) == 0
        assert bench.store.sweep_unfinished("items/", older_than=future) == 1

    def test_committed_objects_stay(self, bench: Bench) -> None:
        bench.store.put("items/a/data/1", b"x")
        bench.crash_while_writing("items/a/data/2", b"x")
        bench.store.sweep_unfinished("", older_than=datetime.now(UTC) + LATER)
        assert keys(bench.store) == ["items/a/data/1"]

    def test_an_empty_vault_has_nothing_to_sweep(self, store: ObjectStore) -> None:
        assert store.sweep_unfinished("", older_than=datetime.now(UTC)) == 0


class TestKeys:
    @pytest.mark.parametrize(
        "key", ["", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.hidden", "a\n", "ä", "a\x7f", "\0"]
    )
    def test_a_key_that_not_every_store_can_hold_is_refused(
        self, store: ObjectStore, key: str
    ) -> None:
        acts: list[Callable[[], object]] = [
            lambda: store.put(key, b""),
            lambda: store.replace(key, b"", if_match="x"),
            lambda: store.writer(key),
            lambda: store.get(key),
            lambda: store.read(key, 0, 1),
            lambda: store.head(key),
            lambda: store.delete([key]),
            lambda: store.delete_if(key, if_match="x"),
            lambda: store.copy(key, "b"),
            lambda: store.copy("b", key),
        ]
        for act in acts:
            with pytest.raises(ObjectKeyInvalid):
                act()

    @pytest.mark.parametrize("prefix", ["/", "../", "a//", "a/../", ".", "a/.", "ä"])
    def test_no_prefix_leads_out_of_the_vault(self, store: ObjectStore, prefix: str) -> None:
        with pytest.raises(ObjectKeyInvalid):
            store.list(prefix)
        with pytest.raises(ObjectKeyInvalid):
            store.sweep_unfinished(prefix, older_than=datetime.now(UTC))

    def test_the_longest_and_the_oddest_keys_work(self, store: ObjectStore) -> None:
        odd = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) not in "/.")
        long = "/".join(["s" * 240] * 3 + ["t" * 177])
        for key in (odd, "a/" + odd + "/.."[:1] + "b", long, "a/%2e%2e/b", "a/+ +/b?x=1#y"):
            with store.writer(key) as writer:
                writer.write(key.encode())
                writer.commit()
            assert store.get(key) == key.encode()
            assert keys(store, key) == [key]
        assert len(long) == 900
