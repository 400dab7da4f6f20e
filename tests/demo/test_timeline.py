from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from sqlbak.demo.timeline import WIDTH, draw
from sqlbak.model import Point, PointType, Window

START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def point(kind: PointType, seconds: float) -> Point:
    at = START + timedelta(seconds=seconds)
    return Point(f"p{seconds}", kind, "1", 1, 2, at, at, at, at)


@given(
    st.lists(st.floats(0.1, 5000), min_size=1, max_size=30), st.floats(0, 5000), st.floats(0, 5000)
)
def test_every_picture_fits_and_shows_full_log_target_and_loss(
    logs: list[float], target: float, lost: float
) -> None:
    points = [point(PointType.FULL, 0), *(point(PointType.LOG, one) for one in sorted(logs))]
    window = Window("bank", "1", START, START + timedelta(seconds=max(logs)))
    bar, marks, *_ = draw(
        points, [window], START + timedelta(seconds=target), START + timedelta(seconds=lost)
    )
    assert len(bar) == len("12:00:00 ") + WIDTH + len(" 12:00:00")
    assert "|" in bar
    assert "^" in marks


def test_the_full_is_at_the_left_and_the_last_log_at_the_right() -> None:
    points = [point(PointType.FULL, 0), point(PointType.LOG, 5), point(PointType.LOG, 10)]
    window = Window("bank", "1", START, START + timedelta(seconds=10))
    bar, marks, *_ = draw(
        points, [window], START + timedelta(seconds=4), START + timedelta(seconds=6)
    )
    assert bar.startswith("12:00:00 F=")
    assert bar.endswith("=| 12:00:10")
    assert marks.index("^") < marks.index("X")
