"""Finds unlogged relations that a recovery left without their first page.

At the end of recovery a server makes each unlogged relation empty: it copies the relation's init
fork over it, file by file. Replay of a sequence's page leaves the init fork in shared buffers (only
full page images are written through, XLogReadBufferForRedoExtended), so an unlogged sequence that
the log creates is made of a page of zeros and fails with "bad magic number". Once a checkpoint has
written the init forks, a server that recovers from a crash copies them once more, and rightly.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

__all__ = ["has_emptied_relations"]

_INIT_FORK = re.compile(r"([1-9][0-9]*)_init", re.ASCII)
_LARGEST_PAGE = 32768


def has_emptied_relations(directory: Path) -> bool:
    """Whether some unlogged relation of the cluster in ``directory``, checkpointed, is a page of
    zeros while its init fork is not."""
    return any(_is_emptied(folder, init) for folder, init in _init_forks(directory))


def _init_forks(directory: Path) -> Iterator[tuple[Path, str]]:
    databases = [*directory.glob("base/*"), *directory.glob("pg_tblspc/*/PG_*/*")]
    for folder in databases:
        if folder.is_dir():
            for name in os.listdir(folder):  # noqa: PTH208 - names only
                if _INIT_FORK.fullmatch(name):
                    yield folder, name


def _is_emptied(folder: Path, init: str) -> bool:
    wanted = _page(folder / init)
    found = _page(folder / init.removesuffix("_init"))
    return bool(wanted) and any(wanted) and len(found) == len(wanted) and not any(found)


def _page(path: Path) -> bytes:
    """The content of a file of one page; nothing of any other."""
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_PAGE + 1)
    except FileNotFoundError:  # a temporary table's, or one that was dropped just now
        return b""
    return content if len(content) <= _LARGEST_PAGE else b""
