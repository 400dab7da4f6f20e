"""From a request to a running database: choose the item, plan, fetch the manifests, restore.

Nothing of the target is touched before the plan stands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, tzinfo

from sqlbak.engines.port import RestoreOutcome, RestoreStep, RestoreTarget
from sqlbak.engines.registry import restorer
from sqlbak.errors import (
    InstantUnreachable,
    NameNeeded,
    NothingToRestore,
    ObjectDamaged,
    Refused,
)
from sqlbak.fleet import Fleet, StoredItem
from sqlbak.model import Item
from sqlbak.policy.local_time import parse_instant
from sqlbak.progress import NO_PROGRESS, Progress
from sqlbak.restore.planner import LATEST, Latest, RestorePlan, plan
from sqlbak.stopping import NEVER, StopSignal

__all__ = ["PlannedItem", "RestoredItem", "plan_item", "restore_item"]


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
    fleet: Fleet, name: str | None, to: str, *, lineage: str | None = None
) -> PlannedItem:
    """Plan the restore of the item called ``name`` (None: the only one) to ``to``.

    ``to`` is ISO 8601 or ``latest``; without an offset it is read in the item's policy's zone.
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
            planned.append(PlannedItem(stored, plan(stored.catalog(), target, lineage=lineage)))
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

    Raises what planning raises, before the target is touched; TargetNotUsable; RestoreFailed;
    RestoreNotProven when the server recovered but not provably to the state asked for.
    """
    planned = _with_sound_tail(plan_item(fleet, name, to, lineage=lineage), stop)
    stored = planned.stored
    restore: Callable[..., RestoreOutcome] = restorer(stored.item.engine)
    outcome = restore(
        _steps(planned),
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


def _steps(planned: PlannedItem) -> Sequence[RestoreStep]:
    steps: list[RestoreStep] = []
    for point in planned.plan.steps:
        if point.is_tail:
            cut = planned.stored.open_tail(point, planned.plan.shipped)
            steps += [RestoreStep(*part) for part in cut]
        else:
            facts, source = planned.stored.open_point(point)
            steps.append(RestoreStep(point, facts, source))
    return steps


def _with_sound_tail(planned: PlannedItem, stop: StopSignal) -> PlannedItem:
    """Prove every piece of shipped log of the plan before the target is touched: nothing else
    tells of damage there, and there is no second copy of it. InstantUnreachable when the instant
    cannot be reached without what is damaged, naming what can be."""
    to = planned.plan.stop_at
    damaged: dict[str, ObjectDamaged] = {}
    while (error := _first_damage(planned, stop)) is not None and to is not None:
        damaged[error[0]] = error[1]
        catalog = planned.stored.catalog()
        sound = tuple(piece for piece in catalog.shipped if piece.name not in damaged)
        try:
            # Also for "latest": an earlier state than the one planned is never given unasked.
            again = plan(replace(catalog, shipped=sound), to, lineage=planned.plan.lineage)
        except InstantUnreachable as refusal:
            why = "; ".join(problem.message for problem in damaged.values())
            raise InstantUnreachable(
                f"{refusal.message}; beyond that, {why}",
                hint=refusal.hint,
                nearest=refusal.nearest,
            ) from None
        planned = PlannedItem(planned.stored, again)
    return planned


def _first_damage(planned: PlannedItem, stop: StopSignal) -> tuple[str, ObjectDamaged] | None:
    for piece in planned.plan.shipped:
        stop.check()
        try:
            planned.stored.check_shipped(piece)
        except ObjectDamaged as error:
            return piece.name, error
    return None


def _one_of(planned: Sequence[PlannedItem], *, is_latest: bool) -> PlannedItem:
    """Several servers bore the name: ``latest`` means the newest state, else a choice is due."""
    if len(planned) == 1:
        return planned[0]
    if is_latest:
        oldest = datetime.min.replace(tzinfo=UTC)
        return max(planned, key=lambda each: each.plan.stop_at or oldest)
    raise NameNeeded("stored item", [each.stored.item.id for each in planned])
