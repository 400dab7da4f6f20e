"""In which spans of time every instant can be restored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from sqlbak.model import Catalog, Window
from sqlbak.restore.chain import LOOSE_RULES, ChainRules, Key, own_ends, sweep
from sqlbak.restore.copy_only_logs import copy_only_views
from sqlbak.restore.path import LogOnPath, Path, lineages_of, path_of
from sqlbak.restore.tail import views

__all__ = ["windows", "windows_of"]

TICK: Final = timedelta(microseconds=1)
"""The grid of every clock here; spans whose ends touch on it are one."""

_EPOCH: Final = datetime(1, 1, 1, tzinfo=UTC)


def windows(catalog: Catalog, *, rules: ChainRules = LOOSE_RULES) -> tuple[Window, ...]:
    """Maximal spans of each lineage in which ``plan`` gives a proven plan, ends included.

    Ordered by lineage, then time. Raises LineageContradictory.
    """
    found: list[Window] = []
    for lineage in lineages_of(catalog):
        seen = [catalog, *views(catalog, lineage)]
        if rules.uses_copy_only_logs:
            seen += copy_only_views(catalog, lineage)
        spans = [
            (window.start, window.end)
            for view in seen
            for window in windows_of(path_of(view, lineage), rules)
        ]
        found += [
            Window(catalog.item, lineage, start, end) for start, end in _joined(sorted(spans))
        ]
    return tuple(found)


def windows_of(path: Path, rules: ChainRules) -> tuple[Window, ...]:
    """The windows of one lineage, oldest first."""
    spans: list[tuple[datetime, datetime]] = []
    entries = [
        (base, (_microseconds(base.usable_from),))
        for base in path.bases
        if base.usable_from is not None
    ]
    # The key of an arrival is the first instant from which it may be used: no base on the way
    # ends later, and no bulk-logged log on the way can hold a later transaction.
    arrivals = sweep(entries, path.logs, _hold_back, rules)
    proven_before: datetime | None = None
    for proof in path.proofs:
        arrival = arrivals.get(proof.end)
        if arrival is not None:
            start = _EPOCH + arrival.key[0] * TICK
            if proven_before is not None:
                start = max(start, proven_before + TICK)
            if start <= proof.until:
                spans.append((start, proof.until))
        proven_before = proof.until
    if rules.bases_prove_their_end:
        spans += [(end, end) for end, _ in own_ends(path)]
    return tuple(
        Window(path.item, path.lineage, start, end) for start, end in _joined(sorted(spans))
    )


def _hold_back(key: Key, log: LogOnPath) -> Key:
    if not log.point.has_bulk_logged:
        return key
    return (max(key[0], _microseconds(log.point.finished_at)),)


def _microseconds(instant: datetime) -> int:
    return (instant - _EPOCH) // TICK


def _joined(spans: list[tuple[datetime, datetime]]) -> list[tuple[datetime, datetime]]:
    joined: list[tuple[datetime, datetime]] = []
    for start, end in spans:
        if joined and start - joined[-1][1] <= TICK:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined
