"""What a RESTORE is refused for, before it touches anything."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from . import syntax as s
from .database import Database, DatabaseFile
from .errors import Message, SqlError
from .media import BackupSet
from .values import to_datetime

if TYPE_CHECKING:
    from .instance import Instance
    from .recovery import Stop
    from .session import Session


def check_options(options: dict[str, Any]) -> None:
    """Conflicts ([D] RESTORE, Arguments)."""
    for one, two in (
        ("RECOVERY", "NORECOVERY"), ("RECOVERY", "STANDBY"), ("NORECOVERY", "STANDBY"),
        ("CHECKSUM", "NO_CHECKSUM"), ("KEEP_CDC", "NORECOVERY"), ("KEEP_REPLICATION", "NORECOVERY"),
        ("STOPAT", "STOPATMARK"), ("STOPAT", "STOPBEFOREMARK"),
    ):  # fmt: skip
        if one in options and two in options:
            raise SqlError(
                3031, f"Option '{one.lower()}' conflicts with option(s) '{two.lower()}'. "
                "Remove the conflicting option and reissue the statement."
            )  # fmt: skip
    stats = options.get("STATS")
    if stats is not None and not 1 <= int(stats) <= 100:
        raise SqlError(3250, f"The value '{stats}' is not within range for the STATS parameter.")


def check_existing(
    session: Session,
    database: Database | None,
    facts: BackupSet,
    name: str,
    options: dict[str, Any],
    is_log: bool,
) -> None:
    """The target as it is: system databases, availability groups, sessions, another family, a tail
    of the log that was not backed up."""
    instance = session.instance
    if name.lower() == "tempdb":
        raise SqlError(3147, "Backup and restore operations are not allowed on database tempdb.")
    if name.lower() == "master":
        raise SqlError(
            3108,
            "To restore the master database, the server must be running in single-user mode. For "
            'information on starting in single-user mode, see "How to: Start an Instance of SQL '
            'Server (sqlservr.exe)" in Books Online.',
        )
    if database is None:
        return
    group = instance.group_of(database)
    if group is not None:
        raise SqlError(
            3104,
            f"RESTORE cannot operate on database '{name}' because it is configured for database "
            "mirroring or has joined an availability group. If you intend to restore the database, "
            "use ALTER DATABASE to remove mirroring or to remove the database from its "
            "availability group.",
        )
    if session.database is database:
        raise SqlError(
            3102,
            f"RESTORE cannot process database '{name}' because it is in use by this session. It is "
            "recommended that the master database be used when performing this operation.",
        )
    if instance.users_of(database, but=session) or database.data_backup_by is not None:
        raise SqlError(
            3101, "Exclusive access could not be obtained because the database is in use."
        )
    if "REPLACE" not in options and database.family_guid != facts.family_guid:
        raise SqlError(
            3154,
            "The backup set holds a backup of a database other than the existing "
            f"'{database.name}' database.",
            16,
            4,
        )
    if is_log or facts.type != "D":
        return
    if "REPLACE" not in options and database.state == "ONLINE" and database.is_chain_running:
        _check_tail(database, options)


def _check_tail(database: Database, options: dict[str, Any]) -> None:
    """A tail that was not backed up: 3159, and with STOPAT 3173 where the instant lies in it."""
    stop = options.get("STOPAT")
    if stop is None:
        raise SqlError(
            3159,
            f'The tail of the log for the database "{database.name}" has not been backed up. Use '
            "BACKUP LOG WITH NORECOVERY to backup the log if it contains work you do not want to "
            "lose. Use the WITH REPLACE or WITH STOPAT clause of the RESTORE statement to just "
            "overwrite the contents of the log.",
        )
    moment = stop if isinstance(stop, datetime) else to_datetime(str(stop))
    start = database.last_log_backup_lsn or 0
    if any(
        record.kind == "commit" and record.lsn >= start and record.time and record.time <= moment
        for record in database.log
    ):
        raise SqlError(
            3173,
            "The STOPAT clause provided with this RESTORE statement indicates that the tail of the "
            "log contains changes that must be backed up to reach the target point in time. The "
            f'tail of the log for the database "{database.name}" has not been backed up. Use '
            "BACKUP LOG WITH NORECOVERY to back up the log, or use the WITH REPLACE clause in your "
            "RESTORE statement to overwrite the tail of the log.",
        )


def check_stop_of_data(stop: Stop | None, facts: BackupSet) -> None:
    """A data backup is restored whole; STOPAT with it only asserts that it is not past the instant
    (4338), and is nothing for SIMPLE databases (3145)."""
    if stop is None or stop.time is None:
        return
    if facts.recovery_model == "SIMPLE":
        raise SqlError(
            3145,
            "The STOPAT option is not supported for databases that use the SIMPLE recovery model.",
        )
    if stop.time < facts.backup_finish_date:
        raise SqlError(
            4338,
            "The STOPAT clause specifies a point too early to allow this backup set to be "
            "restored. Choose a different stop point or use RESTORE DATABASE WITH RECOVERY to "
            "recover at the current point.",
        )


def check_damage(database: Database | None, facts: BackupSet, options: dict[str, Any]) -> None:
    """A backup of a damaged database is restored WITH CONTINUE_AFTER_ERROR only (3182), and all
    that follows it too (4323)."""
    if "CONTINUE_AFTER_ERROR" in options:
        return
    if facts.is_damaged:
        raise SqlError(
            3182,
            "The backup set cannot be restored because the database was damaged when the backup "
            "occurred. Salvage attempts may exploit WITH CONTINUE_AFTER_ERROR.",
        )
    redo = database.redo if database is not None and facts.type != "D" else None
    if redo is not None and redo.after_error:
        raise SqlError(
            4323,
            "A previous RESTORE WITH CONTINUE_AFTER_ERROR operation left the database in a "
            "potentially damaged state. To continue this RESTORE sequence, all further steps must "
            "include the CONTINUE_AFTER_ERROR option.",
        )


def _check_interrupted(database: Database, facts: BackupSet) -> None:
    redo = database.redo
    if redo is None or redo.interrupted in {None, facts.backup_set_uuid}:
        return
    log = next(file.logical_name for file in database.files if file.kind == "L")
    raise SqlError(
        4319,
        "A previous restore operation was interrupted and did not complete processing on file "
        f"'{log}'. Either restore the backup set that was interrupted or restart the restore "
        "sequence.",
    )


def planned_files(
    session: Session,
    name: str,
    database: Database | None,
    facts: BackupSet,
    statement: s.Restore,
    already: list[DatabaseFile] | None = None,
) -> list[DatabaseFile]:
    """Where each file goes: MOVE, else where it was. Errors 3234, 3176, 1834 with 3156, 3119.

    ``already`` are the files of a database that is being rolled forward: they stay where they are,
    and only those that the log or differential adds are planned ([D] RESTORE: MOVE is needed with
    RESTORE LOG for files that were added within that log)."""
    instance = session.instance
    moves: dict[str, str] = {}
    known = {file.logical_name.lower() for file in facts.files}
    for logical, physical in statement.moves:
        wanted = str(session.evaluate(logical))
        if wanted.lower() not in known:
            raise SqlError(
                3234,
                f"Logical file '{wanted}' is not part of database '{name}'. Use RESTORE "
                "FILELISTONLY to list the logical file names.",
                16,
                2,
            )
        moves[wanted.lower()] = str(session.evaluate(physical))
    found = []
    problems: list[Message] = []
    claimed: dict[str, tuple[str, int]] = {}
    present = {file.file_id for file in already or ()}
    added = [file for file in facts.files if file.file_id not in present]
    for file in added:
        path = moves.get(file.logical_name.lower(), file.physical_name)
        owner = instance.file_owner(path, but=database)
        if path.lower() in claimed:
            other, number = claimed[path.lower()]
            problems.append(
                Message(
                    3176,
                    f"File '{path}' is claimed by '{file.logical_name}'({file.file_id}) and "
                    f"'{other}'({number}). The WITH MOVE clause can be used to relocate one "
                    "or more files.",
                )
            )
        claimed[path.lower()] = (file.logical_name, file.file_id)
        if owner is not None:
            problems += [
                Message(
                    1834,
                    f"The file '{path}' cannot be overwritten.  It is being used by database "
                    f"'{owner.name}'.",
                ),
                _use_move(file.logical_name, path),
            ]
        elif not _folder_exists(instance, path):
            problems += [
                Message(
                    5133,
                    f'Directory lookup for the file "{path}" failed with the operating system '
                    "error 2(The system cannot find the file specified.).",
                ),
                _use_move(file.logical_name, path),
            ]
        found.append(
            DatabaseFile(
                file.file_id, file.kind, file.logical_name, path, file.pages, file.filegroup,
                file.guid, file.create_lsn, file.max_pages,
            )
        )  # fmt: skip
    if problems:
        first = problems[0]
        error = SqlError(first.number, first.text, first.severity, first.state)
        error.followed_by(
            *problems[1:],
            Message(
                3119,
                "Problems were identified while planning for the RESTORE statement. Previous "
                "messages provide details.",
            ),
        )
        raise error
    needed = sum(file.pages for file in added) * 8192
    free = instance.faults.free_data_bytes
    if free is not None and free < needed:
        raise SqlError(
            3257,
            f"There is insufficient free space on disk volume '{found[0].physical_name[:3]}' to "
            f"create the database. The database requires {needed - free} additional free bytes, "
            f"while only {free} bytes are available.",
        )
    return [*(already or ()), *found]


def _use_move(logical: str, path: str) -> Message:
    return Message(
        3156,
        f"File '{logical}' cannot be restored to '{path}'. Use WITH MOVE to identify a valid "
        "location for the file.",
        16,
        4,
    )


def _folder_exists(instance: Instance, path: str) -> bool:
    """Database files are not kept; their folders are the data folder and the mapped ones."""
    folder = path.replace("\\", "/").rpartition("/")[0].lower()
    known = [instance.data_path, *instance.data_folders, *instance.folders]
    return any(folder == each.replace("\\", "/").rstrip("/").lower() for each in known)


def check_differential(database: Database | None, name: str, facts: BackupSet) -> Database:
    """A differential needs its own base, not yet beyond it. Errors 3118, 3117, 3136, 3120, 4330."""
    target = _restoring(database, name)
    redo = target.redo
    assert redo is not None
    _check_interrupted(target, facts)
    if redo.base is None or redo.base.guid != facts.differential_base_guid:
        raise SqlError(
            3136,
            "This differential backup cannot be restored because the database has not been "
            "restored to the correct earlier state.",
        )
    if redo.lsn > facts.last_lsn:
        raise SqlError(
            3120,
            "This backup set will not be restored because all data has already been restored to a "
            "point beyond the time covered by this backup set.",
        )
    if not redo.full_only and redo.fork != facts.last_recovery_fork_guid:
        raise inconsistent_path()
    return target


def _restoring(database: Database | None, name: str) -> Database:
    if database is None:
        raise SqlError(
            3118,
            f'The database "{name}" does not exist. RESTORE can only create a database when '
            "restoring either a full backup or a file backup of the primary file.",
        )
    if (database.state != "RESTORING" and database.standby_file is None) or database.redo is None:
        raise SqlError(
            3117,
            "The log or differential backup cannot be restored because no files are ready to "
            "rollforward.",
        )
    return database


def inconsistent_path() -> SqlError:
    return SqlError(
        4330,
        "This backup set cannot be applied because it is on a recovery path that is inconsistent "
        "with the database. The recovery path is the sequence of data and log backups that have "
        "brought the database to a particular recovery point. Find a compatible backup to restore, "
        "or restore the rest of the database to match a recovery point within this backup set, "
        "which will restore the database to a different point in time.  For more information about "
        "recovery paths, see SQL Server Books Online.",
    )


def check_log(
    instance: Instance,
    database: Database | None,
    name: str,
    facts: BackupSet,
    device: str,
    stop: Stop | None,
) -> Database:
    """A log must hold the position that the database stands at, on its recovery path. Errors 3118,
    3117, 3135, 4305, 4326, 4330, 4335."""
    target = _restoring(database, name)
    redo = target.redo
    assert redo is not None
    if facts.type != "L":
        kind = "BACKUP DATABASE WITH DIFFERENTIAL" if facts.type == "I" else "BACKUP DATABASE"
        raise SqlError(
            3135,
            f"The backup set in file '{device}' was created by {kind} and cannot be used for this "
            "restore operation.",
        )
    _check_interrupted(target, facts)
    too_early = facts.last_lsn < redo.lsn or (
        facts.last_lsn == redo.lsn and not instance.unknowns.empty_log_restores
    )
    if too_early:
        raise SqlError(
            4326,
            f"The log in this backup set terminates at LSN {facts.last_lsn}, which is too early to "
            "apply to the database. A more recent log backup that includes LSN "
            f"{redo.lsn} can be restored.",
        )
    if facts.first_lsn > redo.lsn:
        raise SqlError(
            4305,
            f"The log in this backup set begins at LSN {facts.first_lsn}, which is too recent to "
            "apply to the database. An earlier log backup that includes LSN "
            f"{redo.lsn} can be restored.",
        )
    point = facts.fork_point_lsn
    fork = (
        facts.first_recovery_fork_guid
        if point is not None and redo.lsn <= point
        else facts.last_recovery_fork_guid
    )
    if redo.fork != fork:
        raise inconsistent_path()
    time = stop.time if stop is not None else None
    if time is not None and redo.time is not None and time < redo.time:
        raise SqlError(
            4335,
            "The specified STOPAT time is too early. All or part of the database is already "
            "rolled forward beyond that point.",
        )
    return target
