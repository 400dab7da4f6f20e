"""An instant that may lie in a log which proves nothing is refused before anything is restored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from sqlbak.engines.sqlserver.restoring_chain import CLOCKS_DIFFER, require_settled
from sqlbak.errors import InstantUnreachable
from sqlbak.model import Point, PointType

ENDED = datetime(2026, 10, 20, 6, 45, tzinfo=UTC)


def point(kind: PointType, finished_at: datetime, covers_until: datetime | None = None) -> Point:
    return Point(
        id=f"{kind.value}-{finished_at:%H%M}",
        type=kind,
        lineage="fork",
        first_lsn=1,
        last_lsn=2,
        started_at=finished_at,
        finished_at=finished_at,
        covers_until=covers_until,
    )


FULL = point(PointType.FULL, ENDED - timedelta(hours=1))
BEHIND = point(PointType.LOG, ENDED)
LAST = point(PointType.LOG, ENDED + timedelta(minutes=15), ENDED + timedelta(minutes=15))


@pytest.mark.parametrize("before", [timedelta(minutes=20), timedelta(0), -CLOCKS_DIFFER / 2])
def test_it_may_hold_what_came_after_the_instant(before: timedelta) -> None:
    with pytest.raises(InstantUnreachable, match=BEHIND.id) as refused:
        require_settled((FULL, BEHIND, LAST), ENDED - before, "erp/Sales")
    assert refused.value.nearest == (ENDED + CLOCKS_DIFFER,)


def test_it_is_over_before_later_instants() -> None:
    require_settled((FULL, BEHIND, LAST), ENDED + CLOCKS_DIFFER, "erp/Sales")


def test_logs_that_prove_something_and_the_last_one_are_told_where_to_stop() -> None:
    proven = point(PointType.LOG, ENDED, ENDED - timedelta(seconds=1))
    require_settled((FULL, proven, LAST), ENDED, "erp/Sales")
    require_settled((FULL, BEHIND), ENDED - timedelta(minutes=5), "erp/Sales")
