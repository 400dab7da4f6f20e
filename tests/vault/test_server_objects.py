"""Payload that a database server wrote into the vault itself, past sqlbak."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from sqlbak.engines.port import PlacedSink
from sqlbak.errors import ObjectDamaged, ObjectNotFound
from sqlbak.vault import payload_reader
from sqlbak.vault.copied_item import open_copied_item
from sqlbak.vault.documents import encode
from sqlbak.vault.file_store import FileStore
from sqlbak.vault.layout import data_prefix
from sqlbak.vault.manifest import Manifest, decode_manifest, item_document
from sqlbak.vault.memory_store import MemoryStore
from sqlbak.vault.payload import PayloadWriter
from sqlbak.vault.payload_reader import PayloadReader, verify
from sqlbak.vault.sweep import GRACE, sweep
from tests.vault.making import ITEM, NOW, Job, keys

BYTES = bytes(range(251)) * 40


def written(store: MemoryStore, *, names: tuple[str, ...] = ("1of1.bak",)) -> Manifest:
    """A committed point whose objects somebody else wrote."""
    job = Job(store)
    with job.writer:
        for name in names:
            store.put(job.writer.sink.place(name), BYTES)
            assert job.writer.sink.note(name) == len(BYTES)
        job.commit()
    (key,) = keys(store, f"items/{ITEM.id}/points/")
    return decode_manifest(key, store.get(key))


def read(source: PayloadReader, name: str) -> bytes:
    return b"".join(source.read_frame(name, at) for at in range(len(source.frame_starts(name))))


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload_reader, "_PIECE_BYTES", 1000)


def test_it_is_a_part_of_the_point_and_reads_as_a_stream() -> None:
    store = MemoryStore()
    manifest = written(store, names=("1of2.bak", "2of2.bak"))
    source = PayloadReader(store, ITEM.id, manifest.point.id, manifest.payload)
    assert list(source.streams()) == ["1of2.bak", "2of2.bak"]
    assert manifest.point.size_bytes == 2 * len(BYTES)
    for name in source.streams():
        assert source.size(name) == len(BYTES)
        assert read(source, name) == BYTES
    with pytest.raises(IndexError):
        source.read_frame("1of2.bak", len(source.frame_starts("1of2.bak")))
    assert source.check_objects() == []


def test_what_is_there_is_told_but_never_called_proven() -> None:
    store = MemoryStore()
    manifest = written(store)
    found = verify(PayloadReader(store, ITEM.id, manifest.point.id, manifest.payload))
    assert found.damages == ()
    assert found.raw_bytes == found.unproven_bytes == len(BYTES)


@pytest.mark.parametrize("other", [BYTES[:-1], BYTES + b"x", b"x", BYTES * 2])
def test_an_object_of_another_size_is_damage(other: bytes) -> None:
    store = MemoryStore()
    manifest = written(store)
    key = f"{data_prefix(ITEM.id, manifest.point.id)}1of1.bak"
    store.put(key, other, if_absent=False)
    source = PayloadReader(store, ITEM.id, manifest.point.id, manifest.payload)
    assert "bytes instead of" in source.check_objects()[0]
    with pytest.raises(ObjectDamaged, match="has not the"):
        read(source, "1of1.bak")
    assert verify(source).damaged_frames > 0
    store.delete([key])
    with pytest.raises(ObjectNotFound):
        read(source, "1of1.bak")
    assert source.check_objects() == [f"{key} is missing"]


def test_a_downloaded_copy_reads_the_same(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    job = Job(store)
    with job.writer:
        store.put(job.writer.sink.place("1of1.bak"), BYTES)
        job.writer.sink.note("1of1.bak")
        job.commit()
    folder = tmp_path / "items" / ITEM.id
    document = item_document(ITEM) | {"created_at": "2026-05-01T00:00:00+00:00"}
    (folder / "item.json").write_bytes(encode(document))
    vault, item = open_copied_item(folder)
    (point,) = vault.points(item.id)
    source = vault.point_source(item.id, vault.manifest(item.id, point.id))
    assert read(source, "1of1.bak") == BYTES


def test_a_point_is_not_made_of_what_was_promised_and_never_seen() -> None:
    store = MemoryStore()
    job = Job(store)
    with pytest.raises(ValueError, match="was not noted"), job.writer:
        job.writer.sink.place("1of1.bak")
        job.commit()
    assert keys(store) == []
    with pytest.raises(ObjectNotFound), Job(store).writer as writer:
        writer.sink.place("1of1.bak")
        writer.sink.note("1of1.bak")
    with pytest.raises(ValueError, match="already"), Job(store).writer as writer:
        writer.sink.place("1of1.bak")
        writer.sink.place("1of1.bak")
    assert keys(store) == []


def test_a_failed_point_takes_its_objects_and_uploads_with_it() -> None:
    store = MemoryStore()
    others = store.writer(f"{data_prefix(ITEM.id)}20240501T120000Z-aaaaaaaaaa/1of1.bak")
    others.write(b"theirs")
    job = Job(store)
    with pytest.raises(RuntimeError), job.writer:
        store.put(job.writer.sink.place("1of2.bak"), BYTES)
        store.writer(job.writer.sink.place("2of2.bak")).write(b"half")
        raise RuntimeError
    assert keys(store) == []
    # Of others nothing was ended.
    assert others.commit().size == len(b"theirs")
    prefix = data_prefix(ITEM.id, job.record.point_id)
    assert store.sweep_unfinished(prefix, older_than=NOW + timedelta(days=9999)) == 0


def test_what_is_kept_stays_until_a_sweep_that_does_not_spare_it() -> None:
    store = MemoryStore()
    job = Job(store)
    assert isinstance(job.writer.sink, PlacedSink)
    with pytest.raises(RuntimeError), job.writer:
        job.writer.sink.keep(True)
        store.put(job.writer.sink.place("1of1.trn"), BYTES)
        raise RuntimeError
    left = keys(store)
    assert len(left) == 2  # the running record, and what it is about
    spared = sweep(
        store,
        ITEM.id,
        is_live=lambda _: False,
        now=NOW + 3 * GRACE,
        spares=lambda record: record.job_id == job.record.job_id,
    )
    assert (spared.spared, spared.removed, keys(store)) == ([job.record.job_id], [], left)
    later = Job(store)
    with later.writer:
        assert later.writer.sink.take_over(job.record.point_id, "1of1.trn").endswith("/1of1.trn")
        later.writer.sink.note("1of1.trn")
        later.commit()
    swept = sweep(store, ITEM.id, is_live=lambda _: False, now=NOW)
    assert swept.removed == [job.record.point_id]
    (payload,) = [key for key in keys(store) if "/data/" in key]
    assert later.record.point_id in payload
    assert store.get(payload) == BYTES


def test_what_is_discarded_may_be_begun_again() -> None:
    store = MemoryStore()
    sink = PayloadWriter(store, ITEM.id, Job(store).record.point_id)
    sink.keep(True)
    store.put(sink.place("1of1.trn"), BYTES)
    sink.note("1of1.trn")
    sink.discard()
    assert keys(store) == []
    assert sink.is_kept is False
    store.put(sink.place("1of1.trn"), BYTES[:10])
    sink.note("1of1.trn")
    assert [one.stored_bytes for one in sink.seal().objects] == [10]
