"""One restore under way: its statements, and what is said of the database when it breaks off."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from sqlbak.engines.port import DatabaseTarget
from sqlbak.engines.sqlserver.connection import Session, StatementFailed
from sqlbak.engines.sqlserver.failures import (
    as_restore_failure,
    is_good_all_the_same,
    server_text,
)
from sqlbak.engines.sqlserver.restoring_chain import DatabaseChain, TargetServer
from sqlbak.engines.sqlserver.restoring_clock import StopAt
from sqlbak.engines.sqlserver.restoring_statements import multi_user_statement, recover_statement
from sqlbak.engines.sqlserver.statements import identifier
from sqlbak.engines.sqlserver.target import ExistingDatabase, ServerFacts, read_database
from sqlbak.engines.sqlserver.target_checks import CheckedTarget
from sqlbak.errors import EngineError, Refused, RestoreFailed, SqlbakError
from sqlbak.progress import Progress
from sqlbak.stopping import NEVER, StopSignal

__all__ = ["Run", "execute", "let_in_again", "look", "told"]


@dataclass(slots=True)
class Run:
    """One restore under way. ``has_begun``: the target may have been changed; ``is_waiting``: only
    its log's tail was taken so far; ``is_recovering``: all is applied."""

    session: Session
    server: TargetServer
    chain: DatabaseChain
    target: DatabaseTarget
    stop_at: StopAt | None
    facts: ServerFacts
    existing: ExistingDatabase | None
    checked: CheckedTarget
    progress: Progress
    stop: StopSignal
    has_begun: bool = False
    is_waiting: bool = False
    is_recovering: bool = False
    was_restricted: bool = False


def execute(
    run: Run, statement: str, *, doing: str, hear: Callable[[str], None] | None = None
) -> tuple[str, ...]:
    """Run one statement; what the server said. Its refusal is explained as a failed restore."""
    try:
        return run.session.run(statement, doing=doing, stop=run.stop, hear=hear)
    except StatementFailed as failed:
        if is_good_all_the_same(failed.number, failed.error.texts):
            return tuple(map(server_text, failed.error.texts))
        raise failed.explained(RestoreFailed) from None


def look(run: Run) -> ExistingDatabase:
    """The database as the server has it now. RestoreFailed when it is gone."""
    try:
        found = read_database(run.session, run.target.name)
    except StatementFailed as failed:
        raise failed.explained(RestoreFailed) from None
    if found is None:
        raise RestoreFailed(
            f"{run.server.instance}/{run.target.name} is gone: somebody dropped it meanwhile",
            hint="run the restore again",
        )
    return found


def let_in_again(run: Run) -> None:
    """Undo what ending the sessions did to a database that is open."""
    if not run.was_restricted:
        return
    with contextlib.suppress(EngineError, Refused):
        found = read_database(run.session, run.target.name)
        if found is not None and found.state == "ONLINE" and found.user_access != "MULTI_USER":
            run.session.run(multi_user_statement(found.name), doing="letting everybody in again")
        run.was_restricted = False


def told(run: Run, error: SqlbakError) -> SqlbakError:
    """The error, with the state that the database is left in where that is not the old one."""
    state = _state_now(run)
    was = None if run.existing is None else run.existing.state
    if state == was != "RESTORING" and not run.has_begun:
        return error
    name = identifier(run.target.name)
    where = f"{run.server.instance}/{run.target.name}"
    if state is None and not run.has_begun:
        return error
    if state is None:
        left = f"{where} does not exist any more"
    elif state == "?":
        left = f"{where} may be left RESTORING: the server could not be asked"
    elif state == "ONLINE" and run.is_recovering:
        left = f"{where} is ONLINE: all was applied and it was recovered, only the answer is lost"
    else:
        left = f"{where} is left {state}"
    hint = (
        f"go on with the same command and --resume, begin again with --overwrite, or drop it: "
        f"DROP DATABASE {name}"
        if state in ("RESTORING", "?")
        else error.hint
    )
    if run.is_waiting and state == "RESTORING":
        hint = f"nothing of it was overwritten: {recover_statement(run.target.name)} opens it again"
    if not isinstance(error, EngineError | Refused):
        # Interrupted and the vault's errors keep their kind; what is left is said all the same.
        error.message = f"{error.message}; {left}"
        error.hint = error.hint or hint
        return error
    failure = as_restore_failure(error)
    kept = type(failure)
    both = f"{error.hint}; {hint}" if error.hint and error.hint != hint else hint
    return kept(f"{error.message}; {left}", hint=both)


def _state_now(run: Run) -> str | None:
    """The state of the target; None: there is no such database; "?": nobody can tell."""
    with contextlib.suppress(EngineError, Refused):
        found = read_database(run.session, run.target.name)
        return None if found is None else found.state
    with (
        contextlib.suppress(EngineError, Refused),
        Session.open(run.server.address, stop=NEVER) as again,
    ):
        found = read_database(again, run.target.name)
        return None if found is None else found.state
    return "?"
