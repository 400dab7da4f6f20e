"""What is left to do after a restore, as statements to paste: its owner and orphaned users."""

from __future__ import annotations

from sqlbak.engines.sqlserver.connection import Session, StatementFailed
from sqlbak.engines.sqlserver.statements import identifier
from sqlbak.engines.sqlserver.target import read_database, read_orphans

__all__ = ["aftermath"]

_USERS_TOLD = 20


def aftermath(
    session: Session,
    name: str,
    *,
    source_owner: str | None,
    recovery_model: str,
    replaced: bool,
) -> tuple[str, ...]:
    """Sentences for the operator, each with its statement. ``source_owner``: the login that owned
    the database when it was backed up."""
    steps: list[str] = []
    database = identifier(name)
    try:
        found = read_database(session, name)
    except StatementFailed:
        found = None
    owner = None if found is None else found.owner
    if source_owner and owner != source_owner:
        steps.append(
            f"its owner is {owner or 'unknown'} now, and was {source_owner}: "
            f"ALTER AUTHORIZATION ON DATABASE::{database} TO {identifier(source_owner)}"
        )
    try:
        orphans = read_orphans(session, name)
    except StatementFailed as failed:
        orphans = ()
        steps.append(
            f"whether it has users without a login could not be looked up ({failed.message}): "
            f"USE {database}; EXEC sp_change_users_login 'Report'"
        )
    for user in orphans[:_USERS_TOLD]:
        quoted = identifier(user)
        steps.append(
            f"the user {user} has no login here: USE {database}; ALTER USER {quoted} WITH LOGIN = "
            f"{quoted}  -- where the login does not exist: CREATE LOGIN {quoted} first"
        )
    if len(orphans) > _USERS_TOLD:
        steps.append(f"{len(orphans) - _USERS_TOLD} more users have no login here")
    if replaced:
        steps.append(
            "its history forked: the next backup that the schedule takes of it is a full; to have "
            "one now: sqlbak backup ITEM --type full"
        )
    elif recovery_model in ("FULL", "BULK-LOGGED"):
        steps.append(
            f"its recovery model is {recovery_model}: its log grows until it is backed up. For a "
            f"copy that is only looked at: ALTER DATABASE {database} SET RECOVERY SIMPLE"
        )
    return tuple(steps)
