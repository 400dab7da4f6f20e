"""Restores one database of a SQL Server from a chain of recovery points: the one way in.

Order: look at the server and check everything; fetch; apply every step with NORECOVERY, the last
log only up to the instant; look where the log stands; only then open the database, and look
whether it is open. A log that ended before the instant asked for (4322) never leads to an open
database, and a database that is left RESTORING is always said.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from sqlbak.engines.port import DatabaseOutcome, DatabaseTarget, RestoreStep
from sqlbak.engines.sqlserver.address import ServerAddress
from sqlbak.engines.sqlserver.connection import Session, StatementFailed
from sqlbak.engines.sqlserver.delivery import DiskFolder
from sqlbak.engines.sqlserver.failures import as_restore_failure, is_left_restoring
from sqlbak.engines.sqlserver.headers import BackupHeader, read_header
from sqlbak.engines.sqlserver.restoring_aftermath import aftermath
from sqlbak.engines.sqlserver.restoring_clock import ClockWitness, StopAt, stop_at_of
from sqlbak.engines.sqlserver.restoring_delivery import (
    PieceSpool,
    is_by_url,
    url_devices,
)
from sqlbak.engines.sqlserver.restoring_resume import steps_done
from sqlbak.engines.sqlserver.restoring_statements import (
    DataRestore,
    LogRestore,
    data_statement,
    disconnect_statement,
    log_statement,
    multi_user_statement,
    recover_statement,
)
from sqlbak.engines.sqlserver.statements import Device, identifier
from sqlbak.engines.sqlserver.target import (
    ExistingDatabase,
    ServerFacts,
    read_database,
    read_restore_history,
    read_server,
)
from sqlbak.engines.sqlserver.target_checks import CheckedTarget, check_target
from sqlbak.errors import (
    EngineError,
    Refused,
    RestoreFailed,
    RestoreNotProven,
    SqlbakError,
    TargetNotUsable,
)
from sqlbak.model import LogPosition, PointType
from sqlbak.progress import Progress
from sqlbak.stopping import NEVER, StopSignal

__all__ = ["DatabaseChain", "TargetServer", "restore_database", "stop_of"]

_PERCENT = re.compile(r"(\d+) percent processed", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class TargetServer:
    """The server that a restore goes to. ``folder``: where backups are put for it; None: it reads
    URLs only."""

    instance: str
    address: ServerAddress
    folder: DiskFolder | None


@dataclass(frozen=True, slots=True)
class DatabaseChain:
    """What is restored, from a plan.

    Attributes:
        database: the name that it had at the source.
        stop_at, stop_lsn: where to stop (UTC; or a position, nothing from which on is applied);
            both None: at the end of the last step.
        to_the_end: the last step may be applied whole.
        is_proven: the recovery points prove that nothing up to ``stop_at`` is missing.
        cuts: by point id, the position up to which a step may be applied.
    """

    steps: tuple[RestoreStep, ...]
    database: str
    lineage: str
    stop_at: datetime | None = None
    stop_lsn: int | None = None
    to_the_end: bool = True
    is_proven: bool = True
    cuts: Mapping[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Run:
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
            _check_delivery(chain, server, facts)
            done = 0
            if target.resumes:
                done = _steps_done(session, chain, target, existing, stop_at)
        except StatementFailed as failed:
            raise failed.explained(RestoreFailed) from None
        run = _Run(
            session, server, chain, target, stop_at, facts, existing, checked, progress, stop
        )
        try:
            return _restore(run, done, take_tail)
        except SqlbakError as error:
            raise _told(run, error) from error
        finally:
            _let_in_again(run)


def stop_of(chain: DatabaseChain) -> StopAt | None:
    """What STOPAT is told for the chain's last step; None: it needs no STOPAT. Raises
    InstantUnreachable where SQL Server could not tell the instant from another one."""
    last = chain.steps[-1]
    if chain.stop_at is None or chain.to_the_end or last.point.type is not PointType.LOG:
        return None
    witnesses = [witness for step in chain.steps if (witness := _witness(step)) is not None]
    after = _witness(last)
    before = next((w for w in reversed(witnesses) if after is None or w.at < after.at), None)
    return stop_at_of(
        chain.stop_at,
        before=before,
        after=after,
        earlier=witnesses,
        log_ends_by=last.point.finished_at,
        where=chain.database,
    )


def _witness(step: RestoreStep) -> ClockWitness | None:
    server = step.facts.get("server") or {}
    minutes = server.get("utc_offset_minutes")
    if minutes is None:
        return None
    return ClockWitness(
        step.point.finished_at.astimezone(UTC), timedelta(minutes=minutes), server.get("time_zone")
    )


def _check_delivery(chain: DatabaseChain, server: TargetServer, facts: ServerFacts) -> None:
    """Whether the server can get at every step."""
    urls = [device.name for step in chain.steps if is_by_url(step) for device in url_devices(step)]
    if urls and facts.major < 16:
        raise TargetNotUsable(
            f"{facts.name}: SQL Server {facts.version} reads no backups from {urls[0]}",
            hint="restore on SQL Server 2022 or later: --instance NAME",
        )
    if facts.credentials is not None:
        known = [name.rstrip("/").casefold() for name in facts.credentials]
        for url in urls:
            if not any(url.casefold().startswith(name) for name in known):
                raise TargetNotUsable(
                    f"{facts.name} has no credential for {url}",
                    hint="CREATE CREDENTIAL [s3://host/bucket] WITH IDENTITY = 'S3 Access Key', "
                    "SECRET = 'key id:secret'  -- named like the beginning of the URL",
                )
    if server.folder is None and any(not is_by_url(step) for step in chain.steps):
        raise TargetNotUsable(
            f"{server.instance} has no folder through which backups reach it",
            hint="write delivery: {disk: {server_path: …, local_path: …}} for it, or restore with "
            "--files DIR and the script there",
        )


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
    return steps_done(
        chain.steps,
        read_restore_history(session, target.name),
        existing,
        stop_at=None if stop_at is None else stop_at.literal,
    )


def _restore(run: _Run, done: int, take_tail: Callable[[], None] | None) -> DatabaseOutcome:
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
            _run(run, disconnect_statement(target.name), doing="ending sessions")
            run.was_restricted = True
        if run.checked.takes_tail and take_tail is not None:
            run.progress.phase("backing up the tail of the log")
            run.is_waiting = True
            take_tail()
            run.has_begun = True
        for number, step in enumerate(left, start=done + 1):
            devices = url_devices(step) if spool is None else spool.take()
            _apply(run, number, step, devices)
            if spool is not None:
                spool.done()
    return _finish(run, done)


def _apply(run: _Run, number: int, step: RestoreStep, devices: tuple[Device, ...]) -> None:
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
    texts = _run(run, statement, doing=doing, hear=_Percent(run.progress, header.stored_bytes))
    run.has_begun = True
    if stops and is_left_restoring(texts) and not run.chain.is_proven:
        raise RestoreNotProven(
            f"{run.server.instance}/{run.target.name}: the log in {step.point.id} ended before "
            "the instant asked for (4322), so that later transactions may be missing",
            hint="take or wait for the next log backup and restore again; or choose an instant "
            "that sqlbak windows shows",
        )


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


def _run(
    run: _Run, statement: str, *, doing: str, hear: Callable[[str], None] | None = None
) -> tuple[str, ...]:
    try:
        return run.session.run(statement, doing=doing, stop=run.stop, hear=hear)
    except StatementFailed as failed:
        raise failed.explained(RestoreFailed) from None


def _finish(run: _Run, done: int) -> DatabaseOutcome:
    """Look where the log stands, open the database, and look again."""
    chain, target = run.chain, run.target
    last = chain.steps[-1]
    run.progress.phase("recovering")
    before = _look(run)
    reached = before.redo_start
    _check_position(run, reached)
    state = "RESTORING"
    if target.recovers:
        run.stop.check()
        run.is_recovering = True
        _run(run, recover_statement(target.name), doing="recovering the database")
        state = _look(run).state
        if state != "ONLINE":
            raise RestoreNotProven(
                f"{run.server.instance}/{target.name} is {state} after it was recovered, "
                "not ONLINE",
                hint="the server's error log says why",
            )
        _let_in_again(run)
    header = read_header(chain.steps[0].facts["header"])
    return DatabaseOutcome(
        server=run.server.instance,
        database=target.name,
        state=state,
        proven=state == "ONLINE",
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


def _next_steps(run: _Run, state: str, header: BackupHeader) -> tuple[str, ...]:
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


def _look(run: _Run) -> ExistingDatabase:
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


def _check_position(run: _Run, reached: int | None) -> None:
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


def _let_in_again(run: _Run) -> None:
    """Undo what ending the sessions did to a database that is open."""
    if not run.was_restricted:
        return
    with contextlib.suppress(EngineError, Refused):
        found = read_database(run.session, run.target.name)
        if found is not None and found.state == "ONLINE" and found.user_access != "MULTI_USER":
            run.session.run(multi_user_statement(found.name), doing="letting everybody in again")
        run.was_restricted = False


def _told(run: _Run, error: SqlbakError) -> SqlbakError:
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


def _state_now(run: _Run) -> str | None:
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
