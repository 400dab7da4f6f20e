"""The windows of an item as a restore keeps them. Of SQL Server, without the instants that its log
cannot tell from others, for which a few manifests are read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from sqlbak.engines.port import RestoreStep
from sqlbak.model import Catalog, EngineName, Point, Window
from sqlbak.restore.asked import rules_of
from sqlbak.restore.databases import restored_at
from sqlbak.restore.path import Path, path_of
from sqlbak.restore.windows import TICK, windows
from sqlbak.stored_item import StoredItem

__all__ = ["item_windows"]

_EVER: Final = datetime.min.replace(tzinfo=UTC)


def item_windows(stored: StoredItem) -> list[Window]:
    """Spans in which every instant can be restored, ends included; by lineage, then time.

    Raises LineageContradictory, and what reading a manifest of SQL Server's raises.
    """
    catalog = stored.catalog()
    found = windows(catalog, rules=rules_of(stored.item.engine))
    if stored.item.engine is not EngineName.SQLSERVER:
        return list(found)
    untold = {lineage: _untold(stored, catalog, lineage) for lineage in {w.lineage for w in found}}
    return [part for window in found for part in _without(window, untold[window.lineage])]


def _untold(stored: StoredItem, catalog: Catalog, lineage: str) -> list[tuple[datetime, datetime]]:
    """Spans, ends included, in which a restore to the lineage would refuse every instant."""
    from sqlbak.engines.sqlserver.restoring_chain import witness_of
    from sqlbak.engines.sqlserver.untold_spans import BackupTimes, untold_spans

    path = path_of(catalog, lineage)
    found = [*(proof.point for proof in path.proofs), *(base.points[-1] for base in path.bases)]
    points = sorted(found, key=lambda point: (point.finished_at, point.last_lsn))
    spans = untold_spans(
        [BackupTimes(point.finished_at, point.covers_until) for point in points],
        lambda index: witness_of(RestoreStep(points[index], *stored.describe_point(points[index]))),
    )
    closed = [(s.start if s.has_start else s.start + TICK, s.end - TICK) for s in spans]
    return closed + _unsettled(path) + _before_restores(stored, catalog, points)


def _unsettled(path: Path) -> list[tuple[datetime, datetime]]:
    """Log that proves no instant, of a secondary that had not received all, may hold what came
    after an instant that only a later log proves."""
    from sqlbak.engines.sqlserver.restoring_chain import CLOCKS_DIFFER

    found = []
    for log in path.logs:
        if log.point.covers_until is None:
            before = max((p.until for p in path.proofs if p.end <= log.end), default=_EVER)
            found.append((before + TICK, log.point.finished_at + CLOCKS_DIFFER))
    return found


def _before_restores(
    stored: StoredItem, catalog: Catalog, points: Iterable[Point]
) -> list[tuple[datetime, datetime]]:
    """What the database held right before it was restored in its place is in no backup, although
    by their clocks the log of the new lineage goes on where the old one ended."""
    found = []
    proven = [(point.covers_until, point.lineage) for point in points if point.covers_until]
    begun_anew = {fork.lineage for fork in catalog.forks} & {lineage for _, lineage in proven}
    for lineage in begun_anew:
        own = [point for point in catalog.points if point.lineage == lineage]
        first = min(own, key=lambda point: (point.started_at, point.id))
        begun = restored_at(stored.describe_point(first)[0]) or first.started_at
        begun = min(begun, first.started_at)
        before = [until for until, of in proven if of != lineage and until < begun]
        found.append((max(before, default=_EVER) + TICK, begun - TICK))
    return found


def _without(window: Window, spans: Iterable[tuple[datetime, datetime]]) -> list[Window]:
    parts = [window]
    for start, end in spans:
        if start > end:
            continue
        parts = [
            part
            for one in parts
            for part in (
                replace(one, end=min(one.end, start - TICK)),
                replace(one, start=max(one.start, end + TICK)),
            )
            if part.start <= part.end
        ]
    return parts
