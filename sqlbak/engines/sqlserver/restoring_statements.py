"""The statements of a restore as text. Pure.

Every step leaves the database RESTORING (NORECOVERY); only ``recover_statement`` opens it. A log is
never applied WITH RECOVERY: one that ends before the instant asked for would open another state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlbak.engines.sqlserver.statements import (
    Device,
    devices_clause,
    identifier,
    literal,
    region_option,
)
from sqlbak.errors import UsageError

__all__ = [
    "DataRestore",
    "LogRestore",
    "data_statement",
    "disconnect_statement",
    "log_statement",
    "multi_user_statement",
    "recover_statement",
    "source_clause",
]


@dataclass(frozen=True, slots=True)
class DataRestore:
    """Restoring a full or a differential.

    Attributes:
        moves: where each file goes, by its logical name.
        replaces: give up what the database of that name holds, its log's tail included.
        position: of the backup set on its media.
        has_checksums: the backup set has them, and they are to be proven.
    """

    database: str
    devices: tuple[Device, ...]
    moves: Mapping[str, str] = field(default_factory=dict)
    replaces: bool = False
    position: int = 1
    has_checksums: bool = True
    stats_percent: int = 5


@dataclass(frozen=True, slots=True)
class LogRestore:
    """Applying a log. ``stop_at``: a datetime literal of the source server's wall clock;
    ``stop_before``: a log position, nothing from which on is applied. At most one of them."""

    database: str
    devices: tuple[Device, ...]
    stop_at: str | None = None
    stop_before: int | None = None
    moves: Mapping[str, str] = field(default_factory=dict)
    position: int = 1
    has_checksums: bool = True
    stats_percent: int = 5


def source_clause(devices: Sequence[Device], position: int) -> str:
    """Where a backup set lies. A position is written only where a media holds several sets: from
    an object store it is not understood."""
    if position < 1:
        raise UsageError(f"a backup set is at position {position}", hint="positions begin at 1")
    return f"FROM {devices_clause(devices)} WITH " + (
        f"FILE = {position:d}, " if position > 1 else ""
    )


def data_statement(restore: DataRestore) -> str:
    """The text of one RESTORE DATABASE."""
    options = [
        "NORECOVERY",
        *(["REPLACE"] if restore.replaces else []),
        *_moves(restore.moves),
        *_endings(restore.has_checksums, restore.stats_percent),
        *region_option(restore.devices, "RESTORE_OPTIONS"),
    ]
    return (
        f"RESTORE DATABASE {identifier(restore.database)} "
        + source_clause(restore.devices, restore.position)
        + ", ".join(options)
    )


def log_statement(restore: LogRestore) -> str:
    """The text of one RESTORE LOG."""
    if restore.stop_at is not None and restore.stop_before is not None:
        raise UsageError("a log is applied up to an instant or up to a position, not both")
    options = [
        "NORECOVERY",
        *([f"STOPAT = {literal(restore.stop_at)}"] if restore.stop_at is not None else []),
        *(
            [f"STOPBEFOREMARK = {literal(f'lsn:{restore.stop_before:d}')}"]
            if restore.stop_before is not None
            else []
        ),
        *_moves(restore.moves),
        *_endings(restore.has_checksums, restore.stats_percent),
        *region_option(restore.devices, "RESTORE_OPTIONS"),
    ]
    return (
        f"RESTORE LOG {identifier(restore.database)} "
        + source_clause(restore.devices, restore.position)
        + ", ".join(options)
    )


def recover_statement(database: str) -> str:
    """Opens the database where it stands."""
    return f"RESTORE DATABASE {identifier(database)} WITH RECOVERY"


def disconnect_statement(database: str) -> str:
    """Ends every session in the database. Only administrators get in again: with SINGLE_USER the
    first session to come, whosever it is, would keep everybody else out."""
    return f"ALTER DATABASE {identifier(database)} SET RESTRICTED_USER WITH ROLLBACK IMMEDIATE"


def multi_user_statement(database: str) -> str:
    """Lets everybody in again."""
    return f"ALTER DATABASE {identifier(database)} SET MULTI_USER"


def _moves(moves: Mapping[str, str]) -> list[str]:
    return [f"MOVE {literal(logical)} TO {literal(path)}" for logical, path in moves.items()]


def _endings(has_checksums: bool, stats_percent: int) -> list[str]:
    return [
        *(["CHECKSUM"] if has_checksums else []),
        "STOP_ON_ERROR",
        f"STATS = {stats_percent:d}",
    ]
