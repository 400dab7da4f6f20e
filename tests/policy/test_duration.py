from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlbak.policy.duration import Duration


def add_months(start: date, months: int) -> date:
    year, month = divmod(start.year * 12 + start.month - 1 + months, 12)
    for day in range(start.day, 0, -1):
        try:
            return date(year, month + 1, day)
        except ValueError:
            continue
    raise AssertionError


@pytest.mark.parametrize("text", ["30d", "12w", "12m", "7y", "1d", "99999d"])
def test_a_span_is_read_and_shown_as_written(text: str) -> None:
    assert str(Duration.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", "30", "d", "0d", "030d", "-1d", "1.5d", "30 d", "30D", "30h", "100000d", "٣d", "1d\n"],
)
def test_anything_else_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="30d"):
        Duration.parse(text)


def test_months_and_years_are_calendar_units() -> None:
    assert Duration.parse("1m").shortest_days == 28
    assert Duration.parse("1m").longest_days == 31
    assert Duration.parse("1y").shortest_days == 365
    assert Duration.parse("1y").longest_days == 366
    assert Duration.parse("12m").is_never_longer_than(Duration.parse("1y"))
    assert Duration.parse("1y").is_never_longer_than(Duration.parse("12m"))
    assert Duration.parse("365d").is_never_longer_than(Duration.parse("1y"))
    assert not Duration.parse("366d").is_never_longer_than(Duration.parse("1y"))
    assert not Duration.parse("1y").is_never_longer_than(Duration.parse("365d"))


@given(st.integers(1, 1200), st.dates(date(1600, 1, 1), date(2000, 1, 1)))
def test_a_span_of_months_stays_within_its_bounds_from_any_date(months: int, start: date) -> None:
    span = Duration(months, "m")
    days = (add_months(start, months) - start) // timedelta(days=1)
    assert span.shortest_days <= days <= span.longest_days


@pytest.mark.parametrize("months", [1, 2, 3, 11, 12, 13, 48, 1188])
def test_the_bounds_of_a_span_of_months_are_reached(months: int) -> None:
    every_date = [date(2000, 1, 1) + timedelta(days=count) for count in range(366 * 100)]
    spans = [(add_months(start, months) - start).days for start in every_date]
    assert (Duration(months, "m").shortest_days, Duration(months, "m").longest_days) == (
        min(spans),
        max(spans),
    )
