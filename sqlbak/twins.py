"""One database of an availability group, reached through two instances of the policy files.

Each would take log that the other misses, and neither item would have all of it. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlbak.engines.port import DiscoveredItem, Problem, Severity
from sqlbak.model import PointType

__all__ = ["Sight", "twin_problem"]


@dataclass(frozen=True, slots=True)
class Sight:
    """A database as one instance shows it. ``has_replicas``: the instance names the servers of its
    availability groups."""

    instance: str
    item: DiscoveredItem
    has_replicas: bool

    @property
    def rank(self) -> tuple[bool, bool, str]:
        """The lowest backs the database up: who knows all replicas, then who is at the primary."""
        return not self.has_replicas, PointType.FULL in self.item.paused, self.instance


def twin_problem(own: Sight, others: Iterable[Sight]) -> Problem | None:
    """What keeps ``own`` from being backed up: another instance does it already; None: nothing."""
    group = own.item.group_database
    if group is None:
        return None
    twins = [one for one in others if one.item.group_database == group]
    first = min((own, *twins), key=lambda one: one.rank)
    if first is own:
        return None
    return Problem(
        "backed_up_twice",
        Severity.BLOCKING,
        f"{own.instance}/{own.item.database} is the same database of an availability group as "
        f"{first.instance}/{first.item.database}, which is backed up: each would take log that the "
        "other misses",
        f"name all servers of the group under replicas: of {first.instance}, and leave the "
        f"database out of {own.instance} (databases: {{exclude: [...]}}) or remove that instance",
        own.item.database,
    )
