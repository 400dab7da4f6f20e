"""What somebody should be told: one small value, whoever saw it and however it is sent.

Two sorts. A *condition* lasts: it is told once when it begins, again now and then while it lasts,
and once more when it is over (``is_over``). A *happening* is a fact of one moment: it is told once.
Whoever emits events need not remember what was emitted before: ``key`` says which are the same,
and telling people only once is the notifier's work (monitor/notices.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Protocol

__all__ = ["NO_EVENTS", "Event", "EventKind", "EventSeverity", "EventSink", "Unheard"]


class EventSeverity(StrEnum):
    """How much it matters. CRITICAL: data could be lost or cannot be restored now. WARNING: it
    will come to that if nobody acts. NOTICE: worth knowing."""

    CRITICAL = "critical"
    WARNING = "warning"
    NOTICE = "notice"


class EventKind(StrEnum):
    """What an event is about. The words are stable: receivers filter by them.

    CHAIN_BROKEN happens: a log backup could not continue and a full was taken, so windows have a
    gap. CHAIN_UNUSABLE lasts: the newest recovery points join no full.
    """

    BACKUP_FAILED = "backup_failed"
    BACKUP_MISSING = "backup_missing"
    RPO_BREACHED = "rpo_breached"
    CHAIN_BROKEN = "chain_broken"
    CHAIN_UNUSABLE = "chain_unusable"
    FOREIGN_BACKUP = "foreign_backup"
    UNPROTECTED_DATABASE = "unprotected_database"
    SLOT_NEAR_LOST = "slot_near_lost"
    SERVER_UNREACHABLE = "server_unreachable"
    SERVER_PROBLEM = "server_problem"
    VAULT_UNREACHABLE = "vault_unreachable"
    VAULT_KEY_MISSING = "vault_key_missing"
    BACKUP_DATA_DELETED = "backup_data_deleted"
    BACKUP_DATA_DAMAGED = "backup_data_damaged"
    DRILL_FAILED = "drill_failed"
    HOOK_FAILED = "hook_failed"
    CONFIGURATION_INVALID = "configuration_invalid"
    TEST = "test"

    @property
    def is_happening(self) -> bool:
        """Whether it is over as soon as it has happened, so that no recovery is ever told."""
        return self in _HAPPENINGS


_HAPPENINGS = frozenset(
    {
        EventKind.CHAIN_BROKEN,
        EventKind.FOREIGN_BACKUP,
        EventKind.BACKUP_DATA_DELETED,
        EventKind.TEST,
    }
)


@dataclass(frozen=True, slots=True)
class Event:
    """One thing to tell.

    Attributes:
        kind: what it is about.
        item: the item's name as people write it; for what concerns a whole instance, vault or
            service, that name.
        severity: how much it matters.
        what: one sentence that says what is so, and where. Never holds a secret.
        remedy: what to do about it; empty when nothing needs doing.
        occurred_at: aware; a condition: when it was seen.
        detail: tells apart events of one kind and item that are not the same: the type of a
            backup, also of a foreign one, the name of a hook. Short and bounded.
        is_over: the condition that this kind, item and detail name does not hold any more.
    """

    kind: EventKind
    item: str
    severity: EventSeverity
    what: str
    remedy: str
    occurred_at: datetime
    detail: str = ""
    is_over: bool = False

    @property
    def key(self) -> str:
        """Events with the same key are the same one seen again."""
        return f"{self.kind.value}:{self.item}:{self.detail}"

    def over(self, what: str, occurred_at: datetime) -> Event:
        """The recovery from this condition. ValueError for what only happens."""
        if self.kind.is_happening:
            raise ValueError(f"{self.kind.value} has no end")
        return replace(
            self,
            severity=EventSeverity.NOTICE,
            what=what,
            remedy="",
            occurred_at=occurred_at,
            is_over=True,
        )


class EventSink(Protocol):
    """Where events go. ``emit`` never waits and never raises: backups go on whatever becomes of a
    notice. Safe to call from several threads."""

    def emit(self, event: Event) -> None:
        """Take one event."""


class Unheard:
    """Tells nobody."""

    def emit(self, event: Event) -> None:
        """Ignored."""


NO_EVENTS: EventSink = Unheard()
