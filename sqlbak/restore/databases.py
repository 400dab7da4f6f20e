"""From a request to a database of SQL Server: plan, fetch the manifests, restore on a server, or
write files and a script. Nothing of the target is touched before the plan stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlbak.engines.port import DatabaseOutcome, DatabaseTarget, RestoreStep
from sqlbak.errors import InstantUnreachable, ObjectDamaged, ObjectNotFound, UsageError
from sqlbak.model import EngineName, Item
from sqlbak.progress import NO_PROGRESS, Progress
from sqlbak.restore.chain import Certainty
from sqlbak.restore.executor import PlannedItem, Stock, plan_readable
from sqlbak.restore.planner import RestorePlan
from sqlbak.stopping import NEVER, StopSignal

if TYPE_CHECKING:
    from sqlbak.engines.sqlserver.restoring import DatabaseChain, TargetServer
    from sqlbak.engines.sqlserver.script import WrittenFiles

__all__ = [
    "RestoredDatabase",
    "WrittenDatabase",
    "require_tellable",
    "restore_database_item",
    "restored_at",
    "write_database_files",
]


@dataclass(frozen=True, slots=True)
class RestoredDatabase:
    """What was restored, by which plan, what it reached, and from where it came."""

    item: Item
    plan: RestorePlan
    outcome: DatabaseOutcome
    source: str


@dataclass(frozen=True, slots=True)
class WrittenDatabase:
    """Which files were written, and by which plan."""

    item: Item
    plan: RestorePlan
    database: str
    written: WrittenFiles


def restore_database_item(
    stock: Stock,
    name: str | None,
    to: str,
    *,
    target: Callable[[str], DatabaseTarget],
    server: Callable[[Item], TargetServer],
    take_tail: Callable[[Item, str], None] | None = None,
    lineage: str | None = None,
    progress: Progress = NO_PROGRESS,
    stop: StopSignal = NEVER,
) -> RestoredDatabase:
    """Plan as ``plan_item`` does, then restore on ``server`` as ``target``; both are asked once the
    item and the name that the database had last are known. ``take_tail`` backs up the tail of the
    log of the database that is replaced, given the item and that database's name.

    Raises what planning raises and, before the target is touched, TargetNotUsable and
    InstantUnreachable; RestoreFailed; RestoreNotProven.
    """
    from sqlbak.engines.sqlserver.restoring import restore_database

    planned, steps = plan_readable(stock, name, to, lineage=lineage, stop=stop)
    item = planned.stored.item
    chain = _chain(planned, steps)
    wanted = target(_name_meant(name, item, chain.database))
    tail = None if take_tail is None else lambda: take_tail(item, wanted.name)
    outcome = restore_database(
        chain, wanted, server(item), take_tail=tail, progress=progress, stop=stop
    )
    return RestoredDatabase(item, planned.plan, outcome, planned.stored.vault.store.url)


def write_database_files(
    stock: Stock,
    name: str | None,
    to: str,
    directory: Path,
    *,
    database: str | None = None,
    lineage: str | None = None,
    progress: Progress = NO_PROGRESS,
    stop: StopSignal = NEVER,
) -> WrittenDatabase:
    """Plan as ``plan_item`` does, then write the backups and the script that restores them as
    ``database`` (None: its own name) into ``directory``."""
    from sqlbak.engines.sqlserver.script import write_files

    planned, steps = plan_readable(stock, name, to, lineage=lineage, stop=stop)
    chain = _chain(planned, steps)
    wanted = database or _name_meant(name, planned.stored.item, chain.database)
    written = write_files(chain, directory, database=wanted, progress=progress, stop=stop)
    return WrittenDatabase(planned.stored.item, planned.plan, wanted, written)


def _name_meant(asked: str | None, item: Item, last: str) -> str:
    """What the original is called: as it was asked for where it was found under a newer name than
    its item's, which the last step of the plan may be too old to know; else as that step says."""
    if asked is None or asked in (item.name, item.id):
        return last
    _, mark, database = asked.partition("/")
    return database if mark else last


