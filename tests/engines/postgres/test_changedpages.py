"""The page map and the archives of a differential, from bytes: whatever changed, the full and the
differential together are the newer archive."""

from __future__ import annotations

import contextlib
import io
import json
import random
import tarfile
import tempfile
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlbak.engines.postgres import changedpages
from sqlbak.engines.postgres.changedpages import ChangedPagesSink
from sqlbak.engines.postgres.pagehash import PageHash
from sqlbak.engines.postgres.pagemap import PageMap
from sqlbak.engines.postgres.pagemapping import mapping_pages
from sqlbak.engines.postgres.tarwriting import TarWriter
from sqlbak.errors import BackupFailed, BaseUnusable
from tests.engines.postgres.backups import MemorySink
from tests.engines.postgres.overlays import PREFIX, files_of, overlaid_file
from tests.engines.postgres.restores import MemorySource

BLOCK = 512  # as small as a page may be, so that examples stay small
HASH = PageHash(seed=7, block_size=BLOCK)

PATHS = [
    "base/5/1259",
    "base/5/1259_fsm",
    "base/5/1259_vm",
    "base/5/1259.1",
    "base/5/16390_init",
    "base/16384/1259",
    "global/1262",
    "global/pg_control",
    "base/5/PG_VERSION",
    "base/5/t3_1259",
    "pg_xact/0000",
]

pages = st.sampled_from([bytes([letter]) * BLOCK for letter in b"\0abc"])
contents = st.one_of(
    st.lists(pages, max_size=6).map(b"".join),
    st.binary(max_size=3 * BLOCK),
)
directories = st.dictionaries(st.sampled_from(PATHS), contents)


