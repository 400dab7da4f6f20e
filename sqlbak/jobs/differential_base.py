"""Which full the next differential of an item builds on, and whether it can bear one."""

from __future__ import annotations

from collections.abc import Sequence

from sqlbak.engines.port import DifferentialBase
from sqlbak.errors import BaseUnusable, ObjectDamaged, ObjectNotFound
from sqlbak.model import DifferentialMethod, Item, LogPosition, Point, PointType
from sqlbak.vault.vault import Vault

__all__ = ["ahead_of", "newest_base", "open_base"]


def ahead_of(points: Sequence[Point], position: LogPosition | None) -> Point | None:
    """A point that ends on the lineage of ``position``, but later: if the server's log ends at
    ``position``, its history is not that point's any more. Pure."""
    if position is None:
        return None
    here = [point for point in points if point.lineage == position.lineage]
    newest = max(here, key=lambda point: point.last_lsn, default=None)
    return None if newest is None or newest.last_lsn <= position.lsn else newest


def newest_base(points: Sequence[Point], lineage: str | None) -> Point:
    """The newest full of ``lineage``, the server's, that is not copy-only. BaseUnusable when there
    is none. Pure."""
    fulls = [p for p in points if p.type is PointType.FULL and not p.is_copy_only]
    if not fulls:
        raise BaseUnusable("there is no full backup yet")
    if lineage is None:
        raise BaseUnusable("the server does not say on which lineage it is")
    here = [point for point in fulls if point.lineage == lineage]
    if not here:
        raise BaseUnusable(f"there is no full of lineage {lineage}, on which the server is now")
    return max(here, key=lambda point: (point.last_lsn, point.finished_at))


def open_base(
    vault: Vault,
    item: Item,
    points: Sequence[Point],
    *,
    lineage: str | None,
    method: DifferentialMethod,
) -> DifferentialBase:
    """The same with what the engine needs of it. BaseUnusable also when its manifest is damaged,
    or objects of its payload are missing or cut off: a differential of it could not be
    restored."""
    full = newest_base(points, lineage)
    try:
        manifest = vault.manifest(item.id, full.id)
    except (ObjectDamaged, ObjectNotFound) as error:
        raise BaseUnusable(f"the full {full.id} is damaged: {error.message}") from error
    source = vault.point_source(item.id, manifest)
    if problems := source.check_objects():
        raise BaseUnusable(f"the full {full.id} is damaged: {problems[0]}")
    return DifferentialBase(full, manifest.facts or {}, source, method)
