"""Reading the server's tar stream from bytes."""

from __future__ import annotations

import io
import itertools
import tarfile
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlbak.engines.postgres.tarstream import Content, Entry, EntryKind, TarDamaged, TarStream

_NAMES = st.text(alphabet="abcxyz0123456789_.", min_size=1, max_size=20).filter(
    lambda name: name.strip(".") != ""
)


def _archive(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        folder = tarfile.TarInfo("base/")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        link = tarfile.TarInfo("pg_tblspc/1")
        link.type, link.linkname = tarfile.SYMTYPE, "/elsewhere"
        tar.addfile(link)
        for name, content in files.items():
            info = tarfile.TarInfo(f"base/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def _read(stream: bytes, cuts: list[int]) -> tuple[list[Entry], dict[str, bytes]]:
    reader, entries, contents = TarStream("base.tar"), list[Entry](), dict[str, bytes]()
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    for start, end in itertools.pairwise(edges):
        for event in reader.feed(stream[start:end]):
            if isinstance(event, Content):
                path = entries[-1].path
                assert event.position == len(contents[path])
                contents[path] += bytes(event.data)
            else:
                entries.append(event)
                contents[event.path] = b""
    reader.finish()
    return entries, contents


@given(
    files=st.dictionaries(_NAMES, st.binary(max_size=2000), max_size=5),
    cuts=st.lists(st.integers(min_value=0), max_size=12),
)
def test_every_file_comes_back_whatever_the_pieces(
    files: dict[str, bytes], cuts: list[int]
) -> None:
    entries, contents = _read(_archive(files), cuts)
    assert entries[0].kind is EntryKind.DIRECTORY
    assert entries[0].path == "base"
    assert (entries[1].kind, entries[1].link) == (EntryKind.SYMLINK, "/elsewhere")
    assert {name: contents[f"base/{name}"] for name in files} == files


def test_offsets_say_where_content_lies_in_the_stream() -> None:
    stream = _archive({"a": b"hello", "b": b"world"})
    entries, _ = _read(stream, [])
    found = [stream[e.offset : e.offset + e.size] for e in entries if e.kind is EntryKind.FILE]
    assert found == [b"hello", b"world"]


def test_sizes_from_eight_gibibytes_are_read_in_base_256() -> None:
    info = tarfile.TarInfo("huge")
    info.size = 9 << 30
    header = info.tobuf(tarfile.GNU_FORMAT).replace(b"ustar  \0", b"ustar\x0000")
    header = header[:148] + b"        " + header[156:]
    header = header[:148] + b"%06o\0 " % sum(header) + header[156:]
    (entry,) = TarStream("x").feed(header)
    assert isinstance(entry, Entry)
    assert entry.size == 9 << 30


@pytest.mark.parametrize("name", ["/etc/passwd", "../outside", "base/../../outside"])
def test_a_path_that_leads_out_of_the_target_is_refused(name: str) -> None:
    with pytest.raises(TarDamaged, match="leads out of the target"):
        list(TarStream("x").feed(tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT)))


def test_a_changed_header_is_refused() -> None:
    stream = bytearray(_archive({"a": b"x"}))
    stream[3] ^= 1
    with pytest.raises(TarDamaged, match="checksum"):
        list(TarStream("x").feed(stream))


def test_a_stream_that_ends_early_is_refused() -> None:
    stream = _archive({"a": b"x" * 1000})
    for length in (100, 512, 1600, len(stream.rstrip(b"\0")), 0):
        reader = TarStream("x")
        list(reader.feed(stream[:length]))
        with pytest.raises(TarDamaged, match="ends before its end"):
            reader.finish()
