"""Events: which are the same, and how a condition ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from sqlbak.monitor.events import Event, EventKind, EventSeverity

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def event(kind: EventKind = EventKind.BACKUP_FAILED, detail: str = "log") -> Event:
    return Event(kind, "orders", EventSeverity.CRITICAL, "it failed", "do this", NOON, detail)


def test_the_same_thing_seen_again_has_the_same_key_and_another_detail_has_another() -> None:
    again = Event(
        EventKind.BACKUP_FAILED, "orders", EventSeverity.WARNING, "again", "", NOON, "log"
    )
    assert again.key == event().key
    assert event(detail="full").key != event().key


def test_a_recovery_has_the_key_of_its_condition_and_asks_for_nothing() -> None:
    over = event().over("it works again", NOON + timedelta(minutes=1))
    assert over.key == event().key
    assert (over.is_over, over.remedy, over.severity) == (True, "", EventSeverity.NOTICE)


def test_what_only_happens_has_no_recovery() -> None:
    with pytest.raises(ValueError, match="no end"):
        event(EventKind.BACKUP_DATA_DELETED).over("it is back", NOON)
