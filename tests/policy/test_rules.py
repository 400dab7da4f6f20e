from __future__ import annotations

from datetime import date, timedelta
from itertools import product
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from hypothesis import assume, given, settings

from sqlbak.model import PointType
from sqlbak.policy.calendar import slots
from sqlbak.policy.cron import CronLine
from sqlbak.policy.duration import Duration
from sqlbak.policy.rules import retention_problems, schedule_problems
from sqlbak.policy.schema import Policy
from tests.policy.strategies import once_a_day_lines, zones


def complaints(
    full: str, differential: str | None = None, zone: str = "Europe/Berlin"
) -> list[str]:
    return [
        problem.message
        for problem in schedule_problems(
            CronLine.parse(full),
            None if differential is None else CronLine.parse(differential),
            ZoneInfo(zone),
        )
    ]


@pytest.mark.parametrize(
    ("full", "differential"),
    [
        ("0 1 * * *", None),
        ("0 1 * * sun", "0 1 * * mon-sat"),
        ("0 1 * * sun,wed", "0 1 * * mon,tue,thu-sat"),
        ("0 1 1 * *", "0 1 2-31 * *"),
        ("0 1 * * sun#1", None),
        ("0 1 l * *", "0 1 1-27 * *"),
        ("0 1 1 jan *", None),
        ("30 2 * * sun", "30 2 * * mon"),
        ("@weekly", None),
    ],
)
def test_a_sensible_schedule_is_accepted(full: str, differential: str | None) -> None:
    assert complaints(full, differential) == []


@pytest.mark.parametrize(
    "line", ["0 1,13 * * *", "0,30 1 * * sun", "0 * * * *", "*/15 1 1 1 *", "@hourly"]
)
def test_a_full_happens_once_a_day_at_most(line: str) -> None:
    (complaint,) = complaints(line)
    assert "times a day" in complaint
    assert "2026-01-" in complaint


def test_a_differential_happens_once_a_day_at_most() -> None:
    (complaint,) = complaints("0 1 * * sun", "0 1,13 * * mon")
    assert complaint.startswith("differential")
    assert "2026-01-05 at 01:00 and 13:00" in complaint


@pytest.mark.parametrize("full", ["0 1 * * *", "0 1 */1 * *", "0 1 1-20 * *", "0 1 * * 0-6"])
def test_a_differential_needs_a_weekly_full(full: str) -> None:
    (complaint,) = complaints(full, "0 13 * * mon")
    assert "weekly full" in complaint


@pytest.mark.parametrize(
    ("full", "differential", "day"),
    [
        ("0 1 * * sun", "0 2 * * sun-mon", "2026-01-04 (Sunday)"),
        ("0 1 1 * *", "0 1 * * mon", "2026-06-01 (Monday)"),
        ("0 1 29 2 sun", "0 1 29 2 mon", "2028-02-29 (Tuesday)"),
        ("0 1 1 1 *", "0 1 * * thu", "2026-01-01 (Thursday)"),
        ("0 1 * * sun", "0 1 l 2 mon", "2027-02-28 (Sunday)"),
        ("0 1 l * *", "0 1 29 * mon-wed", "2026-03-31 (Tuesday)"),
    ],
)
def test_a_differential_never_falls_on_a_fulls_day(full: str, differential: str, day: str) -> None:
    (complaint,) = complaints(full, differential)
    assert "both fall on" in complaint
    assert day in complaint


def test_a_rare_collision_is_found_by_the_calendar() -> None:
    # 31 December and the first Sunday of the year share no day, 29 February and a Sunday do once
    # in 28 years.
    assert complaints("0 1 * * sun#1", "0 1 31 dec *") == []
    (complaint,) = complaints("0 1 * 2 sun", "0 1 29 2,3 *")
    assert "2026-03" not in complaint
    assert "2032-02-29" in complaint


@pytest.mark.parametrize("line", ["0 1 29 2 *", "0 1 * jan mon#5"])
def test_a_schedule_that_leaves_out_whole_years_is_refused(line: str) -> None:
    (complaint,) = complaints(line)
    assert "not happen at all in 20" in complaint


