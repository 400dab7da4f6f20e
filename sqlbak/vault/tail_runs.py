"""Which recovery points a run of shipped log continues, and which of its pieces join. Pure.

A run hangs on its anchors: the recovery points that its writer knew to be of one history with it.
What log backups sealed since continues an anchor exactly, so the run goes on behind those too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlbak.model import Catalog, Point, PointType, ShippedLog

__all__ = ["joined", "runs_of", "trunk_of"]


def runs_of(shipped: Iterable[ShippedLog], lineage: str) -> dict[str, list[ShippedLog]]:
    """The pieces of each run on ``lineage``, by position."""
    runs: dict[str, list[ShippedLog]] = {}
    for piece in shipped:
        if piece.lineage == lineage:
            runs.setdefault(piece.run, []).append(piece)
    for pieces in runs.values():
        pieces.sort(key=lambda piece: (piece.first_lsn, piece.last_lsn, piece.name))
    return runs


def trunk_of(catalog: Catalog, pieces: Sequence[ShippedLog]) -> list[Point]:
    """The recovery points that these pieces of one run continue, the most advanced one last;
    empty when none of its anchors is there any more."""
    anchors = {piece.anchor_id for piece in pieces}
    lineage = pieces[0].lineage
    trunk = {
        point.id: point
        for point in catalog.points
        if point.id in anchors and point.lineage == lineage
    }
    logs = [
        point
        for point in catalog.points
        if point.type is PointType.LOG
        and point.lineage == lineage
        and point.first_lineage in (None, lineage)
    ]
    ends = {point.last_lsn for point in trunk.values()}
    for log in sorted(logs, key=lambda log: (log.first_lsn, log.last_lsn)):
        if log.first_lsn in ends:
            trunk[log.id] = log
            ends.add(log.last_lsn)
    return sorted(trunk.values(), key=lambda point: (point.last_lsn, point.id))


def joined(pieces: Sequence[ShippedLog], start: int) -> list[ShippedLog]:
    """The pieces that lead on from ``start`` without a gap, by position; those that lie before it
    are left out, but for what proves that nothing happened at ``start`` itself."""
    row: list[ShippedLog] = []
    end = start
    for piece in pieces:
        if piece.first_lsn > end:
            break
        is_witness = piece.first_lsn == piece.last_lsn == end
        if piece.last_lsn > end or is_witness:
            row.append(piece)
            end = piece.last_lsn
    return row
