"""Which keys an object may have: only those that every store, present and future, can hold.

Every store checks its arguments here first, so that a key can never leave the vault's root.
"""

from __future__ import annotations

import re

from sqlbak.errors import ObjectKeyInvalid

__all__ = ["MAX_KEY_BYTES", "MAX_SEGMENT_BYTES", "check_key", "check_prefix", "is_key"]

MAX_KEY_BYTES = 900
"""S3 allows 1024 bytes; the rest is for the vault's own prefix."""

MAX_SEGMENT_BYTES = 240
"""File systems allow 255; the rest is for the suffix of temporary files."""

_PRINTABLE_ASCII = re.compile(r"[\x20-\x7e]*", re.ASCII)


def check_key(key: str) -> str:
    """Return ``key``. Raises ObjectKeyInvalid when it breaks a rule of sqlbak/vault/store.py."""
    if problem := _problem(key):
        raise ObjectKeyInvalid(key, problem)
    return key


def check_prefix(prefix: str) -> str:
    """Return ``prefix``: empty, or any beginning of a legal key. Raises ObjectKeyInvalid."""
    # "items/" and "items/a" begin a legal key exactly if "items/x" and "items/ax" are legal;
    # only the room for the added letter must not count.
    if prefix and (problem := _problem(prefix + "x", spare=1)):
        raise ObjectKeyInvalid(prefix, problem)
    return prefix


def is_key(key: str) -> bool:
    """Whether ``key`` is legal; listings pass over foreign objects that no writer of ours made."""
    return _problem(key) is None


def _problem(key: str, spare: int = 0) -> str | None:
    if not _PRINTABLE_ASCII.fullmatch(key):
        return "only printable ASCII is allowed"
    if len(key) > MAX_KEY_BYTES + spare:
        return f"it is longer than {MAX_KEY_BYTES} bytes"
    for segment in key.split("/"):
        if not segment:
            return "a segment is empty"
        if segment.startswith("."):
            return "a segment begins with a dot"
        if len(segment) > MAX_SEGMENT_BYTES + spare:
            return f"a segment is longer than {MAX_SEGMENT_BYTES} bytes"
    return None
