"""The recovery point that an item's log goes on from, with the facts by which it is known again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlbak.errors import ObjectDamaged, ObjectNotFound
from sqlbak.jobs.log_chain import next_log_start
from sqlbak.model import LogPosition, Note, NoteCode, Point, PointType
from sqlbak.vault.lineages import list_forks
from sqlbak.vault.vault import Vault

__all__ = ["LogBase", "find_log_base", "find_log_start"]


@dataclass(frozen=True, slots=True)
class LogBase:
    """``facts`` are those of the point's manifest."""

    point: Point
    facts: Mapping[str, Any]

    @property
    def position(self) -> LogPosition:
        """Where the log goes on."""
        return self.point.position


def find_log_start(
    vault: Vault, item_id: str, oldest: LogPosition | None, lineage: str | None
) -> LogPosition | None:
    """``next_log_start`` with what the vault knows of the item."""
    forks = list_forks(vault.store, item_id)
    return next_log_start(vault.points(item_id), oldest, lineage=lineage, forks=forks)


def find_log_base(
    vault: Vault,
    item_id: str,
    oldest: LogPosition | None,
    notes: list[Note],
    *,
    lineage: str | None = None,
    after_differentials: bool = False,
) -> LogBase | None:
    """Where the log goes on, by ``next_log_start``; None when only a full can. A point whose
    manifest is damaged carries no further log, as none of it could ever be restored: ``notes``
    gets one about it."""
    candidates = vault.points(item_id)
    forks = list_forks(vault.store, item_id)
    while (
        start := next_log_start(
            candidates,
            oldest,
            lineage=lineage,
            forks=forks,
            after_differentials=after_differentials,
        )
    ) is not None:
        # Where nothing was written since, a log ends where the full before it ended.
        there = [one for one in candidates if one.position == start]
        point = max(there, key=lambda one: (one.type is PointType.LOG, not one.is_copy_only))
        try:
            return LogBase(point, vault.manifest(item_id, point.id).facts or {})
        except (ObjectDamaged, ObjectNotFound) as error:
            useless = f"no log can continue {point.id}: {error.message}"
            notes.append(Note(NoteCode.LOG_UNUSABLE, useless))
            candidates.remove(point)
    return None
