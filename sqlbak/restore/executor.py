"""From a request to a running database: choose the item, plan, fetch the manifests, restore.

Nothing of the target is touched before the plan stands.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sqlbak.engines.port import RestoreOutcome, RestoreStep, RestoreTarget
from sqlbak.engines.registry import restorer
from sqlbak.errors import (
    InstantUnreachable,
    NameNeeded,
    NothingToRestore,
    ObjectDamaged,
    ObjectNotFound,
    Refused,
    TargetNotUsable,
)
from sqlbak.fleet import Fleet, StoredItem
from sqlbak.model import Catalog, Item, ShippedLog
from sqlbak.policy.local_time import parse_instant
from sqlbak.progress import NO_PROGRESS, Progress
from sqlbak.restore.planner import LATEST, Latest, RestorePlan, plan
from sqlbak.stopping import NEVER, StopSignal
from sqlbak.vault.layout import POINT_ID

__all__ = ["PlannedItem", "RestoredItem", "plan_item", "restore_item"]

_READERS = 4
"""Pieces of shipped log that are proven at once; each takes a few MiB."""


@dataclass(frozen=True, slots=True)
class PlannedItem:
    """A plan, and the stored item that it is for."""

    stored: StoredItem
    plan: RestorePlan


@dataclass(frozen=True, slots=True)
class RestoredItem:
    """What was restored, by which plan, and what it reached."""

    item: Item
    plan: RestorePlan
    outcome: RestoreOutcome


def plan_item(
    fleet: Fleet,
    name: str | None,
    to: str,
    *,
    lineage: str | None = None,
    without: Collection[str] = (),
) -> PlannedItem:
    """Plan the restore of the item called ``name`` (None: the only one) to ``to``.

    ``to`` is ISO 8601 or ``latest``; without an offset it is read in the item's policy's zone.
    ``without``: ids of recovery points that must not be used.
    One name may stand for several stored items, when a server was replaced by another under the
    same name; the instant then decides. Raises UsageError, Refused and what the vault raises.
    """
    stored_items = fleet.stored_items(name)
    if not stored_items:
        raise NothingToRestore(
            f"there is no recovery point of {name or 'anything'}",
            hint="take a first one with: sqlbak backup --type full",
        )
    names = sorted({stored.item.name for stored in stored_items})
    if len(names) > 1:
        raise NameNeeded("item", names)
    target = _instant(to, fleet.zone(stored_items[0].item))
    planned: list[PlannedItem] = []
    refusals: list[Refused] = []
    for stored in stored_items:
        try:
            catalog = _without(stored.catalog(), without)
            planned.append(PlannedItem(stored, plan(catalog, target, lineage=lineage)))
        except Refused as refusal:
            refusals.append(refusal)
    if not planned:
        raise refusals[-1]
    return _one_of(planned, is_latest=target is LATEST)


def restore_item(
    fleet: Fleet,
    name: str | None,
    to: str,
    target: RestoreTarget,
    *,
    lineage: str | None = None,
    progress: Progress = NO_PROGRESS,
    stop: StopSignal = NEVER,
) -> RestoredItem:
    """Plan as ``plan_item`` does, then restore into ``target``.

    A recovery point whose manifest cannot be read is planned around where that leads to the same
    instant; the plan's notes tell. Raises what planning raises, before the target is touched;
    TargetNotUsable; ObjectDamaged; RestoreFailed; RestoreNotProven when the server recovered but
    not provably to the state asked for.
    """
    planned, steps = _readable(fleet, name, to, lineage, stop)
    stored = planned.stored
    _require_outside(stored.vault.store.url, target.directory)
    restore: Callable[..., RestoreOutcome] = restorer(stored.item.engine)
    outcome = restore(
        steps,
        stop_at=planned.plan.stop_at,
        lineage=planned.plan.lineage,
        histories=stored.histories(),
        target=target,
        progress=progress,
        stop=stop,
    )
    return RestoredItem(stored.item, planned.plan, outcome)


def _instant(to: str, zone: tzinfo) -> datetime | Latest:
    return LATEST if to.strip().lower() == "latest" else parse_instant(to, zone)


def _readable(
    fleet: Fleet, name: str | None, to: str, lineage: str | None, stop: StopSignal
) -> tuple[PlannedItem, Sequence[RestoreStep]]:
    """A plan all of whose manifests and shipped log can be read, and its steps. Without one, the
    error of the first manifest that cannot be; for shipped log InstantUnreachable, naming what can
    be reached without it.

    The first plan fixes item, lineage and instant: planning around what is damaged must lead to
    the same state, never to what then happens to be the latest.
    """
    unreadable: dict[str, ObjectDamaged | ObjectNotFound] = {}
    while True:
        try:
            planned = plan_item(fleet, name, to, lineage=lineage, without=unreadable)
        except Refused as refusal:
            for lost, error in unreadable.items():
                # There is no second copy of shipped log: what is left without it is the answer.
                raise error if POINT_ID.fullmatch(lost) else _damaged(refusal, error) from None
            raise
        name, lineage = planned.stored.item.id, planned.plan.lineage
        if planned.plan.stop_at is not None:
            to = planned.plan.stop_at.isoformat()
        found = _steps(planned, unreadable, stop)
        if found is not None:
            notes = [f"{point} is left out: {error}" for point, error in unreadable.items()]
            plan = replace(planned.plan, notes=(*planned.plan.notes, *notes))
            return replace(planned, plan=plan), found


def _steps(
    planned: PlannedItem,
    unreadable: dict[str, ObjectDamaged | ObjectNotFound],
    stop: StopSignal,
) -> Sequence[RestoreStep] | None:
    """The plan's steps with their manifests; None after adding what cannot be read. Every piece of
    shipped log is read once here, before the target is touched."""
    steps: list[RestoreStep] = []
    for point in planned.plan.steps:
        if point.is_tail:
            continue
        try:
            steps.append(RestoreStep(point, *planned.stored.open_point(point)))
        except (ObjectDamaged, ObjectNotFound) as error:
            unreadable[point.id] = error
            return None
    if (found := _damaged_piece(planned, stop)) is not None:
        unreadable[found[0]] = found[1]
        return None
    last = planned.plan.steps[-1]
    if last.is_tail:
        parts = planned.stored.open_tail(last, planned.plan.shipped)
        steps += [RestoreStep(*part) for part in parts]
    return steps


def _damaged_piece(planned: PlannedItem, stop: StopSignal) -> tuple[str, ObjectDamaged] | None:
    """The first damaged piece of the plan's shipped log: its name and what is wrong with it."""

    def damage(piece: ShippedLog) -> ObjectDamaged | None:
        stop.check()
        try:
            planned.stored.check_shipped(piece)
        except ObjectDamaged as error:
            return error
        return None

    pieces = planned.plan.shipped
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


def _without(catalog: Catalog, ids: Collection[str]) -> Catalog:
    """The catalog without these recovery points and pieces of shipped log."""
    return replace(
        catalog,
        points=tuple(p for p in catalog.points if p.id not in ids),
        shipped=tuple(piece for piece in catalog.shipped if piece.name not in ids),
    )


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
