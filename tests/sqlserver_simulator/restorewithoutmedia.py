"""RESTORE that reads no backup: recovering, and reverting to a database snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .backup import success
from .clock import on_datetime_grid
from .errors import Message, SqlError
from .events import Events, Info
from .recovery import recover

if TYPE_CHECKING:
    from .session import Session


def recover_only(session: Session, name: str, *, recovers: bool) -> Events:
    """RESTORE DATABASE without FROM: open what stands restoring."""
    instance = session.instance
    database = instance.find(name)
    if database is None:
        instance.database(name)  # 911
        return
    if database.state != "RESTORING" and database.standby_file is None:
        raise SqlError(3153, "The database is already fully recovered.", 16, 2)
    if not recovers:
        raise SqlError(3207, "Backup or restore requires at least one backup device. Rerun "
                       "your statement specifying a backup device.")  # fmt: skip
    redo = database.redo
    if redo is None or redo.interrupted is not None:
        raise SqlError(4333, "The database cannot be recovered because the log was not restored.")
    if database.standby_file is not None and instance.users_of(database):
        raise SqlError(
            3101, "Exclusive access could not be obtained because the database is in use."
        )
    started = instance.clock.utc()
    recover(instance, database)
    yield Info(success("RESTORE DATABASE", 0, started, instance.clock.utc()))


def revert(session: Session, name: str, snapshot_name: str) -> Events:
    """FROM DATABASE_SNAPSHOT: the log is rebuilt, so the log chain ends ([D] "Revert a
    Database to a Database Snapshot")."""
    instance = session.instance
    database = instance.find(name)
    snapshot = instance.find(snapshot_name)
    if database is None or snapshot is None or (
        snapshot.source_database_id != database.database_id
    ):  # fmt: skip
        raise SqlError(
            3137,
            "Database cannot be reverted. Either the primary or the snapshot names are improperly "
            "specified, all other snapshots have not been dropped, or there are missing files.",
        )
    if instance.users_of(database):
        raise SqlError(
            3101, "Exclusive access could not be obtained because the database is in use."
        )
    database.tables = snapshot.tables.copy()
    database.log = []
    database.log_from = database.head.lsn
    database.last_log_backup_lsn = None
    database.chain_begins = False
    database.differential_base = None
    instance.history.record_restore(
        date=on_datetime_grid(instance.clock.local()), database=name,
        user=session.login.name, set_number=0, kind="R",
    )  # fmt: skip
    yield Info(Message(3211, "100 percent processed.", 10), 229)
