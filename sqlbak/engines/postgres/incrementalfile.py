"""The layout in which a server sends the changed blocks of a relation file, from bytes, no I/O.

``INCREMENTAL.<name>`` stands in the place of ``<name>``: little-endian 32-bit numbers (a magic,
how many blocks, the truncation block length, the blocks' numbers ascending), zeros up to a whole
block when there are any blocks, then the blocks (sendFile in basebackup.c). The whole file is
``max(truncation block length, last number + 1)`` blocks long. A block below the truncation block
length that is not here is the older backup's; above it, a block that is not here is all zeros.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["BLOCK_SIZE", "MAGIC", "PREFIX", "BlockMap", "IncrementalDamaged", "IncrementalFile"]

BLOCK_SIZE = 8192
"""What servers are built with, unless somebody took the trouble."""

MAGIC = 0xD3AE1F0D
PREFIX = "INCREMENTAL."

_FIXED = struct.Struct("<III")
_NUMBER_BYTES = 4
_BITS = tuple(bytes(byte >> bit & 1 for bit in range(8)) for byte in range(256))


class IncrementalDamaged(ValueError):
    """Bytes that are not this layout; the message says what is wrong."""


@dataclass(frozen=True, slots=True)
class BlockMap:
    """Which blocks of a file an incremental file holds. ``length`` is the whole file's, in
    blocks, as is ``truncation_length``. Kept as a bit a block: 16 KiB for a GiB of data."""

    length: int
    truncation_length: int
    bits: bytes

    def held(self) -> bytes:
        """One byte a block: 1 where the incremental file holds it, 0 where it does not."""
        return b"".join(_BITS[byte] for byte in self.bits)[: self.length].ljust(self.length, b"\0")


class IncrementalFile:
    """Feed it the content of one file in pieces of any size; call ``finish`` after the last."""

    def __init__(self, size: int, *, block_size: int = BLOCK_SIZE) -> None:
        self._size = size
        self._block_size = block_size
        self._header = bytearray()
        self._header_bytes: int | None = None  # known once the count is
        self._numbers = array("I")
        self._truncation_length = 0
        self._position = 0

    def feed(self, data: memoryview) -> Iterator[tuple[int, memoryview]]:
        """What these bytes hold: where in the whole file each run of bytes belongs, and the run.
        The runs are views of ``data``. Raises IncrementalDamaged."""
        while data and (self._header_bytes is None or len(self._header) < self._header_bytes):
            wanted = (self._header_bytes or _FIXED.size) - len(self._header)
            self._header += data[:wanted]
            data = data[wanted:]
            if self._header_bytes is None and len(self._header) == _FIXED.size:
                self._header_bytes = self._begin()
            if len(self._header) == self._header_bytes:
                self._read_numbers(self._header_bytes)
        yield from self._runs(data)

    def _begin(self) -> int:
        magic, count, self._truncation_length = _FIXED.unpack(self._header)
        if magic != MAGIC:
            raise IncrementalDamaged(f"it begins with {magic:#x} instead of {MAGIC:#x}")
        header_bytes = _FIXED.size + _NUMBER_BYTES * int(count)
        if count:
            header_bytes += -header_bytes % self._block_size
        if self._size != header_bytes + count * self._block_size:
            raise IncrementalDamaged(
                f"it has {self._size} bytes, and {count} blocks of {self._block_size} make "
                f"{header_bytes + count * self._block_size}"
            )
        return header_bytes

    def _read_numbers(self, header_bytes: int) -> None:
        count = (self._size - header_bytes) // self._block_size
        end = _FIXED.size + _NUMBER_BYTES * count
        self._numbers.extend(
            number for (number,) in struct.iter_unpack("<I", self._header[_FIXED.size : end])
        )
        if any(self._header[end:]):
            raise IncrementalDamaged("there is something between its numbers and its blocks")
        for number, following in pairwise(self._numbers):
            if following <= number:
                raise IncrementalDamaged(f"block {following} comes after block {number}")

    def _runs(self, data: memoryview) -> Iterator[tuple[int, memoryview]]:
        size, numbers = self._block_size, self._numbers
        while data:
            index, inside = divmod(self._position, size)
            last = index
            final = (self._position + len(data) - 1) // size
            if final >= len(numbers):
                raise IncrementalDamaged("it goes on after its last block")
            while last < final and numbers[last + 1] == numbers[last] + 1:
                last += 1
            run = data[: (last + 1) * size - self._position]
            self._position += len(run)
            data = data[len(run) :]
            yield numbers[index] * size + inside, run

    def finish(self) -> BlockMap:
        """All blocks came. IncrementalDamaged if not."""
        if self._header_bytes is None or len(self._header) < self._header_bytes:
            raise IncrementalDamaged("it ends within its header")
        if self._position != len(self._numbers) * self._block_size:
            raise IncrementalDamaged("it ends before its last block")
        length = self._truncation_length
        bits = bytearray()
        if self._numbers:
            length = max(length, self._numbers[-1] + 1)
            bits = bytearray(self._numbers[-1] // 8 + 1)
            for number in self._numbers:
                bits[number >> 3] |= 1 << (number & 7)
        return BlockMap(length, self._truncation_length, bytes(bits))
