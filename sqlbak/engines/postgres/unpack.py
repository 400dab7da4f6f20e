"""Writes a backup's archives into a directory, durably. Nothing is ever written outside of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from sqlbak.engines.port import PayloadSource
from sqlbak.engines.postgres.frames import FrameReader
from sqlbak.engines.postgres.ground import Ground
from sqlbak.engines.postgres.tarstream import Content, Entry, EntryKind, TarDamaged, TarStream
from sqlbak.errors import RestoreFailed, TargetNotUsable
from sqlbak.progress import Progress
from sqlbak.stopping import StopSignal

__all__ = [
    "FileWriter",
    "Taker",
    "flush",
    "make_durable",
    "read_archive",
    "target_errors",
    "write_at",
]

_FLUSHERS = 8
_LONG_BYTES = 16 << 20


@contextmanager
def target_errors(directory: Path) -> Iterator[None]:
    """Turns the operating system's refusals while writing below ``directory`` into
    TargetNotUsable (full, read-only, forbidden) or RestoreFailed (anything else)."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise TargetNotUsable(
                f"no space is left in {directory}: {reason}",
                hint="restore to a larger file system",
            ) from error
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise TargetNotUsable(f"cannot write to {directory}: {reason}") from error
        where = f" at {error.filename}" if error.filename else ""
        raise RestoreFailed(f"writing to {directory} failed{where}: {reason}") from error


class Taker(Protocol):
    """Takes the entries of one archive in turn; the next ``begin`` ends the one before."""

    def begin(self, entry: Entry) -> bool:
        """An entry begins. False: its content is not wanted, and may or may not come."""

    def add(self, content: Content) -> None:
        """Some content of the latest entry."""

    def finish(self) -> None:
        """Everything came."""

    def close(self) -> None:
        """Nothing more comes, whether everything came or not."""


def read_archive(
    source: PayloadSource,
    stream: str,
    taker: Taker,
    *,
    frames: FrameReader,
    progress: Progress,
    stop: StopSignal,
) -> None:
    """Give ``taker`` the entries of one archive. Long content that it does not want is not even
    fetched. RestoreFailed when it is no archive of a server."""
    reader = TarStream(stream)
    position, end = 0, source.size(stream)
    try:
        while position < end:
            pieces = frames.read(source, stream, position, end)
            after = _take(reader, pieces, position, taker, progress, stop)
            progress.advance(after - position)
            position = after
        reader.finish()
        taker.finish()
    except TarDamaged as error:
        raise RestoreFailed(str(error)) from error
    finally:
        taker.close()


def _take(
    reader: TarStream,
    pieces: Iterable[memoryview],
    position: int,
    taker: Taker,
    progress: Progress,
    stop: StopSignal,
) -> int:
    """Take pieces, the first of which is at ``position``, until something long is not wanted or
    they end. Returns where to read on; the last step there is not in ``progress`` yet."""
    for piece in pieces:
        stop.check()
        piece_end = position + len(piece)
        for event in reader.feed(piece):
            if isinstance(event, Content):
                taker.add(event)
            elif not taker.begin(event) and event.offset + event.size > piece_end + _LONG_BYTES:
                return reader.pass_over()
        progress.advance(len(piece))
        position = piece_end
    return position


class FileWriter:
    """Puts entries on some ground, below one directory; at most one file is open. A Taker.

    Files named in ``rewritten`` get that content instead of the archive's. Those named in ``keep``
    are not written at all: ``kept`` then holds their content. Not yet durable: see
    ``make_durable``.
    """

    def __init__(
        self,
        directory: Path,
        ground: Ground,
        rewritten: Mapping[str, bytes],
        keep: frozenset[str] = frozenset(),
    ) -> None:
        self.kept: dict[str, bytearray] = {}
        self._directory = directory
        self._ground = ground
        self._rewritten = rewritten
        self._keep = keep
        self._file: int | None = None
        self._content: bytearray | None = None

    def begin(self, entry: Entry) -> bool:
        """Make a directory or a file."""
        self.close()
        path = self._directory / entry.path
        if entry.kind is EntryKind.DIRECTORY:
            self._ground.directory(path)
            return False
        if entry.path in self._keep:
            self._content = self.kept[entry.path] = bytearray()
            return True
        if entry.kind is EntryKind.SYMLINK:
            if entry.path.startswith("pg_tblspc/"):
                return False  # where tablespaces go is decided by the target, not by the source
            raise RestoreFailed(
                f"the archive holds a symbolic link, {entry.path} to {entry.link}",
                hint="tablespaces are restored from their map, never by links",
            )
        if entry.path in self._rewritten:
            self._ground.write_file(path, self._rewritten[entry.path])
            return False
        self._open(path)
        if self._file is not None:
            os.ftruncate(self._file, entry.size)
        return True

    def _open(self, path: Path) -> None:
        self._ground.directory(path.parent)
        self._file = self._ground.open_file(path)

    def add(self, content: Content) -> None:
        """Write it."""
        if self._content is not None:
            self._content += content.data
        elif self._file is not None:
            write_at(self._file, content.position, content.data)

    def finish(self) -> None:
        """Nothing is left to do."""

    def close(self) -> None:
        """Close the file that is open."""
        self._content = None
        if self._file is not None:
            os.close(self._file)
            self._file = None


def write_at(file: int, position: int, data: memoryview) -> None:
    """Write all of ``data`` into an open file, from ``position`` on."""
    while data:
        written = os.pwrite(file, data, position)
        data, position = data[written:], position + written


def make_durable(directory: Path, *, stop: StopSignal) -> None:
    """Flush every file and directory below ``directory``, and its own name in its parent, to the
    disk. Symbolic links are not followed."""

    def flush_one(path: str) -> None:
        stop.check()
        flush(path)

    folders = [str(directory), str(directory.parent)]
    files: list[str] = []
    for folder, subfolders, names in os.walk(directory):
        for name in subfolders + names:
            path = f"{folder}/{name}"
            if not Path(path).is_symlink():
                (folders if name in subfolders else files).append(path)
    with ThreadPoolExecutor(_FLUSHERS, thread_name_prefix="sqlbak-flush") as pool:
        for paths in (files, folders):
            list(pool.map(flush_one, paths))


def flush(path: str | Path) -> None:
    """Flush one file or directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
