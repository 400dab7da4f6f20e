"""Stop points, and how a restoring database becomes an open one."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from .database import Database, Redo
from .errors import SqlError
from .store import LogHead

if TYPE_CHECKING:
    from .instance import Instance


@dataclass(frozen=True, slots=True)
class Stop:
    """Where to stop: a time, or a mark (name or LSN), before or at it."""

    time: datetime | None = None
    mark: str | None = None
    lsn: int | None = None
    before: bool = False


def recover(instance: Instance, database: Database) -> None:
    """Undo what never committed and open the database on a new recovery fork ([D] "Recovery
    Paths": each recovery after a roll forward begins a new branch)."""
    redo = database.redo
    assert redo is not None
    database.tables.undo_open()
    database.standby_file = None
    database.state = "ONLINE"
    start = redo.lsn
    file, rest = divmod(start, 10**15)
    block, slot = divmod(rest, 10**5)
    database.head = LogHead(file, block, slot)
    database.log = []
    database.log_from = start
    database.commits = [each for each in database.commits if each.lsn < start]
    old = redo.fork
    forks = instance.unknowns.plain_recovery_forks or not redo.full_only
    if redo.after_tail:
        forks = instance.unknowns.recovery_after_tail_forks
    if forks:
        database.fork = uuid.uuid4()
        database.fork_point = start
    else:
        database.fork = old
    database.log_fork = old
    if database.recovery_model != "SIMPLE" and redo.chain:
        database.last_log_backup_lsn = start
        database.chain_begins = False
    else:
        database.log_fork = database.fork
        database.fork_point = None
    database.redo = None
    database.write("other")
    database.head.flush()


def redo_of_tail(
    database: Database, last_lsn: int, last_commit: datetime | None, standby: str | None
) -> None:
    """BACKUP LOG WITH NORECOVERY or STANDBY: restoring, rolled forward to the end of that log."""
    database.state = "RESTORING"
    database.standby_file = standby
    database.redo = Redo(
        last_lsn, database.fork, last_commit, full_only=False,
        base=database.differential_base, base_model=database.recovery_model, after_tail=True,
    )  # fmt: skip


def lsn_of_mark(text: str) -> int:
    """A mark's LSN: 25 digits, or hexadecimal ``0x...:...:...``."""
    try:
        if ":" in text:
            file, block, slot = (int(part, 16) for part in text.removeprefix("0x").split(":"))
            return file * 10**15 + block * 10**5 + slot
        return int(text)
    except ValueError:
        raise SqlError(3217, "Invalid value specified for STOPATMARK parameter.") from None
