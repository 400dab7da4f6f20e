"""Which recovery points bring an item back to an instant: the cheapest chain that is proven.

Pure: the catalog and the instant come in, a plan or a refusal goes out. The rules:

- a chain is one full, at most one differential of that full, then logs without a gap;
- a base serves instants from ``reachable_from`` on, as restoring it always gives its whole end;
- the first log in log order that covers the instant decides where the chain ends. Where the
  server's clock was set back, an instant happened more than once and its first occurrence counts,
  which is also where both servers stop ("the latest commit at or before", scanning forward);
- nothing can stop inside a bulk-logged log;
- log that was shipped ahead of the next log backup serves only what recovery points do not reach,
  and so does a copy-only log, where the rules let it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from enum import Enum
from itertools import zip_longest
from typing import Final, Literal

from sqlbak.errors import LineageAmbiguous, NothingToRestore, UnknownName
from sqlbak.model import Catalog, PointType, ShippedLog
from sqlbak.restore.chain import (
    LOOSE_RULES,
    Certainty,
    Chain,
    ChainRules,
    chain_to_instant,
    chain_to_position,
    own_ends,
)
from sqlbak.restore.copy_only_logs import copy_only_views, view_with
from sqlbak.restore.parting import require_newest, require_newest_at
from sqlbak.restore.path import Path, lineages_of, path_of
from sqlbak.restore.refusal import unreachable_instant, unreachable_point, unreachable_position
from sqlbak.restore.rejection import rejections
from sqlbak.restore.restore_plan import (
    UTC_CLOCK,
    Clock,
    Cut,
    Rejection,
    RestorePlan,
    plan_document,
)
from sqlbak.restore.tail import folded, views
from sqlbak.restore.windows import windows_of

__all__ = [
    "LATEST",
    "Cut",
    "Latest",
    "Rejection",
    "RestorePlan",
    "plan",
    "plan_document",
    "plan_to_point",
    "plan_to_position",
]


class Latest(Enum):
    """The type of ``LATEST``."""

    LATEST = "latest"


LATEST: Final = Latest.LATEST
"""The last instant that is proven: the end of the latest window."""


def plan(
    catalog: Catalog,
    to: datetime | Literal[Latest.LATEST],
    *,
    lineage: str | None = None,
    rules: ChainRules = LOOSE_RULES,
    clock: Clock = UTC_CLOCK,
) -> RestorePlan:
    """The cheapest valid chain to ``to``: least estimated time (``rules.rates``), then fewest
    bytes, then fewest steps, then the newest base.

    ``to`` is aware. Without ``lineage`` all are tried; where several hold the instant with the
    same state the newest is named.

    Raises:
        InstantUnreachable: no chain leads there; ``nearest`` holds the instants around it.
        LineageAmbiguous: several lineages hold the instant, with different states, or only one
            that was abandoned by then.
        NothingToRestore: no full backup, or for LATEST no instant that is proven.
        UnknownName: the catalog knows no such lineage.
        LineageContradictory: the recorded forks cannot be true.
    """
    names = lineages_of(catalog) if lineage is None else (lineage,)
    # Of each lineage what recovery points alone reach comes first.
    seen = [(view, path_of(view, name)) for name in names for view in _views(catalog, name, rules)]
    paths = [path for _, path in seen]
    if not any(path.bases for path in paths):
        raise _nothing(catalog, lineage)
    if to is LATEST:
        paths, to = _latest(catalog, paths, rules)
    wanted = {id(path) for path in paths}
    chains: dict[str, tuple[Catalog, Chain]] = {}
    for view, path in seen:
        if path.lineage in chains or id(path) not in wanted:
            continue
        chain = chain_to_instant(path, to, rules)
        if chain is not None:
            chains[path.lineage] = (view, chain)
    if not chains:
        raise unreachable_instant(catalog.item, paths, to, rules, clock)
    chosen = _one_of(catalog, [chain for _, chain in chains.values()], to, clock)
    if lineage is None and rules.newest_lineage_is_meant:
        require_newest(catalog, chosen.path, to, clock)
    view = chains[chosen.path.lineage][0]
    made = _plan(view, chosen, to, rules, clock)
    return _of_whole(catalog, view, made)


def _of_whole(catalog: Catalog, view: Catalog, made: RestorePlan) -> RestorePlan:
    """A plan that was made in a view, told of the points as the catalog has them."""
    known = {point.id: point for point in catalog.points}
    return replace(
        made,
        steps=tuple(known.get(step.id, step) for step in made.steps),
        rejected=(*made.rejected, *_left_out(catalog, view)),
    )


def _left_out(catalog: Catalog, view: Catalog) -> list[Rejection]:
    held = {point.id for point in view.points}
    used = "the shipped log does not continue" if view.shipped else "the copy-only log overlaps"
    return [
        Rejection(point.id, f"holds log of its lineage that {used}")
        for point in catalog.points
        if point.id not in held
    ]


def _views(catalog: Catalog, lineage: str, rules: ChainRules) -> list[Catalog]:
    found = [replace(catalog, shipped=()), *views(catalog, lineage)]
    return found + (copy_only_views(catalog, lineage) if rules.uses_copy_only_logs else [])


def plan_to_point(
    catalog: Catalog,
    point_id: str,
    *,
    rules: ChainRules = LOOSE_RULES,
    clock: Clock = UTC_CLOCK,
) -> RestorePlan:
    """The cheapest chain to exactly the end of one recovery point; nothing has to stop inside.

    Raises:
        UnknownName: no such recovery point.
        NothingToRestore: no chain leads to its end.
        LineageContradictory: the recorded forks cannot be true.
    """
    point = next((point for point in catalog.points if point.id == point_id), None)
    if point is None:
        newest = sorted(catalog.points, key=lambda point: (point.finished_at, point.id))[-10:]
        raise UnknownName("recovery point", point_id, [point.id for point in newest])
    view = catalog
    if point.type is PointType.LOG and point.is_copy_only and rules.uses_copy_only_logs:
        view = view_with(catalog, point)
    path = path_of(view, point.lineage)
    if point.type is PointType.LOG:
        bases = path.bases if view is not catalog or not point.is_copy_only else ()
    else:
        bases = tuple(base for base in path.bases if base.points[-1].id == point_id)
    arrival = chain_to_position(path, bases, point.last_lsn, rules, to=None)
    if arrival is None or (point.type is not PointType.LOG and arrival.log is not None):
        raise unreachable_point(catalog.item, path, point, rules)
    chain = Chain(path, arrival.base, arrival.logs(), point.last_lsn, Certainty.PROVEN, point.id)
    return _of_whole(catalog, view, _plan(view, chain, None, rules, clock))


def plan_to_position(
    catalog: Catalog,
    lsn: int,
    *,
    lineage: str | None = None,
    rules: ChainRules = LOOSE_RULES,
    clock: Clock = UTC_CLOCK,
) -> RestorePlan:
    """The cheapest chain to a position in the log: all that lies before it and nothing behind it.

    Without ``lineage`` all are tried; where several hold the position with the same log before it
    the newest is named.

    Raises:
        PositionUnreachable: no chain leads there.
        LineageAmbiguous: several lineages hold the position, with different log before it, or only
            one that was abandoned before it.
        NothingToRestore: no full backup.
        UnknownName: the catalog knows no such lineage.
        LineageContradictory: the recorded forks cannot be true.
    """
    names = lineages_of(catalog) if lineage is None else (lineage,)
    paths = [path_of(catalog, name) for name in names]
    if not any(path.bases for path in paths):
        raise _nothing(catalog, lineage)
    chains = [chain for path in paths if (chain := _to_position(path, lsn, rules)) is not None]
    if not chains:
        raise unreachable_position(catalog.item, paths, lsn)
    states = {tuple(step.id for step in chain.steps) for chain in chains}
    if len(states) > 1:
        raise _ambiguous(catalog, chains, f"log position {lsn}")
    chain = max(chains, key=lambda chain: _newness(catalog, chain))
    if lineage is None and rules.newest_lineage_is_meant:
        require_newest_at(catalog, chain.path, lsn)
    return replace(_plan(catalog, chain, None, rules, clock), stop_lsn=lsn)


def _to_position(path: Path, lsn: int, rules: ChainRules) -> Chain | None:
    """The cheapest arrival at the first position from ``lsn`` on where a log or a base ends that
    begins before it; nothing can stop inside a bulk-logged log."""
    bases = [base for base in path.bases if base.position <= lsn]
    ends = {base.position for base in bases if base.position == lsn}
    # A bulk-logged log around the position is of no use, not even as another way to the same end.
    logs_to_stop_in = tuple(
        log for log in path.logs if not (log.point.has_bulk_logged and log.start < lsn < log.end)
    )
    ends |= {log.end for log in logs_to_stop_in if log.start < lsn <= log.end}
    stoppable = replace(path, logs=logs_to_stop_in)
    arrivals = [
        (arrival.key, end, arrival)
        for end in sorted(ends)
        if (arrival := chain_to_position(stoppable, bases, end, rules, to=None)) is not None
    ]
    if not arrivals:
        return None
    _, end, arrival = min(arrivals, key=lambda found: found[:2])
    logs = arrival.logs()
    last = logs[-1].point if logs else arrival.base.points[-1]
    return Chain(path, arrival.base, logs, end, Certainty.PROVEN, last.id)


def _plan(
    catalog: Catalog, chain: Chain, to: datetime | None, rules: ChainRules, clock: Clock
) -> RestorePlan:
    shipped = {piece.name: piece for piece in catalog.shipped}
    proof = shipped.get(chain.proven_by)
    steps = chain.steps if proof is None else folded(chain.steps, proof)
    last = steps[-1]
    proven_by = chain.proven_by
    if to is not None and last.covers_until is not None and last.covers_until >= to:
        proven_by = last.id
    return RestorePlan(
        item=catalog.item,
        lineage=chain.path.lineage,
        steps=steps,
        stop_at=to,
        size_bytes=sum(step.size_bytes for step in steps),
        estimated_seconds=sum(map(rules.rates.microseconds, chain.steps)) / 1_000_000,
        certainty=chain.certainty,
        notes=(*_notes(chain, to, clock), *_notes_of_log(proof, clock), *catalog.notes),
        rejected=rejections(catalog, chain, to, rules),
        proven_by=proven_by,
        to_the_end=to is None or not (chain.logs or proof) or last.finished_at <= to,
        cuts=_cuts(chain),
        clock=clock,
        shipped=tuple(shipped[step.id] for step in chain.steps if step.is_tail),
    )


def _notes_of_log(proof: ShippedLog | None, clock: Clock) -> tuple[str, ...]:
    if proof is None or proof.covers_until is None:
        return ()
    return (
        f"log shipped continuously up to {clock.text(proof.covers_until)} is used, which no "
        "recovery point holds yet",
    )


def _cuts(chain: Chain) -> tuple[Cut, ...]:
    cuts: list[Cut] = []
    for log, follower in zip_longest(chain.logs, chain.logs[1:]):
        if log.is_cut:
            # A log that crosses the fork may begin before it, and is met where it begins.
            meets = follower is not None and log.start < follower.start < log.end
            cuts.append(Cut(log.point.id, follower.start if meets else log.end))
    return tuple(cuts)


def _notes(chain: Chain, to: datetime | None, clock: Clock) -> tuple[str, ...]:
    if to is None:
        return ()
    notes: list[str] = []
    if chain.certainty is Certainty.PROBABLE and chain.logs:
        notes.append(
            f"probable, not proven: {chain.steps[-1].id} most likely holds everything up to "
            f"{clock.text(to)}, but no backup begun after that instant shows it"
        )
    elif chain.certainty is Certainty.PROBABLE:
        notes.append(
            f"probable, not proven: transactions of the last moments before {clock.text(to)} "
            f"may be missing, as no log behind {chain.steps[-1].id} is there"
        )
    for earliest, latest in chain.path.set_back:
        if earliest < to <= latest:
            notes.append(
                f"the server's clock was set back from {clock.text(latest)} to "
                f"{clock.text(earliest)} or before: the instant happened more than once, and this "
                "plan restores its first occurrence"
            )
            break
    return tuple(notes)


def _latest(
    catalog: Catalog, paths: Sequence[Path], rules: ChainRules
) -> tuple[list[Path], datetime]:
    """The last proven instant, or a later end of a base, and the paths that reach it."""
    ends = [(found[-1].end, path) for path in paths if (found := windows_of(path, rules))]
    ends += [(end, path) for path in paths for end, _ in own_ends(path)]
    if not ends:
        raise NothingToRestore(
            f"{catalog.item}: no instant is proven to be restorable",
            hint="take a full backup; sqlbak list shows what there is",
        )
    latest = max(end for end, _ in ends)
    reaching = {path.lineage for end, path in ends if end == latest}
    return [path for path in paths if path.lineage in reaching], latest


def _one_of(catalog: Catalog, chains: Sequence[Chain], to: datetime, clock: Clock) -> Chain:
    """The chain of the newest lineage when all give one state; raises LineageAmbiguous if not."""
    if len(chains) == 1:
        return chains[0]
    states = {
        (chain.base.points, tuple((log.point.id, log.end) for log in chain.logs))
        for chain in chains
    }
    if len(states) > 1:
        raise _ambiguous(catalog, chains, clock.text(to))
    return max(
        chains,
        key=lambda chain: (chain.certainty is Certainty.PROVEN, *_newness(catalog, chain)),
    )


def _newness(catalog: Catalog, chain: Chain) -> tuple[datetime, str]:
    """By what the newest of several lineages with one state is found."""
    lineage = chain.path.lineage
    return max(p.finished_at for p in catalog.points if p.lineage == lineage), lineage


def _ambiguous(catalog: Catalog, chains: Sequence[Chain], asked: str) -> LineageAmbiguous:
    names = sorted(chain.path.lineage for chain in chains)
    return LineageAmbiguous(
        f"{catalog.item}: the lineages {', '.join(names)} all hold {asked}, with different states",
        hint="name the one that is meant with --lineage; sqlbak windows shows their times",
    )


def _nothing(catalog: Catalog, lineage: str | None) -> NothingToRestore:
    of = "" if lineage is None else f" on lineage {lineage}"
    return NothingToRestore(
        f"{catalog.item}: there is no full backup{of} that a restore could begin with",
        hint=f"take one: sqlbak backup {catalog.item} --type full",
    )
