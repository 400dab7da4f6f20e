"""Backup files in a folder that the server and sqlbak both see, each under its own path.

A file's name says whose it is: of which sqlbak (``owner``), of which database, what it holds and of
which backup set. Nothing is ever deleted that does not have such a name.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from sqlbak.engines.port import PayloadSink
from sqlbak.engines.sqlserver.statements import Device, DeviceKind
from sqlbak.errors import BackupFailed, ServerNotReady
from sqlbak.model import PointType
from sqlbak.progress import Progress
from sqlbak.stopping import StopSignal

__all__ = [
    "BackupFiles",
    "DiskFolder",
    "ReadableFiles",
    "SetFiles",
    "database_key",
    "stream_names",
    "stripe_count",
]

_LETTERS: Final = {PointType.FULL: "f", PointType.DIFFERENTIAL: "d", PointType.LOG: "l"}
_TYPES: Final = {letter: kind for kind, letter in _LETTERS.items()}
_NAME: Final = re.compile(
    r"sqlbak-(?P<owner>[0-9a-z]{1,32})-(?P<key>[0-9a-f]{12})-(?P<type>[fdl])-"
    r"(?P<token>[0-9A-Za-z-]{8,64})\.(?P<number>[0-9]{1,2})of(?P<count>[0-9]{1,2})\.(?:bak|trn)"
)
_BUFFER_BYTES: Final = 4 << 20
_APPEARS_SECONDS: Final = 15.0
BYTES_A_STRIPE: Final = 100 << 30


def database_key(binding: str) -> str:
    """Twelve hexadecimal digits for a database, by its own GUID, which a rename leaves alone."""
    return hashlib.sha256(binding.lower().encode()).hexdigest()[:12]


def stripe_count(size_bytes: int, wanted: int | None) -> int:
    """Over how many files a backup is striped: as asked for, else one for each 100 GiB."""
    return wanted if wanted is not None else min(64, max(1, -(-size_bytes // BYTES_A_STRIPE)))


def stream_names(count: int) -> tuple[str, ...]:
    """The payload's streams: one for each file, in the order of the devices."""
    return tuple(f"media-{number}" for number in range(1, count + 1))


class ReadableFiles(Protocol):
    """What one backup set may have been written to."""

    @property
    def devices(self) -> tuple[Device, ...]:
        """As the server sees them."""

    @property
    def are_whole(self) -> bool:
        """Whether they are whole as soon as they are there, so that the server can read them."""

    def are_there(self) -> bool:
        """Whether sqlbak sees all of them."""


class SetFiles(ReadableFiles, Protocol):
    """What one backup set is written to: files in a folder, or objects in the vault itself."""

    @property
    def type(self) -> PointType:
        """What the set holds."""

    @property
    def token(self) -> str:
        """The last word of the set's name; empty where it is not known."""

    @property
    def streams(self) -> tuple[str, ...]:
        """The payload's streams, one for each device."""

    @property
    def shown(self) -> str:
        """The first of them, for people."""

    @property
    def facts(self) -> dict[str, object]:
        """How the set is delivered, for the manifest."""

    @property
    def after_commit(self) -> Callable[[], None] | None:
        """What is left to do once the set is a recovery point."""

    def refused(self) -> None:
        """The server said that it did not write the set."""

    def remove(self) -> None:
        """Delete them; those that are gone already are no matter."""

    def ship(self, sink: PayloadSink, *, progress: Progress, stop: StopSignal) -> int:
        """Make them the payload; how many bytes. BackupFailed."""


