"""One streaming write into a file store: a temporary file that becomes the object."""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from sqlbak.errors import ObjectKeyInvalid, PreconditionFailed, StoreUnreachable, UploadGone
from sqlbak.vault.file_errors import translated
from sqlbak.vault.file_places import FilePlaces, locked
from sqlbak.vault.store import ObjectInfo

__all__ = ["FileWriter", "begin_file", "etag_of", "info_of", "require_etag"]

_ATTEMPTS = 100

_CLOCK_STEP_NS = 10_000_000
"""File times come from a kernel clock that moves in steps of up to 10 ms."""

_TIME_STEPS_NS = (1, 1_000, 1_000_000, 2_000_000_000)
"""File systems keep times in steps of 1 ns (ext4, XFS), 100 ns (SMB), 1 s (SFTP) or 2 s (FAT)."""

_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def etag_of(facts: os.stat_result) -> str:
    """The version tag of a file. Writers make its time unique (``FileWriter.finish_bytes``); the
    inode is left out, for FUSE mounts give one file now this number and now that."""
    return f"{facts.st_mtime_ns:x}-{facts.st_size:x}"


def info_of(key: str, facts: os.stat_result) -> ObjectInfo:
    """The facts of the object ``key``."""
    seconds, nanoseconds = divmod(facts.st_mtime_ns, 1_000_000_000)
    modified_at = datetime.fromtimestamp(seconds, UTC).replace(microsecond=nanoseconds // 1_000)
    return ObjectInfo(key, facts.st_size, etag_of(facts), modified_at)


def begin_file(places: FilePlaces, key: str) -> FileWriter:
    """Make the temporary file for a legal ``key``."""
    with translated("write", key, places.root):
        descriptor, temporary = places.create_unfinished(key)
    return FileWriter(places, key, descriptor, temporary)


class FileWriter:
    """See ObjectWriter. Made by ``begin_file``."""

    def __init__(self, places: FilePlaces, key: str, descriptor: int, temporary: Path) -> None:
        self._places = places
        self._key = key
        self._descriptor = descriptor
        self._temporary = temporary
        self._is_open = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """See ObjectWriter.write."""
        self._must_be_open()
        with self._translated(), memoryview(data).cast("B") as rest:
            done = 0
            while done < len(rest):
                done += os.write(self._descriptor, rest[done:])

    def commit(self, *, if_absent: bool = True) -> ObjectInfo:
        """See ObjectWriter.commit; with ``if_absent=False`` it overwrites."""
        self._must_be_open()
        path = self._places.object_path(self._key)
        try:
            with self._translated():
                facts = self._finish_bytes()
                self._appear(path, if_absent=if_absent)
                self._places.sync_up(path.parent)
        finally:
            self.abort()
        return info_of(self._key, facts)

    def commit_over(self, etag: str) -> ObjectInfo:
        """Overwrite the object while its tag is still ``etag``, else PreconditionFailed."""
        self._must_be_open()
        path = self._places.object_path(self._key)
        try:
            with self._translated():
                self._finish_bytes()
                with locked(self._places):
                    before = require_etag(path, self._key, etag)
                    self._stamp_after(before)
                    facts = os.fstat(self._descriptor)
                    self._temporary.rename(path)
                self._places.sync_up(path.parent)
        finally:
            self.abort()
        return info_of(self._key, facts)

    def abort(self) -> None:
        """See ObjectWriter.abort."""
        if not self._is_open:
            return
        self._is_open = False
        try:
            with self._translated(), suppress(FileNotFoundError):
                self._temporary.unlink()
        finally:
            os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, value: object, traceback: object) -> None:
        self.abort()

    def _must_be_open(self) -> None:
        if not self._is_open:
            raise ValueError("this writer is finished")

    def _translated(self) -> AbstractContextManager[None]:
        return translated("write", self._key, self._places.root)

    def _finish_bytes(self) -> os.stat_result:
        """Give the file a time of its own and make it durable.

        An object deleted and made anew within one step of the kernel's clock would otherwise
        carry the tag of the old one. The chance is taken off, so no file is from the future.
        """
        stamp = os.fstat(self._descriptor).st_mtime_ns - secrets.randbelow(_CLOCK_STEP_NS)
        os.utime(self._descriptor, ns=(stamp, stamp))
        os.fsync(self._descriptor)
        return os.fstat(self._descriptor)

    def _stamp_after(self, before: os.stat_result) -> None:
        """Push the time until it is later than that of the version before, as this file system
        keeps it: two replacements in quick succession never share a tag."""
        for step in _TIME_STEPS_NS:
            if os.fstat(self._descriptor).st_mtime_ns > before.st_mtime_ns:
                return
            stamp = before.st_mtime_ns + step
            os.utime(self._descriptor, ns=(stamp, stamp))
        if os.fstat(self._descriptor).st_mtime_ns <= before.st_mtime_ns:
            raise StoreUnreachable(
                f"the file system at {self._places.root} does not keep the times of files",
                hint="keep the vault on a file system that stores modification times",
            )

    def _appear(self, path: Path, *, if_absent: bool) -> None:
        for _ in range(_ATTEMPTS):
            try:
                self._places.make_folder(path.parent)
                if if_absent:
                    self._link(path)
                else:
                    with locked(self._places):
                        self._temporary.rename(path)
                return
            except FileNotFoundError:
                if not self._temporary.exists():
                    raise UploadGone(self._key) from None
                # the folder was empty and another process pruned it: make it again
        raise StoreUnreachable(f"{path.parent} vanishes as often as it is made")

    def _link(self, path: Path) -> None:
        try:
            path.hardlink_to(self._temporary)
        except FileExistsError:
            if path.is_dir():
                raise ObjectKeyInvalid(self._key, "there are objects below it") from None
            # NFS: the reply to a link that succeeded may be lost and the request sent again
            if not path.samefile(self._temporary):
                raise PreconditionFailed(self._key) from None
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            # Every writer on such a file system comes here, so the lock decides.
            with locked(self._places):
                if path.exists():
                    raise PreconditionFailed(self._key) from None
                self._temporary.rename(path)


def require_etag(path: Path, key: str, etag: str) -> os.stat_result:
    """The facts of the file if its tag is ``etag``, else PreconditionFailed. Called under lock."""
    try:
        facts = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise PreconditionFailed(key) from None
    if etag_of(facts) != etag:
        raise PreconditionFailed(key)
    return facts
