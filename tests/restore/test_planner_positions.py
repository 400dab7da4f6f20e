from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from sqlbak.errors import PositionUnreachable
from sqlbak.model import Catalog, Point, PointType
from sqlbak.restore.planner import plan_to_position

START = datetime(2026, 5, 1, 10, 0, tzinfo=UTC)


def point(name: str, kind: PointType, first: int, last: int, minute: int, size: int) -> Point:
    at = START + timedelta(minutes=minute)
    is_base = kind is PointType.FULL
    return Point(name, kind, "1", first, last, at, at, at if is_base else None, at, size_bytes=size)


FULL = point("full", PointType.FULL, 0, 10, 0, 1000)
BULK = replace(point("bulk", PointType.LOG, 10, 20, 15, 1), has_bulk_logged=True)
PLAIN = point("plain", PointType.LOG, 10, 20, 15, 100)


def test_a_cheaper_bulk_logged_log_to_the_same_end_is_not_stopped_in() -> None:
    plan = plan_to_position(Catalog("erp", (FULL, BULK, PLAIN)), 15)
    assert [step.id for step in plan.steps] == ["full", "plain"]
    whole = plan_to_position(Catalog("erp", (FULL, BULK, PLAIN)), 20)
    assert [step.id for step in whole.steps] == ["full", "bulk"]


def test_a_position_inside_the_only_log_is_refused_where_that_is_bulk_logged() -> None:
    with pytest.raises(PositionUnreachable):
        plan_to_position(Catalog("erp", (FULL, BULK)), 15)
