"""The parts of a multipart upload: how large they are, and what holds one until it is sent."""

from __future__ import annotations

import tempfile
from typing import IO

from sqlbak.vault.s3_checksum import checksum, checksum_text

__all__ = ["LARGEST_IN_MEMORY_BYTES", "MAX_PARTS", "Part", "part_size_bytes"]

MAX_PARTS = 10_000
"""Amazon S3 User Guide, "Multipart upload limits"; a part is of 5 MiB to 5 GiB."""

LARGEST_IN_MEMORY_BYTES = 32 << 20
"""Larger parts (objects beyond 86 GiB have them) wait in a temporary file."""

_FIRST_BYTES = 16 << 20
_FIRST_COUNT = 4_000
_DOUBLING_COUNT = 750
_READ_BYTES = 1 << 20


def part_size_bytes(number: int) -> int:
    """The size of part ``number`` (from 1). The length of a stream is not known beforehand, so
    parts grow: 4,000 of 16 MiB, then twice as large every 750, up to 4 GiB. 10,000 of them hold
    5.8 TiB; the first 62 GiB are sent in parts of 16 MiB."""
    if number <= _FIRST_COUNT:
        return _FIRST_BYTES
    return _FIRST_BYTES << (1 + (number - _FIRST_COUNT - 1) // _DOUBLING_COUNT)


class Part:
    """Bytes on their way: at most ``capacity`` of them, in memory or in a temporary file."""

    def __init__(self, number: int, capacity: int) -> None:
        self.number = number
        self.size = 0
        self._capacity = capacity
        self._memory = bytearray(capacity if capacity <= LARGEST_IN_MEMORY_BYTES else 0)
        self._file: IO[bytes] | None = None
        if capacity > LARGEST_IN_MEMORY_BYTES:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - close() closes it

    @property
    def memory_bytes(self) -> int:
        """What it counts against the memory of its writer; one in a file counts like the largest
        in memory, so that few of them are on disk."""
        return min(self._capacity, LARGEST_IN_MEMORY_BYTES)

    @property
    def is_full(self) -> bool:
        """Whether no byte fits any more."""
        return self.size == self._capacity

    def take(self, data: memoryview) -> int:
        """Copy as much of ``data`` as fits; returns how many bytes."""
        count = min(len(data), self._capacity - self.size)
        if self._file is None:
            self._memory[self.size : self.size + count] = data[:count]
        else:
            self._file.write(data[:count])
        self.size += count
        return count

    def body(self) -> bytearray | IO[bytes]:
        """The bytes as boto3 takes them without copying; no more can be taken after that."""
        if self._file is not None:
            self._file.seek(0)
            return self._file
        del self._memory[self.size :]
        return self._memory

    def content(self) -> bytes:
        """A copy of the bytes."""
        body = self.body()
        return bytes(body) if isinstance(body, bytearray) else body.read()

    def checksum(self) -> str:
        """The checksum of the bytes, as S3 wants it."""
        value = 0
        body = self.body()
        if isinstance(body, bytearray):
            value = checksum(body)
        else:
            while chunk := body.read(_READ_BYTES):
                value = checksum(chunk, value)
        return checksum_text(value)

    def close(self) -> None:
        """Give memory and disk back."""
        self._memory = bytearray()
        if self._file is not None:
            self._file.close()
