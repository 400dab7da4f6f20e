"""An object store in a directory of a file system.

Objects are plain files below the root. A file is written below ``.sqlbak/unfinished``, synced,
and appears under its key by ``link`` (fails if the name exists) or ``rename``, so that no crash
leaves half an object visible. Whatever overwrites or deletes holds one lock file, which makes
``replace`` and ``delete_if`` atomic among processes.

NFS: ``link`` is atomic there, and flock works through the server's lock manager (always with
NFSv4); mounted with ``nolock``, leases do not hold between machines.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path

from sqlbak.errors import ObjectNotFound, PreconditionFailed
from sqlbak.vault.file_errors import translated
from sqlbak.vault.file_places import FilePlaces, locked, pruned, synced
from sqlbak.vault.file_writer import FileWriter, begin_file, info_of, require_etag
from sqlbak.vault.keys import check_key, check_prefix, is_key
from sqlbak.vault.store import ObjectInfo

__all__ = ["FileStore"]

_COPY_CHUNK_BYTES = 4 << 20


class FileStore:
    """See ObjectStore. ``root`` is made at the first write; its parent must exist."""

    def __init__(self, root: Path) -> None:
        self._places = FilePlaces(root.absolute())

    @property
    def url(self) -> str:
        """``file:///…``."""
        return self._places.root.as_uri()

    def put(self, key: str, data: bytes, *, if_absent: bool = True) -> ObjectInfo:
        """See ObjectStore.put."""
        with self.writer(key) as writer:
            writer.write(data)
            return writer.commit(if_absent=if_absent)

    def replace(self, key: str, data: bytes, *, if_match: str) -> ObjectInfo:
        """See ObjectStore.replace."""
        with self.writer(key) as writer:
            writer.write(data)
            return writer.commit_over(if_match)

    def writer(self, key: str) -> FileWriter:
        """See ObjectStore.writer."""
        return begin_file(self._places, check_key(key))

    def get(self, key: str) -> bytes:
        """See ObjectStore.get."""
        with (
            os.fdopen(self._open(key), "rb", buffering=0) as file,
            self._translated("read", key),
        ):
            return file.read()

    def read(self, key: str, start: int, length: int) -> bytes:
        """See ObjectStore.read."""
        descriptor = self._open(key)
        pieces: list[bytes] = []
        try:
            with self._translated("read", key):
                # One pread gives at most 2 GiB, and on some mounts fewer bytes than there are.
                while length > 0 and (piece := os.pread(descriptor, length, start)):
                    pieces.append(piece)
                    start += len(piece)
                    length -= len(piece)
        finally:
            os.close(descriptor)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def head(self, key: str) -> ObjectInfo:
        """See ObjectStore.head."""
        path = self._places.object_path(check_key(key))
        with self._translated("look at", key):
            try:
                facts = path.stat()
            except NotADirectoryError:
                raise ObjectNotFound(key) from None
        if not stat.S_ISREG(facts.st_mode):
            raise ObjectNotFound(key)
        return info_of(key, facts)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ObjectStore.list. One directory at a time is read and sorted."""
        folder, slash, beginning = check_prefix(prefix).rpartition("/")
        return self._listed(folder + slash, beginning)

    def delete(self, keys: Iterable[str]) -> None:
        """See ObjectStore.delete."""
        folders: dict[Path, str] = {}
        for key in keys:
            path = self._places.object_path(check_key(key))
            # Looked at first, so that deleting from a vault that is not there makes none; and a
            # folder, which is no object, cannot be unlinked.
            if self._is_object(key):
                with self._translated("delete", key), locked(self._places):
                    path.unlink(missing_ok=True)
                folders[path.parent] = key
        for folder, key in folders.items():
            with self._translated("delete", key):
                synced(folder)
            pruned(folder, self._places.root)

    def delete_if(self, key: str, *, if_match: str) -> None:
        """See ObjectStore.delete_if."""
        path = self._places.object_path(check_key(key))
        if not self._is_object(key):
            raise PreconditionFailed(key)
        with self._translated("delete", key), locked(self._places):
            require_etag(path, key, if_match)
            path.unlink()
            synced(path.parent)
        pruned(path.parent, self._places.root)

    def copy(self, source: str, target: str) -> ObjectInfo:
        """See ObjectStore.copy. The bytes are copied, so that the copy has a time of its own."""
        check_key(target)
        with (
            os.fdopen(self._open(source), "rb", buffering=0) as file,
            self.writer(target) as writer,
            self._translated("copy", source),
        ):
            while chunk := file.read(_COPY_CHUNK_BYTES):
                writer.write(chunk)
            return writer.commit()

    def sweep_unfinished(self, prefix: str, *, older_than: datetime) -> int:
        """See ObjectStore.sweep_unfinished. Files of living writers stay, however old: a writer
        holds a lock on its file."""
        check_prefix(prefix)
        with self._translated("sweep", prefix):
            return self._places.sweep(prefix, older_than.timestamp())

    def close(self) -> None:
        """Nothing is held between calls."""

    def _translated(self, action: str, key: str) -> AbstractContextManager[None]:
        return translated(action, key, self._places.root)

    def _is_object(self, key: str) -> bool:
        try:
            self.head(key)
        except ObjectNotFound:
            return False
        return True

    def _open(self, key: str) -> int:
        path = self._places.object_path(check_key(key))
        with self._translated("read", key):
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except NotADirectoryError:
                raise ObjectNotFound(key) from None
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise ObjectNotFound(key)
        return descriptor

    def _listed(self, folder: str, beginning: str) -> Iterator[ObjectInfo]:
        with self._translated("list", folder + beginning):
            try:
                with os.scandir(self._places.root / folder) as entries:
                    # A folder's keys all continue "name/", so that is what it sorts by: "a-b"
                    # comes before "a/b", though "a" comes before "a-b".
                    names = sorted(
                        entry.name + "/" if entry.is_dir() else entry.name
                        for entry in entries
                        if entry.name.startswith(beginning) and is_key(entry.name)
                    )
            except (FileNotFoundError, NotADirectoryError):
                return  # not made yet, pruned meanwhile, or an object of that very name
        for name in names:
            if name.endswith("/"):
                yield from self._listed(folder + name, "")
                continue
            try:
                info = self.head(folder + name)
            except ObjectNotFound:
                continue  # deleted meanwhile, or neither file nor folder
            yield info
