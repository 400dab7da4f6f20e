"""Restoring into a directory that holds an older state of the same cluster, which is given up: what
of it is right is kept, so that only the rest has to be fetched.

While it is being rewritten the directory has no control file, so that no server starts on it, and
our claim says which cluster it is; a restore that was killed goes on where it was.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sqlbak.engines.port import PayloadSource
from sqlbak.engines.postgres.chain import Chain
from sqlbak.engines.postgres.claiming import CLAIM, claimed_for, is_claim_held
from sqlbak.engines.postgres.clusterfiles import CONTROL_FILE
from sqlbak.engines.postgres.comparing import Comparison, compare
from sqlbak.engines.postgres.pagehash import PageHash
from sqlbak.engines.postgres.replacing import read_system_identifier
from sqlbak.engines.postgres.unpack import flush
from sqlbak.engines.postgres.walsource import WAL_STREAM
from sqlbak.errors import BaseUnusable, TargetNotUsable
from sqlbak.progress import Progress
from sqlbak.stopping import StopSignal

__all__ = [
    "CountedSource",
    "FetchCount",
    "Found",
    "check_reusable",
    "find_reusable",
    "is_reusable_tablespace",
    "withdraw_control_file",
]

_MAY_BE_MOUNTED = frozenset({"pg_wal"})


@dataclass(slots=True)
class FetchCount:
    """Raw bytes of the frames of archives, manifests and maps that were fetched."""

    size_bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, size_bytes: int) -> None:
        """So many more. Safe to call from several threads."""
        with self._lock:
            self.size_bytes += size_bytes


@dataclass(frozen=True, slots=True)
class CountedSource:
    """A payload source that counts what is fetched from another one, log aside."""

    behind: PayloadSource
    count: FetchCount

    def streams(self) -> Sequence[str]:
        """Names of the streams."""
        return self.behind.streams()

    def size(self, stream: str) -> int:
        """Raw size of one stream."""
        return self.behind.size(stream)

    def frame_starts(self, stream: str) -> Sequence[int]:
        """Where each frame begins."""
        return self.behind.frame_starts(stream)

    def read_frame(self, stream: str, index: int) -> bytes:
        """One frame, counted."""
        frame = self.behind.read_frame(stream, index)
        if stream != WAL_STREAM:
            self.count.add(len(frame))
        return frame


def check_reusable(directory: Path, *, system_identifier: str) -> None:
    """TargetNotUsable unless ``directory`` holds this very cluster, or what an unfinished restore
    of it left, and neither a server nor a restore is at work there. Nothing is changed."""
    if directory.is_symlink():
        raise TargetNotUsable(
            f"{directory} is a symbolic link", hint=f"name the directory: {directory.resolve()}"
        )
    found = {claimed_for(directory), _read_identifier(directory)} - {None}
    if not found:
        raise TargetNotUsable(
            f"{directory} holds no cluster of which anything could be kept",
            hint="restore into an empty or absent directory with --into",
        )
    if found != {system_identifier}:
        others = ", ".join(sorted(str(one) for one in found if one != system_identifier))
        raise TargetNotUsable(
            f"{directory} holds another cluster (system identifier {others}) than the one to be "
            f"restored ({system_identifier})",
            hint="restore into an empty or absent directory with --into",
        )
    _check_stopped(directory)
    if is_claim_held(directory):
        raise TargetNotUsable(
            f"another restore is at work in {directory}", hint="wait until it ends"
        )
    _check_mounts(directory)


def _read_identifier(directory: Path) -> str | None:
    try:
        is_file = stat.S_ISREG((directory / CONTROL_FILE).lstat().st_mode)
        return read_system_identifier(directory) if is_file else None
    except OSError:
        return None


def _check_stopped(directory: Path) -> None:
    if os.path.lexists(directory / "postmaster.pid"):
        raise TargetNotUsable(
            f"a server runs on {directory}, or ran there and crashed: postmaster.pid is there",
            hint="stop it first; if none runs anywhere on this directory, remove that file",
        )


def _check_mounts(directory: Path) -> None:
    """What is mounted below could be taken for something that is to be removed."""
    device = directory.stat().st_dev
    for folder, folders, _ in os.walk(directory):
        for name in tuple(folders):
            path = Path(folder) / name
            status = path.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_dev == device:
                continue
            if str(path.relative_to(directory)) not in _MAY_BE_MOUNTED:
                raise TargetNotUsable(
                    f"{path} is a mount point inside of {directory}",
                    hint="unmount it first, or restore with --into",
                )


def is_reusable_tablespace(place: Path, directory: Path, *, system_identifier: str) -> bool:
    """Whether ``place`` is a tablespace of the cluster in ``directory``, or what an unfinished
    restore of it left there."""
    if claimed_for(place) == system_identifier:
        return not is_claim_held(place)
    try:
        links = list((directory / "pg_tblspc").iterdir())
    except OSError:
        return False
    return any(link.is_symlink() and link.resolve() == place.resolve() for link in links)


@dataclass(frozen=True, slots=True)
class Found:
    """What of the full is there already. ``comparison`` None: nothing of it can be told, for the
    reason in ``note``, and everything is fetched. Comparing takes its time: before anything is
    changed, ``check`` makes sure that nobody else did."""

    comparison: Comparison | None
    directory: Path
    signs: tuple[object, ...]
    note: str = ""

    def check_stopped(self) -> None:
        """TargetNotUsable when a server runs there."""
        _check_stopped(self.directory)

    def check(self) -> None:
        """TargetNotUsable when a server or another restore was at work there meanwhile."""
        self.check_stopped()
        if _signs(self.directory) != self.signs:
            raise TargetNotUsable(
                f"somebody else worked in {self.directory} while it was compared",
                hint="run the same command again when nobody does",
            )

    def kept_paths(self) -> frozenset[str]:
        """The paths of the files that have something of the full's content."""
        return frozenset() if self.comparison is None else self.comparison.kept_paths()


def find_reusable(
    chain: Chain,
    directory: Path,
    archive_places: dict[str, Path],
    tops: Sequence[Path],
    *,
    progress: Progress,
    stop: StopSignal,
) -> Found:
    """Look at what lies at the places of the base's archives. Nothing is changed."""
    full = chain.full
    signs = _signs(directory)
    try:
        comparison = compare(
            full.source,
            PageHash.from_facts(full.facts),
            archive_places,
            tops,
            only_pages=chain.differential is not None,
            progress=progress,
            stop=stop,
        )
    except BaseUnusable as problem:
        return Found(None, directory, signs, f"everything was fetched: {problem.message}")
    return Found(comparison, directory, signs)


def _signs(directory: Path) -> tuple[object, ...]:
    """What every server that starts or ends, and every restore, leaves changed."""
    found: list[object] = []
    for name in (CONTROL_FILE, CLAIM):
        try:
            status = (directory / name).lstat()
        except OSError:
            status = None
        if status is None or not status.st_size:
            found.append(None)
        else:
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)


def withdraw_control_file(directory: Path) -> None:
    """From here on no server starts there, until the control file is back. TargetNotUsable when
    one was faster: then it has its control file again."""
    path = directory / CONTROL_FILE
    folder = path.parent
    if folder.is_symlink():
        folder.unlink()
        flush(directory)
    elif path.is_symlink() or path.is_file():
        aside = path.with_name(f"{path.name}.sqlbak-withdrawn")
        path.rename(aside)
        try:
            _check_stopped(directory)
        except BaseException:
            aside.rename(path)
            raise
        flush(folder)