def archive_of(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        folder = tarfile.TarInfo("base")
        folder.type = tarfile.DIRTYPE
        folder.mode = 0o700
        tar.addfile(folder)
        for path, data in files.items():
            member = tarfile.TarInfo(path)
            member.size, member.mode, member.mtime = len(data), 0o600, 1700000000
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def fed(stream: Any, data: bytes, piece: int) -> None:
    for at in range(0, len(data), piece):
        stream.write(memoryview(data)[at : at + piece])


def mapped(
    files: Mapping[str, bytes], piece: int = 4096, name: str = "base.tar"
) -> dict[str, bytes]:
    """The streams of a full."""
    sink = MemorySink()
    with mapping_pages(sink, HASH) as mapping, mapping.stream(name) as stream:
        fed(stream, archive_of(files), piece)
    return sink.streams


def reduced(
    full: dict[str, bytes], files: Mapping[str, bytes], piece: int = 4096, name: str = "base.tar"
) -> bytes:
    """The archive of a differential."""
    sink = MemorySink()
    page_map = PageMap.read(MemorySource(full, frame_size=100))
    with ChangedPagesSink(sink, HASH, page_map).stream(name) as stream:
        fed(stream, archive_of(files), piece)
    return sink.streams[name]


def together(full: Mapping[str, bytes], archive: bytes) -> dict[str, bytes]:
    whole = {}
    for path, data in files_of(archive).items():
        folder, slash, name = path.rpartition("/")
        if name.startswith(PREFIX):
            path = folder + slash + name.removeprefix(PREFIX)
            data = overlaid_file(full[path], data, BLOCK)
        whole[path] = data
    return whole


@settings(deadline=None)
@given(directories, directories, st.integers(1, 3000))
def test_the_full_and_the_differential_together_are_the_newer_directory(
    before: dict[str, bytes], after: dict[str, bytes], piece: int
) -> None:
    full = mapped(before, piece)
    assert full["base.tar"] == archive_of(before)
    assert together(before, reduced(full, after, piece)) == after


@settings(deadline=None)
@given(directories, st.randoms())
def test_few_changes_cost_few_pages(before: dict[str, bytes], chance: random.Random) -> None:
    after, changed = dict(before), set()
    for path, data in before.items():
        whole = len(data) // BLOCK
        if whole > 1 and len(data) % BLOCK == 0 and chance.random() < 0.5:
            number = chance.randrange(whole)
            at = number * BLOCK
            after[path] = data[:at] + bytes([data[at] ^ 1]) * BLOCK + data[at + BLOCK :]
            changed.add(path)
    for path, data in files_of(reduced(mapped(before), after)).items():
        folder, slash, name = path.rpartition("/")
        if name.startswith(PREFIX):
            original = folder + slash + name.removeprefix(PREFIX)
            assert len(data) == (2 * BLOCK if original in changed else 12)


def test_the_index_names_every_relation_file_and_no_other() -> None:
    full = mapped(dict.fromkeys(PATHS, bytes(2 * BLOCK)) | {"base/5/9999": bytes(BLOCK + 1)})
    lines = [json.loads(line) for line in full["pages.index"].splitlines()]
    assert [line["path"] for line in lines] == PATHS[:7]
    assert [line["offset"] for line in lines] == [16 * number for number in range(7)]
    assert {line["blocks"] for line in lines} == {2}
    assert len(full["pages"]) == 7 * 2 * 8


def test_files_of_a_tablespace_go_by_their_path_in_the_data_directory() -> None:
    files = {"PG_16_202307071/5/16400": bytes(3 * BLOCK)}
    full = mapped(files, name="16399.tar")
    assert json.loads(full["pages.index"])["path"] == "pg_tblspc/16399/PG_16_202307071/5/16400"
    same = files_of(reduced(full, files, name="16399.tar"))
    assert list(same) == ["PG_16_202307071/5/INCREMENTAL.16400"]
    moved = files_of(reduced(full, files, name="16398.tar"))
    assert moved == files


def test_an_unchanged_file_is_a_header_that_says_how_long_it_is() -> None:
    files = {"base/5/1259": bytes(3 * BLOCK)}
    (data,) = files_of(reduced(mapped(files), files)).values()
    assert data == bytes.fromhex("0d1faed3 00000000 03000000")


def test_a_file_that_is_shorter_now_and_one_that_is_empty_now() -> None:
    before = {"base/5/1259": bytes(3 * BLOCK), "base/5/1260": bytes(3 * BLOCK)}
    after = {"base/5/1259": bytes(BLOCK), "base/5/1260": b""}
    found = files_of(reduced(mapped(before), after))
    assert found["base/5/INCREMENTAL.1259"][8:] == bytes.fromhex("01000000")
    assert found["base/5/1260"] == b""


def test_a_file_of_which_every_page_changed_is_kept_whole() -> None:
    before, after = {"base/5/1259": b"a" * 3 * BLOCK}, {"base/5/1259": b"b" * 3 * BLOCK}
    assert files_of(reduced(mapped(before), after)) == after


def test_what_stays_whole_keeps_its_header_byte_for_byte() -> None:
    files = {"base/5/PG_VERSION": b"16\n", "pg_xact/0000": bytes(8192)}
    assert reduced(mapped({}), files).rstrip(b"\0") == archive_of(files).rstrip(b"\0")


def test_owner_mode_and_time_of_an_incremental_file_are_those_of_the_file() -> None:
    files = {"base/5/1259": bytes(3 * BLOCK)}
    with tarfile.open(fileobj=io.BytesIO(reduced(mapped(files), files))) as tar:
        member = tar.getmember("base/5/INCREMENTAL.1259")
    assert (member.mode, member.mtime, member.size) == (0o600, 1700000000, 12)


@pytest.mark.parametrize("size", [10, 8 << 30, 20 << 30])
def test_sizes_are_written_as_servers_write_them(size: int) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive_of({"base/5/1": b""}))) as tar:
        header = tar.getmember("base/5/1").tobuf(tarfile.USTAR_FORMAT)
    sink = MemorySink()
    with sink.stream("x") as stream:
        TarWriter(stream).begin(header, size, name_prefix=PREFIX)
    member = tarfile.TarInfo.frombuf(sink.streams["x"], "utf-8", "strict")
    assert (member.name, member.size) == ("base/5/INCREMENTAL.1", size)


def test_many_changed_pages_go_through_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changedpages, "_SPOOL_BYTES", 3 * BLOCK)
    before = {"base/5/1259": b"a" * 50 * BLOCK}
    after = {"base/5/1259": b"b" * 49 * BLOCK + b"a" * BLOCK}
    archive = reduced(mapped(before), after)
    assert together(before, archive) == after


