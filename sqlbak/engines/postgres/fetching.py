"""Fetches parts of a full's files: only the frames in which they lie, each once, in order."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Self

from sqlbak.engines.port import PayloadSource
from sqlbak.engines.postgres.comparing import FullFile, Likeness
from sqlbak.engines.postgres.frames import FrameReader
from sqlbak.engines.postgres.unpack import write_at
from sqlbak.errors import RestoreFailed
from sqlbak.progress import Progress
from sqlbak.stopping import StopSignal

__all__ = ["fetch_differing"]


def fetch_differing(
    source: PayloadSource,
    archive: str,
    files: Sequence[FullFile],
    likeness: Likeness,
    *,
    frames: FrameReader,
    progress: Progress,
    stop: StopSignal,
) -> None:
    """Write what of ``files``, of one archive and in its order, differs; then prove each by its
    hashes, read back from where it was written. The files must be there.

    RestoreFailed when they are not the full's then; whatever the source raises; Interrupted.
    """
    indexes: list[int] = []
    for begin, end, _ in _runs(files):
        for index in frames.indexes(source, archive, begin, end):
            if not indexes or index > indexes[-1]:
                indexes.append(index)
    runs = _runs(files)
    current = next(runs, None)
    with _OpenFile(likeness, stop) as out:
        for start, data in frames.read_frames(source, archive, indexes):
            frame, end_of_frame = memoryview(data), start + len(data)
            while current is not None and current[0] < end_of_frame:
                begin, end, file = current
                first, last = max(begin, start), min(end, end_of_frame)
                position = first - file.indexed.entry.offset
                out.write(file, position, frame[first - start : last - start])
                progress.advance(last - first)
                if end > end_of_frame:
                    break
                current = next(runs, None)


def _runs(files: Iterable[FullFile]) -> Iterator[tuple[int, int, FullFile]]:
    """Begin and end in the archive of everything that differs."""
    for file in files:
        offset = file.indexed.entry.offset
        for begin, end in file.runs():
            yield offset + begin, offset + end, file


class _OpenFile:
    """The file that is being written; it is proven before another one is opened."""

    def __init__(self, likeness: Likeness, stop: StopSignal) -> None:
        self._likeness = likeness
        self._stop = stop
        self._file: FullFile | None = None
        self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, value: object, traceback: object) -> None:
        try:
            if kind is None:
                self._prove()
        finally:
            self._close()

    def write(self, file: FullFile, position: int, data: memoryview) -> None:
        if file is not self._file:
            self._prove()
            self._close()
            self._descriptor = os.open(file.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            self._file = file
        write_at(self._descriptor, position, data)

    def _prove(self) -> None:
        if self._file is None:
            return
        if not self._likeness.holds(self._file, self._descriptor, self._stop.check):
            raise RestoreFailed(
                f"what was fetched of {self._file.path} is not what the full's hashes tell of",
                hint="restore into an empty directory with --into, which needs no hashes; and "
                "please report this",
            )

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._descriptor)
            self._file = None
