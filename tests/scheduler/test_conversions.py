"""What a due backup will turn out to be, by what the server says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from sqlbak.engines.port import DiscoveredItem
from sqlbak.model import EngineName, LogPosition, Point, PointType
from sqlbak.scheduler.conversions import ServerView, foreseen

AT = datetime(2026, 11, 22, 1, tzinfo=UTC)
FULL, DIFFERENTIAL, LOG = PointType.FULL, PointType.DIFFERENTIAL, PointType.LOG


def point(kind: PointType, last: int, *, first: int = 0, lineage: str = "1") -> Point:
    at = AT + timedelta(minutes=last)
    return Point(f"{at:%Y%m%dT%H%M%SZ}-aaaaaaaaaa", kind, lineage, first, last, at, at)


CHAIN = (point(FULL, 10), point(LOG, 20, first=10))


def postgres(
    end: int = 30, oldest: int | None = 20, lineage: str = "1", *, may_lag: bool = False
) -> ServerView:
    found = DiscoveredItem("7", None, LogPosition(lineage, end), may_lag=may_lag)
    held = None if oldest is None else LogPosition(lineage, oldest)
    return ServerView(EngineName.POSTGRES, found, held)


def sql_server(next_lsn: int | None = 20, oldest: int | None = 20, **more: object) -> ServerView:
    found = DiscoveredItem("7", "erp", None, lineage="1", next_log_lsn=next_lsn, **more)  # type: ignore[arg-type]
    held = None if oldest is None else LogPosition("1", oldest)
    return ServerView(EngineName.SQLSERVER, found, held)


def test_a_whole_chain_is_gone_on_with() -> None:
    for view in (postgres(), sql_server()):
        for asked in PointType:
            assert foreseen(asked, CHAIN, view).takes is asked


@pytest.mark.parametrize("asked", [DIFFERENTIAL, LOG])
@pytest.mark.parametrize(
    ("points", "view", "why"),
    [
        ((), postgres(), "no full"),
        (CHAIN, postgres(end=15), "set back"),
        (CHAIN, sql_server(next_lsn=15), "set back"),
    ],
)
def test_only_a_full_helps_without_one_and_after_a_server_was_set_back(
    asked: PointType, points: tuple[Point, ...], view: ServerView, why: str
) -> None:
    seen = foreseen(asked, points, view)
    assert seen.takes is FULL
    assert seen.why is not None
    assert why in seen.why


def test_a_standby_that_has_not_come_as_far_yet_was_not_set_back() -> None:
    assert foreseen(LOG, CHAIN, postgres(end=15, may_lag=True)).takes is LOG


def test_log_that_the_server_lost_becomes_a_full_or_what_its_engine_can_go_on_from() -> None:
    seen = foreseen(LOG, CHAIN, postgres(oldest=None))
    assert (seen.takes, seen.why) == (
        FULL,
        "the server no longer holds the log since the last backup",
    )
    assert foreseen(LOG, CHAIN, sql_server(oldest=None)).takes is DIFFERENTIAL


def test_a_differential_on_another_lineage_becomes_a_full() -> None:
    seen = foreseen(DIFFERENTIAL, CHAIN, postgres(lineage="2"))
    assert seen.takes is FULL
    assert seen.why is not None
    assert "no full of lineage 2" in seen.why


def test_what_the_owner_of_a_database_paused_is_told() -> None:
    view = sql_server(paused={LOG: "it is in the simple recovery model"})
    assert foreseen(LOG, CHAIN, view).paused == "it is in the simple recovery model"
    assert foreseen(FULL, CHAIN, view).paused is None
