"""From a request to a running database: choose the item, plan, fetch the manifests, restore.

Nothing of the target is touched before the plan stands.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from sqlbak.engines.port import RestoreOutcome, RestoreStep, RestoreTarget
from sqlbak.engines.registry import restorer
from sqlbak.errors import (
    InstantUnreachable,
    LogNotReplayable,
    NameNeeded,
    NothingToRestore,
    ObjectDamaged,
    ObjectNotFound,
    Refused,
    TargetNotUsable,
    UnknownName,
    UsageError,
)
from sqlbak.fleet import StoredItem
from sqlbak.model import Catalog, EngineName, Item, Point, PointType, ShippedLog
from sqlbak.progress import NO_PROGRESS, Progress
from sqlbak.restore.asked import fixed, is_latest, planner_of
from sqlbak.restore.restore_plan import RestorePlan
from sqlbak.stopping import NEVER, StopSignal
from sqlbak.vault.layout import POINT_ID

__all__ = [
    "PlannedItem",
    "RestoredItem",
    "Stock",
    "plan_item",
    "plan_readable",
    "restore_item",
]


class Stock(Protocol):
    """Where stored items are: a fleet's vaults, or a folder that somebody downloaded."""

    def stored_items(self, name: str | None) -> list[StoredItem]:
        """The items called ``name``; None: all."""

    def zone(self, item: Item) -> tzinfo:
        """The zone in which the item's times are read."""

    def program_dir(self, item: Item) -> Path | None:
        """Where the server's own programs are for this item; None: nobody says."""


_READERS = 4
"""Pieces of shipped log that are proven at once; each takes a few MiB."""


@dataclass(frozen=True, slots=True)
class PlannedItem:
    """A plan, the stored item that it is for, and all that is known of it."""

    stored: StoredItem
    plan: RestorePlan
    catalog: Catalog


@dataclass(frozen=True, slots=True)
class RestoredItem:
    """What was restored, by which plan, what it reached, and from where it came."""

    item: Item
    plan: RestorePlan
    outcome: RestoreOutcome
    source: str


def plan_item(
    stock: Stock,
    name: str | None,
    to: str,
    *,
    lineage: str | None = None,
    without: Collection[str] = (),
    replayed_from: int = 0,
) -> PlannedItem:
    """Plan the restore of the item called ``name`` (None: the only one) to ``to``.

    ``to`` is ISO 8601 (without an offset it is read in the item's policy's zone), ``latest``, a
    position in the log as PostgreSQL writes it, or a recovery point's id: its very end. One name
    may stand for several stored items, when a server was replaced by another under the same name;
    what is asked for then decides. ``without``: ids of recovery points that must not be used;
    ``replayed_from``: the position before which no log may be replayed. Raises UsageError,
    Refused and what the vault raises.
    """
    stored_items = stock.stored_items(name)
    if not stored_items:
        raise NothingToRestore(
            f"there is no recovery point of {name or 'anything'}",
            hint="take a first one with: sqlbak backup --type full",
        )
    names = sorted({stored.item.name for stored in stored_items})
    if len(names) > 1:
        raise NameNeeded("item", names)
    first = stored_items[0].item
    chosen = planner_of(to, stock.zone(first), lineage, first.engine)
    planned: list[PlannedItem] = []
    problems: list[Refused | UnknownName] = []
    for stored in stored_items:
        try:
            catalog = stored.catalog()
            usable = _without(catalog, without, replayed_from)
            planned.append(PlannedItem(stored, chosen(usable), catalog))
        except (Refused, UnknownName) as problem:
            problems.append(problem)
    if not planned:
        raise problems[-1]
    return _one_of(planned, is_latest=is_latest(to))


