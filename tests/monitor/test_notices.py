"""Each condition is told once when it begins, now and then while it lasts, and once at its end."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from sqlbak.monitor.events import Event, EventKind, EventSeverity
from sqlbak.monitor.notices import Ledger, NoticeState
from tests.monitor.watching import HOUR, MINUTE, NOON

CRITICAL, WARNING, NOTICE = EventSeverity.CRITICAL, EventSeverity.WARNING, EventSeverity.NOTICE

CONDITION = EventKind.BACKUP_FAILED


def event(
    minutes: float = 0,
    kind: EventKind = EventKind.BACKUP_FAILED,
    item: str = "orders",
    severity: EventSeverity = WARNING,
) -> Event:
    return Event(kind, item, severity, "it failed", "mend it", NOON + minutes * MINUTE)


def test_a_condition_that_lasts_is_told_once_a_day_and_its_end_once() -> None:
    ledger = Ledger()
    told = [ledger.take(event(minute)) for minute in range(0, 3 * 24 * 60, 15)]
    assert [notice.state for notice in told if notice] == [NoticeState.NEW] + 2 * [
        NoticeState.AGAIN
    ]
    assert [number * 15 for number, notice in enumerate(told) if notice] == [0, 1440, 2880]
    over = event().over("it works", NOON + 72 * HOUR)
    end = ledger.take(over)
    assert end is not None
    assert (end.state, end.since, end.seen) == (NoticeState.OVER, NOON, 288)
    assert ledger.take(over) is None
    again = ledger.take(event(73 * 60))
    assert again is not None
    assert again.state is NoticeState.NEW


def test_a_clock_that_was_ahead_silences_nothing_once_it_is_right_again() -> None:
    ledger = Ledger()
    happening = EventKind.CHAIN_BROKEN
    year = 365 * 24 * 60
    assert [ledger.take(event(year, kind)) is None for kind in (happening, CONDITION)] == [
        False
    ] * 2
    again = [ledger.take(event(0, kind)) for kind in (happening, CONDITION)]
    assert [notice and notice.state for notice in again] == [NoticeState.NEW, NoticeState.AGAIN]
    assert [ledger.take(event(1, kind)) for kind in (happening, CONDITION)] == [None, None]


def test_what_gets_worse_is_told_at_once() -> None:
    ledger = Ledger()
    states = [
        (notice := ledger.take(event(minute, severity=severity))) and notice.state
        for minute, severity in enumerate([WARNING, CRITICAL, CRITICAL, WARNING, CRITICAL])
    ]
    assert states == [NoticeState.NEW, NoticeState.NEW, None, None, None]


def test_a_receiver_is_told_only_what_it_wants() -> None:
    ledger = Ledger(severity=CRITICAL, items=("erp/*",))
    assert ledger.take(event(severity=CRITICAL)) is None
    assert ledger.take(event(item="erp/sales")) is None
    assert ledger.take(event(item="erp/sales").over("fine", NOON)) is None
    assert ledger.take(event(item="erp/sales", severity=CRITICAL)) is not None


def test_what_only_happens_is_told_once_until_it_happens_again_much_later() -> None:
    ledger = Ledger(severity=NOTICE)
    deleted = [event(minute, EventKind.BACKUP_DATA_DELETED) for minute in (0, 1, 1439, 1441)]
    assert [ledger.take(each) is not None for each in deleted] == [True, False, False, True]


_events = st.builds(
    event,
    minutes=st.integers(0, 10000),
    kind=st.sampled_from([EventKind.BACKUP_FAILED, EventKind.RPO_BREACHED, EventKind.CHAIN_BROKEN]),
    item=st.sampled_from(["a", "b"]),
    severity=st.sampled_from(list(EventSeverity)),
)


@given(st.lists(st.tuples(_events, st.booleans()), max_size=60))
def test_ends_are_told_for_what_was_told_and_nothing_is_told_twice_within_a_day(
    pairs: list[tuple[Event, bool]],
) -> None:
    ledger = Ledger()
    open_keys: dict[str, tuple[Event, EventSeverity]] = {}
    for one, is_over in sorted(pairs, key=lambda pair: pair[0].occurred_at):
        if is_over and not one.kind.is_happening:
            notice = ledger.take(one.over("fine", one.occurred_at))
            assert (notice is not None) == (one.key in open_keys)
            open_keys.pop(one.key, None)
            continue
        notice = ledger.take(one)
        if notice is None:
            continue
        assert one.severity is not NOTICE
        if one.key in open_keys:
            last, worst = open_keys[one.key]
            is_later = one.occurred_at - last.occurred_at >= timedelta(days=1)
            assert is_later or (worst, one.severity) == (WARNING, CRITICAL)
        open_keys[one.key] = (one, one.severity)
