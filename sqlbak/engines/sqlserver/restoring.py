"""Restores one database of a SQL Server from a chain of recovery points: the one way in.

Order: look at the server and check everything; fetch; apply every step with NORECOVERY, the last
log only up to the instant; look where the log stands; only then open the database, and look
whether it is open. A log that ended before the instant asked for (4322) never leads to an open
database, and a database that is left RESTORING is always said.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable

from sqlbak.engines.port import DatabaseOutcome, DatabaseTarget, RestoreStep
from sqlbak.engines.sqlserver.connection import Session, StatementFailed
from sqlbak.engines.sqlserver.failures import is_left_restoring
from sqlbak.engines.sqlserver.headers import BackupHeader, read_header
from sqlbak.engines.sqlserver.restoring_aftermath import aftermath
from sqlbak.engines.sqlserver.restoring_chain import DatabaseChain, TargetServer, stop_of
from sqlbak.engines.sqlserver.restoring_clock import StopAt
from sqlbak.engines.sqlserver.restoring_delivery import (
    PieceSpool,
    is_by_url,
    is_staged,
    url_devices,
)
from sqlbak.engines.sqlserver.restoring_reach import delivered, require_set
from sqlbak.engines.sqlserver.restoring_resume import steps_done
from sqlbak.engines.sqlserver.restoring_run import Run, execute, let_in_again, look, told
from sqlbak.engines.sqlserver.restoring_statements import (
    DataRestore,
    LogRestore,
    data_statement,
    disconnect_statement,
    log_statement,
    recover_statement,
)
from sqlbak.engines.sqlserver.statements import Device, identifier
from sqlbak.engines.sqlserver.target import (
    ExistingDatabase,
    read_database,
    read_restore_history,
    read_server,
)
from sqlbak.engines.sqlserver.target_checks import check_target
from sqlbak.errors import (
    RestoreFailed,
    RestoreNotProven,
    SqlbakError,
    TargetNotUsable,
)
from sqlbak.model import LogPosition, PointType
from sqlbak.progress import Progress
from sqlbak.stopping import StopSignal

__all__ = ["DatabaseChain", "TargetServer", "restore_database", "stop_of"]

_PERCENT = re.compile(r"(\d+) percent processed", re.IGNORECASE)


def restore_database(
    chain: DatabaseChain,
    target: DatabaseTarget,
    server: TargetServer,
    *,
    take_tail: Callable[[], None] | None = None,
    progress: Progress,
    stop: StopSignal,
) -> DatabaseOutcome:
    """Restore ``chain`` as ``target`` on ``server``.

    ``take_tail`` backs up the tail of the replaced database's log, which leaves it RESTORING.

    Raises before anything is touched: TargetNotUsable, FeatureUnsupported, InstantUnreachable (an
    instant in a repeated hour), ServerUnreachable, ServerRefused. Later: RestoreFailed, or
    RestoreNotProven when the log ended before the instant asked for; both say in which state the
    database is left and how to go on. Interrupted, with the same as a note.
    """
    stop_at = stop_of(chain)
    with Session.open(server.address, stop=stop) as session:
        try:
            facts = read_server(session)
            existing = read_database(session, target.name)
            checked = check_target(
                [step.facts for step in chain.steps],
                source_database=chain.database,
                target=target,
                server=facts,
                existing=existing,
            )
            chain = delivered(session, chain, server, facts, stop=stop)
            done = 0
            if target.resumes:
                done = _steps_done(session, chain, target, existing, stop_at)
        except StatementFailed as failed:
            raise failed.explained(RestoreFailed) from None
        run = Run(session, server, chain, target, stop_at, facts, existing, checked, progress, stop)
        try:
            return _restore(run, done, take_tail)
        except SqlbakError as error:
            raise told(run, error) from error
        finally:
            let_in_again(run)


def _steps_done(
    session: Session,
    chain: DatabaseChain,
    target: DatabaseTarget,
    existing: ExistingDatabase | None,
    stop_at: StopAt | None,
) -> int:
    if existing is None:
        raise TargetNotUsable(
            f"there is no database {target.name} whose restore could go on",
            hint="leave out --resume",
        )
    done = steps_done(
        chain.steps,
        read_restore_history(session, target.name),
        existing,
        stop_at=None if stop_at is None else stop_at.literal,
    )
    last = chain.steps[-1].point
    at_end = existing.redo_start is not None and existing.redo_start >= last.last_lsn
    if done == len(chain.steps) and stop_at is not None and at_end and not chain.is_proven:
        # Broken off because of this: going on must not open what was not proven then.
        raise _ended_too_early(target.name, last.id)
    return done


def _ended_too_early(where: str, point_id: str) -> RestoreNotProven:
    return RestoreNotProven(
        f"{where}: the log in {point_id} ended before the instant asked for (4322), so that later "
        "transactions may be missing",
        hint="take or wait for the next log backup and restore again; or choose an instant that "
        "sqlbak windows shows",
    )


def _restore(run: Run, done: int, take_tail: Callable[[], None] | None) -> DatabaseOutcome:
    chain, target = run.chain, run.target
    left = chain.steps[done:]
    with contextlib.ExitStack() as opened:
        spool = None
        if run.server.folder is not None and any(not is_by_url(step) for step in left):
            spool = opened.enter_context(
                PieceSpool(
                    run.server.folder,
                    left,
                    target=f"{run.server.instance}/{target.name.casefold()}",
                    stop=run.stop,
                )
            )
        if run.checked.ends_sessions:
            execute(run, disconnect_statement(target.name), doing="ending sessions")
            run.was_restricted = True
        if run.checked.takes_tail and take_tail is not None:
            run.progress.phase("backing up the tail of the log")
            run.is_waiting = True
            take_tail()
            run.has_begun = True
        for number, step in enumerate(left, start=done + 1):
            devices = url_devices(step) if spool is None else spool.take()
            if is_staged(step):
                require_set(run.session, devices, step, stop=run.stop)
            _apply(run, number, step, devices)
            if spool is not None:
                spool.done()
    return _finish(run, done)


def _apply(run: Run, number: int, step: RestoreStep, devices: tuple[Device, ...]) -> None:
    """One RESTORE, with NORECOVERY."""
    header = read_header(step.facts["header"])
    kind = step.point.type.value
    doing = f"restoring {kind} {step.point.id} (step {number} of {len(run.chain.steps)})"
    run.progress.phase(f"restoring {kind} {number}/{len(run.chain.steps)}", header.stored_bytes)
    moves = run.checked.files.steps[number - 1]
    stops = False
    if step.point.type is PointType.LOG:
        is_last = number == len(run.chain.steps)
        before = run.chain.cuts.get(step.point.id)
        if is_last and run.chain.stop_lsn is not None and run.chain.stop_lsn < step.point.last_lsn:
            before = run.chain.stop_lsn
        at = run.stop_at.literal if is_last and run.stop_at is not None else None
        stops = at is not None or before is not None
        statement = log_statement(
            LogRestore(
                run.target.name,
                devices,
                stop_at=at,
                stop_before=before,
                moves=moves,
                position=header.position,
                has_checksums=header.has_checksums,
            )
        )
    else:
        statement = data_statement(
            DataRestore(
                run.target.name,
                devices,
                moves=moves,
                replaces=number == 1 and run.checked.gives_up_tail,
                position=header.position,
                has_checksums=header.has_checksums,
            )
        )
    run.is_waiting = False
    texts = execute(run, statement, doing=doing, hear=_Percent(run.progress, header.stored_bytes))
    run.has_begun = True
    if stops and is_left_restoring(texts) and not run.chain.is_proven:
        raise _ended_too_early(f"{run.server.instance}/{run.target.name}", step.point.id)


class _Percent:
    """Turns the server's percentages into progress."""

    def __init__(self, progress: Progress, total_bytes: int) -> None:
        self._progress = progress
        self._total = total_bytes
        self._done = 0

    def __call__(self, text: str) -> None:
        match = _PERCENT.match(text)
        if match is None:
            return
        now = self._total * min(int(match[1]), 100) // 100
        if now > self._done:
            self._progress.advance(now - self._done)
            self._done = now


