from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sqlbak.policy.quiet_hours import QuietHours, leaves_time, quiet_until
from sqlbak.policy.rate import Rate
from tests.policy.documents import problems
from tests.policy.strategies import instants, zones

BERLIN = ZoneInfo("Europe/Berlin")


def ends(texts: list[str], at: str, zone: ZoneInfo = BERLIN) -> str | None:
    found = quiet_until([QuietHours.parse(text) for text in texts], zone, local(at, zone))
    return None if found is None else f"{found.astimezone(zone):%Y-%m-%dT%H:%M}"


def local(text: str, zone: ZoneInfo) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone)


def test_working_hours_are_over_in_the_evening_and_never_begin_on_a_weekend() -> None:
    hours = ["mon-fri 08:00-18:00"]
    assert ends(hours, "2026-11-23T07:59") is None
    assert ends(hours, "2026-11-23T08:00") == "2026-11-23T18:00"
    assert ends(hours, "2026-11-23T18:00") is None
    assert ends(hours, "2026-11-22T12:00") is None


def test_a_night_belongs_to_the_day_on_which_it_begins() -> None:
    hours = ["fri 22:00-06:00"]
    assert ends(hours, "2026-11-28T05:59") == "2026-11-28T06:00"
    assert ends(hours, "2026-11-27T05:59") is None


def test_spans_that_touch_are_one() -> None:
    assert ends(["20:00-24:00", "00:00-03:00"], "2026-11-23T21:00") == "2026-11-24T03:00"


def test_an_end_in_the_skipped_hour_is_the_first_instant_after_it() -> None:
    assert ends(["01:00-02:30"], "2027-03-28T01:30") == "2027-03-28T03:00"


@pytest.mark.parametrize(
    "text", ["", "08:00", "8:00-9:00", "mon 08:00-08:00", "monday 08:00-09:00", "25:00-26:00", "x"]
)
def test_what_is_no_span_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match="write"):
        QuietHours.parse(text)


spans = st.builds(
    lambda days, begin, end: f"{days}{begin // 60:02}:{begin % 60:02}-{end // 60:02}:{end % 60:02}",
    st.sampled_from(["", "mon-fri ", "sat,sun ", "wed "]),
    st.integers(0, 1439),
    st.integers(0, 1439),
)


@given(st.lists(spans, min_size=1, max_size=3), zones, instants)
@settings(deadline=None, max_examples=60)
def test_it_is_quiet_until_the_end_and_not_at_it(texts: list[str], name: str, at: datetime) -> None:
    try:
        quiet = [QuietHours.parse(text) for text in texts]
    except ValueError:
        return
    zone = ZoneInfo(name)
    end = quiet_until(quiet, zone, at)
    holds = any(span.holds(at.astimezone(zone).replace(tzinfo=None)) for span in quiet)
    assert holds == (end is not None)
    if end is not None and leaves_time(quiet):
        assert at < end <= at + timedelta(days=9)
        assert end.tzinfo is UTC
        assert not any(span.holds(end.astimezone(zone).replace(tzinfo=None)) for span in quiet)


def test_quiet_hours_that_leave_no_time_are_refused(tmp_path: Path) -> None:
    assert not leaves_time([QuietHours.parse("00:00-24:00")])
    (problem,) = problems(
        tmp_path,
        'vaults: {m: {url: "file:///v", redundancy: local}}\n'
        "policies:\n"
        '  gold: {vault: m, full: "0 1 * * *", quiet_hours: ["00:00-12:00", "12:00-24:00"]}\n',
    )
    assert "no minute of the week" in problem


def test_rates_are_read_in_both_kinds_of_units() -> None:
    assert Rate.parse("50MiB/s").bytes_per_second == 50 << 20
    assert Rate.parse("50MB/s").bytes_per_second == 50_000_000
    for text in ("50", "50M", "0MiB/s", "1KiB/s", "50 MiB/s"):
        with pytest.raises(ValueError, match="write"):
            Rate.parse(text)
