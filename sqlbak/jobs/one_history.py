"""Whether a server's history is the one that its item's recovery points tell.

A timeline's number names no history by itself: two restores from one point both begin timeline 2,
and an older copy of a server goes on under the old number. Their log positions overlap, so under
one item a plan could join what never was one. Log backups find that out by themselves; here it is
found out before a full or a differential.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlbak.engines.port import Engine
from sqlbak.errors import LogChainBroken, LogRewritten, ObjectDamaged, ObjectNotFound
from sqlbak.model import EngineName, Item, LogPosition, Point
from sqlbak.vault.vault import Vault

__all__ = ["require_one_history"]


def require_one_history(
    vault: Vault, item: Item, engine: Engine, points: Sequence[Point], position: LogPosition | None
) -> None:
    """LogRewritten unless the server, whose log ends at ``position``, is proven to go on from the
    furthest recovery point of its lineage. Raises what the engine raises when it cannot be asked.

    SQL Server's lineages are random numbers, which no two histories share.
    """
    if item.engine is not EngineName.POSTGRES or position is None:
        return
    here = [point for point in points if point.lineage == position.lineage]
    for point in sorted(here, key=lambda one: (one.last_lsn, one.finished_at), reverse=True):
        try:
            facts = vault.manifest(item.id, point.id).facts or {}
        except (ObjectDamaged, ObjectNotFound):
            continue  # nothing can be restored with it
        try:
            is_same = engine.is_same_log(point.position, facts)
        except LogChainBroken:
            is_same = None
        if is_same:
            return
        if is_same is False:
            raise LogRewritten(
                f"the server's log is not the one that ends {point.id}, though it is on lineage"
                f" {point.lineage} too: it was put back to an older copy, or another server was"
                " restored from the same point"
            )
        raise LogRewritten(
            f"nothing on the server shows any more that its log goes on from {point.id}"
        )
