"""Restoring over a cluster: the old one stands aside, whole, and comes back if the restore fails.

Nothing of the old cluster is changed or removed, only renamed; to remove it is the operator's.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from sqlbak.engines.postgres.unpack import target_errors
from sqlbak.errors import SqlbakError, TargetNotUsable

__all__ = ["beside", "check_replaceable", "read_system_identifier", "set_aside"]

_CONTROL_FILE = Path("global") / "pg_control"
_IDENTIFIER = struct.Struct("<Q")  # ControlFileData begins with it (catalog/pg_control.h)


def read_system_identifier(directory: Path) -> str | None:
    """The system identifier of the cluster in ``directory``; None: there is no control file."""
    try:
        with (directory / _CONTROL_FILE).open("rb") as file:
            content = file.read(_IDENTIFIER.size)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return str(_IDENTIFIER.unpack(content)[0]) if len(content) == _IDENTIFIER.size else None


def check_replaceable(directory: Path, *, system_identifier: str) -> None:
    """TargetNotUsable unless ``directory`` holds this very cluster, no server runs on it, and it
    can be renamed. Nothing is changed."""
    if directory.is_symlink():
        raise TargetNotUsable(
            f"{directory} is a symbolic link", hint=f"name the directory: {directory.resolve()}"
        )
    found = read_system_identifier(directory) if (directory / "PG_VERSION").is_file() else None
    if found is None:
        raise TargetNotUsable(
            f"{directory} holds no cluster that could be replaced",
            hint="restore into an empty or absent directory with --into",
        )
    if found != system_identifier:
        raise TargetNotUsable(
            f"{directory} holds another cluster (system identifier {found}) than the one to be "
            f"restored ({system_identifier})",
            hint="restore into an empty or absent directory with --into",
        )
    if (directory / "postmaster.pid").exists():
        raise TargetNotUsable(
            f"a server runs on {directory}, or ran there and crashed: postmaster.pid is there",
            hint="stop it first; if none runs anywhere on this directory, remove that file",
        )
    if directory.is_mount():
        raise TargetNotUsable(
            f"{directory} is a mount point and cannot be renamed",
            hint="move the old cluster away yourself and restore with --into, or mount one "
            "level higher",
        )
    if not os.access(directory.parent, os.W_OK | os.X_OK):
        raise TargetNotUsable(f"{directory.parent} cannot be written, so nothing there renamed")


def beside(directory: Path, kind: str = "before") -> Path:
    """A name next to ``directory`` that says when it was made."""
    return directory.with_name(f"{directory.name}.{kind}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")


@contextmanager
def set_aside(directory: Path) -> Iterator[Path]:
    """Rename ``directory`` to ``<directory>.before-<time>``, which is given, and make an empty one
    of the same owner in its place. If the block raises, the old one comes back; what the block
    left in the new one is kept as ``<directory>.failed-<time>``."""
    before, failed = beside(directory), beside(directory, "failed")
    for place in (before, failed):
        if place.exists():
            raise TargetNotUsable(f"{place} is there already", hint="try again in a second")
    owner = directory.stat()
    with target_errors(directory):
        directory.rename(before)
    try:
        directory.mkdir(mode=0o700)
        if owner.st_uid != os.geteuid():
            shutil.chown(directory, owner.st_uid, owner.st_gid)
        yield before
    except BaseException as problem:
        if directory.is_dir():
            if any(directory.iterdir()):
                directory.rename(failed)
                if isinstance(problem, SqlbakError):
                    problem.advise(f"what was restored is kept in {failed} for a look")
            else:
                directory.rmdir()
        before.rename(directory)
        raise
