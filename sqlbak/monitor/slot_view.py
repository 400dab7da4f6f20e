"""PostgreSQL's replication slot, as an inspection shows it. Pure.

``safe_wal_size`` is the server's own countdown: bytes that can still be written before the slot is
in danger of being lost (PostgreSQL docs, pg_replication_slots; null where max_slot_wal_keep_size
is unlimited, and when the slot is lost).
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlbak.engines.port import Inspection

__all__ = ["SlotView", "slot_view"]

_NEAR = 0.25
"""Of all that the slot may hold, how little may be left before it counts as near its loss."""


@dataclass(frozen=True, slots=True)
class SlotView:
    """One slot. ``lag_bytes``: log that it holds; ``safe_bytes``: what may still be written before
    it is lost; None where the server does not say."""

    name: str
    exists: bool
    wal_status: str | None
    lag_bytes: int | None
    safe_bytes: int | None

    @property
    def is_lost(self) -> bool:
        """The server discarded log that it held."""
        return self.exists and self.wal_status == "lost"

    @property
    def is_near_loss(self) -> bool:
        """It will be lost soon if nobody acts."""
        if not self.exists or self.is_lost:
            return False
        if self.wal_status == "unreserved":
            return True
        if self.safe_bytes is None or self.lag_bytes is None:
            return False
        return self.safe_bytes < _NEAR * (self.safe_bytes + self.lag_bytes)


def slot_view(inspection: Inspection) -> SlotView | None:
    """The slot that the inspection tells of; None for engines without one."""
    facts = inspection.facts.get("slot")
    if not isinstance(facts, dict):
        return None
    restart = facts.get("restart_lsn")
    position = inspection.items[0].position if inspection.items else None
    lag = None if restart is None or position is None else max(position.lsn - int(restart), 0)
    return SlotView(
        name=str(facts.get("name")),
        exists=bool(facts.get("exists")),
        wal_status=facts.get("wal_status"),
        lag_bytes=lag,
        safe_bytes=facts.get("safe_wal_size"),
    )
