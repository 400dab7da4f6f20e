"""How far the log reaches on the primary, and whether another replica has come as far.

A secondary gives out the log that it has. What was committed on the primary by some instant is in
it only if it has come as far as the primary's log then did.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from sqlbak.engines.sqlserver.connection import Session, StatementFailed
from sqlbak.engines.sqlserver.rows import lsn, number, text
from sqlbak.engines.sqlserver.statements import literal
from sqlbak.stopping import StopSignal

if TYPE_CHECKING:
    from sqlbak.engines.sqlserver.backing import Backing

__all__ = ["end_to_hold", "holds_all", "is_of_one_primary", "position_of"]

_WAIT_SECONDS: Final = 15.0
_POLL_SECONDS: Final = 0.25


def end_to_hold(backing: Backing) -> int | None:
    """Where the log of a group's primary ends, once this replica has it too, if it comes in time.
    None for a database in no group, and where the server does not tell it."""
    if backing.database.replica is None:
        return None
    if backing.writer is None:
        return _end_of_log(backing.session, backing.database.database_id, backing.stop)
    end = _end_of_log(backing.writer.session, backing.writer.database_id, backing.stop)
    if end is not None:
        _await_log(backing.session, backing.source.database, end, backing.stop)
    return end


def holds_all(backing: Backing, last_lsn: int, end: int | None) -> bool:
    """Whether a log up to ``last_lsn`` holds all that was committed by the instant before its
    backup, when ``end_to_hold`` gave ``end`` after that."""
    if backing.database.replica is None or (end is not None and last_lsn > end):
        return True
    # A primary gives out all that it has; but it may have become a secondary meanwhile.
    return backing.writer is None and _is_primary(
        backing.session, backing.source.database, backing.stop
    )


def is_of_one_primary(backing: Backing, first_lsn: int) -> bool:
    """Whether the primary of now wrote all log from ``first_lsn`` on. False too where that is not
    told."""
    writer = backing.session if backing.writer is None else backing.writer.session
    rows = writer.rows(
        "SELECT s.recovery_lsn FROM sys.dm_hadr_database_replica_states AS s"
        " JOIN sys.databases AS d ON d.database_id = s.database_id"
        f" WHERE s.is_local = 1 AND d.name = {literal(backing.source.database)}",
        doing="asking since when it is the primary",
        stop=backing.stop,
    )
    # Where the log ended before it wrote to it, as the primary.
    begun = [lsn(row, "recovery_lsn") for row in rows]
    return bool(begun) and all(at is not None and at <= first_lsn for at in begun)


def position_of(written: str) -> int | None:
    """The position that the server writes as ``0000002f:00000a68:0001``; None: it is none."""
    parts = written.split(":")
    if len(parts) != 3:
        return None
    try:
        file, block, slot = (int(part, 16) for part in parts)
    except ValueError:
        return None
    return file * 10**15 + block * 10**5 + slot


def _end_of_log(session: Session, database_id: int, stop: StopSignal) -> int | None:
    """The position of the last record in a database's log (sys.dm_db_log_stats, from 2016 SP2
    on); None where the server does not tell it."""
    try:
        rows = session.rows(
            f"SELECT log_end_lsn FROM sys.dm_db_log_stats({database_id:d})",
            doing="asking where the log ends",
            stop=stop,
        )
    except StatementFailed:
        return None
    return position_of(text(rows[0], "log_end_lsn") or "") if rows else None


def _is_primary(session: Session, database: str, stop: StopSignal) -> bool:
    rows = session.rows(
        f"SELECT sys.fn_hadr_is_primary_replica({literal(database)}) AS is_primary",
        doing="asking whether it is the primary",
        stop=stop,
    )
    return bool(rows and number(rows[0], "is_primary"))


def _await_log(session: Session, database: str, end: int, stop: StopSignal) -> None:
    """Wait until a secondary has the log up to ``end`` on its disk, but not for long."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            rows = session.rows(
                "SELECT s.last_hardened_lsn FROM sys.dm_hadr_database_replica_states AS s"
                " JOIN sys.databases AS d ON d.database_id = s.database_id"
                f" WHERE s.is_local = 1 AND d.name = {literal(database)}",
                doing="asking how far the replica is",
                stop=stop,
            )
        except StatementFailed:
            return
        hardened = [at for row in rows if (at := lsn(row, "last_hardened_lsn")) is not None]
        if not hardened or max(hardened) > end or time.monotonic() > deadline:
            return
        if stop.wait(_POLL_SECONDS):
            stop.check()