def _chain(planned: PlannedItem, steps: Sequence[RestoreStep]) -> DatabaseChain:
    from sqlbak.engines.sqlserver.headers import read_header
    from sqlbak.engines.sqlserver.restoring import DatabaseChain

    item, plan = planned.stored.item, planned.plan
    if item.engine is not EngineName.SQLSERVER or item.database is None:
        raise UsageError(
            f"{item.name} is a cluster of PostgreSQL: it is restored into a directory",
            hint="--into DIR takes an empty or absent directory",
        )
    chain = DatabaseChain(
        steps=tuple(steps),
        database=read_header(steps[-1].facts["header"]).database,
        lineage=plan.lineage,
        stop_at=plan.stop_at,
        stop_lsn=plan.stop_lsn,
        to_the_end=plan.to_the_end,
        is_proven=plan.certainty is Certainty.PROVEN,
        cuts={cut.point_id: cut.lsn for cut in plan.cuts},
    )
    _require_alive(planned)
    _require_stop(planned, chain)
    return chain


def require_tellable(planned: PlannedItem) -> None:
    """InstantUnreachable for a plan that a restore would refuse, as the source server's log cannot
    tell the instant from another one. Reads the last manifests of the plan; one that is damaged is
    the restore's to plan around. Plans of other engines pass."""
    from sqlbak.engines.sqlserver.restoring import DatabaseChain

    plan, stored = planned.plan, planned.stored
    if stored.item.engine is not EngineName.SQLSERVER or plan.stop_at is None:
        return
    try:
        steps = [RestoreStep(point, *stored.open_point(point)) for point in plan.steps[-2:]]
        _require_alive(planned)
    except (ObjectDamaged, ObjectNotFound):
        return
    chain = DatabaseChain(
        tuple(steps),
        stored.item.database or "",
        plan.lineage,
        stop_at=plan.stop_at,
        to_the_end=plan.to_the_end,
    )
    _require_stop(planned, chain)


def _require_stop(planned: PlannedItem, chain: DatabaseChain) -> None:
    """The refusals of ``require_settled`` and ``stop_of``, under the item's name."""
    from sqlbak.engines.sqlserver.restoring import stop_of
    from sqlbak.engines.sqlserver.restoring_chain import require_settled

    if planned.plan.stop_at is not None and not planned.plan.to_the_end:
        require_settled(planned.plan.steps, planned.plan.stop_at, planned.stored.item.name)
    try:
        stop_of(chain)
    except InstantUnreachable as refusal:
        words = refusal.message.removeprefix(f"{chain.database}: ")
        refusal.message = f"{planned.stored.item.name}: {words}"
        raise


def _require_alive(planned: PlannedItem) -> None:
    """InstantUnreachable for an instant at which the plan's lineage did not live yet.

    A restore in place goes back to an earlier instant, and the log that comes after it continues
    the one before: by their clocks alone, the time in between looks like a quiet one of the new
    lineage, while in truth the database then held what the restore threw away.
    """
    plan = planned.plan
    if plan.stop_at is None:
        return
    catalog = planned.stored.catalog()
    proof = next((point for point in catalog.points if point.id == plan.proven_by), None)
    if proof is None or all(fork.lineage != proof.lineage for fork in catalog.forks):
        return
    own = [point for point in catalog.points if point.lineage == proof.lineage]
    first = min(own, key=lambda point: (point.started_at, point.id))
    if plan.stop_at >= first.started_at:
        return
    facts, _ = planned.stored.open_point(first)
    begun = restored_at(facts) or first.started_at
    if plan.stop_at >= begun:
        return
    raise InstantUnreachable(
        f"{planned.stored.item.name}: {plan.stop_at.isoformat()} cannot be restored: the database "
        f"was restored in place at {begun.isoformat()}, and what it held right before that is in "
        "no backup",
        hint="choose an instant after that restore, or one that an older lineage holds (sqlbak "
        "windows)",
        nearest=(begun,),
    )


def restored_at(facts: Mapping[str, Any]) -> datetime | None:
    """When the database was restored before that backup (UTC), the later of two readings."""
    from sqlbak.engines.sqlserver.restoring_clock import zone_named

    text, server = facts.get("restored_at"), facts.get("server") or {}
    minutes = server.get("utc_offset_minutes")
    if text is None or minutes is None:
        return None
    wall = datetime.fromisoformat(text)
    readings = [(wall - timedelta(minutes=minutes)).replace(tzinfo=UTC)]
    zone = zone_named(server.get("time_zone"))
    if zone is not None:
        readings += [wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)]
    return max(readings)
