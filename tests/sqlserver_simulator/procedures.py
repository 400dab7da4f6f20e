"""The few system procedures that backup tools call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import syntax as s
from .devices import local_path
from .errors import SqlError, not_modelled
from .events import Done, Events
from .values import to_datetime

if TYPE_CHECKING:
    from .session import Session


def procedure(session: Session, statement: s.Execute) -> Events:
    """The system procedures that backup tools call."""
    name = statement.procedure[-1].lower()
    values: list[Any] = [session.evaluate(each) for _, each in statement.arguments]
    instance = session.instance
    if name == "sp_executesql":
        yield from session.statement(s.Execute(statement.arguments[0][1]))
        return
    if name == "sp_delete_backuphistory":
        oldest = to_datetime(values[0]) if isinstance(values[0], str) else values[0]
        instance.history.sets = [
            each for each in instance.history.sets if each.facts.backup_finish_date >= oldest
        ]
    elif name == "sp_delete_database_backuphistory":
        instance.history.purge(str(values[0]))
    elif name == "sp_configure":
        option, value = str(values[0]), int(values[1]) if len(values) > 1 else None
        if option not in instance.configuration:
            raise SqlError(
                15123,
                f"The configuration option '{option}' does not exist, or it may be an advanced "
                "option.",
            )
        if value is not None:
            instance.configuration[option] = value
    elif name == "xp_create_subdir":
        path = local_path(instance, str(values[0]).rstrip("/\\") + "/.")
        if path is None:
            raise SqlError(
                22048,
                "xp_create_subdir() returned error 5, 'Access is denied.'",
            )
        path.mkdir(parents=True, exist_ok=True)
    elif name.startswith(("sp_", "xp_")):
        raise not_modelled(f"the procedure {name}")
    else:
        raise SqlError(
            2812, f"Could not find stored procedure '{'.'.join(statement.procedure)}'.", 16, 62
        )
    yield Done(224)
