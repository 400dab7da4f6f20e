"""Which full the next differential of an item builds on, and whether it can bear one."""

from __future__ import annotations

from collections.abc import Sequence

from sqlbak.engines.port import DifferentialBase
from sqlbak.errors import BaseUnusable, ObjectDamaged, ObjectNotFound
from sqlbak.model import DifferentialMethod, Item, LogPosition, Point, PointType
from sqlbak.vault.vault import Vault

__all__ = ["newest_base", "open_base"]


def newest_base(points: Sequence[Point], position: LogPosition | None) -> Point:
    """The newest full that is not copy-only and lies in the past of ``position``, where the
    server's log ends. BaseUnusable when there is none. Pure."""
    fulls = [p for p in points if p.type is PointType.FULL and not p.is_copy_only]
    if not fulls:
        raise BaseUnusable("there is no full backup yet")
    if position is None:
        raise BaseUnusable("the server does not say on which lineage it is")
    here = [point for point in fulls if point.lineage == position.lineage]
    if not here:
        raise BaseUnusable(
            f"there is no full of lineage {position.lineage}, on which the server is now"
        )
    past = [point for point in here if point.last_lsn <= position.lsn]
    if not past:
        raise BaseUnusable("the server was put back to a state before all fulls of its lineage")
    return max(past, key=lambda point: (point.finished_at, point.last_lsn))


def open_base(
    vault: Vault,
    item: Item,
    points: Sequence[Point],
    *,
    position: LogPosition | None,
    method: DifferentialMethod,
) -> DifferentialBase:
    """The same with what the engine needs of it. BaseUnusable also when its manifest is damaged,
    or objects of its payload are missing or cut off: a differential of it could not be
    restored."""
    full = newest_base(points, position)
    try:
        manifest = vault.manifest(item.id, full.id)
    except (ObjectDamaged, ObjectNotFound) as error:
        raise BaseUnusable(f"the full {full.id} is damaged: {error.message}") from error
    source = vault.point_source(item.id, manifest)
    if problems := source.check_objects():
        raise BaseUnusable(f"the full {full.id} is damaged: {problems[0]}")
    return DifferentialBase(full, manifest.facts or {}, source, method)
