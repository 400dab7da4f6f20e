"""Backup devices: files of mapped folders, and objects behind an S3 endpoint.

Operating system errors are worded as in the captures and the error tables: a missing directory on
Linux answers 5 when a backup is written and 2 when one is read.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from .errors import SqlError, not_modelled
from .s3device import S3Reader, S3Writer

if TYPE_CHECKING:
    from .instance import Instance

DISK, URL = 2, 9
ACCESS_DENIED = "5(Access is denied.)"
NOT_FOUND = "2(The system cannot find the file specified.)"
PATH_NOT_FOUND = "3(The system cannot find the path specified.)"
FULL = "112(There is not enough space on the disk.)"


@dataclass(frozen=True, slots=True)
class Place:
    """A device as named in a statement, resolved. ``kind`` is DISK or URL."""

    kind: str
    name: str
    logical: str | None = None

    @property
    def device_type(self) -> int:
        return DISK if self.kind == "DISK" else URL


class Writer(Protocol):
    """A device open for writing. Nothing is complete until ``close``; ``abort`` is what a failed
    backup leaves behind."""

    def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...

    def abort(self, *, leave: bool) -> None: ...


def cannot_open(name: str, reason: str, *, reading: bool) -> SqlError:
    """3201: state 1 for backups, 2 for restores (captured)."""
    return SqlError(
        3201,
        f"Cannot open backup device '{name}'. Operating system error {reason}.",
        16,
        2 if reading else 1,
    )


def local_path(instance: Instance, name: str) -> Path | None:
    """Where a server path is on this machine; None where no folder is mapped."""
    windows = instance.platform == "Windows"
    plain = name.replace("\\", "/") if windows else name
    best: tuple[int, Path] | None = None
    for prefix, folder in instance.folders.items():
        start = prefix.replace("\\", "/").rstrip("/") if windows else prefix.rstrip("/")
        same = plain.lower().startswith(start.lower() + "/") if windows else (
            plain.startswith(start + "/")
        )  # fmt: skip
        if same and (best is None or len(start) > best[0]):
            best = (len(start), folder / plain[len(start) + 1 :])
    return best[1] if best else None


def is_absolute(instance: Instance, name: str) -> bool:
    if instance.platform == "Windows":
        return name[1:3] == ":\\" or name.startswith("\\\\")
    return name.startswith("/")


def absolute(instance: Instance, name: str) -> str:
    """A bare name lands in the instance's backup folder ([D] BACKUP, Arguments, DISK)."""
    if is_absolute(instance, name):
        return name
    separator = "\\" if instance.platform == "Windows" else "/"
    return instance.backup_path.rstrip("/\\") + separator + name


def _denied(instance: Instance, name: str) -> bool:
    return any(name.lower().startswith(prefix.lower()) for prefix in instance.faults.denied)


def check_name(place: Place, *, backing_up: bool) -> None:
    """Errors 3057 and 3078: lengths, and URLs of the wrong form ([D] S3: always s3://, at most 259
    characters)."""
    if len(place.name) > 259:
        raise SqlError(
            3057,
            "Invalid device name. The length of the device name provided exceeds supported limit "
            "(maximum length is:259). Reissue the BACKUP statement with a valid device name.",
        )
    if place.kind == "URL" and not place.name.lower().startswith(("s3://", "https://")):
        verb = "BACKUP" if backing_up else "RESTORE"
        raise SqlError(
            3078,
            f'The file name "{place.name}" is invalid as a backup device name for the specified '
            f"device type. Reissue the {verb} statement with a valid file name and device type.",
        )


class NulWriter:
    """TO DISK = 'NUL': everything is thrown away."""

    def write(self, data: bytes) -> None:
        """Throw away."""

    def close(self) -> None:
        """Nothing was kept."""

    def abort(self, *, leave: bool) -> None:
        """Nothing was kept."""


class FileWriter:
    """A file in a mapped folder. A file that a failed backup made itself is removed again."""

    def __init__(self, instance: Instance, place: Place, path: Path, *, append: bool) -> None:
        self.instance = instance
        self.place = place
        self.path = path
        self.existed = path.exists()
        self.before = path.stat().st_size if self.existed and append else 0
        self.handle = path.open("ab" if append else "wb")

    def write(self, data: bytes) -> None:
        free = self.instance.faults.free_bytes
        if free is not None:
            if free < len(data):
                raise SqlError(3202, f'Write on "{self.place.name}" failed: {FULL}')
            self.instance.faults.free_bytes = free - len(data)
        try:
            self.handle.write(data)
        except OSError as error:
            raise SqlError(
                3202, f'Write on "{self.place.name}" failed: {os_error(error)}'
            ) from error

    def close(self) -> None:
        self.handle.close()

    def abort(self, *, leave: bool) -> None:
        self.handle.close()
        if leave or not self.path.exists():
            return
        if self.existed:
            os.truncate(self.path, self.before)
        else:
            self.path.unlink()


def os_error(error: OSError) -> str:
    """The nearest Windows error, which SQL Server shows on Linux too."""
    if isinstance(error, PermissionError):
        return ACCESS_DENIED
    if isinstance(error, FileNotFoundError):
        return NOT_FOUND
    if isinstance(error, IsADirectoryError):
        return ACCESS_DENIED
    return (
        FULL if error.errno == 28 else f"1117(The request could not be performed: {error.errno}.)"
    )


def is_nul(place: Place) -> bool:
    return place.kind == "DISK" and place.name.upper() in {"NUL", "NUL:"}


def open_for_backup(
    instance: Instance, place: Place, *, append: bool, options: dict[str, object]
) -> Writer:
    """Open a device for writing. SqlError 3201 where it cannot be."""
    if is_nul(place):
        return NulWriter()
    if place.kind == "URL":
        return S3Writer(instance, place.name, options)
    if _denied(instance, place.name):
        raise cannot_open(place.name, ACCESS_DENIED, reading=False)
    path = local_path(instance, place.name)
    if path is None or not path.parent.is_dir():
        linux = instance.platform == "Linux"
        raise cannot_open(place.name, ACCESS_DENIED if linux else PATH_NOT_FOUND, reading=False)
    try:
        return FileWriter(instance, place, path, append=append)
    except OSError as error:
        raise cannot_open(place.name, os_error(error), reading=False) from error


def read_existing(instance: Instance, place: Place) -> bytes | None:
    """What is there already before a backup appends or overwrites; None if nothing."""
    if is_nul(place):
        return None
    if place.kind == "URL":
        return None
    path = local_path(instance, place.name)
    if path is None or not path.is_file() or _denied(instance, place.name):
        return None
    try:
        return path.read_bytes() or None
    except OSError as error:
        raise cannot_open(place.name, os_error(error), reading=False) from error


def read_device(instance: Instance, place: Place, options: dict[str, object]) -> bytes:
    """All bytes of a device. SqlError 3201 where it cannot be opened."""
    if place.kind == "URL":
        if place.name.lower().startswith("https://"):
            raise not_modelled("Azure blob storage")
        return S3Reader(instance, place.name, options).read()
    if _denied(instance, place.name):
        raise cannot_open(place.name, ACCESS_DENIED, reading=True)
    path = local_path(instance, place.name)
    if path is None or not path.exists():
        raise cannot_open(place.name, NOT_FOUND, reading=True)
    try:
        return path.read_bytes()
    except OSError as error:
        raise cannot_open(place.name, os_error(error), reading=True) from error