@dataclass(frozen=True, slots=True)
class BackupFiles:
    """The files of one backup set, as sqlbak sees them and as the server does."""

    type: PointType
    token: str
    local: tuple[Path, ...]
    devices: tuple[Device, ...]

    @property
    def streams(self) -> tuple[str, ...]:
        """See SetFiles.streams."""
        return stream_names(len(self.local))

    @property
    def shown(self) -> str:
        """See SetFiles.shown."""
        return str(self.local[0])

    @property
    def facts(self) -> dict[str, object]:
        """See SetFiles.facts."""
        return {"delivery": "disk"}

    @property
    def after_commit(self) -> Callable[[], None]:
        """The vault has them: they are removed from the folder."""
        return self.remove

    def are_there(self) -> bool:
        """See SetFiles.are_there."""
        return all(path.exists() for path in self.local)

    @property
    def are_whole(self) -> bool:
        """See SetFiles.are_whole: a file may be cut off."""
        return False

    def refused(self) -> None:
        """Nothing: the server removes what it began, and the next run what is left of it."""

    def remove(self) -> None:
        """Delete them; those that are gone already are no matter. BackupFailed where one stays."""
        for path in self.local:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise BackupFailed(
                    f"{path} could not be removed: {error.strerror}",
                    hint="let the user that sqlbak runs as delete files in that folder",
                ) from error

    def sizes(self) -> list[int]:
        """Their sizes in bytes. BackupFailed when one does not appear or cannot be read."""
        deadline = time.monotonic() + _APPEARS_SECONDS
        found: list[int] = []
        for path, device in zip(self.local, self.devices, strict=True):
            while True:
                try:
                    found.append(path.stat().st_size)
                    break
                except FileNotFoundError:
                    # A network file system may show a new file only after a while.
                    if time.monotonic() < deadline:
                        time.sleep(0.2)
                        continue
                    raise BackupFailed(
                        f"the server wrote {device.name}, but there is no {path}",
                        hint="delivery.disk: server_path and local_path must be the same folder",
                    ) from None
                except OSError as error:
                    raise _unreadable(path, error) from error
        return found

    def ship(self, sink: PayloadSink, *, progress: Progress, stop: StopSignal) -> int:
        """Send every file as a stream of its own; how many bytes. BackupFailed."""
        sizes = self.sizes()
        progress.phase("shipping", sum(sizes))
        for path, name, size in zip(self.local, self.streams, sizes, strict=True):
            sent = 0
            with sink.stream(name) as stream:
                for block in _blocks(path):
                    stop.check()
                    stream.write(block)
                    sent += len(block)
                    progress.advance(len(block))
                if sent != size:
                    raise BackupFailed(
                        f"{path} changed while it was read: {sent} bytes instead of {size}",
                        hint="something else writes in that folder; it must be sqlbak's alone",
                    )
        return sum(sizes)


def _blocks(path: Path) -> Iterator[memoryview]:
    buffer = bytearray(_BUFFER_BYTES)
    view = memoryview(buffer)
    try:
        with path.open("rb", buffering=0) as file:
            while count := file.readinto(buffer):
                yield view[:count]
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> BackupFailed:
    return BackupFailed(
        f"{path} cannot be read: {error.strerror}",
        hint="let the user that sqlbak runs as read what SQL Server writes: a common group, or a "
        "default ACL on the folder",
    )


@dataclass(frozen=True, slots=True)
class DiskFolder:
    """``server_path`` and ``local_path`` are one folder. ``owner`` tells the files of one vault
    from those of others that use the same folder: ``[0-9a-z]{1,32}``."""

    server_path: str
    local_path: Path
    owner: str

    def files(self, key: str, kind: PointType, token: str, count: int) -> BackupFiles:
        """The names that a new backup set will have."""
        ending = "trn" if kind is PointType.LOG else "bak"
        stem = f"sqlbak-{self.owner}-{key}-{_LETTERS[kind]}-{token}"
        return self._of(
            kind, token, [f"{stem}.{number}of{count}.{ending}" for number in range(1, count + 1)]
        )

    def _of(self, kind: PointType, token: str, names: Sequence[str]) -> BackupFiles:
        return BackupFiles(
            kind,
            token,
            tuple(self.local_path / name for name in names),
            tuple(Device(DeviceKind.DISK, self.on_server(name)) for name in names),
        )

    def on_server(self, name: str) -> str:
        """The path of a file as the server needs it."""
        is_windows = "\\" in self.server_path or re.match(r"[A-Za-z]:", self.server_path)
        sign = "\\" if is_windows else "/"
        return self.server_path.rstrip("\\/") + sign + name

    def leftovers(self, key: str, kinds: Sequence[PointType]) -> list[BackupFiles]:
        """What earlier runs left of that database, oldest first; whole sets and parts of them."""
        groups: dict[tuple[PointType, str], list[str]] = {}
        try:
            names = sorted(path.name for path in self.local_path.iterdir())
        except OSError as error:
            raise ServerNotReady(
                f"the folder {self.local_path} cannot be read: {error.strerror}",
                hint="delivery.disk.local_path is the folder as sqlbak sees it",
            ) from error
        for name in names:
            match = _NAME.fullmatch(name)
            if match is None or (match["owner"], match["key"]) != (self.owner, key):
                continue
            if _TYPES[match["type"]] in kinds:
                groups.setdefault((_TYPES[match["type"]], match["token"]), []).append(name)
        return [
            self._of(kind, token, sorted(found, key=_number))
            for (kind, token), found in sorted(groups.items(), key=lambda one: one[0][1])
        ]


def _number(name: str) -> int:
    match = _NAME.fullmatch(name)
    return int(match["number"]) if match else 0
