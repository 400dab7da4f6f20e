"""Compares a directory with a full, file by file and page by page, and changes nothing there.

What has the full's hash is kept by a restore into that directory; the rest is fetched. Neither
times nor sizes of files count for anything, and no symbolic link is followed.
"""

from __future__ import annotations

import os
import stat
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sqlbak.engines.port import PayloadSource
from sqlbak.engines.postgres.archiveindex import FileHash, IndexedEntry, read_archive_index
from sqlbak.engines.postgres.pagehash import HASH_BYTES, PageHash
from sqlbak.engines.postgres.pagemap import MappedFile, PageMap
from sqlbak.engines.postgres.relationfiles import archive_prefix
from sqlbak.engines.postgres.tarstream import EntryKind
from sqlbak.errors import BaseUnusable
from sqlbak.progress import Progress
from sqlbak.stopping import StopSignal

__all__ = ["Comparison", "FullFile", "Likeness", "compare"]

_READ_PAGES = 128
_READ_BYTES = 1 << 20


@dataclass(slots=True)
class FullFile:
    """A file of the full, and what of the file at its place differs from it: ``differing`` holds
    begin and end, in bytes, of one run after another, ascending."""

    indexed: IndexedEntry
    path: Path
    mapped: MappedFile | None
    differing: array[int] = field(default_factory=lambda: array("Q"))

    @property
    def size(self) -> int:
        """Its size in the full, in bytes."""
        return self.indexed.entry.size

    def runs(self) -> Iterator[tuple[int, int]]:
        """The differing runs."""
        return zip(self.differing[::2], self.differing[1::2], strict=True)

    @property
    def differing_bytes(self) -> int:
        """How much of it has to be fetched."""
        return sum(end - begin for begin, end in self.runs())

    def add_run(self, begin: int, end: int) -> None:
        """One more run, behind all others; one that joins the last makes it longer."""
        if self.differing and self.differing[-1] == begin:
            self.differing[-1] = end
        elif begin < end:
            self.differing.extend((begin, end))


@dataclass(frozen=True, slots=True)
class Likeness:
    """How to tell whether bytes on disk are the full's."""

    page_hash: PageHash
    page_map: PageMap

    def differing(self, file: FullFile, descriptor: int, check: Callable[[], None]) -> None:
        """Add to ``file`` what of the open file is not the full's."""
        if file.mapped is not None:
            self._compare_pages(file, file.mapped, descriptor, check)
        elif not self._is_same(file, descriptor, check):
            file.add_run(0, file.size)

    def holds(self, file: FullFile, descriptor: int, check: Callable[[], None]) -> bool:
        """Whether the runs of ``file`` that differed are the full's in the open file."""
        if file.mapped is None:
            return self._is_same(file, descriptor, check)
        size = self.page_hash.block_size
        for begin, end in file.runs():
            for at in range(begin, end, _READ_PAGES * size):
                check()
                count = min(_READ_PAGES * size, end - at)
                expected = self.page_map.hashes(file.mapped, at // size, count // size)
                if self.page_hash.of(memoryview(_read(descriptor, at, count))) != expected:
                    return False
        return True

    def _compare_pages(
        self, file: FullFile, mapped: MappedFile, descriptor: int, check: Callable[[], None]
    ) -> None:
        size = self.page_hash.block_size
        for first in range(0, mapped.blocks, _READ_PAGES):
            check()
            count = min(_READ_PAGES, mapped.blocks - first)
            expected = self.page_map.hashes(mapped, first, count)
            found = _read(descriptor, first * size, count * size)
            whole = len(found) // size
            hashes = self.page_hash.of(memoryview(found)[: whole * size])
            if hashes == expected:
                continue
            for number in range(count):
                at = number * HASH_BYTES
                if hashes[at : at + HASH_BYTES] != expected[at : at + HASH_BYTES]:
                    file.add_run((first + number) * size, (first + number + 1) * size)

    def _is_same(self, file: FullFile, descriptor: int, check: Callable[[], None]) -> bool:
        if os.fstat(descriptor).st_size != file.size:
            return False
        content = FileHash(self.page_hash.seed)
        position = 0
        while piece := _read(descriptor, position, _READ_BYTES):
            check()
            content.feed(piece)
            position += len(piece)
        return position == file.size and content.text() == file.indexed.file_hash


def _read(descriptor: int, position: int, count: int) -> bytes:
    """So many bytes, fewer at the end of the file; what cannot be read is as good as gone."""
    found = b""
    while len(found) < count:
        try:
            piece = os.pread(descriptor, count - len(found), position + len(found))
        except OSError:
            return found
        if not piece:
            return found
        found += piece
    return found


@dataclass(frozen=True, slots=True)
class Comparison:
    """What of a full is in the directory already. ``entries``: everything in its archives, in
    their order; ``files``: its files, by archive and path."""

    entries: tuple[IndexedEntry, ...]
    files: Mapping[tuple[str, str], FullFile]
    likeness: Likeness

    def kept_paths(self) -> frozenset[str]:
        """The paths of the files that have something of the full's content."""
        files = self.files.values()
        return frozenset(str(file.path) for file in files if file.differing_bytes < file.size)


def compare(
    source: PayloadSource,
    page_hash: PageHash,
    places: Mapping[str, Path],
    tops: Collection[Path],
    *,
    only_pages: bool,
    progress: Progress,
    stop: StopSignal,
) -> Comparison:
    """Compare the full in ``source`` with what lies in ``places``, a directory for each of its
    archives, each of them in one of ``tops`` or itself one. ``only_pages``: the other files are
    not wanted. Nothing is changed.

    Raises BaseUnusable when the full has not what is needed to compare, or it is damaged.
    """
    likeness = Likeness(page_hash, PageMap.read(source))
    entries = tuple(each for each in read_archive_index(source) if each.archive in places)
    files: dict[tuple[str, str], FullFile] = {}
    for each in entries:
        if each.entry.kind is not EntryKind.FILE or (only_pages and each.file_hash is not None):
            continue
        path = archive_prefix(each.archive) + each.entry.path
        mapped = likeness.page_map.find(path) if each.file_hash is None else None
        if each.file_hash is None and (
            mapped is None or mapped.blocks * page_hash.block_size != each.entry.size
        ):
            raise BaseUnusable(f"the full's page map and its index differ about {path}")
        place = places[each.archive] / each.entry.path
        if (each.archive, each.entry.path) in files:
            raise BaseUnusable(f"the index of the full's archives names {path} twice")
        files[each.archive, each.entry.path] = FullFile(each, place, mapped)
    progress.phase("compare", sum(file.size for file in files.values()))
    folders = _RealFolders(tops)
    for file in files.values():
        stop.check()
        descriptor = _opened(file.path) if folders.holds(file.path) else None
        if descriptor is None:
            file.add_run(0, file.size)
        else:
            try:
                likeness.differing(file, descriptor, stop.check)
            finally:
                os.close(descriptor)
        progress.advance(file.size)
    return Comparison(entries, files, likeness)


def _opened(path: Path) -> int | None:
    """A regular file, open for reading; None where there is no such thing, or it is not for us."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return None
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None


class _RealFolders:
    """Tells whether every folder between one of the tops and a file is one, and no symbolic link
    to one."""

    def __init__(self, tops: Iterable[Path]) -> None:
        self._known = {top: _is_real_folder(top) for top in tops}

    def holds(self, path: Path) -> bool:
        parent = path.parent
        if parent not in self._known:
            self._known[parent] = self.holds(parent) and _is_real_folder(parent)
        return self._known[parent]


def _is_real_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False
