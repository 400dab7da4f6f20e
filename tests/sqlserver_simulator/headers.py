"""RESTORE HEADERONLY, FILELISTONLY, LABELONLY and VERIFYONLY.

Columns, order and wire types of the first two as captured from SQL Server 2022; HEADERONLY has 56
columns from 2014 to 2019 (it ends with EncryptorType) and 59 from 2022. LABELONLY by its page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from . import permissions
from . import syntax as s
from .backup import terminating
from .backupoptions import resolved
from .errors import Message, SqlError
from .events import Done, Events, Info, ResultSet
from .history import columns_of
from .instance import Instance
from .media import BackupSet, StoredSet
from .mediareading import OpenMedia, open_media
from .progress import Stepper
from .sqltypes import NULLABLE, Column, Rowset

if TYPE_CHECKING:
    from .session import Session

COMMAND = {"HEADERONLY": 250, "FILELISTONLY": 376, "LABELONLY": 375, "VERIFYONLY": 377}
_ROWSET = 230
_NO_GUID = UUID(int=0)


def _nullable(text: str) -> list[Column]:
    return [Column(each.name, each.type, NULLABLE) for each in columns_of(text)]


HEADER = _nullable(
    """
    BackupName nv128
    BackupDescription nv255
    BackupType tinyint
    ExpirationDate datetime
    Compressed tinyint
    Position smallint
    DeviceType tinyint
    UserName nv128
    ServerName nv128
    DatabaseName nv128
    DatabaseVersion int
    DatabaseCreationDate datetime
    BackupSize bigint
    FirstLSN lsn
    LastLSN lsn
    CheckpointLSN lsn
    DatabaseBackupLSN lsn
    BackupStartDate datetime
    BackupFinishDate datetime
    SortOrder smallint
    CodePage smallint
    UnicodeLocaleId int
    UnicodeComparisonStyle int
    CompatibilityLevel tinyint
    SoftwareVendorId int
    SoftwareVersionMajor int
    SoftwareVersionMinor int
    SoftwareVersionBuild int
    MachineName nv128
    Flags int
    BindingID guid
    RecoveryForkID guid
    Collation nv128
    FamilyGUID guid
    HasBulkLoggedData bit
    IsSnapshot bit
    IsReadOnly bit
    IsSingleUser bit
    HasBackupChecksums bit
    IsDamaged bit
    BeginsLogChain bit
    HasIncompleteMetaData bit
    IsForceOffline bit
    IsCopyOnly bit
    FirstRecoveryForkID guid
    ForkPointLSN lsn
    RecoveryModel nv60
    DifferentialBaseLSN lsn
    DifferentialBaseGUID guid
    BackupTypeDescription nv128
    BackupSetGUID guid
    CompressedBackupSize bigint
    Containment tinyint
    KeyAlgorithm nv32
    EncryptorThumbprint bin20
    EncryptorType nv32
    LastValidRestoreTime datetime
    TimeZone smallint
    CompressionAlgorithm nv32
    """
)
FILELIST = _nullable(
    """
    LogicalName nv128
    PhysicalName nv260
    Type nchar1
    FileGroupName nv128
    Size bigint
    MaxSize bigint
    FileId bigint
    CreateLSN lsn
    DropLSN lsn
    UniqueId guid
    ReadOnlyLSN lsn
    ReadWriteLSN lsn
    BackupSizeInBytes bigint
    SourceBlockSize int
    FileGroupId int
    LogGroupGUID guid
    DifferentialBaseLSN lsn
    DifferentialBaseGUID guid
    IsReadOnly bit
    IsPresent bit
    TDEThumbprint bin20
    SnapshotUrl nv336
    """
)
LABEL = _nullable(
    """
    MediaName nv128
    MediaSetId guid
    FamilyCount int
    FamilySequenceNumber int
    MediaFamilyId guid
    MediaSequenceNumber int
    MediaLabelPresent tinyint
    MediaDescription nv255
    SoftwareName nv128
    SoftwareVendorId int
    MediaDate datetime
    Mirror_Count int
    IsCompressed bit
    """
)
_TYPES = {
    "D": (1, "Database"),
    "L": (2, "Transaction Log"),
    "I": (5, "Database Differential"),
}


def run(session: Session, statement: s.Restore) -> Events:
    """The rowset or the verdict, without the DONE of the statement."""
    what = f"RESTORE {statement.kind}"
    try:
        permissions.require_headers(session)
        yield from _run(session, statement)
    except SqlError as error:
        if error.ends_batch or error.ends_session:
            raise
        raise error.followed_by(terminating(what)) from error


def _run(session: Session, statement: s.Restore) -> Events:
    instance = session.instance
    options = resolved(session, statement.options)
    places = [session.place(device) for device in statement.devices]
    opened = open_media(instance, places, options)
    if statement.kind == "VERIFYONLY":
        yield from _verify(session, opened, options)
        return
    if statement.kind == "HEADERONLY":
        chosen = options.get("FILE")
        rows = [
            _header(instance, opened, stored)
            for stored in opened.families[0].sets
            if chosen is None or stored.position == int(chosen)
        ]
        if chosen is not None and not rows:
            opened.stored(int(chosen))
        width = 59 if instance.version.has_compression_algorithm else 56
        rowset = Rowset(HEADER[:width], [row[:width] for row in rows])
    elif statement.kind == "FILELISTONLY":
        facts = opened.facts(int(options.get("FILE") or 1))
        rowset = Rowset(FILELIST, [_file(each, facts) for each in facts.files])
    else:
        rowset = Rowset(LABEL, [_label(opened)])
    yield ResultSet(rowset)
    yield Done(_ROWSET, len(rowset.rows))


def _header(instance: Instance, opened: OpenMedia, stored: StoredSet) -> tuple[Any, ...]:
    f = stored.facts
    if f is None:
        # a set that was never finished ([D] HEADERONLY: BackupName *** INCOMPLETE ***)
        row: list[Any] = [None] * len(HEADER)
        row[0], row[5] = "*** INCOMPLETE ***", stored.position
        return tuple(row)
    kind, description = _TYPES[f.type]
    zone = f.time_zone if f.type == "L" else instance.unknowns.zone_of_data_backups
    major, minor, build = f.software
    return (
        f.name, f.description, kind, f.expiration_date, int(f.is_compressed), stored.position,
        opened.places[0].device_type, f.user_name, f.server_name, f.database_name,
        f.database_version, f.database_creation_date, f.backup_size, f.first_lsn, f.last_lsn,
        f.checkpoint_lsn, f.database_backup_lsn or 0, f.backup_start_date, f.backup_finish_date,
        52, 0, 1033, 196609, f.compatibility_level, 4608, major, minor, build, f.machine_name,
        f.flags, f.database_guid, f.last_recovery_fork_guid, f.collation_name, f.family_guid,
        f.has_bulk_logged_data, f.is_snapshot, f.is_readonly, f.is_single_user,
        f.has_backup_checksums, f.is_damaged, f.begins_log_chain, f.has_incomplete_metadata,
        f.is_force_offline, f.is_copy_only, f.first_recovery_fork_guid, f.fork_point_lsn,
        f.recovery_model, f.differential_base_lsn, f.differential_base_guid, description,
        f.backup_set_uuid, f.compressed_backup_size, 0, f.key_algorithm, f.encryptor_thumbprint,
        f.encryptor_type, f.last_valid_restore_time, zone, f.compression_algorithm,
    )  # fmt: skip


def _file(file: Any, facts: BackupSet) -> tuple[Any, ...]:
    largest = 35184372080640 if file.kind != "L" else 2199023255552
    size = file.backed_up_pages * 8192 if file.kind == "D" and facts.type != "L" else 0
    return (
        file.logical_name, file.physical_name, file.kind, file.filegroup, file.pages * 8192,
        largest, file.file_id, file.create_lsn, 0, file.guid, 0, 0, size, 4096,
        1 if file.kind == "D" else 0, None, file.base_lsn or 0,
        file.base_guid or _NO_GUID, False, True, file.tde_thumbprint, None,
    )  # fmt: skip


def _label(opened: OpenMedia) -> tuple[Any, ...]:
    family = opened.families[0].family
    return (
        family.name, family.media_set, family.count, family.number, family.family_id, 1, 1,
        family.description, "Microsoft SQL Server", 4608, family.date, 1, family.is_compressed,
    )  # fmt: skip


def _verify(session: Session, opened: OpenMedia, options: dict[str, Any]) -> Events:
    position = int(options.get("FILE") or 1)
    opened.require_all()
    facts = opened.facts(position)
    if "CHECKSUM" in options and not facts.has_backup_checksums:
        raise SqlError(
            3187,
            "RESTORE WITH CHECKSUM cannot be specified because the backup set does not contain "
            "checksum information.",
        )
    require_certificate(session.instance, facts)
    stepper = Stepper(session, "RESTORE VERIFYON", facts.database_name, options.get("STATS"), 377)
    with stepper.running():
        for fraction in stepper.fractions():
            yield from stepper.at(fraction)
        opened.contents(position)
    yield Info(Message(3262, f"The backup set on file {position} is valid.", 10))
    if "LOADHISTORY" in options:
        families = [
            (each.family, place.logical, place.name, place.device_type)
            for place, each in zip(opened.places, opened.families, strict=True)
        ]
        session.instance.history.record_backup(facts, families)


def require_certificate(instance: Instance, facts: BackupSet) -> None:
    """33111 unless the server holds the certificates of an encrypted backup and of TDE."""
    wanted = {facts.encryptor_thumbprint, *(file.tde_thumbprint for file in facts.files)}
    for thumbprint in wanted - {None}:
        if thumbprint is not None and thumbprint not in instance.certificates.values():
            raise SqlError(
                33111,
                f"Cannot find server certificate with thumbprint '0x{thumbprint.hex().upper()}'.",
                16,
                3,
            )
