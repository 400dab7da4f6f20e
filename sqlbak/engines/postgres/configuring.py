"""Writes the configuration of a restored cluster: our own lines, and the files that it lacks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sqlbak.engines.postgres.ground import write_file
from sqlbak.engines.postgres.recovery import (
    MINIMAL_CONFIGURATION,
    MINIMAL_HBA,
    configuration_block,
    minimums,
    without_block,
)
from sqlbak.engines.postgres.server import ServerUser

__all__ = ["configure", "supply_configuration", "write_minimal"]


def configure(directory: Path, settings: Mapping[str, str], user: ServerUser) -> None:
    """Our lines at the end of postgresql.auto.conf, in place of those of an older restore, and
    the signal to recover."""
    path = directory / "postgresql.auto.conf"
    content = path.read_bytes() if path.exists() else b""
    path.unlink(missing_ok=True)
    write_file(path, without_block(content) + configuration_block(settings), user)
    for name in ("standby.signal", "recovery.signal"):
        (directory / name).unlink(missing_ok=True)
    write_file(directory / "recovery.signal", b"", user)


def supply_configuration(
    directory: Path,
    source_settings: Iterable[Mapping[str, Any]],
    segment_size: int,
    user: ServerUser,
) -> list[str]:
    """Minimal files in place of those that the cluster's directory lacks; their names."""
    supplied = []
    for name, content in (
        ("postgresql.conf", MINIMAL_CONFIGURATION + _lines(source_settings, segment_size)),
        ("pg_hba.conf", MINIMAL_HBA),
        ("pg_ident.conf", ""),
    ):
        if not (directory / name).exists():
            write_file(directory / name, content.encode(), user)
            supplied.append(name)
    return supplied


def write_minimal(
    path: Path,
    source_settings: Iterable[Mapping[str, Any]],
    segment_size: int,
    user: ServerUser,
) -> None:
    """A configuration file with nothing but what the cluster's log demands."""
    path.unlink(missing_ok=True)
    write_file(path, _lines(source_settings, segment_size).encode(), user)


def _lines(source_settings: Iterable[Mapping[str, Any]], segment_size: int) -> str:
    values = minimums(source_settings, segment_size)
    return "".join(f"{name} = {value}\n" for name, value in values.items())
