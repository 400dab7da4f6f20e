"""Recovery points whose payload is not all there, found from listings alone: nothing is fetched.

A manifest says that a backup was whole when it was made. What happens to its payload afterwards,
such as a lifecycle rule or a person with another tool, only the payload shows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sqlbak.fleet import StoredItem
from sqlbak.model import Point
from sqlbak.vault.layout import data_prefix, point_id_of_payload

__all__ = ["incomplete_points"]


def incomplete_points(
    stored: StoredItem, points: Sequence[Point] | None = None
) -> tuple[Point, ...]:
    """The item's recovery points of whose payload less is stored than their manifests say,
    ascending by id; ``points``: those that it had a moment ago, where they are known. What the
    vault raises, it raises."""
    item_id = stored.item.id
    # In this order: payload is there before its manifest, and goes after it.
    if points is None:
        points = list(stored.vault.points(item_id))
    sizes: Counter[str] = Counter()
    for info in stored.vault.store.list(data_prefix(item_id)):
        point_id = point_id_of_payload(item_id, info.key)
        if point_id is not None:
            sizes[point_id] += info.size
    short = {point.id for point in points if sizes[point.id] < point.size_bytes}
    if not short:
        return ()
    found = (point for point in stored.vault.points(item_id) if point.id in short)
    return tuple(sorted(found, key=lambda point: point.id))
