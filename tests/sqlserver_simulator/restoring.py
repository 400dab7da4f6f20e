"""RESTORE DATABASE and RESTORE LOG: planning, rolling forward, stopping, recovering.

The rules and their messages: [D] restore-statements-transact-sql, its arguments page, "Restore a
SQL Server Database to a Point in Time", "Recovery Paths", and the error tables; what was captured
from SQL Server 2022 is marked in the conformance cases of these tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from . import permissions
from . import syntax as s
from .backup import history_failure, success, terminating
from .backupoptions import resolved
from .clock import last_tick, on_datetime_grid
from .database import Database, DatabaseFile, DifferentialBase, Redo
from .errors import Dropped, Message, SqlError
from .events import Events, Info
from .headers import require_certificate
from .media import BackupSet
from .mediareading import OpenMedia, open_media
from .progress import Stepper
from .recovery import Stop, lsn_of_mark, recover
from .restorechecks import (
    check_damage,
    check_differential,
    check_existing,
    check_log,
    check_options,
    check_stop_of_data,
    planned_files,
)
from .restorewithoutmedia import recover_only, revert
from .store import LogRecord, Tables
from .values import to_datetime

if TYPE_CHECKING:
    from .session import Session

COMMAND = {"DATABASE": 229, "LOG": 236}


def run(session: Session, statement: s.Restore) -> Events:
    """Everything but the DONE of the statement."""
    what = f"RESTORE {statement.kind}"
    try:
        yield from _Restore(session, statement).run()
    except SqlError as error:
        if error.ends_batch or error.ends_session:
            raise
        raise error.followed_by(terminating(what)) from error


class _Restore:
    def __init__(self, session: Session, statement: s.Restore) -> None:
        self.session = session
        self.instance = session.instance
        self.statement = statement
        assert statement.database is not None
        self.name = str(session.evaluate(statement.database))
        self.options = resolved(session, statement.options)
        self.is_log = statement.kind == "LOG"
        self.stop = self._stop()
        self.created: Database | None = None

    def _stop(self) -> Stop | None:
        value = self.options.get("STOPAT")
        if value is not None:
            moment = value if isinstance(value, datetime) else to_datetime(str(value))
            return Stop(time=on_datetime_grid(moment))
        for name in ("STOPATMARK", "STOPBEFOREMARK"):
            if (pair := self.options.get(name)) is not None:
                mark = pair[0]
                text = str(self.session.evaluate(mark) if isinstance(mark, s.Expression) else mark)
                if text.lower().startswith("lsn:"):
                    return Stop(lsn=lsn_of_mark(text[4:]), before=name == "STOPBEFOREMARK")
                return Stop(mark=text, before=name == "STOPBEFOREMARK")
        return None

    @property
    def recovers(self) -> bool:
        return "NORECOVERY" not in self.options and "STANDBY" not in self.options

    def run(self) -> Events:
        if self.session.in_transaction:
            raise SqlError(
                3021, "Cannot perform a backup or restore operation within a transaction.", 16, 0
            )
        database = self.instance.find(self.name)
        permissions.require_restore(self.session, database, self.name)
        check_options(self.options)
        if "DATABASE_SNAPSHOT" in self.options:
            yield from revert(self.session, self.name, str(self.options["DATABASE_SNAPSHOT"]))
            return
        if not self.statement.devices:
            yield from recover_only(self.session, self.name, recovers=self.recovers)
            return
        places = [self.session.place(device) for device in self.statement.devices]
        opened = open_media(self.instance, places, self.options)
        opened.require_all()
        position = int(self.options.get("FILE") or 1)
        facts = opened.facts(position)
        if "CHECKSUM" in self.options and not facts.has_backup_checksums:
            raise SqlError(
                3187,
                "RESTORE WITH CHECKSUM cannot be specified because the backup set does not contain "
                "checksum information.",
            )
        require_certificate(self.instance, facts)
        check_damage(database, facts, self.options)
        if facts.database_version > self.instance.version.database_version:
            raise SqlError(
                3169,
                f"The database was backed up on a server running version {_dotted(facts)}. That "
                "version is incompatible with this server, which is running version "
                f"{self.instance.version.product}. Either restore the database on a server that "
                "supports the backup, or use a backup that is compatible with this server.",
            )
        check_existing(self.session, database, facts, self.name, self.options, self.is_log)
        if self.is_log:
            yield from self._log(database, opened, facts, position)
        elif facts.type == "D":
            yield from self._full(database, opened, facts, position)
        elif facts.type == "I":
            yield from self._differential(database, opened, facts, position)
        else:
            raise SqlError(
                3135,
                f"The backup set in file '{places[0].name}' was created by BACKUP LOG and cannot "
                "be used for this restore operation.",
            )

    # a full backup -----------------------------------------------------------------------------
    def _full(
        self, database: Database | None, opened: OpenMedia, facts: BackupSet, position: int
    ) -> Events:
        check_stop_of_data(self.stop, facts)
        files = planned_files(self.session, self.name, database, facts, self.statement)
        started = self.instance.clock.utc()
        target = database or Database(
            self.name, self.instance.new_database_id(), self.instance.clock, []
        )
        self._become(target, facts, files, is_new=database is None)
        self.instance.databases[self.instance.key(self.name)] = target
        yield from self._steps(target, facts)
        with self._interruptible(target, facts):
            contents = opened.contents(position)
        target.tables = contents[0]["tables"].copy()
        self._redo(target, contents[1]["records"], facts.checkpoint_lsn)
        assert target.redo is not None
        target.redo.lsn = facts.last_lsn
        target.redo.time = _end_of(facts)
        yield from self._finish(target, facts, position, started)

    def _become(
        self, target: Database, facts: BackupSet, files: list[DatabaseFile], *, is_new: bool
    ) -> None:
        """Take the identity of the backup; the database GUID stays where a database was already
        ([D] backupset: database_guid is new when the database did not exist)."""
        target.state = "RESTORING"
        target.standby_file = None
        target.files = files
        target.family_guid = facts.family_guid
        if is_new:
            target.create_date = on_datetime_grid(self.instance.clock.local())
            target.owner = self.session.login.name
        target.recovery_model = facts.recovery_model.replace("-", "_")
        target.collation = facts.collation_name
        target.compatibility = facts.compatibility_level
        target.is_read_only = facts.is_readonly
        target.user_access = "MULTI_USER"
        target.is_damaged = facts.is_damaged
        target.tde_thumbprint = facts.files[0].tde_thumbprint
        target.fork = target.log_fork = facts.last_recovery_fork_guid
        target.fork_point = None
        target.tables = Tables()
        target.log = []
        target.transactions = {}
        target.last_log_backup_lsn = None
        target.chain_begins = False
        target.bulk_commits = []
        target.database_backup_lsn = facts.checkpoint_lsn
        own = DifferentialBase(facts.checkpoint_lsn, facts.backup_set_uuid, facts.backup_start_date)
        data = [file for file in facts.files if file.kind == "D"]
        if facts.is_copy_only:
            base_lsn, base_guid = data[0].base_lsn, data[0].base_guid
            target.differential_base = (
                DifferentialBase(base_lsn, base_guid, facts.backup_start_date)
                if base_lsn is not None and base_guid is not None
                else None
            )
        else:
            target.differential_base = own
        target.redo = Redo(
            facts.first_lsn, facts.last_recovery_fork_guid, None,
            base=own, base_model=target.recovery_model,
            chain=facts.chain_lsn is not None or not facts.is_copy_only,
        )  # fmt: skip

    # a differential ----------------------------------------------------------------------------
    def _differential(
        self, database: Database | None, opened: OpenMedia, facts: BackupSet, position: int
    ) -> Events:
        target = check_differential(database, self.name, facts)
        redo = target.redo
        assert redo is not None
        check_stop_of_data(self.stop, facts)
        files = self._plan(target, facts)
        started = self.instance.clock.utc()
        yield from self._steps(target, facts)
        with self._interruptible(target, facts):
            contents = opened.contents(position)
        target.files = files
        target.tables.overlay(contents[0]["tables"])
        self._redo(target, contents[1]["records"], facts.checkpoint_lsn)
        redo.lsn = facts.last_lsn
        redo.time = _end_of(facts)
        redo.fork = facts.last_recovery_fork_guid
        redo.chain = redo.chain or not facts.is_copy_only
        target.recovery_model = facts.recovery_model.replace("-", "_")
        yield from self._finish(target, facts, position, started)

    # a log -------------------------------------------------------------------------------------
    def _log(
        self, database: Database | None, opened: OpenMedia, facts: BackupSet, position: int
    ) -> Events:
        target = check_log(
            self.instance, database, self.name, facts, opened.places[0].name, self.stop
        )
        redo = target.redo
        assert redo is not None
        files = self._plan(target, facts)
        started = self.instance.clock.utc()
        yield from self._steps(target, facts)
        with self._interruptible(target, facts):
            records = opened.contents(position)[0]["records"]
        halt = self._halt(records, redo.lsn)
        if facts.has_bulk_logged_data and self.stop is not None and halt is not None:
            raise SqlError(
                4341,
                "This log backup contains bulk-logged changes. It cannot be used to stop at an "
                "arbitrary point in time.",
            )
        wanted = [r for r in records if r.lsn >= redo.lsn and (halt is None or r.lsn < halt)]
        self._redo(target, wanted, redo.lsn)
        redo.full_only = redo.after_tail = False
        end = facts.last_lsn if halt is None else halt
        if facts.fork_point_lsn is None or end > facts.fork_point_lsn:
            redo.fork = facts.last_recovery_fork_guid
        redo.lsn = max(redo.lsn, end)
        target.files = [file for file in files if file.create_lsn < end]
        redo.stopped = halt is not None
        falls_short = self.stop is not None and halt is None
        yield from self._finish(target, facts, position, started, falls_short=falls_short)

    def _halt(self, records: list[LogRecord], start: int) -> int | None:
        """LSN of the first record not to be applied; None where the log ends before the stop.

        STOPAT looks at commits only and stops at the first one after the instant: after a clock
        that went back, it finds the first of two equal wall-clock times."""
        stop = self.stop
        if stop is None:
            return None
        inclusive = self.instance.unknowns.commit_at_stop_is_kept
        for index, record in enumerate(records):
            if stop.time is not None and record.kind == "commit" and record.time is not None:
                past = record.time > stop.time if inclusive else record.time >= stop.time
                if past and record.lsn >= start:
                    return record.lsn
            if stop.lsn is not None and record.lsn >= stop.lsn:
                if stop.before or record.lsn > stop.lsn:
                    return record.lsn
                return records[index + 1].lsn if index + 1 < len(records) else record.lsn + 1
            if stop.mark is not None and record.mark == stop.mark:
                if stop.before:
                    return record.lsn
                return records[index + 1].lsn if index + 1 < len(records) else record.lsn + 1
        return None

    def _plan(self, target: Database, facts: BackupSet) -> list[DatabaseFile]:
        """The files of a database that is rolled forward, with those that this set adds."""
        return planned_files(self.session, self.name, target, facts, self.statement, target.files)

    # steps common to all -----------------------------------------------------------------------
    def _steps(self, target: Database, facts: BackupSet) -> Events:
        """The copy phase. A restore that dies here leaves the database restoring."""
        stepper = Stepper(
            self.session, f"RESTORE {self.statement.kind}", target, self.options.get("STATS"),
            COMMAND[self.statement.kind],
        )  # fmt: skip
        with self._interruptible(target, facts), stepper.running():
            for fraction in stepper.fractions():
                yield from stepper.at(fraction)
        if self.instance.find(self.name) is not target:
            raise SqlError(3204, "The backup or restore was aborted.")

    @contextmanager
    def _interruptible(self, target: Database, facts: BackupSet) -> Iterator[None]:
        """What dies in here has to be restored again before anything else (4319)."""
        try:
            yield
        except BaseException:
            if target.redo is not None:
                target.redo.interrupted = facts.backup_set_uuid
            raise

    def _redo(self, target: Database, records: list[LogRecord], start: int) -> None:
        redo = target.redo
        assert redo is not None
        for record in records:
            if record.lsn < start:
                continue
            target.tables.redo(record)
            if record.kind == "commit" and record.time is not None:
                redo.time = record.time

    def _finish(
        self,
        target: Database,
        facts: BackupSet,
        position: int,
        started: datetime,
        *,
        falls_short: bool = False,
    ) -> Events:
        own = COMMAND[self.statement.kind] if self.instance.unknowns.done_per_message else None
        warning = Message(
            4322,
            "This backup set contains records that were logged before the designated point in "
            "time. The database is being left in the restoring state so that more roll forward can "
            "be performed.",
            10,
        )
        if self.stop is not None and self.stop.mark is not None:
            warning = Message(
                4329,
                "This log file contains records logged before the designated mark. The database is "
                "being left in the Restoring state so you can apply another log file.",
                10,
            )
        recovered = self.recovers and not falls_short
        assert target.redo is not None
        target.redo.interrupted = None
        target.redo.after_error = target.redo.after_error or facts.is_damaged
        # options come from the backup ([D] RESTORE), unless WITH RESTRICTED_USER is given
        target.user_access = facts.user_access
        if "RESTRICTED_USER" in self.options:
            target.user_access = "RESTRICTED_USER"
        if self.instance.faults.msdb_fails:
            yield from history_failure(self.instance)
        else:
            self._remember(target, facts, recovered=recovered)
        if recovered:
            recover(self.instance, target)
        elif "STANDBY" in self.options:
            target.standby_file = str(self.options["STANDBY"])
        command = f"RESTORE {self.statement.kind}"
        if self.instance.faults.take("drop_after", command, self.name):
            raise Dropped
        last = self.instance.unknowns.warning_4322_comes_last
        if falls_short and not last:
            yield Info(warning, own)
        pages = 0 if self.is_log else target.allocated_pages()
        for file in facts.files:
            count = pages if file.kind != "L" else max(2, len(target.log) // 8)
            text = (
                f"Processed {count} pages for database '{self.name}', file '{file.logical_name}' "
                f"on file {position}."
            )
            yield Info(Message(4035, text, 10), own)
        final = success(
            f"RESTORE {self.statement.kind}", max(pages, 2), started, self.instance.clock.utc()
        )
        if facts.is_damaged:
            yield Info(
                Message(
                    3184,
                    "RESTORE WITH CONTINUE_AFTER_ERROR was successful but some damage was "
                    "encountered. Inconsistencies in the database are possible.",
                    10,
                ),
                own,
            )
        if falls_short and last:
            yield Info(final, own)
            yield Info(warning)
        else:
            yield Info(final)

    def _remember(self, target: Database, facts: BackupSet, *, recovered: bool) -> None:
        history = self.instance.history
        places = [self.session.place(device) for device in self.statement.devices]
        opened = open_media(self.instance, places, self.options)
        number = history.record_backup(
            facts,
            [
                (each.family, place.logical, place.name, place.device_type)
                for place, each in zip(places, opened.families, strict=True)
            ],
        )
        history.record_restore(
            date=on_datetime_grid(self.instance.clock.local()),
            database=self.name,
            user=self.session.login.name,
            set_number=number,
            kind=facts.type,
            replace="REPLACE" in self.options,
            recovery=recovered,
            restart="RESTART" in self.options,
            stop_at=self.stop.time if self.stop else None,
            devices=len(places),
            mark=self.stop.mark if self.stop else None,
            before=self.stop.before if self.stop and self.stop.time is None else None,
            files=[(file.file_id, file.physical_name) for file in target.files],
        )


def _end_of(facts: BackupSet) -> datetime:
    """The instant up to which a data backup has rolled its database forward."""
    return last_tick(facts.finished_at or facts.backup_finish_date)


def _dotted(facts: BackupSet) -> str:
    major, minor, build = facts.software
    return f"{major}.{minor:02d}.{build}"