def test_where_the_clocks_skip_the_last_hour_of_a_day_no_two_slots_share_the_next_day() -> None:
    # Greenland skips 23:00 to 24:00 on a Saturday: its slot runs on Sunday.
    assert complaints("0 22 * * *", zone="America/Nuuk") == []
    (complaint,) = complaints("30 23 * * *", zone="America/Nuuk")
    assert "twice on 2026-03-29" in complaint
    (complaint,) = complaints("0 1 * * sun", "30 23 * * sat", zone="America/Nuuk")
    assert "2026-03-29" in complaint
    assert complaints("0 1 * * sun", "30 23 * * sat", zone="Europe/Berlin") == []
    assert complaints("30 23 * * sat", zone="America/Nuuk") == []


@given(once_a_day_lines, once_a_day_lines, zones)
@settings(deadline=None, max_examples=60)
def test_what_is_accepted_never_collides_on_any_local_day(
    full: str, differential: str, zone: str
) -> None:
    try:
        lines = CronLine.parse(full), CronLine.parse(differential)
    except ValueError:
        assume(False)
        raise
    assume(not schedule_problems(*lines, ZoneInfo(zone)))
    policy = Policy(vault="main", timezone=zone, full=lines[0], differential=lines[1])
    begin = croniter.timestamp_to_datetime(croniter("0 0 1 1 *"), 1767225600.0)
    begin = begin.replace(tzinfo=ZoneInfo("UTC"))
    end = begin + timedelta(days=366 * 12)
    days: list[date] = []
    for kind in (PointType.FULL, PointType.DIFFERENTIAL):
        found = slots(policy, kind, begin, end)
        assert found
        days += [slot.instant.astimezone(policy.zone).date() for slot in found]
    assert len(set(days)) == len(days)


def spans(**written: str) -> dict[str, Duration]:
    return {key: Duration.parse(text) for key, text in written.items()}


@pytest.mark.parametrize(
    "written",
    [
        {"full": "7d", "differential": "7d", "log": "7d"},
        {"full": "180d", "differential": "180d", "log": "35d"},
        {"full": "9999d"},
        {"full": "7d", "weekly": "1w", "monthly": "1m", "yearly": "1y"},
        {"weekly": "5163w"},
        {"monthly": "1188m"},
        {"yearly": "99y"},
        {
            "full": "30d",
            "differential": "30d",
            "log": "15d",
            "weekly": "12w",
            "monthly": "12m",
            "yearly": "7y",
        },
        {"full": "30d", "log": "35d"},
        {"monthly": "12m", "yearly": "1y"},
        {"full": "1m"},
        {},
    ],
)
def test_retention_within_its_ranges_is_accepted(written: dict[str, str]) -> None:
    assert retention_problems(spans(**written)) == []


@pytest.mark.parametrize(
    ("key", "span", "allowed"),
    [
        *product(["full"], ["6d", "10000d", "28y"], ["between 7d and 9999d"]),
        *product(["differential"], ["6d", "181d", "6m"], ["between 7d and 180d"]),
        *product(["log"], ["6d", "36d", "2m"], ["between 7d and 35d"]),
        *product(["weekly"], ["6d", "5164w", "99y"], ["between 1w and 5163w"]),
        *product(["monthly"], ["30d", "1189m", "100y"], ["between 1m and 1188m"]),
        *product(["yearly"], ["11m", "365d", "100y"], ["between 1y and 99y"]),
    ],
)
def test_retention_out_of_range_is_refused_with_the_range(
    key: str, span: str, allowed: str
) -> None:
    written = {"full": "7d", key: span}
    problems = retention_problems(spans(**written))
    assert [problem.location for problem in problems if allowed in problem.message] == [
        ("retention", key)
    ]


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ({"full": "30d", "differential": "31d"}, "differential"),
        ({"full": "30d", "weekly": "4w"}, "weekly"),
        ({"full": "30d", "monthly": "1m"}, "monthly"),
        ({"weekly": "53w", "monthly": "12m"}, "monthly"),
        ({"monthly": "13m", "yearly": "1y"}, "yearly"),
        ({"full": "366d", "yearly": "1y"}, "yearly"),
        ({"weekly": "1w"}, "weekly"),
        ({"differential": "60d"}, "differential"),
    ],
)
def test_a_longer_tier_is_never_kept_shorter(written: dict[str, str], key: str) -> None:
    (problem,) = retention_problems(spans(**written))
    assert problem.location == ("retention", key)
    assert "must not be kept longer" in problem.message
