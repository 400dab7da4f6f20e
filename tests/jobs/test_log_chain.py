from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlbak.jobs.log_chain import next_log_start
from sqlbak.model import Fork, LogPosition, Point, PointType

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


FORK = Fork("2", "1", 350)


def test_what_the_server_never_had_of_its_parent_s_log_is_no_start() -> None:
    points = [
        FULL,
        point(PointType.LOG, 200, 300),
        point(PointType.LOG, 300, 400),  # the lost primary's last, beyond the fork
        point(PointType.FULL, 360, 380, lineage="2"),
    ]
    promoted = {"lineage": "2", "forks": [FORK]}
    assert next_log_start(points, LogPosition("1", 250), **promoted) == LogPosition("1", 300)
    # The slot holds less: then the full on the new lineage begins the chain.
    assert next_log_start(points, LogPosition("1", 320), **promoted) == LogPosition("2", 380)
    back = {"lineage": "1", "forks": [FORK]}
    assert next_log_start(points, LogPosition("1", 250), **back) == LogPosition("1", 400)


def test_a_full_of_the_new_lineage_ends_the_healing_where_the_slot_holds_the_old_one() -> None:
    points = [FULL, point(PointType.FULL, 360, 380, lineage="2")]
    start = next_log_start(points, LogPosition("1", 250), lineage="2", forks=[FORK])
    assert start == LogPosition("2", 380)


def test_an_item_without_points_has_no_start() -> None:
    assert next_log_start([], LogPosition("1", 100)) is None
