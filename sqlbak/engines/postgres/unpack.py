"""Writes a full backup's archives into an empty directory, durably.

Nothing is ever written outside the target, and nothing that is there is overwritten. What was
made is removed again when it cannot be finished.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from sqlbak.engines.port import PayloadSource
from sqlbak.engines.postgres.frames import FrameReader
from sqlbak.engines.postgres.server import ServerUser
from sqlbak.engines.postgres.tarstream import Content, Entry, EntryKind, TarDamaged, TarStream
from sqlbak.errors import RestoreFailed, TargetNotUsable
from sqlbak.progress import Progress
from sqlbak.stopping import StopSignal

__all__ = [
    "clear_directory",
    "empty_directory",
    "make_durable",
    "target_errors",
    "unpack_archive",
    "write_file",
]

_FLUSHERS = 8
_CLAIM = ".sqlbak-restore-in-progress"


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
                hint="restore to a larger file system; what this restore had written is removed",
            ) from error
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise TargetNotUsable(f"cannot write to {directory}: {reason}") from error
        where = f" at {error.filename}" if error.filename else ""
        raise RestoreFailed(f"writing to {directory} failed{where}: {reason}") from error


@contextmanager
def empty_directory(directory: Path, user: ServerUser) -> Iterator[None]:
    """Make ``directory`` (mode 0700, owned by ``user``) ours alone; if the block raises, remove
    everything in it, and itself if it was not there before. TargetNotUsable unless absent or empty,
    or when another restore was faster."""
    existed = directory.is_dir()
    with target_errors(directory):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        claim = _claim(directory)
        directory.chmod(0o700)
        user.own(directory)
    try:
        yield
        claim.unlink()
        _flush(directory)
    except BaseException:
        clear_directory(directory, and_itself=not existed)
        raise


def _claim(directory: Path) -> Path:
    """Of two restores that find ``directory`` empty at the same moment, one gets it: else each
    would remove the other's files when it meets them."""
    taken = TargetNotUsable(
        f"{directory} is not empty",
        hint="restore into a new directory; nothing there was touched",
    )
    if any(directory.iterdir()):
        raise taken
    claim = directory / _CLAIM
    try:
        claim.touch(mode=0o600, exist_ok=False)
    except FileExistsError:
        raise taken from None
    if any(child != claim for child in directory.iterdir()):
        claim.unlink()
        raise taken
    return claim


def clear_directory(directory: Path, *, and_itself: bool) -> None:
    """Remove everything in a directory that this restore filled; links are not followed."""
    for child in sorted(directory.iterdir(), key=lambda child: child.name == _CLAIM):
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child, ignore_errors=True)
        else:
            child.unlink(missing_ok=True)
    if and_itself:
        directory.rmdir()


def unpack_archive(
    source: PayloadSource,
    stream: str,
    directory: Path,
    *,
    frames: FrameReader,
    user: ServerUser,
    rewritten: Mapping[str, bytes],
    progress: Progress,
    stop: StopSignal,
) -> None:
    """Unpack one archive below ``directory``. Files named in ``rewritten`` get that content
    instead of the archive's. Not yet durable: see ``make_durable``."""
    reader = TarStream(stream)
    writer = _Writer(directory, user, rewritten)
    try:
        for piece in frames.read(source, stream, 0, source.size(stream)):
            stop.check()
            for event in reader.feed(piece):
                if isinstance(event, Entry):
                    writer.begin(event)
                else:
                    writer.add(event)
            progress.advance(len(piece))
        reader.finish()
    except TarDamaged as error:
        raise RestoreFailed(str(error)) from error
    finally:
        writer.close()


class _Writer:
    """Puts entries below one directory; at most one file is open."""

    def __init__(self, directory: Path, user: ServerUser, rewritten: Mapping[str, bytes]) -> None:
        self._directory = directory
        self._user = user
        self._rewritten = rewritten
        self._file: int | None = None

    def begin(self, entry: Entry) -> None:
        self.close()
        path = self._directory / entry.path
        if entry.kind is EntryKind.DIRECTORY:
            self._make_directory(path)
            return
        if not path.parent.is_dir():
            self._make_directory(path.parent)
        if entry.kind is EntryKind.SYMLINK:
            if entry.path.startswith("pg_tblspc/"):
                return  # where tablespaces go is decided by the target, not by the source
            raise RestoreFailed(
                f"the archive holds a symbolic link, {entry.path} to {entry.link}",
                hint="tablespaces are restored from their map, never by links",
            )
        if entry.path in self._rewritten:
            write_file(path, self._rewritten[entry.path], self._user)
            return
        self._file = _create(path, self._user)

    def add(self, content: Content) -> None:
        if self._file is None:
            return
        data, position = content.data, content.position
        while data:
            written = os.pwrite(self._file, data, position)
            data, position = data[written:], position + written

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _make_directory(self, path: Path) -> None:
        for missing in (*reversed(path.relative_to(self._directory).parents), None):
            step = path if missing is None else self._directory / missing
            if not step.is_dir():
                step.mkdir(mode=0o700)
                self._user.own(step)


def _create(path: Path, user: ServerUser) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    if not user.is_us:
        os.fchown(descriptor, user.uid, user.gid)
    return descriptor


def write_file(path: Path, content: bytes, user: ServerUser) -> None:
    """Make one small new file, mode 0600, owned by ``user``."""
    with os.fdopen(_create(path, user), "wb") as out:
        out.write(content)


def make_durable(directory: Path, *, stop: StopSignal) -> None:
    """Flush every file and directory below ``directory``, and its own name in its parent, to the
    disk. Symbolic links are not followed."""

    def flush(path: str) -> None:
        stop.check()
        _flush(path)

    folders = [str(directory), str(directory.parent)]
    files: list[str] = []
    for folder, subfolders, names in os.walk(directory):
        for name in subfolders + names:
            path = f"{folder}/{name}"
            if not Path(path).is_symlink():
                (folders if name in subfolders else files).append(path)
    with ThreadPoolExecutor(_FLUSHERS, thread_name_prefix="sqlbak-flush") as pool:
        for paths in (files, folders):
            list(pool.map(flush, paths))


def _flush(path: str | Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
