"""The index of a full's archives: what lies where in them, so that a part can be fetched alone.

The stream ``archives.index`` holds a line of JSON for each entry of each archive, in the order of
the archives: ``{"archive", "path", "kind", "size", "offset", "hash"}``. ``offset`` is where the
content begins in the archive; ``hash`` (xxh3_128 with the page map's seed, in hexadecimal) stands
with files that the page map has no hashes of.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import xxhash

from sqlbak.engines.port import PayloadSource
from sqlbak.engines.postgres.tarstream import Entry, EntryKind
from sqlbak.errors import BaseUnusable, ObjectDamaged, ObjectNotFound

__all__ = ["ARCHIVE_INDEX_STREAM", "FileHash", "IndexedEntry", "index_line", "read_archive_index"]

ARCHIVE_INDEX_STREAM = "archives.index"


class FileHash:
    """The hash of one file's content, fed piece by piece."""

    def __init__(self, seed: int) -> None:
        self._state = xxhash.xxh3_128(seed=seed)

    def feed(self, data: bytes | memoryview) -> None:
        """The next piece."""
        self._state.update(data)

    def text(self) -> str:
        """The hash of everything that was fed, in hexadecimal."""
        return self._state.hexdigest()


@dataclass(frozen=True, slots=True)
class IndexedEntry:
    """One entry of the archive called ``archive``. ``file_hash``: None where pages have hashes, and
    for what is no file."""

    archive: str
    entry: Entry
    file_hash: str | None


def index_line(archive: str, entry: Entry, file_hash: str | None) -> bytes:
    """An entry as it stands in the index."""
    line = {
        "archive": archive,
        "path": entry.path,
        "kind": entry.kind.name.lower(),
        "size": entry.size,
        "offset": entry.offset,
    }
    if file_hash is not None:
        line["hash"] = file_hash
    return json.dumps(line).encode() + b"\n"


def read_archive_index(source: PayloadSource) -> Iterator[IndexedEntry]:
    """Every entry, in order. BaseUnusable when the full has no such index, or a damaged one."""
    if ARCHIVE_INDEX_STREAM not in source.streams():
        raise BaseUnusable("the full has no index of its archives")
    rest = b""
    try:
        for number in range(len(source.frame_starts(ARCHIVE_INDEX_STREAM))):
            *lines, rest = (rest + source.read_frame(ARCHIVE_INDEX_STREAM, number)).split(b"\n")
            for line in lines:
                yield _parsed(json.loads(line))
    except (ObjectDamaged, ObjectNotFound) as problem:
        raise BaseUnusable(f"the index of archives is damaged: {problem.message}") from problem
    except (ValueError, KeyError, TypeError) as problem:
        raise BaseUnusable(f"the index of archives is damaged: {problem!r}") from None
    if rest:
        raise BaseUnusable("the index of archives ends within a line")


def _parsed(line: dict[str, Any]) -> IndexedEntry:
    path = str(line["path"])
    if path.startswith("/") or ".." in path.split("/"):
        raise ValueError(f"the path {path!r} leads out of the target")
    size, offset = int(line["size"]), int(line["offset"])
    if size < 0 or offset < 0:
        raise ValueError(f"{path!r} lies nowhere")
    entry = Entry(EntryKind[str(line["kind"]).upper()], path, size, 0, "", offset)
    file_hash = line.get("hash")
    return IndexedEntry(str(line["archive"]), entry, None if file_hash is None else str(file_hash))
