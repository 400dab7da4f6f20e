"""T-SQL as text: names and strings quoted, the statements of a backup put together. Pure.

BACKUP and RESTORE take no parameters, so every name and every path stands in the text itself.
Nothing may reach a statement but through ``identifier``, ``literal`` or a number.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sqlbak.errors import UsageError

__all__ = [
    "MAX_DEVICES",
    "BackupStatement",
    "Compression",
    "Device",
    "DeviceKind",
    "backup_statement",
    "devices_clause",
    "file_list_statement",
    "header_statement",
    "identifier",
    "label_statement",
    "literal",
    "region_option",
    "verify_statement",
]

MAX_NAME: Final = 128
"""UTF-16 units of a ``sysname``."""

MAX_DEVICES: Final = 64
"""Files, or URLs, that one backup may be striped over."""

MAX_PATH: Final = 259
"""Characters of a device name that SQL Server takes."""

MAX_DESCRIPTION: Final = 255


class DeviceKind(StrEnum):
    """Where SQL Server writes to, as its grammar names it."""

    DISK = "DISK"
    URL = "URL"


@dataclass(frozen=True, slots=True)
class Device:
    """One file or URL, as the server sees it. ``region``: what requests to a URL are signed for,
    where it is not the one that the server assumes (us-east-1)."""

    kind: DeviceKind
    name: str
    region: str | None = None


class Compression(StrEnum):
    """What SQL Server does with a backup's bytes; DEFAULT is its own MS_XPRESS.

    ALGORITHM is understood from 2022 on, ZSTD from 2025 on, both by the editions that compress.
    """

    NONE = "NO_COMPRESSION"
    DEFAULT = "COMPRESSION"
    ZSTD = "COMPRESSION (ALGORITHM = ZSTD)"


@dataclass(frozen=True, slots=True)
class BackupStatement:
    """One BACKUP. ``is_log`` takes the log; else the data, all of it or since its last full.

    Attributes:
        name: of the backup set; unique, so that the set is found again whatever happens.
        description: kept in the set's header.
        leaves_restoring: log only: the tail; the database is RESTORING afterwards.
        stats_percent: a message about progress each so many percent.
    """

    database: str
    devices: tuple[Device, ...]
    name: str
    is_log: bool = False
    is_differential: bool = False
    is_copy_only: bool = False
    leaves_restoring: bool = False
    compression: Compression = Compression.NONE
    description: str = ""
    max_transfer_bytes: int | None = None
    stats_percent: int = 1


def _checked(text: str, what: str) -> str:
    # The driver ends a batch at a NUL without a word, and sends UTF-8.
    if "\0" in text:
        raise UsageError(
            f"{what} holds a NUL character, at which a statement would be cut off",
            hint="SQL Server allows no such name",
        )
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise UsageError(
            f"{what} holds half a surrogate pair, which cannot be sent",
            hint="rename it, or leave it out of the policy",
        ) from None
    return text


def _length(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def identifier(name: str) -> str:
    """Any ``sysname`` as a statement needs it: ``a]b`` becomes ``[a]]b]``. UsageError for what
    is none: empty, longer than 128, or with a NUL."""
    _checked(name, "the name")
    if not 1 <= _length(name) <= MAX_NAME:
        raise UsageError(
            f"the name {name[:40]!r} has {_length(name)} characters",
            hint=f"names of SQL Server have 1 to {MAX_NAME}",
        )
    return "[" + name.replace("]", "]]") + "]"


def literal(text: str) -> str:
    """A Unicode string literal: ``it's`` becomes ``N'it''s'``. UsageError for a NUL."""
    return "N'" + _checked(text, "the text").replace("'", "''") + "'"


def devices_clause(devices: Sequence[Device]) -> str:
    """``DISK = N'/a', DISK = N'/b'``. UsageError when there are none, too many, or one is longer
    than SQL Server takes."""
    if not 1 <= len(devices) <= MAX_DEVICES:
        raise UsageError(
            f"a backup is on {len(devices)} devices", hint=f"SQL Server takes 1 to {MAX_DEVICES}"
        )
    for device in devices:
        if not device.name or _length(device.name) > MAX_PATH:
            raise UsageError(
                f"the path {device.name[:60]!r}… has {_length(device.name)} characters",
                hint=f"SQL Server takes at most {MAX_PATH}: choose a shorter folder",
            )
    return ", ".join(f"{device.kind.value} = {literal(device.name)}" for device in devices)


def region_option(devices: Sequence[Device], option: str) -> list[str]:
    """``BACKUP_OPTIONS`` or ``RESTORE_OPTIONS`` with the region of the devices, where they have
    one."""
    region = next((device.region for device in devices), None)
    if region is None:
        return []
    return [f"{option} = {literal(json.dumps({'s3': {'region': region}}))}"]


def _read(what: str, devices: Sequence[Device], *options: str) -> str:
    said = [*options, *region_option(devices, "RESTORE_OPTIONS")]
    text = f"RESTORE {what} FROM {devices_clause(devices)}"
    return f"{text} WITH {', '.join(said)}" if said else text


def backup_statement(backup: BackupStatement) -> str:
    """The text of one BACKUP: a new media set with nothing else in it, checksums, no error
    passed over. UsageError for what SQL Server would refuse."""
    if backup.is_log and (backup.is_differential or backup.is_copy_only):
        raise UsageError("a log backup is neither a differential nor copy-only here")
    if backup.leaves_restoring and not backup.is_log:
        raise UsageError("only a log backup is the tail of a database's log")
    if backup.is_differential and backup.is_copy_only:
        # SQL Server would take the differential and pass over COPY_ONLY without a word.
        raise UsageError("a differential cannot be copy-only", hint="take a copy-only full")
    if not 1 <= _length(backup.name) <= MAX_NAME or _length(backup.description) > MAX_DESCRIPTION:
        raise UsageError("the name or description of the backup set is too long")
    options = [
        *(["DIFFERENTIAL"] if backup.is_differential else []),
        *(["COPY_ONLY"] if backup.is_copy_only else []),
        *(["NORECOVERY"] if backup.leaves_restoring else []),
        "FORMAT",
        "CHECKSUM",
        "STOP_ON_ERROR",
        backup.compression.value,
        f"NAME = {literal(backup.name)}",
        *([f"DESCRIPTION = {literal(backup.description)}"] if backup.description else []),
        *(
            [f"MAXTRANSFERSIZE = {backup.max_transfer_bytes:d}"]
            if backup.max_transfer_bytes is not None
            else []
        ),
        f"STATS = {backup.stats_percent:d}",
        *region_option(backup.devices, "BACKUP_OPTIONS"),
    ]
    return (
        f"BACKUP {'LOG' if backup.is_log else 'DATABASE'} {identifier(backup.database)}"
        f" TO {devices_clause(backup.devices)} WITH {', '.join(options)}"
    )


def header_statement(devices: Sequence[Device]) -> str:
    """Asks for the header of every backup set on the devices."""
    return _read("HEADERONLY", devices)


def file_list_statement(devices: Sequence[Device]) -> str:
    """Asks for the database files in the first backup set."""
    return _read("FILELISTONLY", devices)


def label_statement(device: Device) -> str:
    """Asks for the media header of one device: of how many it is, and which."""
    return _read("LABELONLY", [device])


def verify_statement(devices: Sequence[Device], *, stats_percent: int = 5) -> str:
    """Has the server read the backup set and check its checksums, restoring nothing."""
    return _read("VERIFYONLY", devices, "CHECKSUM", "STOP_ON_ERROR", f"STATS = {stats_percent:d}")
