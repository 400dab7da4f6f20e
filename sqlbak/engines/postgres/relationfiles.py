"""Which files of a data directory are relations, made of pages. Pure.

Main, free space map, visibility map and init forks with all their segments; anything else, even
one that looks much alike, is an ordinary file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["RelationFile", "archive_prefix", "is_archive", "relation_file"]

_ARCHIVE = re.compile(r"base\.tar|([1-9][0-9]*)\.tar", re.ASCII)
_RELATION = re.compile(
    r"(base/[0-9]+|global|pg_tblspc/[0-9]+/[^/]+/[0-9]+)"
    r"/([1-9][0-9]{0,9})(?:_(fsm|vm|init))?(?:\.([1-9][0-9]{0,8}))?",
    re.ASCII,
)
_FORKS = {None: 0, "fsm": 1, "vm": 2, "init": 3}


@dataclass(frozen=True, slots=True)
class RelationFile:
    """One file of a relation: its directory, and a number (of up to 64 bits) that says which of
    the relations, forks and segments in it."""

    directory: str
    number: int


def is_archive(stream: str) -> bool:
    """Whether a stream of a backup is an archive of files."""
    return _ARCHIVE.fullmatch(stream) is not None


def archive_prefix(stream: str) -> str:
    """Where the files of an archive lie in the data directory: ``""`` or ``pg_tblspc/<oid>/``."""
    match = _ARCHIVE.fullmatch(stream)
    if match is None:
        raise ValueError(f"{stream!r} is no archive of a backup")
    return "" if match[1] is None else f"pg_tblspc/{match[1]}/"


def relation_file(path: str) -> RelationFile | None:
    """What relation file a path in the data directory is; None: it is none."""
    match = _RELATION.fullmatch(path)
    if match is None:
        return None
    relation = int(match[2])
    if relation >= 1 << 32:
        return None
    segment = int(match[4] or 0)
    return RelationFile(match[1], relation << 32 | _FORKS[match[3]] << 30 | segment)
