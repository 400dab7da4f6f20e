"""The facts of a finished backup set."""

from __future__ import annotations

from datetime import datetime, timedelta

from .backupchecks import BackupWish
from .backupmedia import BackupMedia
from .backupshape import Shape
from .database import Database
from .media import BackupSet


def facts_of(
    wish: BackupWish, database: Database, shape: Shape, opened: BackupMedia, begun: datetime
) -> BackupSet:
    """All that the end of the set and msdb will say of this backup."""
    instance = wish.instance
    compress = wish.options.get("COMPRESSION") is not None
    finished = instance.clock.local()
    base = database.differential_base
    algorithm = None
    if compress and instance.version.has_compression_algorithm:
        chosen = wish.options.get("COMPRESSION") or {}
        default = {2: "QAT_DEFLATE", 3: "ZSTD"}.get(
            instance.configuration["backup compression algorithm"], "MS_XPRESS"
        )
        algorithm = chosen.get("ALGORITHM", default)
    pages = shape.pages
    # Uncompressed media are as large as the set says; ours are smaller than real ones.
    size = pages * 8192 + 71_680 if compress else opened.written
    encryption = wish.options.get("ENCRYPTION")
    expires = wish.options.get("EXPIREDATE")
    if (days := wish.options.get("RETAINDAYS")) is not None:
        expires = begun + timedelta(days=int(days))
    return BackupSet(
        backup_set_uuid=shape.uuid,
        type="L" if wish.is_log else "I" if wish.is_differential else "D",
        database_name=database.name,
        server_name=instance.server_name,
        machine_name=instance.machine_name,
        user_name=wish.session.login.name,
        position=opened.position,
        first_lsn=shape.first_lsn,
        last_lsn=shape.last_lsn,
        checkpoint_lsn=shape.checkpoint_lsn,
        database_backup_lsn=database.database_backup_lsn,
        database_creation_date=database.create_date,
        backup_start_date=begun.replace(microsecond=0),
        backup_finish_date=finished.replace(microsecond=0),
        time_zone=shape.time_zone,
        family_guid=database.family_guid,
        database_guid=instance.database_guid(database),
        first_recovery_fork_guid=database.log_fork if wish.is_log else database.fork,
        last_recovery_fork_guid=database.fork,
        fork_point_lsn=(
            database.fork_point if wish.is_log and database.log_fork != database.fork else None
        ),
        recovery_model=database.recovery_model.replace("_", "-"),
        compatibility_level=database.compatibility,
        database_version=instance.version.database_version,
        software=instance.version.numbers,
        collation_name=database.collation,
        files=shape.files,
        name=wish.options.get("NAME"),
        description=wish.options.get("DESCRIPTION"),
        expiration_date=expires if isinstance(expires, datetime) else None,
        has_bulk_logged_data=wish.is_log and shape.bulk,
        is_readonly=database.is_read_only,
        is_single_user=database.user_access == "SINGLE_USER",
        user_access=database.user_access,
        has_backup_checksums=bool(wish.options.get("CHECKSUM")),
        is_damaged=database.is_damaged and not wish.is_log,
        begins_log_chain=wish.is_log and database.chain_begins,
        has_incomplete_metadata=wish.is_log and database.state == "SUSPECT",
        is_force_offline=wish.is_tail,
        is_copy_only=wish.is_copy_only,
        differential_base_lsn=base.lsn if wish.is_differential and base else None,
        differential_base_guid=base.guid if wish.is_differential and base else None,
        backup_size=size,
        compressed_backup_size=opened.written if compress else size,
        is_compressed=compress,
        compression_algorithm=algorithm,
        key_algorithm=encryption["ALGORITHM"].lower() if encryption else None,
        encryptor_thumbprint=(
            instance.certificates[encryption["CERTIFICATE"]] if encryption else None
        ),
        encryptor_type="CERTIFICATE" if encryption else None,
        last_valid_restore_time=shape.last_commit if wish.is_log else None,
        chain_lsn=shape.chain_lsn,
        finished_at=finished,
    )
