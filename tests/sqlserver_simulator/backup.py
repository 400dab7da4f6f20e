"""BACKUP DATABASE and BACKUP LOG.

Order of checks and messages as captured from SQL Server 2022 where it was; the rest by [D]
backup-transact-sql (sections named in the comments) and the error tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from . import media, permissions
from . import syntax as s
from .backupchecks import BackupWish, check_database
from .backupfacts import facts_of
from .backupmedia import BackupMedia
from .backupoptions import check_options, resolved
from .backupshape import Shape
from .clock import on_datetime_grid
from .database import Database, DifferentialBase
from .errors import Dropped, Message, SqlError
from .events import Errors, Events, Info, Pause
from .media import CHUNK, BackupSet
from .progress import Stepper

if TYPE_CHECKING:
    from .instance import Instance
    from .session import Session

COMMAND = {"DATABASE": 228, "LOG": 235}


def terminating(what: str) -> Message:
    """What every failed BACKUP and RESTORE ends with (captured)."""
    return Message(3013, f"{what} is terminating abnormally.")


def run(session: Session, statement: s.Backup) -> Events:
    """Everything but the DONE of the statement."""
    what = f"BACKUP {statement.kind}"
    try:
        yield from _run(session, statement)
    except SqlError as error:
        if error.ends_batch or error.ends_session:
            raise
        session.instance.error_log.append(
            f"3041 BACKUP failed to complete the command {what}. Check the backup application log "
            "for detailed messages."
        )
        raise error.followed_by(terminating(what)) from error


def _run(session: Session, statement: s.Backup) -> Events:
    if session.in_transaction:
        raise SqlError(
            3021, "Cannot perform a backup or restore operation within a transaction.", 16, 0
        )
    name = str(session.evaluate(statement.database))
    database = session.instance.database(name)
    permissions.require_backup(session, database, statement.kind)
    options = resolved(session, statement.options)
    places = [session.place(device) for device in statement.devices]
    check_options(session, statement, options, places)
    wish = BackupWish(session, statement.kind, name, options, places)
    check_database(wish, database)
    yield from _wait_for_turn(wish, database)
    with _locked(wish, database):
        check_database(wish, database)
        yield from _take(wish, database)


def _wait_for_turn(wish: BackupWish, database: Database) -> Events:
    """One data backup and one log backup at a time ([D] MSSQLSERVER_3023): wait for as long as
    LOCK_TIMEOUT says, then 3023."""
    session, instance = wish.session, wish.instance
    waited = 0.0
    busy = SqlError(
        3023,
        "Backup, file manipulation operations (such as ALTER DATABASE ADD FILE) and encryption "
        "changes on a database must be serialized. Reissue the statement after the current "
        "backup or file manipulation operation is completed.",
        16,
        2,
    )
    for _ in instance.faults.take("busy", wish.command, database.name):
        raise busy
    while _is_busy(wish, database):
        if session.lock_timeout is not None and waited >= session.lock_timeout:
            raise busy
        session.require_alive()
        waited += 0.02
        yield Pause(0.02)
        if instance.find(database.name) is not database:
            raise SqlError(
                911,
                f"Database '{wish.name}' does not exist. Make sure that the name is entered "
                "correctly.",
                16,
                11,
            )


def _is_busy(wish: BackupWish, database: Database) -> bool:
    """Another of its kind runs, or one of the other kind on another replica: concurrent backups
    on two replicas are not supported ([D] "Offload supported backups to secondary replicas")."""
    same, other = database.data_backup_on, database.log_backup_on
    if wish.is_log:
        same, other = other, same
    return same[0] is not None or other[0] not in (None, wish.instance)


@contextmanager
def _locked(wish: BackupWish, database: Database) -> Iterator[None]:
    if wish.is_log:
        database.log_backup_on = wish.instance, wish.session.number
    else:
        database.data_backup_on = wish.instance, wish.session.number
    try:
        yield
    finally:
        if wish.is_log:
            database.log_backup_on = None, 0
        else:
            database.data_backup_on = None, 0


def _take(wish: BackupWish, database: Database) -> Events:
    instance = wish.instance
    begun, started = instance.clock.local(), instance.clock.utc()
    opened = BackupMedia(wish)
    is_finished = False
    try:
        opened.open(begun)
        shape = Shape(wish, database)
        with shape.held():
            yield from _copy(wish, database, opened, shape)
            shape.finish()
            compress = wish.options.get("COMPRESSION") is not None
            opened.deal(media.segment(shape.tail, 0, compress=compress, seed=0))
            facts = facts_of(wish, database, shape, opened, begun)
            opened.finish(facts)
            _commit(wish, database, shape, facts)
            is_finished = True
    finally:
        if not is_finished:
            opened.abort()
    yield from _record(wish, facts, opened)
    if instance.faults.take("drop_after", wish.command, database.name):
        raise Dropped
    yield from _messages(wish, database, shape, opened.position, started)


def _copy(wish: BackupWish, database: Database, opened: BackupMedia, shape: Shape) -> Events:
    """Write what the database held when it began, in step with the percentage."""
    compress = wish.options.get("COMPRESSION") is not None
    body = media.segment(shape.content, shape.filler, compress=compress, seed=opened.position)
    pieces = max(1, min(20, len(body) // CHUNK + 1))
    size = -(-len(body) // pieces)
    stepper = Stepper(
        wish.session, wish.command, database, wish.options.get("STATS"), COMMAND[wish.kind]
    )
    with stepper.running():
        sent = 0
        for fraction in stepper.fractions():
            until = min(len(body), int(pieces * fraction) * size)
            opened.deal(body[sent:until])
            sent = max(sent, until)
            yield from stepper.at(fraction)
        opened.deal(body[sent:])


def _commit(wish: BackupWish, database: Database, shape: Shape, facts: BackupSet) -> None:
    """What a finished backup changes on the database ([D] BACKUP: DIFFERENTIAL, COPY_ONLY,
    NORECOVERY; "Transaction Log Backups": the chain)."""
    if wish.is_log:
        if not wish.is_copy_only:
            database.last_log_backup_lsn = shape.last_lsn
            database.chain_begins = False
            database.log_fork = database.fork
            database.fork_point = None
            database.truncate(shape.last_lsn)
        if wish.is_tail:
            shape.leave_restoring(wish.options.get("STANDBY"))
        return
    if wish.is_copy_only:
        return
    if not wish.is_differential:
        database.differential_base = DifferentialBase(
            shape.checkpoint_lsn, facts.backup_set_uuid, on_datetime_grid(shape.begun)
        )
        database.database_backup_lsn = shape.checkpoint_lsn
    if database.recovery_model != "SIMPLE" and database.last_log_backup_lsn is None:
        database.last_log_backup_lsn = shape.first_lsn
        database.log_fork = database.fork
        database.fork_point = None
        unknowns = wish.instance.unknowns
        database.chain_begins = (
            not wish.is_differential or unknowns.first_log_after_differential_begins_chain
        )


def history_failure(instance: Instance) -> Events:
    """What is said where msdb takes no record: the statement is done all the same."""
    text = (
        "Could not insert a backup or restore history/detail record in the msdb database. This "
        "may indicate a problem with the msdb database. The backup/restore operation was still "
        "successful."
    )
    instance.error_log.append(f"3009 {text}")
    if instance.faults.msdb_failure_severity is not None:
        message = Message(3009, text, instance.faults.msdb_failure_severity)
        yield Errors([message]) if message.severity > 10 else Info(message)


def _record(wish: BackupWish, facts: BackupSet, opened: BackupMedia) -> Events:
    """Into msdb; where that fails the backup is good all the same (3009)."""
    instance = wish.instance
    if instance.faults.msdb_fails:
        yield from history_failure(instance)
        return
    instance.history.record_backup(
        facts,
        [
            (family, place.logical, place.name, place.device_type)
            for family, place in zip(opened.families, wish.places, strict=True)
        ],
    )
    what = "Log was" if wish.is_log else "Database"
    instance.error_log.append(f"{what} backed up. Database: {facts.database_name}")


def _messages(
    wish: BackupWish, database: Database, shape: Shape, position: int, started: datetime
) -> Events:
    """4035 a file (for a log the log's only), then 3014 (captured)."""
    own = COMMAND[wish.kind] if wish.instance.unknowns.done_per_message else None
    for file in shape.files:
        if wish.is_log and file.kind != "L":
            continue
        pages = 2
        if (file.kind == "L") == wish.is_log:
            pages = shape.pages if file.file_id == 1 or wish.is_log else 8
        text = (
            f"Processed {pages} pages for database '{database.name}', file "
            f"'{file.logical_name}' on file {position}."
        )
        yield Info(Message(4035, text, 10), own)
    if database.is_damaged and not wish.is_log:
        yield Info(
            Message(
                3042,
                "BACKUP WITH CONTINUE_AFTER_ERROR successfully generated a backup of the damaged "
                "database. Refer to the SQL Server error log for information about the errors that "
                "were encountered.",
                10,
            ),
            own,
        )
    what = wish.command + (" WITH DIFFERENTIAL" if wish.is_differential else "")
    yield Info(success(what, shape.pages, started, wish.instance.clock.utc()))


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
