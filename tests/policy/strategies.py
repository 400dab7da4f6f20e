"""Hypothesis strategies of the policy room."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import strategies as st

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
    "Africa/Casablanca",
    "Asia/Tehran",
    "Pacific/Apia",
    "America/Nuuk",
    "Africa/Cairo",
    "Europe/Dublin",
)
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")

zones = st.sampled_from(ZONES)
instants = st.datetimes(
    min_value=datetime.fromisoformat("2000-01-01"),
    max_value=datetime.fromisoformat("2060-01-01"),
    timezones=st.just(UTC),
)


def _list_of(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(values, min_size=1, max_size=3).map(",".join)


def _range(low: int, high: int) -> st.SearchStrategy[str]:
    pairs = st.tuples(st.integers(low, high), st.integers(low, high)).filter(lambda p: p[0] < p[1])
    steps = st.one_of(st.just(""), st.integers(1, high).map("/{}".format))
    return st.builds(lambda pair, step: f"{pair[0]}-{pair[1]}{step}", pairs, steps)


def _numbers(low: int, high: int) -> st.SearchStrategy[str]:
    return _list_of(st.one_of(st.integers(low, high).map(str), _range(low, high)))


minutes = st.integers(0, 59).map(str)
hours = st.integers(0, 23).map(str)
month_days = st.one_of(st.just("*"), _numbers(1, 31), st.just("l"), st.just("l,15"))
months = st.one_of(st.just("*"), _numbers(1, 12), _list_of(st.sampled_from(MONTHS)))
week_days = st.one_of(
    st.just("*"),
    _numbers(0, 6),
    _list_of(st.sampled_from(WEEKDAYS)),
    st.sampled_from(["mon-fri", "sat-mon", "5-7", "fri-sun", "7"]),
)
nth_week_days = st.one_of(
    _list_of(st.builds("{}#{}".format, st.sampled_from(WEEKDAYS), st.integers(1, 5))),
    st.integers(0, 7).map("l{}".format),
)
day_fields = st.one_of(
    st.tuples(month_days, months, week_days), st.tuples(st.just("*"), months, nth_week_days)
)
"""Day of month, month and day of week."""

once_a_day_lines = st.builds(
    lambda minute, hour, days: " ".join((minute, hour, *days)), minutes, hours, day_fields
)
"""Cron lines with one time of day; some of them never happen."""
