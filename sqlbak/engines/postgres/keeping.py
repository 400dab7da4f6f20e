"""Makes a directory that holds an older state into what a full says, keeping what is right."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from sqlbak.engines.port import PayloadSource
from sqlbak.engines.postgres.comparing import Comparison, FullFile
from sqlbak.engines.postgres.fetching import fetch_differing
from sqlbak.engines.postgres.frames import FrameReader
from sqlbak.engines.postgres.ground import Ground
from sqlbak.engines.postgres.overlay import PartialFile, Rules
from sqlbak.engines.postgres.tarstream import EntryKind
from sqlbak.engines.postgres.unpack import write_at
from sqlbak.errors import RestoreFailed
from sqlbak.progress import Progress
from sqlbak.stopping import StopSignal

__all__ = ["Keeper"]

_ZEROS = memoryview(bytes(1 << 20))


@dataclass(slots=True)
class Keeper:
    """First ``lay_out`` or ``fill``, then ``fetch``. ``kept_bytes``: of the full's, how much was
    there already."""

    comparison: Comparison
    full: PayloadSource
    ground: Ground
    frames: FrameReader
    progress: Progress
    stop: StopSignal
    kept_bytes: int = 0
    _wanted: list[FullFile] = field(default_factory=list)

    def lay_out(
        self,
        places: Mapping[str, Path],
        rewritten: Mapping[str, bytes],
        left_out: Collection[str],
    ) -> None:
        """Every directory and file of the full, at its size. Of base.tar: files in ``rewritten``
        with that content instead, those in ``left_out`` not at all."""
        for each in self.comparison.entries:
            self.stop.check()
            entry, is_base = each.entry, each.archive == "base.tar"
            path = places[each.archive] / entry.path
            if entry.kind is EntryKind.DIRECTORY:
                self.ground.directory(path)
            elif entry.kind is EntryKind.SYMLINK:
                if not entry.path.startswith("pg_tblspc/"):
                    raise RestoreFailed(f"the archive holds a symbolic link, {entry.path}")
            elif is_base and entry.path in left_out:
                continue
            else:
                self.ground.directory(path.parent)
                if is_base and entry.path in rewritten:
                    self.ground.write_file(path, rewritten[entry.path])
                else:
                    self._make(path, entry.size)
                    self._want(self.comparison.files[each.archive, entry.path], entry.size)

    def _want(self, file: FullFile, of_bytes: int) -> None:
        self._wanted.append(file)
        self.kept_bytes += of_bytes - file.differing_bytes

    def _make(self, path: Path, size: int) -> None:
        descriptor = self.ground.open_file(path)
        try:
            os.ftruncate(descriptor, size)
        finally:
            os.close(descriptor)

    def fill(self, archive: str, files: Mapping[str, PartialFile], rules: Rules) -> None:
        """What a differential lacks of the files that it holds in part, which are at their size."""
        for path, partial in files.items():
            self.stop.check()
            file = self.comparison.files.get((archive, path))
            if file is None and partial.lacks_blocks():
                raise RestoreFailed(
                    f"the differential holds only some blocks of {path}, and the full has no "
                    "such file"
                )
            limit = partial.limit(0 if file is None else file.size, rules)
            self._write_zeros(partial, limit, rules)
            if file is not None:
                runs = [*_lacking_runs(file, partial, limit, rules.block_size)]
                del file.differing[:]
                for begin, end in runs:
                    file.add_run(begin, end)
                blocks = sum(last - first for first, last in partial.lacking(0, limit))
                self._want(file, blocks * rules.block_size)
        # In the order of the archive, so that no frame is fetched twice.
        self._wanted.sort(key=lambda file: (file.indexed.archive, file.indexed.entry.offset))

    @staticmethod
    def _write_zeros(partial: PartialFile, limit: int, rules: Rules) -> None:
        """An older state may have something else where neither backup has anything."""
        holes = [*partial.lacking(limit, partial.blocks.length)]
        if not holes:
            return
        descriptor = os.open(partial.path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            for first, last in holes:
                position, end = first * rules.block_size, last * rules.block_size
                while position < end:
                    piece = _ZEROS[: end - position]
                    write_at(descriptor, position, piece)
                    position += len(piece)
        finally:
            os.close(descriptor)

    def fetch(self) -> None:
        """Everything that is still missing of the full."""
        self.progress.phase("fetch", sum(file.differing_bytes for file in self._wanted))
        for archive, files in groupby(self._wanted, key=lambda file: file.indexed.archive):
            fetch_differing(
                self.full,
                archive,
                [file for file in files if file.differing],
                self.comparison.likeness,
                frames=self.frames,
                progress=self.progress,
                stop=self.stop,
            )


def _lacking_runs(
    file: FullFile, partial: PartialFile, limit: int, block_size: int
) -> Iterator[tuple[int, int]]:
    """What of the differing runs neither the differential holds nor lies beyond ``limit``."""
    for begin, end in file.runs():
        for first, last in partial.lacking(begin // block_size, min(end // block_size, limit)):
            yield first * block_size, last * block_size
