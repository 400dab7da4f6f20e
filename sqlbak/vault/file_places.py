"""Where a file store keeps things, and the file-system steps that its safety rests on."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sqlbak.errors import StoreUnreachable, VaultUnusable

__all__ = ["FilePlaces", "locked", "pruned", "synced"]

LOCK_SECONDS = 30.0
"""Nobody holds the lock for longer than a few writes of small files."""

_NONCE_BYTES = 6  # as hexadecimal digits after a dot it fits behind the longest legal segment
_ATTEMPTS = 100


@dataclass(frozen=True, slots=True)
class FilePlaces:
    """The layout below an absolute ``root``: objects, and ``.sqlbak`` for what is hidden."""

    root: Path

    @property
    def unfinished(self) -> Path:
        """Temporary files; the path of each names its key."""
        return self.root / ".sqlbak" / "unfinished"

    @property
    def lock_file(self) -> Path:
        """Held by whoever overwrites or deletes."""
        return self.root / ".sqlbak" / "lock"

    def object_path(self, key: str) -> Path:
        """Where the object of a legal key is."""
        return self.root / key

    def make_folder(self, folder: Path) -> None:
        """Make ``folder`` (at or below the root) with all its parents up to the root, mode 0700.

        Raises VaultUnusable when the root's own parent is missing: that is more likely a mount
        that is not there than a vault that nobody made yet.
        """
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            return
        except NotADirectoryError:
            if self.root.is_dir():
                raise
            raise VaultUnusable(
                f"{self.root} is not a directory", hint="give the vault a directory of its own"
            ) from None
        except FileNotFoundError:
            if folder == self.root:
                raise VaultUnusable(
                    f"there is no directory {folder.parent} to hold the vault",
                    hint="mount or make it; sqlbak makes only the last directory of a vault's path",
                ) from None
            self.make_folder(folder.parent)
            with suppress(FileExistsError):
                folder.mkdir(mode=0o700)

    def create_unfinished(self, key: str) -> tuple[int, Path]:
        """Make a new temporary file for ``key``; its descriptor, open for writing, holds a lock
        by which ``sweep`` knows that the writer lives."""
        for _ in range(_ATTEMPTS):
            path = self.unfinished / f"{key}.{secrets.token_hex(_NONCE_BYTES)}"
            try:
                self.make_folder(path.parent)
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except (FileExistsError, FileNotFoundError):
                continue  # the folder was pruned by a sweep meanwhile
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(descriptor).st_nlink:
                    return descriptor, path
            except BlockingIOError:
                pass  # a sweep came between open and flock, and takes the file away
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
        raise FileNotFoundError(errno.EBUSY, "temporary files are swept away as fast as made")

    def sync_up(self, folder: Path) -> None:
        """Sync ``folder`` and everything above it up to the root's parent.

        Also those that existed before: another process may have made one a moment ago and not
        come to its sync yet. Syncing a clean directory costs next to nothing.
        """
        synced(folder)
        while folder != self.root:
            folder = folder.parent
            synced(folder)
        with suppress(PermissionError):  # it may be listable only by root; the vault then exists
            synced(self.root.parent)

    def sweep(self, prefix: str, older_than_epoch_seconds: float) -> int:
        """Remove temporary files of dead writers of keys that begin with ``prefix``, last
        written before the given time; returns how many."""
        count = 0
        for folder, _, names in os.walk(self.unfinished, topdown=False):
            place = Path(folder)
            relative = place.relative_to(self.unfinished).as_posix()
            for name in names:
                key = name.rpartition(".")[0]
                key = key if relative == "." else f"{relative}/{key}"
                if key.startswith(prefix) and _is_dead(place / name, older_than_epoch_seconds):
                    count += 1
            if place != self.unfinished:
                with suppress(OSError):  # not empty, or in use again: the next sweep comes by
                    place.rmdir()
        return count


def _is_dead(path: Path, older_than_epoch_seconds: float) -> bool:
    """Unlink ``path`` if no living writer holds it; whether that was so."""
    try:
        # flock over NFS is a lock on the whole file, which asks for a writable descriptor
        descriptor = os.open(path, os.O_WRONLY)
    except FileNotFoundError:
        return False
    try:
        if os.fstat(descriptor).st_mtime >= older_than_epoch_seconds:
            return False
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except (BlockingIOError, FileNotFoundError):
        return False
    finally:
        os.close(descriptor)
    return True


@contextmanager
def locked(places: FilePlaces) -> Iterator[None]:
    """Hold the store's lock among threads and processes. The root must exist. StoreUnreachable
    when somebody holds it for very long: a process that was stopped at that very moment."""
    places.make_folder(places.lock_file.parent)
    descriptor = os.open(places.lock_file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _wait_for_lock(descriptor, places.lock_file)
        yield
    finally:
        os.close(descriptor)


def _wait_for_lock(descriptor: int, path: Path) -> None:
    deadline = time.monotonic() + LOCK_SECONDS
    wait = 0.001
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise StoreUnreachable(
                    f"another process has held {path} for {LOCK_SECONDS:.0f} seconds",
                    hint=f"it may be stopped (fuser {path} tells which); let it go on, or end it",
                ) from None
            time.sleep(random.uniform(wait / 2, wait))  # noqa: S311 - no secret
            wait = min(2 * wait, 0.05)
        else:
            return


def synced(folder: Path) -> None:
    """Make the names in ``folder`` durable. One that was pruned meanwhile needs nothing."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        # CIFS and some FUSE file systems know no fsync of directories
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(descriptor)


def pruned(folder: Path, root: Path) -> None:
    """Remove ``folder`` and its parents below ``root`` while they are empty.

    rmdir fails on a folder that is in use, so nothing can be lost; a writer whose folder
    vanishes between mkdir and link makes it again.
    """
    with suppress(OSError):
        while folder != root:
            with suppress(FileNotFoundError):
                folder.rmdir()
            folder = folder.parent
