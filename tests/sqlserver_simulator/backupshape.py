"""What one backup holds, and what leaves its database with."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .database import Database, DatabaseFile
from .media import SetFile
from .recovery import redo_of_tail

if TYPE_CHECKING:
    from .backupchecks import BackupWish


class Shape:
    """What one backup holds: LSNs, content and the tail of the log."""

    def __init__(self, backup: BackupWish, database: Database) -> None:
        self.backup = backup
        self.database = database
        self.uuid = uuid.uuid4()
        self.begun = backup.instance.clock.local()
        self.time_zone = backup.instance.clock.quarter_hours()
        self.bulk = False
        self.last_commit: datetime | None = None
        self.tail: dict[str, Any] = {}
        self.chain_lsn = database.last_log_backup_lsn
        if backup.is_log:
            database.head.flush()
            assert database.last_log_backup_lsn is not None
            self.first_lsn = database.last_log_backup_lsn
            self.last_lsn = database.head.lsn
            group = backup.instance.group_of(database)
            if group is not None:
                end = group.log_end(backup.instance, database)
                self.last_lsn = max(self.first_lsn, end)
            self.checkpoint_lsn = _last_checkpoint(database)
            records = database.records(self.first_lsn, self.last_lsn)
            self.bulk = any(self.first_lsn <= lsn < self.last_lsn for lsn in database.bulk_commits)
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

    def _file(self, file: DatabaseFile) -> SetFile:
        base = self.database.differential_base if file.kind == "D" else None
        return SetFile(
            file.file_id, file.kind, file.logical_name, file.physical_name, file.filegroup,
            file.pages, file.guid, file.create_lsn, self.pages if file.kind == "D" else 0,
            file.max_pages, base.lsn if base else None, base.guid if base else None,
            self.database.tde_thumbprint,
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
        redo_of_tail(self.database, self.last_lsn, self.last_commit, standby)


def _last_checkpoint(database: Database) -> int:
    for record in reversed(database.log):
        if record.kind == "checkpoint":
            return record.lsn
    return database.database_backup_lsn or database.log_from
