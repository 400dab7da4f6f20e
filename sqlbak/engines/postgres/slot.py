"""The permanent replication slot that makes the server keep log until it is in the vault."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sqlbak.engines.postgres.connection import SqlConnection
from sqlbak.engines.postgres.timelines import format_lsn, parse_lsn
from sqlbak.errors import LogChainBroken, ServerNotReady, UsageError

__all__ = ["SlotState", "advance_slot", "check_slot_name", "drop_slot", "ensure_slot", "read_slot"]

_NAME = re.compile(r"[a-z0-9_]{1,63}")


def check_slot_name(name: str) -> None:
    """UsageError unless PostgreSQL takes that name for a slot."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot name a replication slot",
            hint="use 1 to 63 of the characters a-z, 0-9 and _",
        )


@dataclass(frozen=True, slots=True)
class SlotState:
    """One row of pg_replication_slots. ``restart_lsn``: the oldest log that the server keeps for
    it, None if it keeps nothing. ``wal_status`` is the server's word: reserved, extended,
    unreserved or lost. ``safe_wal_size``: bytes that may still be written before it is lost,
    None where no limit is set."""

    name: str
    is_physical: bool
    is_active: bool
    restart_lsn: int | None
    wal_status: str | None
    safe_wal_size: int | None

    @property
    def is_lost(self) -> bool:
        """Whether the server no longer keeps log for it, and never will again."""
        return self.wal_status == "lost"


def read_slot(session: SqlConnection, name: str) -> SlotState | None:
    """The slot as it is now; None if there is none of that name."""
    rows = session.rows(
        "SELECT slot_type = 'physical', active, restart_lsn::text, wal_status, safe_wal_size"
        " FROM pg_replication_slots WHERE slot_name = %s",
        [name],
        doing="looking at the replication slot",
    )
    if not rows:
        return None
    is_physical, is_active, restart_lsn, wal_status, safe_wal_size = rows[0]
    return SlotState(
        name=name,
        is_physical=is_physical,
        is_active=is_active,
        restart_lsn=None if restart_lsn is None else parse_lsn(restart_lsn),
        wal_status=wal_status,
        safe_wal_size=safe_wal_size,
    )


def ensure_slot(session: SqlConnection, name: str) -> str:
    """Make sure that the slot exists and keeps log from now on. Says what was done: ``kept``,
    ``created``, or ``recreated`` (it was lost: log backups cannot go on, a new chain begins)."""
    state = read_slot(session, name)
    if state is not None:
        if not state.is_physical:
            raise ServerNotReady(
                f"the replication slot {name} is a logical one, of somebody else",
                hint="give sqlbak another slot name",
            )
        if state.restart_lsn is not None and not state.is_lost:
            return "kept"
        drop_slot(session, name)
    # Reserved at once: otherwise the server keeps nothing until the first connection uses it.
    session.execute(
        "SELECT pg_create_physical_replication_slot(%s, true)",
        [name],
        doing=f"creating the replication slot {name}",
    )
    return "created" if state is None else "recreated"


def advance_slot(session: SqlConnection, name: str, lsn: int) -> None:
    """Let the server discard log before the segment in which the byte before ``lsn`` lies: by the
    last bytes of the log it is known again (logtail.py). Never moves the slot back. LogChainBroken
    if the slot is gone or lost: what is in the vault is safe, but nothing holds the log that
    follows.

    Called even when nothing moves: using the slot keeps ``idle_replication_slot_timeout`` from
    dropping it.
    """
    state = read_slot(session, name)
    if state is None or state.restart_lsn is None or state.is_lost:
        gone = "does not exist" if state is None else "is lost: the server discarded its log"
        raise LogChainBroken(
            f"the replication slot {name} {gone}",
            hint="take a full backup; it makes the slot anew and starts a new chain",
        )
    if lsn % segment_size(session) == 0:
        lsn -= 1
    session.execute(
        "SELECT pg_replication_slot_advance(%s, %s::pg_lsn)",
        [name, format_lsn(max(lsn, state.restart_lsn))],
        doing=f"advancing the replication slot {name}",
    )


def segment_size(session: SqlConnection) -> int:
    """The size in bytes of the server's log segments."""
    return int(
        session.value(
            "SELECT setting FROM pg_settings WHERE name = 'wal_segment_size'",
            doing="reading settings",
        )
    )


def drop_slot(session: SqlConnection, name: str) -> bool:
    """Drop the slot, so that the server keeps log for us no longer. False if there was none."""
    if read_slot(session, name) is None:
        return False
    session.execute(
        "SELECT pg_drop_replication_slot(%s)",
        [name],
        doing=f"dropping the replication slot {name}",
    )
    return True
