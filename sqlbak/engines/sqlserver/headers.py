"""One backup set as its header tells it (RESTORE HEADERONLY), live or from a manifest. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeVar

from sqlbak.engines.sqlserver.rows import Row, cell, guid, instant, lsn, number, text
from sqlbak.errors import BackupFailed
from sqlbak.model import PointType

__all__ = ["BackupHeader", "read_header"]

_TYPES: Final = {1: PointType.FULL, 2: PointType.LOG, 5: PointType.DIFFERENTIAL}


@dataclass(frozen=True, slots=True)
class BackupHeader:
    """What decides whether and where a backup set chains. GUIDs are lower case; dates are the
    source server's wall clock, cut to whole seconds.

    Attributes:
        type: None: neither a full, a differential nor a log of a whole database.
        base_guid: differential only: the set of its full.
        last_commit: log only, from 2022 on: when the last transaction in it committed.
        stored_bytes: what the set takes on its media.
    """

    name: str
    description: str
    database: str
    type: PointType | None
    set_guid: str
    family: str
    binding: str | None
    first_fork: str
    fork: str
    fork_lsn: int | None
    first_lsn: int
    last_lsn: int
    checkpoint_lsn: int | None
    full_checkpoint_lsn: int | None
    base_guid: str | None
    base_lsn: int | None
    started: datetime
    finished: datetime
    last_commit: datetime | None
    position: int
    recovery_model: str
    is_copy_only: bool
    is_damaged: bool
    is_snapshot: bool
    has_checksums: bool
    has_bulk_logged: bool
    begins_log_chain: bool
    stored_bytes: int


_T = TypeVar("_T")


def _needed(value: _T | None, column: str) -> _T:
    if value is None:
        raise BackupFailed(
            f"the backup's header has no {column}", hint="the backup file is damaged"
        )
    return value


def read_header(row: Row) -> BackupHeader:
    """Read one row. BackupFailed when a column that every version has is missing or NULL."""

    def flag(column: str) -> bool:
        return bool(cell(row, column))

    fork = guid(row, "RecoveryForkID") or guid(row, "FirstRecoveryForkID")
    first_fork = guid(row, "FirstRecoveryForkID") or fork
    kind = _needed(number(row, "BackupType"), "BackupType")
    return BackupHeader(
        name=text(row, "BackupName") or "",
        description=text(row, "BackupDescription") or "",
        database=_needed(text(row, "DatabaseName"), "DatabaseName"),
        type=_TYPES.get(kind),
        set_guid=_needed(guid(row, "BackupSetGUID"), "BackupSetGUID"),
        family=_needed(guid(row, "FamilyGUID"), "FamilyGUID"),
        binding=guid(row, "BindingID"),
        first_fork=_needed(first_fork, "FirstRecoveryForkID"),
        fork=_needed(fork, "RecoveryForkID"),
        fork_lsn=lsn(row, "ForkPointLSN") or None,
        first_lsn=_needed(lsn(row, "FirstLSN"), "FirstLSN"),
        last_lsn=_needed(lsn(row, "LastLSN"), "LastLSN"),
        checkpoint_lsn=lsn(row, "CheckpointLSN"),
        full_checkpoint_lsn=lsn(row, "DatabaseBackupLSN") or None,
        base_guid=guid(row, "DifferentialBaseGUID"),
        base_lsn=lsn(row, "DifferentialBaseLSN"),
        started=_needed(instant(row, "BackupStartDate"), "BackupStartDate"),
        finished=_needed(instant(row, "BackupFinishDate"), "BackupFinishDate"),
        last_commit=instant(row, "LastValidRestoreTime"),
        position=number(row, "Position") or 1,
        recovery_model=text(row, "RecoveryModel") or "",
        is_copy_only=flag("IsCopyOnly"),
        is_damaged=flag("IsDamaged"),
        is_snapshot=flag("IsSnapshot"),
        has_checksums=flag("HasBackupChecksums"),
        has_bulk_logged=flag("HasBulkLoggedData"),
        begins_log_chain=flag("BeginsLogChain"),
        stored_bytes=number(row, "CompressedBackupSize") or number(row, "BackupSize") or 0,
    )
