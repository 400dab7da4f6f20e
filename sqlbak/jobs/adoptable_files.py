"""Backup files that other tools wrote: found in a folder or a bucket, shown to the server one media
set at a time, and never changed."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from sqlbak.engines.sqlserver.delivery import DiskFolder
from sqlbak.engines.sqlserver.statements import Device, DeviceKind
from sqlbak.errors import InputUnreadable, TargetNotUsable
from sqlbak.stopping import StopSignal
from sqlbak.vault.store import ObjectStore

__all__ = ["BackupPlace", "BucketPlace", "FolderPlace", "FoundFile", "shown_to_server"]

_ENDINGS: Final = (".bak", ".trn", ".dif", ".diff", ".log")
_BLOCK_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class FoundFile:
    """One file, by its name in the place where it was found."""

    name: str
    size_bytes: int


class BackupPlace(Protocol):
    """Where backup files lie. Only read."""

    def files(self) -> list[FoundFile]:
        """What looks like a backup, by name. InputUnreadable when the place cannot be read."""

    def blocks(self, file: FoundFile) -> Iterator[bytes]:
        """The file's bytes."""

    def path(self, file: FoundFile) -> Path | None:
        """Where it is on this machine; None: it is not."""


class FolderPlace:
    """A folder and what is below it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def files(self) -> list[FoundFile]:
        """See BackupPlace."""
        if not self._folder.is_dir():
            raise InputUnreadable(
                f"{self._folder} is no folder", hint="name the folder with the .bak and .trn files"
            )
        try:
            return [
                FoundFile(str(path.relative_to(self._folder)), path.stat().st_size)
                for path in sorted(self._folder.rglob("*"))
                if path.suffix.lower() in _ENDINGS and path.is_file()
            ]
        except OSError as error:
            raise _unreadable(str(self._folder), error) from error

    def blocks(self, file: FoundFile) -> Iterator[bytes]:
        """See BackupPlace."""
        path = self._folder / file.name
        try:
            with path.open("rb", buffering=0) as opened:
                while block := opened.read(_BLOCK_BYTES):
                    yield block
        except OSError as error:
            raise _unreadable(str(path), error) from error

    def path(self, file: FoundFile) -> Path | None:
        """See BackupPlace."""
        return self._folder / file.name


class BucketPlace:
    """The objects below a prefix; keys are relative to it."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def files(self) -> list[FoundFile]:
        """See BackupPlace."""
        return [
            FoundFile(info.key, info.size)
            for info in self._store.list("")
            if info.key.lower().endswith(_ENDINGS)
        ]

    def blocks(self, file: FoundFile) -> Iterator[bytes]:
        """See BackupPlace."""
        for start in range(0, file.size_bytes, _BLOCK_BYTES):
            yield self._store.read(file.name, start, _BLOCK_BYTES)

    def path(self, file: FoundFile) -> Path | None:
        """See BackupPlace."""
        del file
        return None


@contextmanager
def shown_to_server(
    place: BackupPlace, files: Sequence[FoundFile], folder: DiskFolder, stop: StopSignal
) -> Iterator[tuple[Device, ...]]:
    """The files as the server sees them while the block runs. One that lies in the delivery folder
    already is read where it is; others are copied there, and the copies removed.

    TargetNotUsable when there is no room for the copies, or the folder cannot be written.
    """
    token = secrets.token_hex(6)
    copies: list[Path] = []
    devices: list[Device] = []
    try:
        missing = sum(f.size_bytes for f in files if _inside(place.path(f), folder) is None)
        free = shutil.disk_usage(folder.local_path).free
        if missing > free:
            raise TargetNotUsable(
                f"{folder.local_path} has {free} bytes free, and the server has to be shown "
                f"{missing}",
                hint="make room there, or put the backups into that folder yourself",
            )
        for number, file in enumerate(files):
            name = _inside(place.path(file), folder)
            if name is None:
                name = f"sqlbak-adopt-{token}-{number}.bak"
                copies.append(folder.local_path / name)
                _copy(place, file, copies[-1], stop)
            devices.append(Device(DeviceKind.DISK, folder.on_server(name)))
        yield tuple(devices)
    except OSError as error:
        raise TargetNotUsable(
            f"{folder.local_path} cannot be used: {error.strerror}",
            hint="delivery.disk.local_path must be a folder that sqlbak may write to",
        ) from error
    finally:
        for copy in copies:
            copy.unlink(missing_ok=True)


def _inside(path: Path | None, folder: DiskFolder) -> str | None:
    """The path below the delivery folder, as the server's own system writes it."""
    if path is None:
        return None
    real, root = path.resolve(), folder.local_path.resolve()
    if not real.is_relative_to(root):
        return None
    separator = "\\" if "\\" in folder.server_path else "/"
    return separator.join(real.relative_to(root).parts)


def _copy(place: BackupPlace, file: FoundFile, target: Path, stop: StopSignal) -> None:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
    with os.fdopen(descriptor, "wb") as out:
        for block in place.blocks(file):
            stop.check()
            out.write(block)


def _unreadable(where: str, error: OSError) -> InputUnreadable:
    return InputUnreadable(
        f"{where} cannot be read: {error.strerror}", hint="give sqlbak the right to read it"
    )