def restore_item(
    stock: Stock,
    name: str | None,
    to: str,
    target: RestoreTarget,
    *,
    lineage: str | None = None,
    progress: Progress = NO_PROGRESS,
    stop: StopSignal = NEVER,
) -> RestoredItem:
    """Plan as ``plan_item`` does, then restore into ``target``; where that names no programs, with
    those that the stock knows of.

    A recovery point whose manifest cannot be read is planned around where that leads to the same
    state, and so is log that cannot be replayed on this machine; the plan's notes tell. Raises
    what planning raises, before the target is touched;
    TargetNotUsable; ObjectDamaged; RestoreFailed; RestoreNotProven when the server recovered but
    not provably to the state asked for.
    """
    planned, steps = plan_readable(stock, name, to, lineage=lineage, stop=stop)
    stored = planned.stored
    if stored.item.engine is EngineName.SQLSERVER:
        raise UsageError(
            f"{stored.item.name} is a database of SQL Server: it is restored on a server, not into "
            "a directory",
            hint="--as NAME restores it beside the original, --overwrite in its place; "
            "--files DIR writes the backups and a script",
        )
    _require_outside(stored.vault.store.url, target.directory)
    if target.program_dir is None:
        target = replace(target, program_dir=stock.program_dir(stored.item))
    restore: Callable[..., RestoreOutcome] = restorer(stored.item.engine)
    while True:
        try:
            outcome = restore(
                steps,
                stop_at=planned.plan.stop_at,
                stop_lsn=planned.plan.stop_lsn,
                lineage=planned.plan.lineage,
                histories=stored.histories(),
                target=target,
                progress=progress,
                stop=stop,
                item_id=stored.item.id,
            )
        except LogNotReplayable as error:
            planned, steps = _behind(error, stock, planned, to, lineage, stop)
        else:
            return RestoredItem(stored.item, planned.plan, outcome, stored.vault.store.url)


def _behind(
    error: LogNotReplayable,
    stock: Stock,
    failed: PlannedItem,
    to: str,
    lineage: str | None,
    stop: StopSignal,
) -> tuple[PlannedItem, Sequence[RestoreStep]]:
    """A plan to the same state that replays no log before ``error.behind``; ``error`` again when
    there is none."""
    to, lineage = fixed(failed.plan, to, lineage)
    name = failed.stored.item.id
    try:
        planned, steps = plan_readable(
            stock, name, to, lineage=lineage, stop=stop, replayed_from=error.behind
        )
    except (Refused, UnknownName, ObjectDamaged, ObjectNotFound):
        raise error from None
    if planned.plan.steps == failed.plan.steps:
        raise error
    note = f"a newer backup is used to begin with: {error.message}"
    return replace(planned, plan=replace(planned.plan, notes=(*planned.plan.notes, note))), steps


def plan_readable(
    stock: Stock,
    name: str | None,
    to: str,
    *,
    lineage: str | None,
    stop: StopSignal,
    without: Collection[str] = (),
    replayed_from: int = 0,
) -> tuple[PlannedItem, Sequence[RestoreStep]]:
    """A plan as ``plan_item`` makes it, all of whose manifests and shipped log can be read, and its
    steps. Without one, the error of the first manifest that cannot be; for shipped log
    InstantUnreachable, naming what can be reached without it. The first plan fixes item, lineage
    and instant.
    """
    asked = name
    unreadable: dict[str, ObjectDamaged | ObjectNotFound] = {}
    while True:
        try:
            left_out = {*without, *unreadable}
            planned = plan_item(
                stock, name, to, lineage=lineage, without=left_out, replayed_from=replayed_from
            )
        except (Refused, UnknownName) as refusal:
            for lost, error in unreadable.items():
                # There is no second copy of shipped log: what is left without it is the answer.
                if POINT_ID.fullmatch(lost) or not isinstance(refusal, Refused):
                    raise error from None
                raise _damaged(refusal, error) from None
            raise
        name = planned.stored.item.id
        to, lineage = fixed(planned.plan, to, lineage)
        found = _steps(planned, unreadable, stop)
        if found is not None:
            planned.stored.require_forks(
                planned.catalog.forks, planned.plan.lineage, planned.plan.steps[0].lineage
            )
            if asked is not None:
                planned.stored.require_called(asked, planned.plan.steps)
            notes = [f"{point} is left out: {error}" for point, error in unreadable.items()]
            plan = replace(planned.plan, notes=(*planned.plan.notes, *notes))
            return replace(planned, plan=plan), found


