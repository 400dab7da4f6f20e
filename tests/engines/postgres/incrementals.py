"""Writes the server's incremental file layout, for tests, independently of what reads it."""

from __future__ import annotations

import struct
from collections.abc import Mapping

__all__ = ["BLOCK", "incremental_file"]

BLOCK = 8192


def incremental_file(
    blocks: Mapping[int, bytes], truncation_length: int, *, block_size: int = BLOCK
) -> bytes:
    """An ``INCREMENTAL.…`` file that holds ``blocks``, by number."""
    numbers = sorted(blocks)
    header = struct.pack("<III", 0xD3AE1F0D, len(numbers), truncation_length)
    header += b"".join(struct.pack("<I", number) for number in numbers)
    if numbers:
        header += bytes(-len(header) % block_size)
    return header + b"".join(blocks[number] for number in numbers)
