"""The backup and restore history in msdb. Columns, order, types and flags of its tables as
captured from SQL Server 2022 (2016 to 2019 lack the last two columns of backupset)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from . import sqltypes as t
from .media import BackupSet, Family
from .sqltypes import IDENTITY, Column, Rowset, SqlType

if TYPE_CHECKING:
    from .database import Database
    from .instance import Instance

NUMERIC20 = t.decimal(20)
NUMERIC10 = t.decimal(10)


def columns_of(text: str) -> list[Column]:
    """``name type [flags]`` a line."""
    kinds: dict[str, SqlType] = {
        "int": t.INT, "tinyint": t.TINYINT, "smallint": t.SMALLINT, "bigint": t.BIGINT,
        "bit": t.BIT, "guid": t.GUID, "datetime": t.DATETIME, "lsn": t.LSN, "n20": NUMERIC20,
        "n10": NUMERIC10, "char1": t.char(1), "nchar1": t.nchar(1), "bin20": t.varbinary(20),
        "bin64": t.varbinary(64), "real": t.REAL,
    }  # fmt: skip
    found = []
    for line in text.strip().splitlines():
        name, kind, *flags = line.split()
        if kind.startswith("nv"):
            kinds[kind] = t.nvarchar(int(kind[2:]))
        found.append(Column(name, kinds[kind], int(flags[0]) if flags else 9))
    return found


BACKUPSET = columns_of(
    """
    backup_set_id int 16
    backup_set_uuid guid 8
    media_set_id int 8
    first_family_number tinyint
    first_media_number smallint
    last_family_number tinyint
    last_media_number smallint
    catalog_family_number tinyint
    catalog_media_number smallint
    position int
    expiration_date datetime
    software_vendor_id int
    name nv128
    description nv255
    user_name nv128
    software_major_version tinyint
    software_minor_version tinyint
    software_build_version smallint
    time_zone smallint
    mtf_minor_version tinyint
    first_lsn lsn
    last_lsn lsn
    checkpoint_lsn lsn
    database_backup_lsn lsn
    database_creation_date datetime
    backup_start_date datetime
    backup_finish_date datetime
    type char1
    sort_order smallint
    code_page smallint
    compatibility_level tinyint
    database_version int
    backup_size n20
    database_name nv128
    server_name nv128
    machine_name nv128
    flags int
    unicode_locale int
    unicode_compare_style int
    collation_name nv128
    is_password_protected bit
    recovery_model nv60
    has_bulk_logged_data bit
    is_snapshot bit
    is_readonly bit
    is_single_user bit
    has_backup_checksums bit
    is_damaged bit
    begins_log_chain bit
    has_incomplete_metadata bit
    is_force_offline bit
    is_copy_only bit
    first_recovery_fork_guid guid
    last_recovery_fork_guid guid
    fork_point_lsn lsn
    database_guid guid
    family_guid guid
    differential_base_lsn lsn
    differential_base_guid guid
    compressed_backup_size n20
    key_algorithm nv32
    encryptor_thumbprint bin20
    encryptor_type nv32
    last_valid_restore_time datetime
    compression_algorithm nv32
    """
)
BACKUPMEDIAFAMILY = columns_of(
    """
    media_set_id int 8
    family_sequence_number tinyint 8
    media_family_id guid
    media_count int
    logical_device_name nv128
    physical_device_name nv260
    device_type tinyint
    physical_block_size int
    mirror tinyint 8
    """
)
BACKUPMEDIASET = columns_of(
    """
    media_set_id int 16
    media_uuid guid
    media_family_count tinyint
    name nv128
    description nv255
    software_name nv128
    software_vendor_id int
    MTF_major_version tinyint
    mirror_count tinyint
    is_password_protected bit
    is_compressed bit
    is_encrypted bit
    """
)
BACKUPFILE = columns_of(
    """
    backup_set_id int 8
    first_family_number tinyint
    first_media_number smallint
    filegroup_name nv128
    page_size int
    file_number n10 8
    backed_up_page_count n10
    file_type char1
    source_file_block_size n10
    file_size n20
    logical_name nv128
    physical_drive nv260
    physical_name nv260
    state tinyint
    state_desc nv64
    create_lsn lsn
    drop_lsn lsn
    file_guid guid
    read_only_lsn lsn
    read_write_lsn lsn
    differential_base_lsn lsn
    differential_base_guid guid
    backup_size n20
    filegroup_guid guid
    is_readonly bit
    is_present bit
    """
)
RESTOREHISTORY = columns_of(
    """
    restore_history_id int 16
    restore_date datetime
    destination_database_name nv128
    user_name nv128
    backup_set_id int 8
    restore_type char1
    replace bit
    recovery bit
    restart bit
    stop_at datetime
    device_count tinyint
    stop_at_mark_name nv128
    stop_before bit
    """
)
RESTOREFILE = columns_of(
    """
    restore_history_id int 8
    file_number n10
    destination_phys_drive nv260
    destination_phys_name nv260
    """
)
assert BACKUPSET[0].flags & IDENTITY


@dataclass(slots=True)
class _Recorded:
    number: int
    media_set: int
    facts: BackupSet


class History:
    """Rows of msdb's backup tables."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.sets: list[_Recorded] = []
        self.media: dict[UUID, tuple[int, list[tuple[Family, str | None, str, int]]]] = {}
        self.restores: list[tuple[Any, ...]] = []
        self.restored_files: list[tuple[Any, ...]] = []
        self._next_set = 1
        self._next_media = 1
        self._next_restore = 1

    def record_backup(
        self, facts: BackupSet, families: list[tuple[Family, str | None, str, int]]
    ) -> int:
        """Add a set; ``families`` as (family, logical device, physical device, device type)."""
        uuid = families[0][0].media_set
        if uuid not in self.media:
            self.media[uuid] = (self._next_media, families)
            self._next_media += 1
        found = self.find(facts.backup_set_uuid)
        if found is not None:
            return found
        self.sets.append(_Recorded(self._next_set, self.media[uuid][0], facts))
        self._next_set += 1
        return self._next_set - 1

    def last_log_end(self, database: Database) -> int | None:
        """Where the newest log backup of a database that was taken here ended."""
        ends = [
            each.facts.last_lsn
            for each in self.sets
            if each.facts.type == "L" and each.facts.family_guid == database.family_guid
        ]
        return max(ends, default=None)

    def mark_last_as_snapshot(self) -> None:
        """Show the newest set as one of a VSS writer (device type 7, a GUID for a name)."""
        last = self.sets[-1]
        last.facts = replace(last.facts, is_snapshot=True)
        for number, families in self.media.values():
            if number == last.media_set:
                name = "{" + str(uuid4()).upper() + "}1"
                families[:] = [(family, None, name, 7) for family, *_ in families]

    def find(self, backup_set_uuid: UUID) -> int | None:
        for recorded in self.sets:
            if recorded.facts.backup_set_uuid == backup_set_uuid:
                return recorded.number
        return None

    def record_restore(
        self,
        *,
        date: datetime,
        database: str,
        user: str,
        set_number: int,
        kind: str,
        replace: bool = False,
        recovery: bool = True,
        restart: bool = False,
        stop_at: datetime | None = None,
        devices: int = 1,
        mark: str | None = None,
        before: bool | None = None,
        files: list[tuple[int, str]] | None = None,
    ) -> None:
        number = self._next_restore
        self._next_restore += 1
        self.restores.append(
            (
                number, date, database, user, set_number, kind, replace, recovery, restart,
                stop_at, devices, mark, before,
            )
        )  # fmt: skip
        for file_id, path in files or []:
            self.restored_files.append((number, file_id, _drive(path), path))

    def purge(self, database: str | None = None) -> None:
        """sp_delete_backuphistory and sp_delete_database_backuphistory."""
        self.sets = [
            each
            for each in self.sets
            if database is not None and each.facts.database_name.lower() != database.lower()
        ]
        kept = {each.media_set for each in self.sets}
        self.media = {key: value for key, value in self.media.items() if value[0] in kept}
        gone = {
            row[0]
            for row in self.restores
            if database is None or row[2].lower() == database.lower()
        }
        self.restores = [row for row in self.restores if row[0] not in gone]
        self.restored_files = [row for row in self.restored_files if row[0] not in gone]

    # rowsets -----------------------------------------------------------------------------------
    def rowset(self, table: str) -> Rowset | None:
        """The rows of one msdb table, or None if it is not one of these."""
        if table == "backupset":
            columns = BACKUPSET
            if not self.instance.version.has_compression_algorithm:
                columns = columns[:-2]
            return Rowset(columns, [self._set_row(each)[: len(columns)] for each in self.sets])
        if table == "backupmediafamily":
            rows = [
                (
                    number, family.number, family.family_id, 1, logical, physical, kind,
                    family.block_size, 0,
                )
                for number, families in self.media.values()
                for family, logical, physical, kind in families
            ]  # fmt: skip
            return Rowset(BACKUPMEDIAFAMILY, rows)
        if table == "backupmediaset":
            rows = [
                (
                    number, uuid, families[0][0].count, families[0][0].name,
                    families[0][0].description, "Microsoft SQL Server", 4608, 1, 1, False,
                    families[0][0].is_compressed, families[0][0].is_encrypted or None,
                )
                for uuid, (number, families) in self.media.items()
            ]  # fmt: skip
            return Rowset(BACKUPMEDIASET, rows)
        if table == "backupfile":
            rows = [row for each in self.sets for row in self._file_rows(each)]
            return Rowset(BACKUPFILE, rows)
        if table == "restorehistory":
            return Rowset(RESTOREHISTORY, list(self.restores))
        if table == "restorefile":
            return Rowset(RESTOREFILE, list(self.restored_files))
        return None

    def _set_row(self, recorded: _Recorded) -> tuple[Any, ...]:
        f = recorded.facts
        major, minor, build = f.software
        return (
            recorded.number, f.backup_set_uuid, recorded.media_set, 1, 1, 1, 1, 1, 1, f.position,
            f.expiration_date, 4608, f.name, f.description, f.user_name, major, minor, build,
            f.time_zone, 0, f.first_lsn, f.last_lsn, f.checkpoint_lsn, f.database_backup_lsn or 0,
            f.database_creation_date, f.backup_start_date, f.backup_finish_date, f.type, 52, 0,
            f.compatibility_level, f.database_version, f.backup_size, f.database_name,
            f.server_name, f.machine_name, f.flags, 1033, 196609, f.collation_name, False,
            f.recovery_model, f.has_bulk_logged_data, f.is_snapshot, f.is_readonly,
            f.is_single_user, f.has_backup_checksums, f.is_damaged, f.begins_log_chain,
            f.has_incomplete_metadata, f.is_force_offline, f.is_copy_only,
            f.first_recovery_fork_guid, f.last_recovery_fork_guid, f.fork_point_lsn,
            f.database_guid, f.family_guid, f.differential_base_lsn, f.differential_base_guid,
            f.compressed_backup_size, f.key_algorithm, f.encryptor_thumbprint, f.encryptor_type,
            f.last_valid_restore_time, f.compression_algorithm,
        )  # fmt: skip

    def _file_rows(self, recorded: _Recorded) -> list[tuple[Any, ...]]:
        return [
            (
                recorded.number, 1, 1, file.filegroup, 8192 if file.kind == "D" else None,
                file.file_id, file.backed_up_pages, file.kind, 4096, file.pages * 8192,
                file.logical_name, _drive(file.physical_name), file.physical_name, 0, "ONLINE",
                file.create_lsn, None, file.guid, None, None, file.base_lsn, file.base_guid,
                file.backed_up_pages * 8192, file.guid if file.kind == "D" else None, False, True,
            )
            for file in recorded.facts.files
        ]  # fmt: skip


def _drive(path: str) -> str:
    """On Linux too the drive is shown as C:\\ (captured)."""
    return path[:3] if path[1:2] == ":" else "C:\\"