def _steps(
    planned: PlannedItem,
    unreadable: dict[str, ObjectDamaged | ObjectNotFound],
    stop: StopSignal,
) -> Sequence[RestoreStep] | None:
    """The plan's steps with their manifests; None after adding what cannot be read. Every piece of
    shipped log is read once here, before the target is touched, and so is what is not applied but
    proves where the state ends: a name alone proves nothing."""
    steps: list[RestoreStep] = []
    whole = {point.id: point for point in planned.catalog.points}
    for point in planned.plan.steps:
        if point.is_tail:
            continue
        try:
            steps.append(RestoreStep(whole[point.id], *planned.stored.open_point(point)))
        except (ObjectDamaged, ObjectNotFound) as error:
            unreadable[point.id] = error
            return None
    proof = whole.get(planned.plan.proven_by)
    if proof is not None and all(step.point.id != proof.id for step in steps):
        try:
            planned.stored.open_point(proof)
        except (ObjectDamaged, ObjectNotFound) as error:
            unreadable[proof.id] = error
            return None
    if (found := _damaged_piece(planned, stop)) is not None:
        unreadable[found[0]] = found[1]
        return None
    last = planned.plan.steps[-1]
    if last.is_tail:
        parts = planned.stored.open_tail(last, planned.plan.shipped)
        steps += [RestoreStep(*part) for part in parts]
    return steps


def _damaged_piece(
    planned: PlannedItem, stop: StopSignal
) -> tuple[str, ObjectDamaged | ObjectNotFound] | None:
    """The first piece of the plan's shipped log that is damaged or, as a log backup has sealed it
    meanwhile, gone: its name and what is wrong with it."""

    def damage(piece: ShippedLog) -> ObjectDamaged | ObjectNotFound | None:
        stop.check()
        try:
            planned.stored.check_shipped(piece)
        except (ObjectDamaged, ObjectNotFound) as error:
            return error
        return None

    pieces = planned.plan.proofs
    with ThreadPoolExecutor(_READERS, thread_name_prefix="sqlbak-shipped") as pool:
        try:
            for piece, error in zip(pieces, pool.map(damage, pieces), strict=True):
                if error is not None:
                    return piece.name, error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return None


def _damaged(refusal: Refused, error: ObjectDamaged | ObjectNotFound) -> Refused:
    return InstantUnreachable(
        f"{refusal.message}; beyond that, {error.message}",
        hint=refusal.hint,
        nearest=refusal.nearest,
    )


def _without(catalog: Catalog, ids: Collection[str], replayed_from: int) -> Catalog:
    """The catalog without these recovery points and pieces of shipped log, and of each log
    around ``replayed_from`` only what lies behind."""
    return replace(
        catalog,
        points=tuple(_from(p, replayed_from) for p in catalog.points if p.id not in ids),
        shipped=tuple(piece for piece in catalog.shipped if piece.name not in ids),
    )


def _from(point: Point, position: int) -> Point:
    if point.type is PointType.LOG and point.first_lsn < position < point.last_lsn:
        return replace(point, first_lsn=position)
    return point


def _require_outside(vault_url: str, directory: Path) -> None:
    """TargetNotUsable for a target in the vault's own folder: the vault would take its files for
    its own, and whoever cleans up one would harm the other."""
    parts = urlsplit(vault_url)
    if parts.scheme != "file":
        return
    root = Path(unquote(parts.path)).resolve()
    if directory.resolve().is_relative_to(root):
        raise TargetNotUsable(
            f"{directory} lies in the vault's own folder, {root}",
            hint="restore into a directory outside of it",
        )


def _one_of(planned: Sequence[PlannedItem], *, is_latest: bool) -> PlannedItem:
    """Several servers bore the name: ``latest`` means the newest state, else a choice is due."""
    if len(planned) == 1:
        return planned[0]
    if is_latest:
        oldest = datetime.min.replace(tzinfo=UTC)
        return max(planned, key=lambda each: each.plan.stop_at or oldest)
    raise NameNeeded("stored item", [each.stored.item.id for each in planned])
