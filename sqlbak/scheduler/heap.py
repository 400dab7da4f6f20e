"""How the C library keeps freed memory, in a process that lives for years."""

from __future__ import annotations

import ctypes
from typing import Final

__all__ = ["give_freed_memory_back"]

# malloc.h of the GNU C library; mallopt(3) tells what they do.
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_LARGE: Final = 1 << 20


def give_freed_memory_back() -> bool:
    """Let buffers of a MiB and more go back to the system when they are freed, and have two heaps.

    Every backup brings threads of its own and a few large buffers. Left alone, glibc takes such
    buffers for ordinary after the first was freed and keeps each in the heap of whatever thread had
    it: the process grows by a few MiB now and then, for as long as it lives. False where the C
    library has no such settings (musl, macOS).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGE)) and bool(mallopt(_M_ARENA_MAX, 2))
