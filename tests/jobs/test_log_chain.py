from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlbak.jobs.log_chain import next_log_start
from sqlbak.model import LogPosition, Point, PointType

START = datetime(2026, 11, 22, tzinfo=UTC)


def point(kind: PointType, first: int, last: int, lineage: str = "1", minute: int = 0) -> Point:
    at = START + timedelta(minutes=minute)
    return Point(f"{kind}-{first}-{last}", kind, lineage, first, last, at, at)


FULL = point(PointType.FULL, 100, 200)


def test_the_first_log_begins_where_the_first_full_ends() -> None:
    assert next_log_start([FULL], LogPosition("1", 100)) == LogPosition("1", 200)


def test_before_the_first_log_what_lies_between_two_fulls_is_not_given_up() -> None:
    points = [FULL, point(PointType.FULL, 300, 400)]
    assert next_log_start(points, LogPosition("1", 100)) == LogPosition("1", 200)


def test_a_full_in_between_does_not_break_the_chain_of_logs() -> None:
    points = [FULL, point(PointType.LOG, 200, 300), point(PointType.FULL, 250, 400)]
    assert next_log_start(points, LogPosition("1", 300)) == LogPosition("1", 300)


def test_when_the_server_lost_the_log_a_later_full_begins_a_new_chain() -> None:
    points = [FULL, point(PointType.LOG, 200, 300), point(PointType.FULL, 500, 600)]
    assert next_log_start(points, LogPosition("1", 450)) == LogPosition("1", 600)


def test_without_any_log_on_the_server_only_a_full_helps() -> None:
    assert next_log_start([FULL], None) is None
    assert next_log_start([FULL], LogPosition("1", 900)) is None


def test_on_a_lineage_that_is_new_the_newest_point_is_offered() -> None:
    points = [FULL, point(PointType.LOG, 200, 300, minute=5)]
    assert next_log_start(points, LogPosition("2", 290)) == LogPosition("1", 300)


def test_an_item_without_points_has_no_start() -> None:
    assert next_log_start([], LogPosition("1", 100)) is None
