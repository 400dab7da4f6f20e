"""What a change of a policy does: slots that come and go, recovery points that would be let go.
Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlbak.model import Point, PointType
from sqlbak.policy.calendar import Slot, slots
from sqlbak.policy.retention import reasons_to_keep
from sqlbak.policy.schema import Policy

__all__ = ["AHEAD", "Preview", "preview"]

AHEAD = timedelta(days=28)
"""How far ahead slots are compared."""


@dataclass(frozen=True, slots=True)
class Preview:
    """One item under the policy in force and under the one to come.

    Attributes:
        gained, lost: slots of the next 28 days that only the new, and only the old policy has;
            slots of logs come as often as they come, so they may be many.
        expiring: points that the old retention keeps now and the new one would let go.
        returning: points that the old retention lets go and the new one keeps.
    """

    item: str
    gained: tuple[Slot, ...]
    lost: tuple[Slot, ...]
    expiring: tuple[Point, ...]
    returning: tuple[Point, ...]

    @property
    def is_nothing(self) -> bool:
        """Whether the change does not touch the item."""
        return not (self.gained or self.lost or self.expiring or self.returning)


def preview(
    item: str, old: Policy | None, new: Policy | None, points: Sequence[Point], now: datetime
) -> Preview:
    """Compare; None is an item without policy: one that is new, or not protected any more (its
    points stay: nobody judges them)."""
    before, after = _slots(old, now), _slots(new, now)
    expiring: tuple[Point, ...] = ()
    returning: tuple[Point, ...] = ()
    if old is not None and new is not None:
        kept_before = reasons_to_keep(points, old.retention, old.zone, now)
        kept_after = reasons_to_keep(points, new.retention, new.zone, now)
        expiring = tuple(p for p in points if p.id in kept_before and p.id not in kept_after)
        returning = tuple(p for p in points if p.id in kept_after and p.id not in kept_before)
    return Preview(
        item,
        tuple(slot for key, slot in after.items() if key not in before),
        tuple(slot for key, slot in before.items() if key not in after),
        expiring,
        returning,
    )


def _slots(policy: Policy | None, now: datetime) -> dict[tuple[PointType, datetime], Slot]:
    """Slots by what they are and when; a slot that only its zone names anew is the same."""
    if policy is None:
        return {}
    found = [slot for kind in PointType for slot in slots(policy, kind, now, now + AHEAD)]
    return {(slot.kind, slot.instant): slot for slot in sorted(found, key=lambda s: s.instant)}
