"""Reading the server's incremental file layout, from bytes."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlbak.engines.postgres.incrementalfile import BlockMap, IncrementalDamaged, IncrementalFile
from tests.engines.postgres.incrementals import incremental_file

_SIZE = 32


def _read(data: bytes, *, cuts: list[int] | None = None) -> tuple[BlockMap, dict[int, bytes], int]:
    """Feed it in pieces; the map, every byte written by its position, and the number of runs."""
    reader = IncrementalFile(len(data), block_size=_SIZE)
    written: dict[int, bytes] = {}
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts or []), len(data)]
    runs = 0
    for start, end in itertools.pairwise(edges):
        for position, run in reader.feed(memoryview(data)[start:end]):
            runs += 1
            for offset, byte in enumerate(bytes(run)):
                assert position + offset not in written
                written[position + offset] = bytes([byte])
    return reader.finish(), written, runs


_blocks = st.dictionaries(
    st.integers(0, 300), st.binary(min_size=_SIZE, max_size=_SIZE), max_size=40
)


@given(
    blocks=_blocks,
    truncation=st.integers(0, 400),
    cuts=st.lists(st.integers(0, 10_000), max_size=8),
)
def test_every_block_comes_to_its_place_however_the_bytes_are_cut(
    blocks: dict[int, bytes], truncation: int, cuts: list[int]
) -> None:
    found, written, _ = _read(incremental_file(blocks, truncation, block_size=_SIZE), cuts=cuts)
    assert written == {
        number * _SIZE + offset: block[offset : offset + 1]
        for number, block in blocks.items()
        for offset in range(_SIZE)
    }
    assert found.length == max([truncation, *(number + 1 for number in blocks)])
    assert found.truncation_length == truncation
    assert found.held() == bytes(number in blocks for number in range(found.length))


def test_consecutive_blocks_come_as_one_run() -> None:
    blocks = {number: bytes([number]) * _SIZE for number in (3, 4, 5, 9, 10)}
    _, _, runs = _read(incremental_file(blocks, 20, block_size=_SIZE))
    assert runs == 2


def test_a_file_without_blocks_has_no_padding() -> None:
    data = incremental_file({}, 7, block_size=_SIZE)
    assert len(data) == 12
    found, written, _ = _read(data)
    assert (found.length, written) == (7, {})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "within its header"),
        (struct.pack("<III", 0xD3AE1F0E, 0, 0), "begins with"),
        (struct.pack("<III", 0xD3AE1F0D, 1, 0), "has 12 bytes"),
        (struct.pack("<III", 0xD3AE1F0D, 2**32 - 1, 0), "has 12 bytes"),
        (struct.pack("<III", 0xD3AE1F0D, 0, 0) + b"x", "has 13 bytes"),
        (struct.pack("<IIIII", 0xD3AE1F0D, 2, 9, 4, 4).ljust(3 * _SIZE, b"\0"), "comes after"),
        (struct.pack("<IIIII", 0xD3AE1F0D, 2, 9, 5, 4).ljust(3 * _SIZE, b"\0"), "comes after"),
        (struct.pack("<IIIII", 0xD3AE1F0D, 1, 9, 5, 4).ljust(2 * _SIZE, b"\0"), "between"),
    ],
)
def test_what_is_not_this_layout_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(IncrementalDamaged, match=message):
        _read(data)


def test_a_file_that_ends_early_is_refused() -> None:
    data = incremental_file({1: b"x" * _SIZE}, 4, block_size=_SIZE)
    reader = IncrementalFile(len(data), block_size=_SIZE)
    list(reader.feed(memoryview(data)[:-1]))
    with pytest.raises(IncrementalDamaged, match="before its last block"):
        reader.finish()
