"""A server is backed up under its item only while its history is proven to be the item's."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sqlbak.engines.port import DiscoveredItem
from sqlbak.errors import LogChainBroken, LogRewritten, ObjectDamaged, ServerBehind
from sqlbak.jobs.backup import why_no_log
from sqlbak.jobs.one_history import require_one_history
from sqlbak.model import EngineName, Item, LogPosition, Point, PointType

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
ITEM = Item("orders-1", EngineName.POSTGRES, "orders", None, "1")


def point(name: str, lsn: int, lineage: str = "2", minute: int = 0) -> Point:
    at = NOON + timedelta(minutes=minute)
    return Point(name, PointType.LOG, lineage, lsn - 10, lsn, at, at)


class Server:
    """An engine and a vault: what the first says of each point, and which the second has lost."""

    def __init__(self, answer: bool | Exception | None, damaged: tuple[str, ...] = ()) -> None:
        self.answer = answer
        self.damaged = damaged
        self.asked: list[int] = []

    def is_same_log(self, position: LogPosition, facts: Any) -> bool | None:
        self.asked.append(position.lsn)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def manifest(self, item_id: str, point_id: str) -> Any:
        if point_id in self.damaged:
            raise ObjectDamaged(point_id)
        return SimpleNamespace(facts={})

    def require(self, *points: Point, lineage: str = "2", item: Item = ITEM) -> None:
        both = cast("Any", self)
        require_one_history(both, item, both, points, LogPosition(lineage, 500))


POINTS = (point("elder", 300, "1", 9), point("a", 200), point("c", 400), point("b", 300))


def test_the_furthest_point_of_the_server_s_lineage_is_looked_for_in_its_log() -> None:
    server = Server(True)
    server.require(*POINTS)
    assert server.asked == [400]
    Server(False).require(*POINTS, lineage="3")  # a lineage of which there is nothing yet


@pytest.mark.parametrize("answer", [False, None, LogChainBroken("removed")])
def test_what_is_another_log_or_not_proven_to_be_the_same_goes_on_elsewhere(answer: Any) -> None:
    with pytest.raises(LogRewritten, match=" c"):
        Server(answer).require(*POINTS)


def test_a_server_that_cannot_be_asked_is_not_taken_for_another() -> None:
    with pytest.raises(ServerBehind):
        Server(ServerBehind("not yet")).require(*POINTS)


def test_a_point_that_cannot_be_restored_proves_nothing() -> None:
    server = Server(True, damaged=("c",))
    server.require(*POINTS)
    assert server.asked == [300]


def test_lineages_that_no_two_histories_share_are_not_asked_for() -> None:
    server = Server(False)
    server.require(*POINTS, item=replace(ITEM, engine=EngineName.SQLSERVER))
    assert server.asked == []


def test_a_log_that_cannot_go_on_names_the_slot_and_the_new_lineage() -> None:
    found = DiscoveredItem("1", None, LogPosition("3", 500), why_no_log="its slot is gone")
    why = why_no_log(POINTS, found)
    assert "its slot is gone" in why
    assert "on lineage 3 now, and elder on lineage 1" in why
    same = DiscoveredItem("1", None, LogPosition("1", 500))
    assert "lineage" not in why_no_log(POINTS, same)
