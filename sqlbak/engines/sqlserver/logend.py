"""How far the log reaches on the primary, and whether another replica has come as far.

A secondary gives out the log that it has. What was committed on the primary by some instant is in
it only if it has come as far as the primary's log then did.
"""

from __future__ import annotations

import time
from typing import Final

from sqlbak.engines.sqlserver.connection import Session, StatementFailed
from sqlbak.engines.sqlserver.rows import lsn, text
from sqlbak.engines.sqlserver.statements import literal
from sqlbak.stopping import StopSignal

__all__ = ["await_log", "end_of_log", "position_of"]

_WAIT_SECONDS: Final = 15.0
_POLL_SECONDS: Final = 0.25


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


def end_of_log(session: Session, database_id: int, *, stop: StopSignal) -> int | None:
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


def await_log(session: Session, database: str, end: int, *, stop: StopSignal) -> None:
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
