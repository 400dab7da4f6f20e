"""What instances say of their items, all asked at the same time: one that is away takes half a
minute to be known as such, and must not cost that for each of many.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlbak.errors import SqlbakError
from sqlbak.fleet import Fleet
from sqlbak.model import EngineName
from sqlbak.monitor.at_once import at_once

__all__ = ["is_asked_for_names", "told_names"]

_AT_ONCE = 64


def is_asked_for_names(fleet: Fleet, instance: str) -> bool:
    """Whether its server tells what its items are; else the policy files do."""
    return fleet.engine_name(instance) is EngineName.SQLSERVER


def told_names(
    fleet: Fleet, instances: Iterable[str]
) -> list[tuple[str, tuple[str, ...] | SqlbakError]]:
    """The item names of each of these instances, in their order, or why it did not tell."""

    def ask(instance: str) -> tuple[str, ...] | SqlbakError:
        try:
            return fleet.item_names(instance)
        except SqlbakError as error:
            return error

    listed = list(instances)
    asked = [one for one in listed if is_asked_for_names(fleet, one)]
    told = dict(zip(asked, at_once(ask, asked, threads=_AT_ONCE), strict=True))
    return [(one, told[one] if one in told else ask(one)) for one in listed]
