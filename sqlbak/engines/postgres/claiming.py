"""Makes a directory a restore's own, from before its first byte until it is whole.

A file in it says which cluster is being written. It is locked while the restore lives, and stays
when the restore is killed: what is there then has no control file, so that no server starts on it,
and a restore that keeps what it finds may go on.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlbak.engines.postgres.ground import create_file
from sqlbak.engines.postgres.server import ServerUser
from sqlbak.engines.postgres.unpack import flush, target_errors
from sqlbak.errors import TargetNotUsable

__all__ = [
    "CLAIM",
    "claimed_for",
    "clear_directory",
    "empty_directory",
    "is_claim_held",
    "used_directory",
]

CLAIM = ".sqlbak-restore-in-progress"
_FIELD = "system_identifier"


@contextmanager
def empty_directory(directory: Path, user: ServerUser, *, system_identifier: str) -> Iterator[None]:
    """Make ``directory`` (mode 0700, owned by ``user``) ours alone; if the block raises, remove
    everything in it, and itself if it was not there before. TargetNotUsable unless absent or empty,
    or when another restore was faster."""
    existed = directory.is_dir()
    with target_errors(directory):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = _claim_empty(directory)
        try:
            _write(descriptor, system_identifier)
            directory.chmod(0o700)
            user.own(directory)
        except BaseException:
            os.close(descriptor)
            raise
    try:
        yield
        (directory / CLAIM).unlink()
        flush(directory)
    except BaseException:
        clear_directory(directory, and_itself=not existed)
        raise
    finally:
        os.close(descriptor)


@contextmanager
def used_directory(
    directory: Path,
    user: ServerUser,
    *,
    system_identifier: str,
    check: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Make ``directory``, whatever it holds, ours alone. If the block raises, everything stays as
    it is then, under our claim. TargetNotUsable when another restore is at work there. ``check``
    is called when none can be any more, and may still refuse."""
    with target_errors(directory):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = directory / CLAIM
        is_new = not os.path.lexists(path)
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = create_file(path, user) if is_new else os.open(path, flags)
    try:
        if not _lock(descriptor):
            raise _held(directory)
        try:
            check()
        except BaseException:
            if is_new:
                path.unlink()
            raise
        with target_errors(directory):
            _write(descriptor, system_identifier)
            flush(directory)
            directory.chmod(0o700)
            user.own(directory)
        yield
        with target_errors(directory):
            path.unlink()
            flush(directory)
    finally:
        os.close(descriptor)


def claimed_for(directory: Path) -> str | None:
    """The system identifier of the cluster that an unfinished restore was writing there; None:
    there is no unfinished restore."""
    try:
        document = json.loads((directory / CLAIM).read_bytes())
        return str(document[_FIELD])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_claim_held(directory: Path) -> bool:
    """Whether a restore is at work there now."""
    try:
        descriptor = os.open(directory / CLAIM, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _lock(descriptor)
    finally:
        os.close(descriptor)


def clear_directory(directory: Path, *, and_itself: bool) -> None:
    """Remove everything in a directory that this restore filled; links are not followed."""
    for child in sorted(directory.iterdir(), key=lambda child: child.name == CLAIM):
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child, ignore_errors=True)
        else:
            child.unlink(missing_ok=True)
    if and_itself:
        directory.rmdir()


def _claim_empty(directory: Path) -> int:
    """Of two restores that find ``directory`` empty at the same moment, one gets it: else each
    would remove the other's files when it meets them."""
    taken = TargetNotUsable(
        f"{directory} is not empty",
        hint="restore into a new directory; nothing there was touched",
    )
    if any(directory.iterdir()):
        raise taken
    claim = directory / CLAIM
    try:
        descriptor = os.open(claim, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise taken from None
    if not _lock(descriptor) or any(child != claim for child in directory.iterdir()):
        claim.unlink()
        os.close(descriptor)
        raise taken
    return descriptor


def _write(descriptor: int, system_identifier: str) -> None:
    content = json.dumps({_FIELD: system_identifier}).encode() + b"\n"
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, content, 0)
    os.fsync(descriptor)


def _lock(descriptor: int) -> bool:
    """Whether we have the lock now. It goes with our process, however that ends."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _held(directory: Path) -> TargetNotUsable:
    return TargetNotUsable(f"another restore is at work in {directory}", hint="wait until it ends")
