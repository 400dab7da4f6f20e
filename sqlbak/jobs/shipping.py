"""Shipping one item's log continuously: between two log backups each piece of log goes to the vault
as soon as it is written, so that losing the server costs seconds.

The server is acknowledged nothing here. What it may discard is what a log backup has committed;
so every piece that is shipped can be had from the server again until it is sealed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlbak.errors import LogChainBroken, ObjectDamaged, ObjectNotFound, ServerNotReady
from sqlbak.fleet import Fleet
from sqlbak.jobs.log_base import LogBase, find_log_base
from sqlbak.jobs.sealing import continuing_runs
from sqlbak.model import Item, LogPosition, Point, PointType, ShippedLog
from sqlbak.stopping import StopSignal
from sqlbak.vault.tail import put_piece, read_piece
from sqlbak.vault.tail_names import new_run
from sqlbak.vault.vault import Vault
from sqlbak.vault.wrapped_key import about_shipped_log

__all__ = ["advanced_anchor", "ship_log"]

_LOOK_AGAIN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class _Start:
    """Where shipping goes on, what the log before it is known by, and in which run."""

    position: LogPosition
    facts: Any
    run: str


def ship_log(
    fleet: Fleet,
    instance: str,
    *,
    interval_seconds: float,
    stop: StopSignal,
    on_start: Callable[[LogPosition], None] = lambda _position: None,
    on_shipped: Callable[[ShippedLog], None] = lambda _piece: None,
) -> None:
    """Ship the log of ``instance`` until ``stop`` (Interrupted) or an error; it never returns.

    Only what joins the newest recovery point is shipped: LogChainBroken when nothing does (no full
    yet, no slot, another timeline); the next log backup heals that, and shipping may be tried
    again. LeaseHeld while another process ships this item.
    """
    engine = fleet.engine(instance)
    inspection = engine.inspect()
    if not inspection.items:
        raise ServerNotReady(f"{instance} does not say which cluster it is")
    vault = fleet.vault(instance)
    found = inspection.items[0]
    item = vault.find_item(
        inspection.engine,
        instance,
        found.database,
        found.identity,
        configured_names=fleet.configured_names(),
    )
    if item is None:
        raise _nothing_to_join(instance)
    with fleet.leases(instance).acquire(
        f"{item.id}.tail", purpose=f"shipping the log of {item.name}", stop=stop
    ) as lease:
        lineage = None if found.position is None else found.position.lineage
        base = find_log_base(vault, item.id, engine.oldest_log(), [], lineage=lineage)
        if base is None:
            raise _nothing_to_join(instance)
        start = _resumed(vault, item, base)
        anchor = base.point
        looked_at = time.monotonic()
        key = vault.keys.new(about_shipped_log(item.id))
        with engine.ship(
            start.position,
            since_facts=start.facts,
            interval_seconds=interval_seconds,
            stop=stop,
        ) as shipment:
            on_start(start.position)
            for piece in shipment.pieces():
                lease.check()
                shipped = put_piece(
                    vault.store,
                    item.id,
                    piece,
                    lineage=start.position.lineage,
                    run=start.run,
                    anchor_id=anchor.id,
                    facts=shipment.facts,
                    key=key,
                )
                on_shipped(shipped)
                if time.monotonic() - looked_at > _LOOK_AGAIN_SECONDS:
                    anchor = advanced_anchor(vault.points(item.id), anchor, piece.last_lsn)
                    # Told at once, not when this ends, when the vault key is replaced or gone.
                    key = vault.keys.new(about_shipped_log(item.id))
                    looked_at = time.monotonic()


def _nothing_to_join(instance: str) -> LogChainBroken:
    return LogChainBroken(
        f"{instance}: there is no recovery point that its log could be joined to",
        hint="the next scheduled backup makes one; shipping goes on after it",
    )


def _resumed(vault: Vault, item: Item, base: LogBase) -> _Start:
    """Behind the last piece that can be read, in its run; else behind the recovery point."""
    for row in continuing_runs(vault, item, base.point):
        for piece in reversed(row):
            try:
                known = read_piece(vault.store, item.id, piece, vault.keys).known_by
            except (ObjectDamaged, ObjectNotFound):
                continue  # shipped once more from where the row before it ends
            return _Start(LogPosition(piece.lineage, piece.last_lsn), known, piece.run)
    return _Start(base.position, base.facts, new_run())


def advanced_anchor(points: Sequence[Point], anchor: Point, shipped_until: int) -> Point:
    """The newest log backup that continues ``anchor`` exactly and ends within what was shipped.
    LogChainBroken when the vault's log goes on from elsewhere: what is shipped now would never be
    sealed."""
    logs = [
        point for point in points if point.type is PointType.LOG and point.lineage == anchor.lineage
    ]
    seen = {anchor.id}
    advanced = anchor
    while True:
        following = next(
            (log for log in logs if log.first_lsn == advanced.last_lsn and log.id not in seen),
            None,
        )
        if following is None or following.last_lsn > shipped_until:
            break
        seen.add(following.id)
        advanced = following
    if following is None and any(log.last_lsn > advanced.last_lsn for log in logs):
        raise LogChainBroken(
            f"the log in the vault goes on, but not from {advanced.id}, which the shipped log"
            " continues",
            hint="shipping begins anew behind the newest log",
        )
    return advanced
