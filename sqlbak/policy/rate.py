"""Rates of transfer: ``50MiB/s``."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Rate"]

_TEXT = re.compile(r"([1-9][0-9]{0,8})(KiB|MiB|GiB|KB|MB|GB)/s", re.ASCII)
_BYTES = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_LEAST = 64 << 10


@dataclass(frozen=True, slots=True)
class Rate:
    """``text`` as written, and what it is in bytes a second."""

    text: str
    bytes_per_second: int

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Read ``50MiB/s``; ValueError says what to write instead."""
        found = _TEXT.fullmatch(text.strip())
        if not found:
            raise ValueError("must be a rate; write 50MiB/s (KiB, MiB, GiB, KB, MB or GB)")
        rate = int(found[1]) * _BYTES[found[2]]
        if rate < _LEAST:
            raise ValueError("is too slow to end any backup; write at least 64KiB/s")
        return cls(text.strip(), rate)

    def __str__(self) -> str:
        return self.text
