"""Feeding log to a restored database that the operator starts, from where it was restored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlbak.engines.postgres.timelines import format_lsn
from sqlbak.engines.registry import log_feeder
from sqlbak.errors import TargetNotUsable
from sqlbak.model import PointType
from sqlbak.progress import NO_PROGRESS, Progress
from sqlbak.restore.executor import Stock, plan_readable
from sqlbak.stopping import NEVER, StopSignal

__all__ = ["FedItem", "feed_item"]


@dataclass(frozen=True, slots=True)
class FedItem:
    """Whose log was fed, and how far it reaches."""

    name: str
    item_id: str
    lineage: str
    last_lsn: int


def feed_item(
    stock: Stock,
    directory: Path,
    *,
    feed_command: Sequence[str],
    log_space_bytes: int | None = None,
    progress: Progress = NO_PROGRESS,
    stop: StopSignal = NEVER,
) -> FedItem:
    """Feed the server on ``directory`` until it has left recovery. ``feed_command``: how to call
    this, for the server's log.

    The log may meanwhile lie in other recovery points than when it was restored: log that was
    shipped becomes a log backup. Raises TargetNotUsable, what planning raises, RestoreFailed, what
    the vault raises, Interrupted.
    """
    directory = directory.absolute()
    feeder = log_feeder()
    order = feeder.read_order(directory)
    stored = [one for one in stock.stored_items(order.item_id) if one.item.id == order.item_id]
    if not stored:
        raise TargetNotUsable(
            f"the item {order.item_id}, whose log {directory} waits for, is in no vault here",
            hint="name the configuration, or with --from the folder, that it was restored from",
        )
    others = {
        point.id
        for point in stored[0].catalog().points
        if point.type is not PointType.LOG and point.id not in (order.full, order.differential)
    }
    planned, steps = plan_readable(
        stock,
        order.item_id,
        format_lsn(order.last_lsn),
        lineage=order.lineage,
        stop=stop,
        without=others,
    )
    feeder.feed_cluster(
        steps,
        directory,
        histories=planned.stored.histories(),
        feed_command=feed_command,
        log_space_bytes=log_space_bytes,
        progress=progress,
        stop=stop,
    )
    return FedItem(planned.stored.item.name, order.item_id, order.lineage, order.last_lsn)
