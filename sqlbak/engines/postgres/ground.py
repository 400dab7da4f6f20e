"""What a restore stands on while it writes: an empty directory, or one that holds a cluster of
which as much as possible is kept. Whatever is made belongs to the server's user, and to him only.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Protocol

from sqlbak.engines.postgres.server import ServerUser
from sqlbak.errors import RestoreFailed

__all__ = ["EmptyGround", "Ground", "UsedGround", "create_file", "write_file"]


def create_file(path: Path, user: ServerUser) -> int:
    """Make a new file, mode 0600, owned by ``user``; its descriptor, open for writing."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    if not user.is_us:
        os.fchown(descriptor, user.uid, user.gid)
    return descriptor


def write_file(path: Path, content: bytes, user: ServerUser) -> None:
    """Make one small new file, mode 0600, owned by ``user``."""
    with os.fdopen(create_file(path, user), "wb") as out:
        out.write(content)


class Ground(Protocol):
    """Makes directories and files where a restore wants them."""

    @property
    def user(self) -> ServerUser:
        """Who owns everything."""

    def directory(self, path: Path) -> None:
        """See to it that this directory is there, and those above it."""

    def open_file(self, path: Path) -> int:
        """The file for a content that comes piece by piece, open for writing. Empty, or with as
        much of the right content as was found in it."""

    def write_file(self, path: Path, content: bytes) -> None:
        """Make one small file."""

    def link(self, path: Path, target: Path) -> None:
        """Make a symbolic link."""

    def remove_others(self) -> None:
        """Remove everything that was there before and that nobody asked for until now."""


class EmptyGround:
    """Implements Ground where nothing was before: what is there already is an error."""

    def __init__(self, user: ServerUser) -> None:
        self.user = user

    def directory(self, path: Path) -> None:
        """Make it where it is not there yet."""
        if path.is_dir():
            return
        missing = [step for step in (path, *path.parents) if not step.exists()]
        for step in reversed(missing):
            step.mkdir(mode=0o700)
            self.user.own(step)

    def open_file(self, path: Path) -> int:
        """A new file."""
        return create_file(path, self.user)

    def write_file(self, path: Path, content: bytes) -> None:
        """A new file."""
        write_file(path, content, self.user)

    def link(self, path: Path, target: Path) -> None:
        """A new link."""
        path.symlink_to(target)
        self.user.own(path)

    def remove_others(self) -> None:
        """There is nothing else."""


class UsedGround:
    """Implements Ground in directories that hold an older state. What is in the way is replaced,
    symbolic links are never followed, and a file that has another name too (a hard link) is
    copied before it is changed.

    ``directory``: the data directory, of which ``spared`` are names that stay in any case;
    ``shared``: directories of tablespaces elsewhere, where what lies beside ours may be another
    cluster's, and stays. ``keeps``: the paths of files of whose content something is of use.
    """

    def __init__(
        self,
        user: ServerUser,
        directory: Path,
        shared: Collection[Path],
        *,
        keeps: Collection[str],
        spared: Iterable[str],
    ) -> None:
        self.user = user
        self._directory = directory
        self._shared = frozenset(shared)
        self._keeps = keeps
        self._wanted = {str(top / name) for top in (directory, *shared) for name in spared}

    def directory(self, path: Path) -> None:
        """Keep it if it is one; else make it, in the place of whatever is there."""
        if str(path) in self._wanted or path == self._directory or path in self._shared:
            return
        self.directory(path.parent)
        self._wanted.add(str(path))
        found = _status(path)
        if found is None or not stat.S_ISDIR(found.st_mode):
            self._clear(path, found)
            path.mkdir(mode=0o700)
            self.user.own(path)
        else:
            self._take_over(path, found, 0o700)

    def open_file(self, path: Path) -> int:
        """The file as it is if something of it is kept, else a new one in its place."""
        found = self._wanting(path)
        if str(path) not in self._keeps:
            self._clear(path, found)
            return create_file(path, self.user)
        if found is None or not stat.S_ISREG(found.st_mode):
            raise RestoreFailed(
                f"{path} was changed by somebody while it was restored",
                hint="run the same command again; nothing else may write there",
            )
        if found.st_nlink > 1:
            return self._copy(path)
        self._take_over(path, found, 0o600)
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)

    def write_file(self, path: Path, content: bytes) -> None:
        """A new file in the place of whatever is there."""
        self._clear(path, self._wanting(path))
        write_file(path, content, self.user)

    def link(self, path: Path, target: Path) -> None:
        """Keep it if it is this one; else make it."""
        found = self._wanting(path)
        if found is None or not stat.S_ISLNK(found.st_mode) or path.readlink() != target:
            self._clear(path, found)
            path.symlink_to(target)
        self.user.own(path)

    def remove_others(self) -> None:
        """Everything that no call named; what lies directly in a shared directory stays."""
        self._remove_others(self._directory, is_shared=False)
        for top in self._shared:
            self._remove_others(top, is_shared=True)

    def _remove_others(self, folder: Path, *, is_shared: bool) -> None:
        with os.scandir(folder) as found:
            entries = list(found)
        for entry in entries:
            path = Path(entry.path)
            if entry.path not in self._wanted:
                if not is_shared:
                    self._clear(path, _status(path))
            elif entry.is_dir(follow_symlinks=False):
                self._remove_others(path, is_shared=False)

    def _wanting(self, path: Path) -> os.stat_result | None:
        self._wanted.add(str(path))
        return _status(path)

    def _take_over(self, path: Path, found: os.stat_result, mode: int) -> None:
        if stat.S_IMODE(found.st_mode) != mode:
            path.chmod(mode)
        if (found.st_uid, found.st_gid) != (self.user.uid, self.user.gid):
            self.user.own(path)

    def _copy(self, path: Path) -> int:
        draft = path.with_name(f"{path.name}.sqlbak-copy")
        self._clear(draft, _status(draft))
        descriptor = create_file(draft, self.user)
        with path.open("rb") as source, os.fdopen(os.dup(descriptor), "wb") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
        draft.replace(path)
        return descriptor

    @staticmethod
    def _clear(path: Path, found: os.stat_result | None) -> None:
        if found is None:
            return
        if stat.S_ISDIR(found.st_mode):
            _open_up(path)
            shutil.rmtree(path)
        else:
            path.unlink()


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def _open_up(directory: Path) -> None:
    """Directories that nobody may enter cannot be emptied, even by who owns them."""
    directory.chmod(0o700)
    with os.scandir(directory) as found:
        for entry in list(found):
            if entry.is_dir(follow_symlinks=False):
                _open_up(Path(entry.path))
