"""How payload gets to the server that restores it: files in a folder that both sides see, a few at
a time and gone again afterwards; or, for backups that lie where the server can read them, as URLs.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from sqlbak.engines.port import PayloadSource, RestoreStep
from sqlbak.engines.sqlserver.delivery import DiskFolder
from sqlbak.engines.sqlserver.statements import Device, DeviceKind
from sqlbak.errors import RestoreFailed, TargetNotUsable
from sqlbak.stopping import StopSignal

__all__ = ["PieceSpool", "is_by_url", "is_staged", "staged", "url_devices", "write_stream"]

_STAGED: Final = "staged"
_READERS: Final = 4
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
_AHEAD: Final = 8
"""Pieces that wait for their turn, at most."""
_SLACK_BYTES: Final = 64 << 20
"""Room that is left in the folder for others, and for logs that are fetched ahead."""


def is_by_url(step: RestoreStep) -> bool:
    """Whether the backup lies where the server reads it by itself."""
    return step.facts.get("delivery") == "url"


def url_devices(step: RestoreStep) -> tuple[Device, ...]:
    """The URLs of a backup that the server reads by itself."""
    region = step.facts.get("region")
    return tuple(
        Device(DeviceKind.URL, str(url), None if region is None else str(region))
        for url in step.facts.get("urls") or ()
    )


def is_staged(step: RestoreStep) -> bool:
    """Whether the server wrote the backup itself, and it reaches this one through the folder: of
    its bytes nothing is proven before the server reads them."""
    return step.facts.get("delivery") == _STAGED


def staged(step: RestoreStep) -> RestoreStep:
    """The same backup, to be fetched from the vault and read as files."""
    if not is_by_url(step) or not step.source.streams():
        return step
    return replace(step, facts={**step.facts, "delivery": _STAGED})


@dataclass(slots=True)
class _Piece:
    index: int
    paths: tuple[Path, ...]
    devices: tuple[Device, ...]
    size_bytes: int


class PieceSpool:
    """Fetches the steps' payload into the folder, in order and a little ahead of the server.

    Use it in a ``with`` block: leaving it ends the fetching and removes every file. ``take`` gives
    the devices of the next step and ``done`` removes its files. Files that a killed run of the same
    target left are removed at the beginning; TargetNotUsable when another run is at work on it.
    """

    def __init__(
        self, folder: DiskFolder, steps: Sequence[RestoreStep], *, target: str, stop: StopSignal
    ) -> None:
        self._folder = folder
        self._steps = steps
        self._stop = stop
        mark = hashlib.sha256(target.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        self._prefix = f"sqlbak-restore-{mark}"
        # What the server reads by itself takes no room in the folder.
        self._sizes = [0 if is_by_url(step) else _raw_bytes(step.source) for step in steps]
        self._budget = 0
        self._held = 0
        self._ready: deque[_Piece] = deque()
        self._current: _Piece | None = None
        self._changed = threading.Condition()
        self._problem: BaseException | None = None
        self._is_over = False
        self._lock: IO[bytes] | None = None
        self._thread = threading.Thread(target=self._fetch_all, name="sqlbak-restore-fetch")

    def check(self) -> None:
        """TargetNotUsable when the folder cannot be written or its largest piece has no room."""
        local = self._folder.local_path
        if not local.is_dir() or not os.access(local, os.W_OK | os.X_OK):
            raise TargetNotUsable(
                f"backups cannot be put into {local}",
                hint="delivery.disk.local_path must be a folder that sqlbak may write to, and the "
                "same that the server sees as server_path",
            )
        free = shutil.disk_usage(local).free - _SLACK_BYTES
        largest = max(self._sizes, default=0)
        if free < largest:
            raise TargetNotUsable(
                f"{local} has {max(free, 0)} bytes free, and the largest piece takes {largest}",
                hint="make room there: a piece is fetched there before the server reads it",
            )
        # One piece is read by the server while the next one is fetched, where there is room.
        self._budget = min(free, 2 * largest + _SLACK_BYTES)

    def __enter__(self) -> Self:
        self.check()
        self._claim()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._changed:
            self._is_over = True
            self._changed.notify_all()
        self._thread.join()
        self._remove_all()
        if self._lock is not None:
            self._lock.close()
            self._lock_path.unlink(missing_ok=True)

    def take(self) -> tuple[Device, ...]:
        """Wait for the next piece. Raises what fetching it raised; Interrupted."""
        with self._changed:
            while not self._ready:
                if self._problem is not None:
                    raise self._problem
                self._stop.check()
                self._changed.wait(0.2)
            self._current = self._ready.popleft()
            return self._current.devices

    def done(self) -> None:
        """The server has read the piece that was taken last."""
        piece, self._current = self._current, None
        if piece is None:
            return
        for path in piece.paths:
            path.unlink(missing_ok=True)
        with self._changed:
            self._held -= piece.size_bytes
            self._changed.notify_all()

    @property
    def _lock_path(self) -> Path:
        return self._folder.local_path / f"{self._prefix}.lock"

    def _claim(self) -> None:
        try:
            self._lock = self._lock_path.open("wb")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if self._lock is not None:
                self._lock.close()
            raise TargetNotUsable(
                "another sqlbak restores to that database right now",
                hint=f"wait until it is done (it holds {self._lock_path})",
            ) from error
        except OSError:
            return  # a share without locks: then nothing of others is removed
        self._remove_all()

    def _remove_all(self) -> None:
        for path in self._folder.local_path.glob(f"{self._prefix}-*"):
            with contextlib.suppress(OSError):
                path.unlink()

    def _fetch_all(self) -> None:
        try:
            for index, step in enumerate(self._steps):
                if is_by_url(step):
                    piece = _Piece(index, (), url_devices(step), 0)
                else:
                    if not self._wait_for_room(self._sizes[index]):
                        return
                    piece = self._fetch(index, step)
                with self._changed:
                    self._ready.append(piece)
                    self._changed.notify_all()
        except BaseException as problem:  # noqa: BLE001 - raised again by ``take``
            with self._changed:
                self._problem = problem
                self._changed.notify_all()

    def _wait_for_room(self, size_bytes: int) -> bool:
        with self._changed:
            while not self._is_over:
                fits = self._held + size_bytes <= self._budget or self._held == 0
                if fits and len(self._ready) < _AHEAD:
                    self._held += size_bytes
                    return True
                self._stop.check()
                self._changed.wait(0.2)
        return False

    def _fetch(self, index: int, step: RestoreStep) -> _Piece:
        paths: list[Path] = []
        devices: list[Device] = []
        for stream in _streams(step):
            name = f"{self._prefix}-{index:04d}-{stream}.bak"
            path = self._folder.local_path / name
            try:
                # The server's account reads it as a member of the folder's group.
                descriptor = os.open(
                    path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o640
                )
                with os.fdopen(descriptor, "wb") as out:
                    self._write(step.source, stream, out)
                path.chmod(0o640)
            except OSError as error:
                raise RestoreFailed(
                    f"{path} cannot be written: {error.strerror}",
                    hint="make room there, or give sqlbak rights to delivery.disk.local_path",
                ) from error
            paths.append(path)
            devices.append(Device(DeviceKind.DISK, self._folder.on_server(name)))
        return _Piece(index, tuple(paths), tuple(devices), self._sizes[index])

    def _write(self, source: PayloadSource, stream: str, out: IO[bytes]) -> None:
        def go_on() -> None:
            self._stop.check()
            if self._is_over:
                raise RestoreFailed("the restore ended before all was fetched")

        write_stream(source, stream, out, go_on)


def write_stream(
    source: PayloadSource, stream: str, out: IO[bytes], go_on: Callable[[], None]
) -> None:
    """Write one stream's raw bytes, proven frame by frame, several being fetched at once.
    ``go_on`` is called between frames and may raise. Raises what the source raises."""
    pending: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(_READERS, thread_name_prefix="sqlbak-restore-read") as pool:
        try:
            for index in range(len(source.frame_starts(stream))):
                go_on()
                pending.append(pool.submit(source.read_frame, stream, index))
                if len(pending) > _READERS:
                    out.write(pending.popleft().result())
            while pending:
                go_on()
                out.write(pending.popleft().result())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    out.flush()
    if out.tell() != source.size(stream):
        raise RestoreFailed(
            f"{out.tell()} bytes of {stream} were written instead of {source.size(stream)}"
        )


def _streams(step: RestoreStep) -> Sequence[str]:
    return [str(name) for name in step.facts.get("streams") or step.source.streams()]


def _raw_bytes(source: PayloadSource) -> int:
    return sum(source.size(stream) for stream in source.streams())
