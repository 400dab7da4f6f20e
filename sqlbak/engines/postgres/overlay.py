"""Makes one directory tree of a full and a differential of it, writing every byte once.

The differential is unpacked first: its entries are all the files and directories that there are
in the end. A file that it holds in part is filled from the full afterwards; nothing else of the
full is looked at. A block that neither holds is never made up, except where the server's own rule
for its incremental files says that it is zeros.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlbak.engines.postgres.ground import Ground
from sqlbak.engines.postgres.incrementalfile import (
    PREFIX,
    BlockMap,
    IncrementalDamaged,
    IncrementalFile,
)
from sqlbak.engines.postgres.tarstream import Content, Entry, EntryKind
from sqlbak.engines.postgres.unpack import FileWriter, write_at
from sqlbak.errors import RestoreFailed

__all__ = ["DifferentialWriter", "Filler", "PartialFile", "Rules"]

_ZERO = b"\0"
_ONE = b"\1"


@dataclass(frozen=True, slots=True)
class Rules:
    """How the differential was made. ``zeros_beyond_base``: a block that neither holds is zeros
    when it lies beyond the file's end in the full, or beyond the truncation block length: so the
    server means it, which does not log that it extends a file by empty blocks."""

    block_size: int
    zeros_beyond_base: bool


@dataclass(slots=True)
class PartialFile:
    """A file of which the differential holds some blocks, now at their places in ``path``."""

    path: Path
    blocks: BlockMap
    is_filled: bool = False

    def lacks_blocks(self) -> bool:
        """Whether it needs the full's file."""
        return self.blocks.held().find(_ZERO, 0, self.blocks.truncation_length) >= 0

    def limit(self, size: int, rules: Rules) -> int:
        """Up to which block the full's file, of ``size`` bytes, is looked at; from there on what
        the differential does not hold is zeros. RestoreFailed where that must not be."""
        held, truncation_length = self.blocks.held(), self.blocks.truncation_length
        there = size // rules.block_size
        missing = held.find(_ZERO, there, max(there, truncation_length))
        if missing >= 0 and not rules.zeros_beyond_base:
            raise RestoreFailed(
                f"block {missing} of {self.path} is neither in the full nor in the differential",
                hint="restore from another full, or up to an instant before the differential",
            )
        return min(there, truncation_length)

    def lacking(self, begin: int, end: int) -> Iterator[tuple[int, int]]:
        """The runs of blocks from ``begin`` to ``end`` that the differential does not hold."""
        held = self.blocks.held()
        while (first := held.find(_ZERO, begin, end)) >= 0:
            present = held.find(_ONE, first, end)
            begin = end if present < 0 else present
            yield first, begin


def _partial_name(path: str, *, is_tablespace: bool) -> str | None:
    """The file that ``path`` of an archive holds some blocks of; None: it is a whole file. Only
    where relations lie does the name mean anything (pg_combinebackup has the same rule)."""
    folder, _, name = path.rpartition("/")
    if not name.startswith(PREFIX):
        return None
    if not is_tablespace and path.split("/", 1)[0] not in {"base", "global", "pg_tblspc"}:
        return None
    name = name.removeprefix(PREFIX)
    return f"{folder}/{name}" if folder else name


class DifferentialWriter(FileWriter):
    """Unpacks one archive of a differential. ``partial_files`` then holds those that the full
    has to fill, by their path in the archive."""

    def __init__(
        self,
        directory: Path,
        ground: Ground,
        rewritten: Mapping[str, bytes],
        *,
        rules: Rules,
        is_tablespace: bool,
        keep: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__(directory, ground, rewritten, keep)
        self.partial_files: dict[str, PartialFile] = {}
        self._rules = rules
        self._is_tablespace = is_tablespace
        self._path = ""
        self._blocks: IncrementalFile | None = None

    def begin(self, entry: Entry) -> bool:
        """Make a directory, a whole file, or a file with holes."""
        self.finish()
        self._path = entry.path
        name = None
        if entry.kind is EntryKind.FILE:
            name = _partial_name(entry.path, is_tablespace=self._is_tablespace)
        if name is None:
            return super().begin(entry)
        self.close()
        self._path = name
        self._blocks = IncrementalFile(entry.size, block_size=self._rules.block_size)
        self._open(self._directory / name)
        return True

    def add(self, content: Content) -> None:
        """Write it where it belongs."""
        if self._blocks is None or self._file is None:
            super().add(content)
            return
        try:
            for position, run in self._blocks.feed(content.data):
                write_at(self._file, position, run)
        except IncrementalDamaged as error:
            raise self._damaged(str(error)) from error

    def finish(self) -> None:
        """The latest file is complete."""
        if self._blocks is None or self._file is None:
            return
        try:
            blocks = self._blocks.finish()
        except IncrementalDamaged as error:
            raise self._damaged(str(error)) from error
        self._blocks = None
        if not self._rules.zeros_beyond_base:
            missing = blocks.held().find(_ZERO, blocks.truncation_length)
            if missing >= 0:
                raise self._damaged(f"it leaves out block {missing}, which it alone could hold")
        os.ftruncate(self._file, blocks.length * self._rules.block_size)
        path = self._directory / self._path
        self.partial_files[self._path] = PartialFile(path, blocks)

    def _damaged(self, what: str) -> RestoreFailed:
        return RestoreFailed(f"the differential's blocks of {self._path} are damaged: {what}")


class Filler:
    """Takes one archive of the full, and of it the blocks that ``partial_files`` lack."""

    def __init__(self, partial_files: Mapping[str, PartialFile], rules: Rules) -> None:
        self._partial_files = partial_files
        self._rules = rules
        self._file: int | None = None
        self._held = b""
        self._limit = 0  # in bytes; the full's file is not looked at from there on

    def begin(self, entry: Entry) -> bool:
        """Open the file if it lacks something that the full has."""
        self.close()
        partial = self._partial_files.get(entry.path) if entry.kind is EntryKind.FILE else None
        if partial is None:
            return False
        if partial.is_filled:
            raise RestoreFailed(f"the full holds {entry.path} twice")
        partial.is_filled = True
        held, last = partial.blocks.held(), partial.limit(entry.size, self._rules)
        if held.find(_ZERO, 0, last) < 0:
            return False
        self._held, self._limit = held, last * self._rules.block_size
        flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(partial.path, flags)
        return True

    def add(self, content: Content) -> None:
        """Write the blocks that the differential does not hold."""
        if self._file is None:
            return
        size, held, begin = self._rules.block_size, self._held, content.position
        position, end = begin, min(begin + len(content.data), self._limit)
        while position < end:
            block = position // size
            if held[block]:
                missing = held.find(_ZERO, block)
                position = end if missing < 0 else missing * size
                continue
            present = held.find(_ONE, block)
            run_end = end if present < 0 else min(end, present * size)
            write_at(self._file, position, content.data[position - begin : run_end - begin])
            position = run_end

    def finish(self) -> None:
        """Everything of the full came. RestoreFailed when it lacks a file that it should fill."""
        for path, partial in self._partial_files.items():
            if not partial.is_filled and partial.lacks_blocks():
                raise RestoreFailed(
                    f"the differential holds only some blocks of {path}, and the full has no "
                    "such file"
                )

    def close(self) -> None:
        """Close the file that is open."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
