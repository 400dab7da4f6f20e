"""What is told from one look to the next."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from sqlbak.errors import ServerUnreachable, StoreUnreachable
from sqlbak.monitor.changes import changes
from sqlbak.monitor.events import Event
from sqlbak.monitor.status import ItemStatus, status_of
from sqlbak.monitor.watched import Look, Watched
from tests.monitor.watching import HOUR, MINUTE, NOON, look, served, watched

LATER = NOON + 5 * MINUTE
AWAY = Look(NOON, error=ServerUnreachable("no answer"))
FINE = watched(served(NOON), look=look())
LATE = watched(served(NOON - HOUR), look=look())
LOST = watched(served(NOON), look=look(wal_status="lost"))
UNSEEN = watched(None, look=look(), vault_error=StoreUnreachable("no answer"))


def seen(*items: Watched) -> list[ItemStatus]:
    return [status_of(item, LATER) for item in items]


def told(events: list[Event]) -> set[tuple[str, str, bool]]:
    return {(event.kind.value, event.item, event.is_over) for event in events}


def test_a_condition_is_told_while_it_holds_and_once_when_it_is_over() -> None:
    first, before = changes({}, seen(LATE), LATER)
    assert told(first) == {
        ("rpo_breached", "orders", False),
        ("backup_missing", "orders", False),
    }
    again, before = changes(before, seen(LATE), LATER)
    assert told(again) == told(first)
    over, before = changes(before, seen(FINE), LATER)
    assert told(over) == {("rpo_breached", "orders", True), ("backup_missing", "orders", True)}
    assert changes(before, seen(FINE), LATER) == ([], {})


def test_what_cannot_be_seen_is_neither_over_nor_new() -> None:
    _, before = changes({}, seen(LATE), LATER)
    blind, held = changes(before, seen(UNSEEN), LATER)
    assert told(blind) == {("vault_unreachable", "main", False)}
    assert before.keys() <= held.keys()
    over, _ = changes(held, seen(FINE), LATER)
    assert {is_over for _, _, is_over in told(over)} == {True}
    assert len(over) == 3


def test_a_server_that_is_away_does_not_mend_its_slot() -> None:
    _, before = changes({}, seen(LOST), LATER)
    away, held = changes(before, seen(replace(LOST, look=AWAY)), LATER)
    assert told(away) == {("server_unreachable", "orders", False)}
    over, _ = changes(held, seen(FINE), LATER)
    assert told(over) == {
        ("server_unreachable", "orders", True),
        ("slot_near_lost", "orders", True),
    }


def test_what_many_items_have_in_common_is_told_once() -> None:
    databases = [replace(UNSEEN, name=f"erp/{number}", look=AWAY) for number in range(50)]
    events, _ = changes({}, seen(*databases), LATER)
    assert told(events) == {
        ("vault_unreachable", "main", False),
        ("server_unreachable", "erp", False),
    }


def test_an_item_that_is_not_watched_any_more_is_over() -> None:
    _, before = changes({}, seen(LATE), LATER)
    over, held = changes(before, [], LATER)
    assert held == {}
    assert all("not watched any more" in event.what for event in over)


@given(st.lists(st.sampled_from([FINE, LATE, LOST, UNSEEN, replace(LATE, look=AWAY)]), max_size=8))
def test_every_beginning_has_one_end_at_most_and_all_have_ended_when_all_is_well(
    looks: list[Watched],
) -> None:
    before: dict[str, Event] = {}
    open_keys: set[str] = set()
    for item in [*looks, FINE]:
        events, before = changes(before, seen(item), LATER)
        for event in events:
            if event.is_over:
                assert event.key in open_keys
                open_keys.remove(event.key)
            else:
                open_keys.add(event.key)
        assert open_keys == before.keys()
    assert open_keys == set()