def test_no_room_for_changed_pages_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class FullDisk(tempfile.SpooledTemporaryFile[bytes]):
        def write(self, data: Any) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(changedpages, "SpooledTemporaryFile", FullDisk)
    full = mapped({"base/5/1259": b"a" * 2 * BLOCK})
    with pytest.raises(BackupFailed, match="No space left") as failed:
        reduced(full, {"base/5/1259": b"b" * 2 * BLOCK})
    assert "TMPDIR" in failed.value.hint


@pytest.mark.parametrize("stream", ["pages", "pages.index"])
def test_a_damaged_page_map_is_a_base_that_cannot_be_used(stream: str) -> None:
    files = {path: bytes(4 * BLOCK) for path in PATHS}
    source = MemorySource(mapped(files), frame_size=50)
    source.frames[stream][0][3] ^= 1
    sink = MemorySink()
    with (
        pytest.raises(BaseUnusable, match="damaged"),
        ChangedPagesSink(sink, HASH, PageMap.read(source)).stream("base.tar") as out,
    ):
        out.write(archive_of(files))
    assert "base.tar" not in sink.streams


@pytest.mark.parametrize(
    "index",
    [
        b'{"path": "base/5/1259", "blocks": 4, "offset": 8}\n',
        b'{"path": "base/5/PG_VERSION", "blocks": 1, "offset": 0}\n',
        b'{"path": "base/5/1259", "blocks": -1, "offset": 0}\n',
        b'{"path": "base/5/1259", "blocks": 1, "offset": 0}\n' * 2,
        b'{"path": "base/5/1259", "blocks": 1}\n',
        b'["base/5/1259", 1, 0]\n',
        b'{"path": "base/5/1259", "blocks": 1, "offset": 0}',
        b"\xff\n",
    ],
)
def test_an_index_that_cannot_be_true_is_never_believed(index: bytes) -> None:
    with pytest.raises(BaseUnusable):
        PageMap.read(MemorySource({"pages": bytes(32), "pages.index": index}))


def test_a_full_without_a_page_map_is_no_base() -> None:
    with pytest.raises(BaseUnusable, match="missing"):
        PageMap.read(MemorySource({"base.tar": b""}))
    with pytest.raises(BaseUnusable, match="older version"):
        PageHash.from_facts({})
    with pytest.raises(BaseUnusable, match="md5"):
        PageHash.from_facts({"page_map": {"hash": "md5", "hash_bytes": 8, "seed": 1}})


def test_every_full_has_a_seed_of_its_own() -> None:
    assert PageHash.new(8192).seed != PageHash.new(8192).seed
    assert PageHash.from_facts({"page_map": HASH.as_fact()}) == HASH


def test_an_archive_that_ends_early_is_never_sealed() -> None:
    archive = archive_of({"base/5/1259": bytes(4 * BLOCK)})
    for wrap in (
        lambda sink: mapping_pages(sink, HASH),
        lambda sink: contextlib.nullcontext(ChangedPagesSink(sink, HASH, PageMap.read(_empty()))),
    ):
        sink = MemorySink()
        with (
            pytest.raises(BackupFailed, match="unreadable"),
            wrap(sink) as wrapped,
            wrapped.stream("base.tar") as stream,
        ):
            stream.write(archive[:1500])
        assert sink.streams == {}


def _empty() -> MemorySource:
    return MemorySource({"pages": b"", "pages.index": b""})


def test_hashes_are_read_by_few_frames_at_a_time() -> None:
    files = {f"base/5/{number}": bytes([number]) * 40 * BLOCK for number in range(1, 60)}
    full = mapped(files)
    read: list[tuple[str, int]] = []
    source = MemorySource(full, 256, lambda stream, index: read.append((stream, index)))
    page_map = PageMap.read(source)
    read.clear()
    with ChangedPagesSink(MemorySink(), HASH, page_map).stream("base.tar") as stream:
        fed(stream, archive_of(files), 4096)
    assert len(read) == len(set(read)) == -(-len(full["pages"]) // 256)
    assert len(page_map._frames) <= 4
