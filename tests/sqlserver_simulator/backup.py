"""BACKUP DATABASE and BACKUP LOG.

Order of checks and messages as captured from SQL Server 2022 where it was; the rest by [D]
backup-transact-sql (sections named in the comments) and the error tables.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from . import media, permissions
from . import syntax as s
from .backupoptions import check_options, resolved
from .clock import on_datetime_grid
from .database import Database, DifferentialBase
from .devices import (
    Place,
    Writer,
    check_name,
    open_for_backup,
    read_existing,
)
from .errors import Dropped, Message, SqlError
from .events import Events, Info, Pause
from .media import CHUNK, BackupSet, Family, SetFile
from .progress import Stepper

if TYPE_CHECKING:
    from .session import Session

COMMAND = {"DATABASE": 228, "LOG": 235}


def terminating(what: str) -> Message:
    return Message(3013, f"{what} is terminating abnormally.")


def run(session: Session, statement: s.Backup) -> Events:
    """Everything but the DONE of the statement."""
    what = f"BACKUP {statement.kind}"
    try:
        yield from _Backup(session, statement).run()
    except SqlError as error:
        if error.ends_batch or error.ends_session:
            raise
        session.instance.error_log.append(f"BACKUP failed to complete the command {what}")
        raise error.followed_by(terminating(what)) from error


class _Backup:
    def __init__(self, session: Session, statement: s.Backup) -> None:
        self.session = session
        self.instance = session.instance
        self.statement = statement
        self.name = str(session.evaluate(statement.database))
        self.options = resolved(session, statement.options)
        self.is_log = statement.kind == "LOG"
        self.is_differential = not self.is_log and "DIFFERENTIAL" in self.options
        # COPY_ONLY with DIFFERENTIAL is ignored ([D] BACKUP, COPY_ONLY)
        self.is_copy_only = not self.is_differential and (
            "COPY_ONLY" in self.options or "NO_TRUNCATE" in self.options
        )
        self.is_tail = self.is_log and ("NORECOVERY" in self.options or "STANDBY" in self.options)
        self.places: list[Place] = []
        self.writers: list[Writer] = []
        self.turn = 0
        self.written = 0
        self.is_finished = False

    def run(self) -> Events:
        if self.session.in_transaction:
            raise SqlError(
                3021, "Cannot perform a backup or restore operation within a transaction.", 16, 0
            )
        database = self.instance.database(self.name)
        permissions.require_backup(self.session, database, self.statement.kind)
        self.places = [self.session.place(device) for device in self.statement.devices]
        check_options(self.session, self.statement, self.options, self.places)
        self._check_database(database)
        yield from self._wait_for_turn(database)
        with self._locked(database):
            yield from self._locked_run(database)

    # checks ------------------------------------------------------------------------------------
    def _check_database(self, database: Database) -> None:
        name = database.name
        if name == "tempdb":
            raise SqlError(
                3147, "Backup and restore operations are not allowed on database tempdb."
            )
        if database.source_database_id is not None:
            raise SqlError(3002, "Cannot BACKUP or RESTORE a database snapshot.")
        if name == "master" and self.is_log:
            raise SqlError(
                4212, "Cannot back up the log of the master database. Use BACKUP DATABASE instead."
            )
        if name == "master" and self.is_differential:
            raise SqlError(
                3024,
                "You can only perform a full backup of the master database. Use BACKUP DATABASE to "
                "back up the entire master database.",
            )
        self._check_replica(database)
        damaged_log = self.is_log and "NO_TRUNCATE" in self.options and database.state == "SUSPECT"
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
        if database.is_damaged and "CONTINUE_AFTER_ERROR" not in self.options and not self.is_log:
            raise SqlError(
                3043,
                f"BACKUP '{name}' detected an error on page (1:153) in file "
                f"'{database.files[0].physical_name}'.",
            )
        if self.is_log:
            self._check_log_chain(database)
        elif self.is_differential and database.differential_base is None:
            raise SqlError(
                3035,
                f'Cannot perform a differential backup for database "{name}", because a current '
                "database backup does not exist. Perform a full database backup by reissuing "
                "BACKUP DATABASE, omitting the WITH DIFFERENTIAL option.",
            )

    def _check_log_chain(self, database: Database) -> None:
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
        if self.is_tail and self.instance.users_of(database):
            raise SqlError(
                3101, "Exclusive access could not be obtained because the database is in use."
            )

    def _check_replica(self, database: Database) -> None:
        """On a secondary replica: only copy-only full and ordinary log backups ([D] "Offload
        supported backups to secondary replicas")."""
        group = self.instance.group_of(database)
        if group is None or group.is_primary(self.instance):
            if group is not None and self.is_tail:
                raise SqlError(
                    3104,
                    f"BACKUP cannot operate on database '{database.name}' because it is configured "
                    "for database mirroring or has joined an availability group.",
                )
            return
        allowed = (self.is_log and not self.is_copy_only) or (
            not self.is_log and self.is_copy_only and not self.is_differential
        )
        if not allowed:
            raise SqlError(
                3059,
                "This BACKUP or RESTORE command is not supported on a database mirror or secondary "
                "replica.",
            )
        if not group.is_synchronizing(self.instance):
            raise SqlError(
                3062,
                "Cannot backup from a HADRON secondary because it is not in Synchronizing or "
                "Synchronized state.",
            )

    # locks -------------------------------------------------------------------------------------
    def _wait_for_turn(self, database: Database) -> Events:
        """One data backup and one log backup at a time ([D] MSSQLSERVER_3023): wait for as long as
        LOCK_TIMEOUT says, then 3023."""
        waited = 0.0
        busy = SqlError(
            3023,
            "Backup, file manipulation operations (such as ALTER DATABASE ADD FILE) and encryption "
            "changes on a database must be serialized. Reissue the statement after the current "
            "backup or file manipulation operation is completed.",
            16,
            2,
        )
        for _ in self.instance.faults.take("busy", self._command(), database.name):
            raise busy
        while self._taken(database):
            limit = self.session.lock_timeout
            if limit is not None and waited >= limit:
                raise busy
            self.session.require_alive()
            waited += 0.02
            yield Pause(0.02)
            if self.instance.find(database.name) is not database:
                self.instance.database(self.name)

    def _taken(self, database: Database) -> bool:
        return (database.log_backup_by if self.is_log else database.data_backup_by) is not None

    @contextmanager
    def _locked(self, database: Database) -> Iterator[None]:
        if self.is_log:
            database.log_backup_by = self.session.number
        else:
            database.data_backup_by = self.session.number
        try:
            yield
        finally:
            if self.is_log:
                database.log_backup_by = None
            else:
                database.data_backup_by = None

    def _command(self) -> str:
        return f"BACKUP {self.statement.kind}"

    # the work ----------------------------------------------------------------------------------
    def _locked_run(self, database: Database) -> Events:
        begun = self.instance.clock.local()
        families, position = self._open_media(begun)
        try:
            yield from self._copy(database, families, position, begun)
        finally:
            if not self.is_finished:
                leave = self.instance.faults.leaves_partial_files
                for writer in self.writers:
                    writer.abort(leave=leave)

    def _open_media(self, begun: datetime) -> tuple[list[Family], int]:
        """The media set that the devices make: a new one, or the one that is there already
        ([D] BACKUP, Media set options)."""
        for place in self.places:
            check_name(place, backing_up=True)
        existing = (
            []
            if "FORMAT" in self.options
            else [read_existing(self.instance, place) for place in self.places]
        )
        found = [
            self._existing(data, place) for data, place in zip(existing, self.places, strict=False)
        ]
        present = [each for each in found if each is not None]
        compressed = self.options.get("COMPRESSION") is not None
        encrypted = "ENCRYPTION" in self.options
        if present:
            self._check_same_media(present)
            old = [each.family for each in present]
            compressed = old[0].is_compressed
            if compressed and "COMPRESSION" not in self.options:
                self.options["COMPRESSION"] = {}
            elif not compressed and self.options.pop("COMPRESSION", None) is not None:
                raise SqlError(
                    3098,
                    "The backup cannot be performed because 'COMPRESSION' was requested after "
                    "the media was formatted with an incompatible structure. To append to this "
                    "media set, either omit 'COMPRESSION' or specify 'NO_COMPRESSION'. "
                    "Alternatively, you can create a new media set by using WITH FORMAT in your "
                    "BACKUP statement.",
                )
            if encrypted:
                raise SqlError(3095, "The backup cannot be performed because 'ENCRYPTION' was "
                               "requested after the media was formatted with an incompatible "
                               "structure.")  # fmt: skip
            position = 1 if "INIT" in self.options else len(present[0].sets) + 1
            families = old
        else:
            media_set = uuid.uuid4()
            families = [
                Family(
                    media_set, number, len(self.places), uuid.uuid4(),
                    begun.replace(microsecond=0), compressed, encrypted,
                    self.options.get("MEDIANAME"), self.options.get("MEDIADESCRIPTION"),
                    int(self.options.get("BLOCKSIZE") or 4096),
                )
                for number in range(1, len(self.places) + 1)
            ]  # fmt: skip
            position = 1
        append = bool(present) and "INIT" not in self.options
        for place, family in zip(self.places, families, strict=True):
            try:
                writer = open_for_backup(self.instance, place, append=append, options=self.options)
            except SqlError:
                for opened in self.writers:
                    opened.abort(leave=False)
                raise
            self.writers.append(writer)
            if not append:
                writer.write(media.family_block(family))
        for writer in self.writers:
            writer.write(media.start_block(position))
        return families, position

    def _existing(self, data: bytes | None, place: Place) -> media.ReadFamily | None:
        if data is None:
            return None
        try:
            return media.read_family(data)
        except media.Unreadable:
            raise SqlError(
                3241,
                f"The media family on device '{place.name}' is incorrectly formed. SQL Server "
                "cannot process this media family.",
                16,
                0,
            ) from None

    def _check_same_media(self, present: list[media.ReadFamily]) -> None:
        count = present[0].family.count
        if len(present) != len(self.places) or count != len(self.places):
            raise SqlError(
                3231,
                f'The media loaded on "{self.places[0].name}" is formatted to support {count} '
                f"media families, but {len(self.places)} media families are expected according to "
                "the backup device specification.",
            )

    def _deal(self, data: bytes) -> None:
        for at in range(0, len(data), CHUNK):
            piece = data[at : at + CHUNK]
            self.writers[self.turn % len(self.writers)].write(media.data_block(piece))
            self.turn += 1
            self.written += len(piece)

    def _copy(
        self, database: Database, families: list[Family], position: int, begun: datetime
    ) -> Events:
        started = self.instance.clock.utc()
        shape = _Shape(self, database)
        compress = self.options.get("COMPRESSION") is not None
        body = media.segment(shape.content, shape.filler, compress=compress, seed=position)
        with shape.held():
            pieces = max(1, min(20, len(body) // CHUNK + 1))
            stepper = Stepper(
                self.session, self._command(), database, self.options.get("STATS"),
                COMMAND[self.statement.kind],
            )  # fmt: skip
            with stepper.running():
                size = -(-len(body) // pieces)
                sent = 0
                for fraction in stepper.fractions():
                    until = min(len(body), int(pieces * fraction) * size)
                    self._deal(body[sent:until])
                    sent = max(sent, until)
                    yield from stepper.at(fraction)
                self._deal(body[sent:])
                shape.finish()
                tail = media.segment(shape.tail, 0, compress=compress, seed=0)
                self._deal(tail)
                facts = self._facts(database, shape, position, begun, compress)
                for writer in self.writers:
                    writer.write(media.end_block(facts))
                for writer in self.writers:
                    writer.close()
                self._commit(database, shape, facts)
                self.is_finished = True
        self._record(facts, families)
        if self.instance.faults.take("drop_after", self._command(), database.name):
            raise Dropped
        yield from self._messages(database, shape, position, started)

    def _facts(
        self, database: Database, shape: _Shape, position: int, begun: datetime, compress: bool
    ) -> BackupSet:
        instance = self.instance
        finished = instance.clock.local()
        base = database.differential_base
        algorithm = None
        if compress and instance.version.has_compression_algorithm:
            chosen = self.options.get("COMPRESSION") or {}
            default = {2: "QAT_DEFLATE", 3: "ZSTD"}.get(
                instance.configuration["backup compression algorithm"], "MS_XPRESS"
            )
            algorithm = chosen.get("ALGORITHM", default)
        pages = shape.pages
        size = pages * 8192 + 71_680
        encryption = self.options.get("ENCRYPTION")
        expires = self.options.get("EXPIREDATE")
        if (days := self.options.get("RETAINDAYS")) is not None:
            expires = begun + timedelta(days=int(days))
        return BackupSet(
            backup_set_uuid=shape.uuid,
            type="L" if self.is_log else "I" if self.is_differential else "D",
            database_name=database.name,
            server_name=instance.server_name,
            machine_name=instance.machine_name,
            user_name=self.session.login.name,
            position=position,
            first_lsn=shape.first_lsn,
            last_lsn=shape.last_lsn,
            checkpoint_lsn=shape.checkpoint_lsn,
            database_backup_lsn=database.database_backup_lsn,
            database_creation_date=database.create_date,
            backup_start_date=begun.replace(microsecond=0),
            backup_finish_date=finished.replace(microsecond=0),
            time_zone=shape.time_zone,
            family_guid=database.family_guid,
            database_guid=database.database_guid,
            first_recovery_fork_guid=database.log_fork if self.is_log else database.fork,
            last_recovery_fork_guid=database.fork,
            fork_point_lsn=(
                database.fork_point if self.is_log and database.log_fork != database.fork else None
            ),
            recovery_model=database.recovery_model.replace("_", "-"),
            compatibility_level=database.compatibility,
            database_version=instance.version.database_version,
            software=instance.version.numbers,
            collation_name=database.collation,
            files=shape.files,
            name=self.options.get("NAME"),
            description=self.options.get("DESCRIPTION"),
            expiration_date=expires if isinstance(expires, datetime) else None,
            has_bulk_logged_data=self.is_log and shape.bulk,
            is_readonly=database.is_read_only,
            is_single_user=database.user_access == "SINGLE_USER",
            user_access=database.user_access,
            has_backup_checksums=bool(self.options.get("CHECKSUM")),
            is_damaged=database.is_damaged or database.state == "SUSPECT",
            begins_log_chain=self.is_log and database.chain_begins,
            has_incomplete_metadata=self.is_log and database.state == "SUSPECT",
            is_force_offline=self.is_tail,
            is_copy_only=self.is_copy_only,
            differential_base_lsn=base.lsn if self.is_differential and base else None,
            differential_base_guid=base.guid if self.is_differential and base else None,
            backup_size=size,
            compressed_backup_size=self.written if compress else size,
            is_compressed=compress,
            compression_algorithm=algorithm,
            key_algorithm=encryption["ALGORITHM"].lower() if encryption else None,
            encryptor_thumbprint=(
                instance.certificates[encryption["CERTIFICATE"]] if encryption else None
            ),
            encryptor_type="CERTIFICATE" if encryption else None,
            last_valid_restore_time=shape.last_commit if self.is_log else None,
            chain_lsn=shape.chain_lsn,
            finished_at=finished,
        )

    def _commit(self, database: Database, shape: _Shape, facts: BackupSet) -> None:
        """What a finished backup changes on the database."""
        if self.is_log:
            if not self.is_copy_only:
                database.last_log_backup_lsn = shape.last_lsn
                database.chain_begins = False
                database.has_bulk_changes = shape.bulk_again
                database.log_fork = database.fork
                database.fork_point = None
                database.truncate(shape.last_lsn)
            if self.is_tail:
                shape.leave_restoring(self.options.get("STANDBY"))
            return
        if not self.is_differential and not self.is_copy_only:
            database.differential_base = DifferentialBase(
                shape.checkpoint_lsn, facts.backup_set_uuid, on_datetime_grid(shape.begun)
            )
            database.database_backup_lsn = shape.checkpoint_lsn
        if (
            not self.is_copy_only
            and database.recovery_model != "SIMPLE"
            and database.last_log_backup_lsn is None
        ):
            database.last_log_backup_lsn = shape.first_lsn
            database.log_fork = database.fork
            database.fork_point = None
            database.chain_begins = (
                not self.is_differential
                or self.instance.unknowns.first_log_after_differential_begins_chain
            )

    def _record(self, facts: BackupSet, families: list[Family]) -> None:
        if self.instance.faults.msdb_fails:
            self.instance.error_log.append(
                "3009 Could not insert a backup or restore history/detail record in the msdb "
                "database. This may indicate a problem with the msdb database. The backup/restore "
                "operation was still successful."
            )
            return
        self.instance.history.record_backup(
            facts,
            [
                (family, place.logical, place.name, place.device_type)
                for family, place in zip(families, self.places, strict=True)
            ],
        )
        self.instance.error_log.append(
            f"{'Log was' if self.is_log else 'Database'} backed up. Database: {facts.database_name}"
        )

    def _messages(
        self, database: Database, shape: _Shape, position: int, started: datetime
    ) -> Events:
        own = COMMAND[self.statement.kind] if self.instance.unknowns.done_per_message else None
        for file in shape.files:
            if self.is_log and file.kind != "L":
                continue
            pages = shape.pages if (file.kind == "L") == self.is_log else 2
            text = (
                f"Processed {pages} pages for database '{database.name}', file "
                f"'{file.logical_name}' on file {position}."
            )
            if file.kind == "D" and file.file_id != 1:
                text = text.replace(f"Processed {pages} ", "Processed 8 ")
            yield Info(Message(4035, text, 10), own)
        what = f"BACKUP {self.statement.kind}"
        if self.is_differential:
            what += " WITH DIFFERENTIAL"
        yield Info(success(what, shape.pages, started, self.instance.clock.utc()))


def success(what: str, pages: int, started: datetime, ended: datetime) -> Message:
    """3014, as in "BACKUP DATABASE successfully processed 378 pages in 0.031 seconds (95.198
    MB/sec)."."""
    seconds = max((ended - started).total_seconds(), 0.001)
    rate = pages * 8192 / 1_048_576 / seconds
    return Message(
        3014,
        f"{what} successfully processed {pages} pages in {seconds:.3f} seconds "
        f"({rate:.3f} MB/sec).",
        10,
    )


class _Shape:
    """What one backup holds: LSNs, content and the tail of the log."""

    def __init__(self, backup: _Backup, database: Database) -> None:
        self.backup = backup
        self.database = database
        self.uuid = uuid.uuid4()
        self.begun = backup.instance.clock.local()
        self.time_zone = backup.instance.clock.quarter_hours()
        self.bulk = database.has_bulk_changes
        self.bulk_again = False
        self.last_commit: datetime | None = None
        self.tail: dict[str, Any] = {}
        self.chain_lsn = database.last_log_backup_lsn
        if backup.is_log:
            database.head.flush()
            assert database.last_log_backup_lsn is not None
            self.first_lsn = database.last_log_backup_lsn
            self.last_lsn = database.head.lsn
            self.checkpoint_lsn = _last_checkpoint(database)
            records = database.records(self.first_lsn, self.last_lsn)
            commits = [each.time for each in records if each.kind == "commit" and each.time]
            self.last_commit = commits[-1] if commits else None
            self.content: dict[str, Any] = {"records": records}
            self.pages = max(len(records) // 8, 2)
            self.filler = 0
        else:
            self.checkpoint_lsn = database.checkpoint()
            oldest = database.tables.oldest_open()
            self.first_lsn = min(oldest, self.checkpoint_lsn) if oldest else self.checkpoint_lsn
            self.last_lsn = self.first_lsn
            base = database.differential_base
            if backup.is_differential and base is not None:
                tables = database.tables.since(base.lsn)
                self.pages = 40 + tables.row_count()
                self.filler = database.filler_bytes // 20
            else:
                tables = database.tables.copy()
                self.pages = database.allocated_pages()
                self.filler = database.filler_bytes
            self.content = {"tables": tables}
        self.files = tuple(self._file(file) for file in database.files)

    def _file(self, file: Any) -> SetFile:
        base = self.database.differential_base if file.kind == "D" else None
        return SetFile(
            file.file_id, file.kind, file.logical_name, file.physical_name, file.filegroup,
            file.pages, file.guid, file.create_lsn, self.pages if file.kind == "D" else 0,
            file.max_pages, base.lsn if base else None, base.guid if base else None,
        )  # fmt: skip

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the log that a running data backup needs from being truncated."""
        hold = self.first_lsn
        self.database.holds.append(hold)
        try:
            yield
        finally:
            self.database.holds.remove(hold)

    def finish(self) -> None:
        """The end of the copy: a data backup adds the log written meanwhile."""
        if self.backup.is_log:
            return
        database = self.database
        database.write("other")
        database.head.flush()
        self.last_lsn = database.head.lsn
        self.tail = {"records": database.records(self.first_lsn, self.last_lsn)}

    def leave_restoring(self, standby: str | None) -> None:
        """A tail-log backup leaves the database restoring, rolled forward to its own end."""
        from .restoring import redo_of_tail

        redo_of_tail(self.database, self.last_lsn, self.last_commit, standby)


def _last_checkpoint(database: Database) -> int:
    for record in reversed(database.log):
        if record.kind == "checkpoint":
            return record.lsn
    return database.database_backup_lsn or database.log_from
