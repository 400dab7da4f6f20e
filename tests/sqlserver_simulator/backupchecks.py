"""What a BACKUP is asked for, and why the server would refuse it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .database import Database
from .devices import Place
from .errors import SqlError

if TYPE_CHECKING:
    from .instance import Instance
    from .session import Session


@dataclass(slots=True)
class BackupWish:
    """A BACKUP statement with its variables replaced."""

    session: Session
    kind: str
    name: str
    options: dict[str, Any]
    places: list[Place]

    @property
    def instance(self) -> Instance:
        return self.session.instance

    @property
    def command(self) -> str:
        return f"BACKUP {self.kind}"

    @property
    def is_log(self) -> bool:
        return self.kind == "LOG"

    @property
    def is_differential(self) -> bool:
        return not self.is_log and "DIFFERENTIAL" in self.options

    @property
    def is_copy_only(self) -> bool:
        """Ignored with DIFFERENTIAL; NO_TRUNCATE implies it ([D] BACKUP, COPY_ONLY and
        NO_TRUNCATE)."""
        if self.is_differential:
            return False
        return "COPY_ONLY" in self.options or "NO_TRUNCATE" in self.options

    @property
    def is_tail(self) -> bool:
        return self.is_log and ("NORECOVERY" in self.options or "STANDBY" in self.options)


def check_database(wish: BackupWish, database: Database) -> None:
    """SqlError where this backup of this database cannot be."""
    name = database.name
    if name == "tempdb":
        raise SqlError(3147, "Backup and restore operations are not allowed on database tempdb.")
    if database.source_database_id is not None:
        raise SqlError(3002, "Cannot BACKUP or RESTORE a database snapshot.")
    if name == "master" and wish.is_log:
        raise SqlError(
            4212, "Cannot back up the log of the master database. Use BACKUP DATABASE instead."
        )
    if name == "master" and wish.is_differential:
        raise SqlError(
            3024,
            "You can only perform a full backup of the master database. Use BACKUP DATABASE to "
            "back up the entire master database.",
        )
    _check_replica(wish, database)
    damaged_log = wish.is_log and "NO_TRUNCATE" in wish.options and database.state == "SUSPECT"
    if database.standby_file is not None:
        raise SqlError(
            3036,
            f'The database "{name}" is in warm-standby state (set by executing RESTORE WITH '
            "STANDBY) and cannot be backed up until the entire restore sequence is completed.",
        )
    if not damaged_log:
        if database.state == "EMERGENCY":
            raise SqlError(
                3033, "BACKUP DATABASE cannot be used on a database opened in emergency mode."
            )
        database.require_open()
    if database.is_damaged and "CONTINUE_AFTER_ERROR" not in wish.options and not wish.is_log:
        raise SqlError(
            3043,
            f"BACKUP '{name}' detected an error on page (1:153) in file "
            f"'{database.files[0].physical_name}'.",
        )
    if wish.is_log:
        _check_log_chain(wish, database)
    elif wish.is_differential and database.differential_base is None:
        raise SqlError(
            3035,
            f'Cannot perform a differential backup for database "{name}", because a current '
            "database backup does not exist. Perform a full database backup by reissuing "
            "BACKUP DATABASE, omitting the WITH DIFFERENTIAL option.",
        )


def _check_log_chain(wish: BackupWish, database: Database) -> None:
    if database.recovery_model == "SIMPLE":
        raise SqlError(
            4208,
            "The statement BACKUP LOG is not allowed while the recovery model is SIMPLE. Use "
            "BACKUP DATABASE or change the recovery model using ALTER DATABASE.",
        )
    if database.last_log_backup_lsn is None:
        raise SqlError(
            4214, "BACKUP LOG cannot be performed because there is no current database backup."
        )
    if wish.is_tail and wish.instance.users_of(database):
        raise SqlError(
            3101, "Exclusive access could not be obtained because the database is in use."
        )


def _check_replica(wish: BackupWish, database: Database) -> None:
    """On a secondary replica: only copy-only full and ordinary log backups ([D] "Offload
    supported backups to secondary replicas")."""
    group = wish.instance.group_of(database)
    if group is None or group.is_primary(wish.instance):
        if group is not None and wish.is_tail:
            raise SqlError(
                3104,
                f"BACKUP cannot operate on database '{database.name}' because it is configured "
                "for database mirroring or has joined an availability group.",
            )
        return
    allowed = (wish.is_log and not wish.is_copy_only) or (
        not wish.is_log and wish.is_copy_only and not wish.is_differential
    )
    if not allowed:
        raise SqlError(
            3059,
            "This BACKUP or RESTORE command is not supported on a database mirror or secondary "
            "replica.",
        )
    if not group.is_synchronizing(wish.instance):
        raise SqlError(
            3062,
            "Cannot backup from a HADRON secondary because it is not in Synchronizing or "
            "Synchronized state.",
        )
