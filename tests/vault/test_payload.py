"""Payload comes back as it was written, or somebody is told which frame is not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlbak.errors import Interrupted, ObjectDamaged, ObjectNotFound, StoreFull
from sqlbak.stopping import StopSignal
from sqlbak.vault.frames import checksum_of
from sqlbak.vault.layout import volume_key
from sqlbak.vault.memory_store import MemoryStore, MemoryWriter
from sqlbak.vault.payload import PayloadWriter
from sqlbak.vault.payload_index import PayloadIndex
from sqlbak.vault.payload_reader import PayloadReader, verify
from sqlbak.vault.store import ObjectStore

ITEM = "orders-0123456789abcdef"
POINT = "20240501T120000Z-abcdefghij"
OTHER = "20240501T130000Z-abcdefghij"


def write(
    store: ObjectStore,
    streams: dict[str, bytes],
    *,
    point: str = POINT,
    frame_bytes: int = 1000,
    volume_bytes: int = 2500,
) -> PayloadReader:
    writer = PayloadWriter(store, ITEM, point, frame_bytes=frame_bytes, volume_bytes=volume_bytes)
    for name, content in streams.items():
        with writer.stream(name) as stream:
            stream.write(content)
    return PayloadReader(store, ITEM, point, writer.seal())


def read(reader: PayloadReader, stream: str) -> bytes:
    return b"".join(
        reader.read_frame(stream, index) for index in range(len(reader.frame_starts(stream)))
    )


def noise(size: int, seed: int = 1) -> bytes:
    return Random(seed).randbytes(size)


def damage(store: ObjectStore, key: str, change: Callable[[bytes], bytes]) -> None:
    data = store.get(key)
    store.delete([key])
    store.put(key, change(data))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.binary(max_size=300), max_size=12),
    st.integers(1, 64),
    st.integers(1, 400),
)
def test_whatever_is_written_is_read_back(
    pieces: list[bytes], frame_bytes: int, volume_bytes: int
) -> None:
    store = MemoryStore()
    writer = PayloadWriter(store, ITEM, POINT, frame_bytes=frame_bytes, volume_bytes=volume_bytes)
    with writer.stream("base.tar") as stream:
        for piece in pieces:
            buffer = bytearray(piece)
            stream.write(memoryview(buffer))
            buffer[:] = bytes(len(buffer))  # the caller may use its buffer again at once
    reader = PayloadReader(store, ITEM, POINT, writer.seal())
    content = b"".join(pieces)
    assert read(reader, "base.tar") == content
    assert reader.size("base.tar") == len(content)
    starts = [*reader.frame_starts("base.tar"), len(content)]
    assert starts == sorted(set(starts))
    assert reader.check_objects() == []
    assert verify(reader).damages == ()


def test_a_frame_never_crosses_a_volume_and_volumes_stay_small(store: ObjectStore) -> None:
    content = noise(10_500)
    reader = write(store, {"wal": content})
    sizes = [size for _, size in reader.objects()]
    assert len(sizes) == 6
    assert all(size <= 2500 for size in sizes)
    assert [info.key for info in store.list("items/")] == [key for key, _ in reader.objects()]
    assert reader.read_frame("wal", 10) == content[10_000:]
    assert reader.read_frame("wal", 3) == content[3000:4000]


def test_an_empty_stream_costs_no_object(store: ObjectStore) -> None:
    reader = write(store, {"wal": b""})
    assert list(store.list("")) == []
    assert reader.streams() == ["wal"]
    assert reader.size("wal") == 0
    assert list(reader.frame_starts("wal")) == []


def test_streams_are_written_from_several_threads_at_once(store: ObjectStore) -> None:
    contents = {f"{number}.tar": noise(20_000, number) for number in range(5)}
    writer = PayloadWriter(store, ITEM, POINT, frame_bytes=1000, volume_bytes=5000)
    together = threading.Barrier(5)
    failures: list[BaseException] = []

    def fill(name: str, content: bytes) -> None:
        try:
            with writer.stream(name) as stream:
                together.wait()
                for start in range(0, len(content), 77):
                    stream.write(content[start : start + 77])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=fill, args=pair) for pair in contents.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    reader = PayloadReader(store, ITEM, POINT, writer.seal())
    assert {name: read(reader, name) for name in reader.streams()} == contents


def test_more_open_streams_than_places_do_not_wait_for_each_other(store: ObjectStore) -> None:
    writer = PayloadWriter(store, ITEM, POINT, frame_bytes=100, volume_bytes=5000)
    opened = [writer.stream(f"{number}.tar") for number in range(20)]
    sinks = [one.__enter__() for one in opened]
    for _ in range(10):
        for sink in sinks:
            sink.write(bytes(99))
    for one in opened:
        one.__exit__(None, None, None)
    assert [stream.raw_bytes for stream in writer.seal().streams] == [990] * 20


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_flipped_bit_anywhere_in_a_stored_frame_is_found(data: st.DataObject) -> None:
    store = MemoryStore()
    reader = write(store, {"base.tar": noise(3500)})
    key, size = data.draw(st.sampled_from(list(reader.objects())))
    position, bit = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, 7))

    def flip(content: bytes) -> bytes:
        changed = bytearray(content)
        changed[position] ^= 1 << bit
        return bytes(changed)

    damage(store, key, flip)
    with pytest.raises(ObjectDamaged, match="damaged"):
        read(reader, "base.tar")
    found = verify(reader)
    assert found.damaged_frames == 1
    assert key in found.damages[0]


def test_a_damage_names_object_frame_and_both_checksums(store: ObjectStore) -> None:
    reader = write(store, {"base.tar": noise(1500)})
    key = volume_key(ITEM, POINT, "base.tar", 0, is_encrypted=False)
    damage(store, key, lambda content: content[:5] + b"\0\0" + content[7:])
    stored = reader.index.stream("base.tar")
    with pytest.raises(ObjectDamaged) as caught:
        reader.read_frame("base.tar", 0)
    for part in (key, "frame 0", stored.checksum(0).hex()):
        assert part in caught.value.message
    assert reader.read_frame("base.tar", 1) == noise(1500)[1000:]


@pytest.mark.parametrize("left", [0, 1, 500, 1010])
def test_a_truncated_volume_is_found(store: ObjectStore, left: int) -> None:
    reader = write(store, {"base.tar": noise(900)})
    key = volume_key(ITEM, POINT, "base.tar", 0, is_encrypted=False)
    size = len(store.get(key))
    damage(store, key, lambda content: content[: min(left, size - 1)])
    with pytest.raises(ObjectDamaged, match="ends within frame 0"):
        reader.read_frame("base.tar", 0)
    assert len(reader.check_objects()) == 1


def test_a_missing_volume_is_told_apart_from_damage(store: ObjectStore) -> None:
    reader = write(store, {"base.tar": noise(900)})
    store.delete([volume_key(ITEM, POINT, "base.tar", 0, is_encrypted=False)])
    with pytest.raises(ObjectNotFound):
        reader.read_frame("base.tar", 0)
    assert "missing" in reader.check_objects()[0]
    assert verify(reader).damaged_frames == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((POINT, "a.tar", 0), (OTHER, "a.tar", 0)),
        ((POINT, "a.tar", 0), (POINT, "b.tar", 0)),
        ((POINT, "a.tar", 0), (POINT, "a.tar", 1)),
    ],
)
def test_swapped_volumes_are_found(
    store: ObjectStore, first: tuple[str, str, int], second: tuple[str, str, int]
) -> None:
    readers = {
        point: write(
            store,
            {name: noise(5000, hash((point, name)) & 0xFFFF) for name in ("a.tar", "b.tar")},
            point=point,
        )
        for point in (POINT, OTHER)
    }
    keys = [volume_key(ITEM, *place, is_encrypted=False) for place in (first, second)]
    contents = [store.get(key) for key in keys]
    store.delete(keys)
    store.put(keys[0], contents[1])
    store.put(keys[1], contents[0])
    for point, stream, _ in (first, second):
        with pytest.raises(ObjectDamaged):
            read(readers[point], stream)


def test_a_stream_left_by_an_exception_is_discarded_and_the_point_cannot_be_sealed(
    store: ObjectStore,
) -> None:
    writer = PayloadWriter(store, ITEM, POINT, frame_bytes=1000, volume_bytes=2500)
    with pytest.raises(KeyError), writer.stream("base.tar") as stream:
        stream.write(noise(10_000))
        raise KeyError
    with pytest.raises(ValueError, match=r"base\.tar was discarded"):
        writer.seal()
    writer.abort()
    assert list(store.list("")) == []


def test_an_open_stream_cannot_be_sealed(store: ObjectStore) -> None:
    writer = PayloadWriter(store, ITEM, POINT)
    with pytest.raises(ValueError, match="still open"), writer.stream("wal"):
        writer.seal()
    writer.abort()


def test_abort_removes_sealed_streams_too(store: ObjectStore) -> None:
    writer = PayloadWriter(store, ITEM, POINT, frame_bytes=1000)
    with writer.stream("base.tar") as stream:
        stream.write(noise(5000))
    assert list(store.list(""))
    writer.abort()
    assert list(store.list("")) == []


@pytest.mark.parametrize("name", ["", "Base", "a/b", "../x", ".hidden", "a b", "x" * 300])
def test_a_stream_needs_a_plain_name(store: ObjectStore, name: str) -> None:
    writer = PayloadWriter(store, ITEM, POINT)
    with pytest.raises(ValueError, match="name"), writer.stream(name):
        pass
    writer.abort()


def test_a_stream_name_is_used_once(store: ObjectStore) -> None:
    writer = PayloadWriter(store, ITEM, POINT)
    with writer.stream("wal"):
        pass
    with pytest.raises(ValueError, match="already"), writer.stream("wal"):
        pass
    writer.abort()


class FullStore(MemoryStore):
    """Has room for one volume."""

    def writer(self, key: str) -> MemoryWriter:
        if key.endswith("00001.zst"):
            raise StoreFull("no space left")
        return super().writer(key)


def test_the_producer_learns_of_a_full_store_while_it_writes() -> None:
    store = FullStore()
    writer = PayloadWriter(store, ITEM, POINT, frame_bytes=1000, volume_bytes=2500)
    written = 0
    with pytest.raises(StoreFull), writer.stream("base.tar") as stream:
        for _ in range(1000):
            stream.write(noise(1000))
            written += 1
    assert written < 1000
    writer.abort()
    assert list(store.list("")) == []


def test_a_stop_reaches_a_producer(store: ObjectStore) -> None:
    stop = StopSignal()
    writer = PayloadWriter(store, ITEM, POINT, frame_bytes=1000, stop=stop)
    with pytest.raises(Interrupted), writer.stream("base.tar") as stream:
        stream.write(noise(5000))
        stop.request()
        stream.write(noise(5000))
    writer.abort()


def test_a_stop_reaches_a_producer_that_waits_for_a_slow_store() -> None:
    stop, go_on = StopSignal(), threading.Event()

    class SlowWriter(MemoryWriter):
        def write(self, data: bytes | bytearray | memoryview) -> None:
            stop.request()
            go_on.wait()
            super().write(data)

    class SlowStore(MemoryStore):
        def writer(self, key: str) -> MemoryWriter:
            plain = super().writer(key)
            return SlowWriter(self, plain._unfinished)

    writer = PayloadWriter(SlowStore(), ITEM, POINT, frame_bytes=1000, stop=stop)
    with pytest.raises(Interrupted), writer.stream("base.tar") as stream:
        try:
            stream.write(noise(1_000_000))
        finally:
            go_on.set()
    writer.abort()


def test_threads_end_with_the_payload(store: ObjectStore) -> None:
    before = set(threading.enumerate())
    reader = write(store, {"base.tar": noise(50_000)})
    verify(reader)
    aborted = PayloadWriter(store, ITEM, OTHER, frame_bytes=1000)
    with pytest.raises(KeyError), aborted.stream("base.tar") as stream:
        stream.write(noise(5000))
        raise KeyError
    aborted.abort()
    assert set(threading.enumerate()) == before


def test_the_checksum_is_that_of_the_stored_bytes(store: ObjectStore) -> None:
    reader = write(store, {"wal": noise(900)})
    index: PayloadIndex = reader.index
    stored = store.get(volume_key(ITEM, POINT, "wal", 0, is_encrypted=False))
    assert index.stream("wal").checksum(0) == checksum_of(stored)
