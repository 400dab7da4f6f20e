from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from sqlbak.errors import BaseUnusable
from sqlbak.jobs.differential_base import ahead_of, newest_base
from sqlbak.model import LogPosition, Point, PointType

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
HERE = "1"


def full(name: str, hours: int, lsn: int, lineage: str = "1") -> Point:
    at = NOON + timedelta(hours=hours)
    return Point(name, PointType.FULL, lineage, lsn - 10, lsn, at, at, at, at)


def test_the_newest_full_by_its_log_and_not_by_its_clock_is_the_base() -> None:
    points = [full("old", 3, 100), full("new", 2, 300), full("middle", 1, 200)]
    assert newest_base(points, HERE).id == "new"


def test_neither_a_copy_only_full_nor_another_kind_is_a_base() -> None:
    points = [
        full("old", 0, 100),
        replace(full("copy", 1, 200), is_copy_only=True),
        replace(full("differential", 2, 300), type=PointType.DIFFERENTIAL, base_id="old"),
        replace(full("log", 3, 400), type=PointType.LOG, reachable_from=None),
    ]
    assert newest_base(points, HERE).id == "old"


def test_a_full_of_another_lineage_is_no_base() -> None:
    points = [full("left", 0, 100), full("other", 1, 200, lineage="2")]
    assert newest_base(points, HERE).id == "left"
    with pytest.raises(BaseUnusable, match="lineage 3"):
        newest_base(points, "3")


def test_points_that_the_server_has_not_come_to_show_that_it_was_put_back() -> None:
    points = [full("before", 0, 100), full("undone", 2, 2000), full("other", 3, 9000, "2")]
    found = ahead_of(points, LogPosition("1", 1000))
    assert found is not None
    assert found.id == "undone"
    assert ahead_of(points, LogPosition("1", 2000)) is None
    assert ahead_of(points, LogPosition("3", 1)) is None
    assert ahead_of(points, None) is None


def test_without_any_full_or_position_there_is_no_base() -> None:
    with pytest.raises(BaseUnusable, match="no full"):
        newest_base([], HERE)
    with pytest.raises(BaseUnusable, match="does not say"):
        newest_base([full("a", 0, 100)], None)
