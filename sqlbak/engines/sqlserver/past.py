"""Whether a database is still the one that a recovery point is of: who dates its log, and whether
it was restored since."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sqlbak.engines.sqlserver.foreign import restore_marker, restore_named, restored_at
from sqlbak.engines.sqlserver.server import Clock
from sqlbak.errors import LogRewritten

if TYPE_CHECKING:
    from sqlbak.engines.sqlserver.backing import Backing

__all__ = ["history_facts", "require_same_history"]


def history_facts(backing: Backing, clock: Clock) -> dict[str, Any]:
    """By what it is known later whose the log's times are, and whether the database was
    restored since."""
    database, replica = backing.source.database, backing.database.replica
    found: dict[str, Any] = {}
    if replica is not None:
        found["availability_group"] = {
            "database": replica.database_id,
            "is_primary": backing.writer is None,
        }
    if backing.writer is not None:
        found["log_clock"] = {
            "server": backing.writer.server.name,
            "utc_offset_minutes": clock.utc_offset_minutes,
            "time_zone": clock.time_zone,
        }
    else:
        found["restore_history_id"] = restore_marker(backing.session, database, stop=backing.stop)
    if replica is None:
        # What a replica's msdb tells of is how the replica was made.
        found["restored_at"] = restored_at(backing.session, database, stop=backing.stop)
    return found


def require_same_history(backing: Backing, facts: Mapping[str, Any] | None, what: str) -> None:
    """LogRewritten when the whole database was restored since the recovery point with those
    facts, and goes on under the same recovery fork: positions mean another history now."""
    if facts is None or "restore_history_id" not in facts:
        return
    if facts.get("server", {}).get("name") != backing.server.name:
        return  # msdb is another replica's
    replica = backing.database.replica
    known = facts.get("availability_group", {}).get("database")
    if replica is not None and known == replica.database_id:
        return  # no database of a group is restored; its copies are made anew at times
    marker = restore_marker(backing.session, backing.source.database, stop=backing.stop)
    if marker is not None and marker != facts["restore_history_id"]:
        raise LogRewritten(
            f"{backing.source.where} was restored after {what}: "
            f"{restore_named(backing.session, backing.source.database, stop=backing.stop)}",
            hint="take a full backup; it starts a new chain",
        )