def _finish(run: Run, done: int) -> DatabaseOutcome:
    """Look where the log stands, open the database, and look again."""
    chain, target = run.chain, run.target
    last = chain.steps[-1]
    run.progress.phase("recovering")
    before = look(run)
    reached = before.redo_start
    _check_position(run, reached)
    state = "RESTORING"
    if target.recovers:
        run.stop.check()
        run.is_recovering = True
        execute(run, recover_statement(target.name), doing="recovering the database")
        state = look(run).state
        if state != "ONLINE":
            raise RestoreNotProven(
                f"{run.server.instance}/{target.name} is {state} after it was recovered, "
                "not ONLINE",
                hint="the server's error log says why",
            )
        let_in_again(run)
    header = read_header(chain.steps[0].facts["header"])
    return DatabaseOutcome(
        server=run.server.instance,
        database=target.name,
        state=state,
        # A log that goes on behind the instant proves by itself that nothing before is missing.
        proven=state == "ONLINE" and (chain.is_proven or run.stop_at is not None),
        reached=LogPosition(chain.lineage, last.point.last_lsn if reached is None else reached),
        stop_at=None if run.stop_at is None else run.stop_at.literal,
        files=dict(run.checked.files.paths),
        next_steps=_next_steps(run, state, header),
        resumed_after=done,
        facts={
            "server": run.facts.name,
            "version": run.facts.version,
            "notes": list(run.checked.notes),
            "replaced": target.replaces,
        },
    )


def _next_steps(run: Run, state: str, header: BackupHeader) -> tuple[str, ...]:
    name = identifier(run.target.name)
    if state != "ONLINE":
        return (
            f"{run.target.name} waits for more log: apply it with RESTORE LOG {name} … WITH "
            f"NORECOVERY, then open it with {recover_statement(run.target.name)}",
        )
    return aftermath(
        run.session,
        run.target.name,
        source_owner=run.chain.steps[-1].facts.get("owner"),
        recovery_model=header.recovery_model,
        replaced=run.target.replaces,
    )


def _check_position(run: Run, reached: int | None) -> None:
    """Where the server says that it stands has to be inside the last step."""
    last = run.chain.steps[-1].point
    if reached is None or last.type is not PointType.LOG:
        return
    if not last.first_lsn <= reached <= last.last_lsn:
        raise RestoreNotProven(
            f"{run.server.instance}/{run.target.name} stands at log position {reached}, not in "
            f"{last.id} ({last.first_lsn}..{last.last_lsn})",
            hint="begin again with --overwrite, and report it with the lines above",
        )
    if run.chain.stop_lsn is not None and reached > run.chain.stop_lsn:
        raise RestoreNotProven(
            f"{run.server.instance}/{run.target.name} stands at log position {reached}, behind "
            f"{run.chain.stop_lsn}",
            hint="begin again with --overwrite, and report it with the lines above",
        )
