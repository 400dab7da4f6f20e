"""Backups that are gone although the policy still keeps them are told, and nothing else is."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from sqlbak.errors import StoreUnreachable
from sqlbak.model import Point, PointType
from sqlbak.monitor.deletions import deletions
from sqlbak.monitor.watched import Watched
from tests.monitor.watching import DAY, HOUR, NOON, history, served, watched

FULL = PointType.FULL


def fulls(*ages: int) -> list[Point]:
    return history([(FULL, NOON - age * DAY) for age in ages])


def after(before: list[Point], now: Watched) -> list[str]:
    """What is told when ``before`` was there and ``now`` is seen."""
    told, there = deletions({}, [watched(before)], NOON)
    assert told == []
    told, _ = deletions(there, [now], NOON + HOUR)
    return [event.what for event in told]


def test_a_full_that_the_policy_keeps_is_missed() -> None:
    points = fulls(20, 3, 2, 1)
    (what,) = after(points, watched([points[0], points[2], points[3]]))
    assert "1 full or differential of orders" in what
    assert points[1].id in what


def test_a_whole_item_that_is_gone_is_missed() -> None:
    points = served(NOON)
    (what,) = after(points, watched(None))
    assert "4 fulls and differentials of orders" in what


def test_what_retention_lets_go_is_no_news() -> None:
    points = fulls(40, 31, 2, 1)
    assert after(points, watched(points[2:])) == []


def test_new_points_are_no_news() -> None:
    points = served(NOON)
    assert after(points, watched([*points, *history([(FULL, NOON)])])) == []


def test_a_log_that_the_policy_keeps_is_missed() -> None:
    points = served(NOON)
    logs = [point for point in points if point.type is PointType.LOG]
    (what,) = after(points, watched([point for point in points if point is not logs[7]]))
    assert f"1 log of orders, taken {logs[7].started_at:%Y-%m-%d %H:%M:%S}Z" in what
    gone = {id(point) for point in logs[3:9]}
    (what,) = after(points, watched([point for point in points if id(point) not in gone]))
    assert "6 logs of orders" in what


def test_of_two_logs_of_one_second_each_is_missed() -> None:
    second = timedelta(milliseconds=400)
    points = history(
        [(FULL, NOON - DAY), *((PointType.LOG, NOON - HOUR + n * second) for n in range(4))]
    )
    (what,) = after(points, watched([*points[:2], *points[3:]]))
    assert "1 log of orders" in what


def test_a_log_that_retention_lets_go_is_no_news() -> None:
    points = served(NOON, days=17)
    old = NOON - 15 * DAY
    kept = [p for p in points if p.type is FULL or p.started_at > old]
    assert len(kept) < len(points)
    assert after(points, watched(kept)) == []


def test_a_vault_that_does_not_answer_has_lost_nothing() -> None:
    points = fulls(2, 1)
    _, there = deletions({}, [watched(points)], NOON)
    away = watched(None, vault_error=StoreUnreachable("away"))
    told, there = deletions(there, [away], NOON)
    assert told == []
    told, _ = deletions(there, [watched(points[:1])], NOON)
    assert len(told) == 1


def test_a_server_that_was_replaced_has_lost_nothing() -> None:
    points = fulls(2, 1)
    another = replace(watched(fulls(0)), item_id="orders-2")
    assert after(points, another) == []


def test_each_deletion_is_told_by_itself() -> None:
    points = fulls(3, 2, 1)
    _, there = deletions({}, [watched(points)], NOON)
    first, there = deletions(there, [watched(points[1:])], NOON)
    second, there = deletions(there, [watched(points[2:])], NOON)
    assert first[0].key != second[0].key
    assert deletions(there, [watched(points[2:])], NOON)[0] == []
