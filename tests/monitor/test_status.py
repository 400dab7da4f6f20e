"""Health and problems of an item, from values alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlbak.engines.port import Severity
from sqlbak.errors import ServerUnreachable, StoreUnreachable
from sqlbak.model import Catalog, Fork, Point, PointType
from sqlbak.monitor.concerns import span_text
from sqlbak.monitor.events import EventSeverity
from sqlbak.monitor.holdings import holdings_of
from sqlbak.monitor.promise import allowance
from sqlbak.monitor.status import Health, ItemStatus, status_of
from sqlbak.monitor.watched import Look, Watched
from sqlbak.policy.calendar import slots
from sqlbak.policy.schema import LogCadence, Policy
from sqlbak.vault.cancelled_slots import TypeSlot
from tests.monitor.watching import (
    DAY,
    GOLD,
    HOUR,
    MIB,
    MINUTE,
    NOON,
    failure,
    history,
    look,
    policy_of,
    problem,
    served,
    watched,
)

FULL, DIFFERENTIAL, LOG = PointType.FULL, PointType.DIFFERENTIAL, PointType.LOG


def without_full(points: list[Point]) -> list[Point]:
    return [point for point in points if point.type is not FULL]


def told(status: ItemStatus) -> set[str]:
    """Kinds and details of what counts against the health."""
    return {
        f"{one.kind.value}:{one.detail}"
        for one in status.concerns
        if one.severity is not EventSeverity.NOTICE
    }


AWAY = Look(NOON, error=ServerUnreachable("no answer", hint="start it"))
LATE_LOGS = served(NOON - 40 * MINUTE)
TABLE: list[tuple[str, Watched, Health, set[str]]] = [
    ("all is well", watched(served(NOON), look=look()), Health.HEALTHY, set()),
    ("the server was not asked", watched(served(NOON)), Health.HEALTHY, set()),
    ("nothing stored", watched(None), Health.UNPROTECTED, {"backup_missing:full"}),
    ("logs alone", watched(without_full(served(NOON))), Health.UNPROTECTED,
     {"backup_missing:full", "chain_unusable:"}),
    ("its first full is running", watched(None, running={FULL: NOON - HOUR}),
     Health.UNPROTECTED, {"backup_missing:full"}),
    ("logs are late", watched(LATE_LOGS), Health.AT_RISK,
     {"backup_missing:log", "rpo_breached:"}),
    ("last night's full is missing", watched(
        [p for p in served(NOON) if not (p.type is FULL and p.started_at > NOON - DAY)]),
     Health.AT_RISK, {"backup_missing:full"}),
    ("a full is running late", watched(
        [p for p in served(NOON) if not (p.type is FULL and p.started_at > NOON - DAY)],
        running={FULL: NOON - 11 * HOUR}), Health.HEALTHY, set()),
    ("the last log failed", watched(served(NOON - 15 * MINUTE), failures=(failure(LOG, NOON),)),
     Health.AT_RISK, {"backup_failed:log"}),
    ("the slot is lost", watched(served(NOON), look=look(wal_status="lost")),
     Health.AT_RISK, {"slot_near_lost:"}),
    ("the slot is gone", watched(served(NOON), look=look(exists=False)),
     Health.AT_RISK, {"slot_near_lost:"}),
    ("the slot is unreserved", watched(served(NOON), look=look(wal_status="unreserved")),
     Health.AT_RISK, {"slot_near_lost:"}),
    ("the slot holds most of what it may", watched(served(NOON), look=look(safe_wal_size=MIB // 4)),
     Health.AT_RISK, {"slot_near_lost:"}),
    ("the slot has room", watched(served(NOON), look=look(safe_wal_size=MIB)),
     Health.HEALTHY, set()),
    ("the slot is unlimited", watched(served(NOON), look=look(safe_wal_size=None)),
     Health.HEALTHY, set()),
    ("the server blocks backups",
     watched(served(NOON), look=look(problems=(problem("wal_level_minimal", Severity.BLOCKING),))),
     Health.AT_RISK, {"server_problem:wal_level_minimal"}),
    ("a running backup uses the last sender",
     watched(served(NOON), running={FULL: NOON},
             look=look(problems=(problem("no_free_wal_sender", Severity.BLOCKING),))),
     Health.HEALTHY, set()),
    ("others use all senders",
     watched(served(NOON), look=look(problems=(problem("no_free_wal_sender", Severity.BLOCKING),))),
     Health.AT_RISK, {"server_problem:no_free_wal_sender"}),
    ("the server could be set better",
     watched(served(NOON), look=look(problems=(problem("checksums_off", Severity.WARNING),))),
     Health.HEALTHY, set()),
    ("the server is away", watched(served(NOON), look=AWAY),
     Health.UNREACHABLE, {"server_unreachable:"}),
    ("the server is away and nothing is stored", watched(None, look=AWAY),
     Health.UNPROTECTED, {"server_unreachable:", "backup_missing:full"}),
    ("the vault is away", watched(None, vault_error=StoreUnreachable("no answer")),
     Health.UNREACHABLE, {"vault_unreachable:"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("item", "health", "concerns"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_the_worst_that_holds_is_the_health(
    item: Watched, health: Health, concerns: set[str]
) -> None:
    status = status_of(item, NOON + 5 * MINUTE)
    assert (status.health, told(status)) == (health, concerns)


@pytest.mark.parametrize("row", TABLE, ids=[row[0] for row in TABLE])
def test_every_problem_says_what_to_do(row: tuple[str, Watched, Health, set[str]]) -> None:
    for concern in status_of(row[1], NOON + 5 * MINUTE).concerns:
        assert concern.what
        assert concern.remedy


def test_a_full_that_runs_for_more_than_a_day_is_told() -> None:
    points = [p for p in served(NOON) if not (p.type is FULL and p.started_at > NOON - 2 * DAY)]
    item = watched(points, running={FULL: NOON - 35 * HOUR})
    (concern,) = status_of(item, NOON).concerns
    assert "has been running for 1 d 11 h" in concern.what


def test_what_could_be_lost_is_measured_on_the_servers_clock() -> None:
    behind = look(NOON, clock=NOON - 10 * MINUTE)
    points = [replace(p, covers_until=(p.covers_until or NOON) - 10 * MINUTE,
                      reachable_from=p.reachable_from and p.reachable_from - 10 * MINUTE)
              for p in served(NOON)]  # fmt: skip
    status = status_of(watched(points, look=behind), NOON + MINUTE)
    assert status.rpo == MINUTE
    assert [one.detail for one in status.concerns] == ["clock"]
    assert status.health is Health.HEALTHY
    # Nobody knows better when the server is not asked.
    assert status_of(watched(points), NOON + MINUTE).rpo == 11 * MINUTE


def test_backups_that_no_restore_can_use_are_told() -> None:
    points = served(NOON)
    lost = points[-3]  # a log in the middle of the chain
    item = watched([point for point in points if point is not lost])
    status = status_of(item, NOON)
    assert status.health is Health.AT_RISK
    assert not status.is_chain_usable
    assert "chain_unusable:" in told(status)
    assert status.newest_restorable is not None
    assert status.newest_restorable < lost.started_at


def test_the_facts_of_an_item() -> None:
    points = served(NOON)
    status = status_of(watched(points), NOON + 5 * MINUTE)
    fulls = [point for point in points if point.type is FULL]
    assert status.last[FULL] == fulls[-1]
    assert status.next == {FULL: NOON.replace(hour=1) + DAY, LOG: NOON + 15 * MINUTE}
    assert status.newest_restorable == NOON
    assert status.oldest_restorable == fulls[0].finished_at
    assert status.rpo == 5 * MINUTE
    assert status.size_bytes == len(points) * MIB
    # A day holds a full and 96 logs.
    assert status.added_bytes_per_day == pytest.approx(97 * MIB, rel=0.02)
    # The newest full and the logs since: each a MiB, as slow as that full.
    logs = [point for point in points if point.last_lsn > fulls[-1].last_lsn]
    assert status.restore_bytes == (1 + len(logs)) * MIB
    assert status.restore_seconds == 60 * status.restore_bytes / MIB


def test_a_backup_that_somebody_cancelled_is_missing_by_intent() -> None:
    points = [one for one in served(NOON) if one.id < "20260304" or one.type is PointType.LOG]
    slot = TypeSlot(FULL, NOON.replace(hour=1))
    status = status_of(watched(points, cancelled=(slot,)), NOON)
    assert status.health is Health.AT_RISK
    (concern,) = [one for one in status.concerns if one.detail == "full"]
    assert "due at 2026-03-04 01:00Z was cancelled" in concern.what
    assert "next one is due at 2026-03-05 01:00Z" in concern.what
    unprotected = status_of(watched(None, cancelled=(slot,)), NOON)
    assert "its full was cancelled" in unprotected.concerns[0].what


def test_a_copy_of_an_item_promises_nothing() -> None:
    copy = [replace(point, is_copy_only=True) for point in history([(FULL, NOON)])]
    status = status_of(watched(copy), NOON + 10 * HOUR)
    assert status.last == {}
    assert told(status) >= {"backup_missing:full"}


@pytest.mark.parametrize(
    ("policy", "target", "limit"),
    [
        (GOLD, 15 * MINUTE, 22.5 * MINUTE),
        (policy_of(log="24h"), DAY, 26 * HOUR),
        (policy_of(log=None), DAY, 30 * HOUR),
        (policy_of("0 1 * * sun", None, "0 1 * * mon-sat"), DAY, 30 * HOUR),
        (policy_of("0 1 * * sun", None), 7 * DAY, 7 * DAY + 6 * HOUR),
        (
            policy_of(log_shipping="continuous"),
            timedelta(seconds=5),
            timedelta(minutes=5, seconds=5),
        ),
    ],
)
def test_what_a_policy_promises(policy: Policy, target: timedelta, limit: timedelta) -> None:
    status = status_of(watched(None, policy=policy), NOON)
    assert (status.promise.target, status.promise.limit) == (target, limit)


def test_contradictory_lineages_are_told_and_not_raised() -> None:
    forks = (Fork("1", "2", 100), Fork("2", "1", 200))
    catalog = Catalog("orders", tuple(served(NOON)), forks)
    item = replace(watched([]), holdings=holdings_of(catalog))
    status = status_of(item, NOON)
    assert status.health is Health.UNPROTECTED
    assert "chain_unusable:" in told(status)


def spans(most: timedelta) -> st.SearchStrategy[timedelta]:
    return st.integers(0, round(most.total_seconds())).map(lambda count: timedelta(seconds=count))


@settings(max_examples=60, deadline=None)
@given(
    cadence=st.sampled_from([c for c in LogCadence if c.interval <= 12 * HOUR]),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kolkata"]),
    start=spans(365 * DAY).map(lambda span: datetime(2026, 1, 1, tzinfo=UTC) + span),
    delays=st.lists(spans(2 * MINUTE), min_size=1, max_size=7),
    silence=spans(3 * DAY),
)
def test_served_in_time_is_healthy_and_silence_is_told_in_time(
    cadence: LogCadence,
    zone: str,
    start: datetime,
    delays: list[timedelta],
    silence: timedelta,
) -> None:
    """A scheduler serves each slot within two minutes until it dies at ``start``; somebody looks
    ``silence`` later."""
    policy = policy_of("30 2 * * *", cadence.value, timezone=zone)
    due = [slot for kind in (FULL, LOG) for slot in slots(policy, kind, start - 2 * DAY, start)]
    begins = [
        (slot.kind, slot.instant + delays[number % len(delays)]) for number, slot in enumerate(due)
    ]
    item = watched(history([one for one in begins if one[1] + MINUTE <= start]), policy=policy)
    at_once = status_of(item, start)
    now = start + silence
    status = status_of(item, now)

    newest = item.holdings.last[LOG].started_at
    assert at_once.health is Health.HEALTHY, at_once.concerns
    missed = slots(policy, LOG, newest, now)
    overdue = any(now - slot.instant > allowance(policy, LOG) for slot in missed)
    assert ("backup_missing:log" in told(status)) == overdue
    if silence > cadence.interval + allowance(policy, LOG) + 5 * MINUTE:
        assert status.health is Health.AT_RISK


def test_spans_are_told_in_two_units_at_most() -> None:
    pairs = [(40, "40 s"), (720, "12 min"), (7500, "2 h 5 min"), (7200, "2 h"),
             (100 * 3600, "4 d 4 h"), (2 * 86400, "2 d"), (-5, "0 s")]  # fmt: skip
    for seconds, text in pairs:
        assert span_text(timedelta(seconds=seconds)) == text
