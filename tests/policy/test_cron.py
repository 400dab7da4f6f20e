from __future__ import annotations

import itertools
from datetime import date, datetime, time, timedelta

import pytest
from croniter import CroniterBadDateError, croniter
from cronsim import CronSim
from hypothesis import assume, example, given, settings

from sqlbak.policy.cron import CronLine
from tests.policy.strategies import once_a_day_lines

JUST_BEFORE_2027 = datetime.fromisoformat("2026-12-31T23:59")


def fires(line: str, first: date, last: date) -> list[date]:
    return list(CronLine.parse(line).dates(first, last))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "0 1 * * sun",
            [date(2027, 2, 7), date(2027, 2, 14), date(2027, 2, 21), date(2027, 2, 28)],
        ),
        ("0 1 * * 7", [date(2027, 2, 7), date(2027, 2, 14), date(2027, 2, 21), date(2027, 2, 28)]),
        ("0 1 1,15 * *", [date(2027, 2, 1), date(2027, 2, 15)]),
        ("0 1 l * *", [date(2027, 2, 28)]),
        ("0 1 * * l5", [date(2027, 2, 26)]),
        ("0 1 * * sun#2", [date(2027, 2, 14)]),
        ("0 1 * * sun#5", []),
        ("0 1 31 * *", []),
        ("0 1 * jan *", []),
        ("0 1 13 * fri", [date(2027, 2, d) for d in (5, 12, 13, 19, 26)]),
        ("@weekly", [date(2027, 2, 7), date(2027, 2, 14), date(2027, 2, 21), date(2027, 2, 28)]),
        ("@monthly", [date(2027, 2, 1)]),
    ],
)
def test_a_line_falls_on_the_days_that_cron_gives_it(line: str, expected: list[date]) -> None:
    assert fires(line, date(2027, 2, 1), date(2027, 2, 28)) == expected


def test_names_and_spacing_do_not_matter() -> None:
    days = fires("0 1 * * sun", date(2027, 1, 1), date(2027, 3, 1))
    assert fires("  0   1 *\t* SUN ", date(2027, 1, 1), date(2027, 3, 1)) == days


def test_the_time_of_day_is_known() -> None:
    assert CronLine.parse("30 22 * * *").times == (time(22, 30),)
    assert CronLine.parse("0,30 1-2 * * *").times == (
        time(1, 0),
        time(1, 30),
        time(2, 0),
        time(2, 30),
    )


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("", "five"),
        ("0 1 * *", "five"),
        ("0 0 1 * * *", "seconds"),
        ("0 0 1 * * * 2027", "seconds"),
        ("60 1 * * *", "0-59"),
        ("0 24 * * *", "0-23"),
        ("0 1 0 * *", "1-31"),
        ("0 1 * 13 *", "1-12"),
        ("0 1 * * 8", "0-7"),
        ("0 1 * * sunday", "sun-sat"),
        ("h 1 * * *", "chance"),
        ("r 1 * * *", "chance"),
        ("h(0-15) 1 * * *", "chance"),
        ("59/15 1 * * *", "'59-59/15'"),
        ("10/5 1 * * *", "'10-59/5'"),
        ("*/0 1 * * *", "step"),
        ("*/60 1 * * *", "step"),
        ("0 1 * * sun-sun", "alone"),
        ("0 1 * * 0-7", "alone"),
        ("0 22-2 * * *", "'22-23,0-2'"),
        ("0 1 15w * *", "weekday"),
        ("0 1 ? * *", "'*'"),
        ("0 1 1 * mon#1", "'*'"),
        ("0 1 1 * l5", "'*'"),
        ("0 1 */2 * mon", "disagree"),
        ("0 1 1 * */2", "disagree"),
        ("0 1 *,5 * *", "alone"),
        ("0 1 * * mon#6", "0-7"),
        ("0 1 -1 * *", "1-31"),
        ("0 1 ٣ * *", "1-31"),
        ("@reboot", "alias"),
        ("0 0 31 2 *", "no date"),
        ("0 0 30 feb *", "no date"),
        ("0 1 * * mon\n0 2 * * tue", "five"),
    ],
)
def test_a_line_that_cron_programs_do_not_agree_on_is_refused(line: str, hint: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        CronLine.parse(line)
    assert hint in str(refused.value)


@given(once_a_day_lines)
@example("0 0 29 2 *")
@example("0 0 l 2 *")
@example("0 0 31 * *")
@example("0 0 30,31 2,4 mon")
@example("0 0 * * sun#5")
@settings(deadline=None, max_examples=150)
def test_the_calendar_agrees_with_croniter(line: str) -> None:
    try:
        parsed = CronLine.parse(line)
    except ValueError:
        assume(False)
    ours = [
        datetime.combine(day, at)
        for day in parsed.dates(date(2027, 1, 1), date(2032, 12, 31))
        for at in parsed.times
    ][:60]
    iterator = croniter(line, JUST_BEFORE_2027, datetime)
    try:
        theirs = list(itertools.islice(iterator, len(ours)))
    except CroniterBadDateError:
        theirs = []
    assert ours == theirs


@given(once_a_day_lines)
@settings(deadline=None, max_examples=150)
def test_the_calendar_agrees_with_cronsim(line: str) -> None:
    try:
        parsed = CronLine.parse(line)
    except ValueError:
        assume(False)
    # cronsim writes the last day as L, and the last Friday as 5L; it knows no range over Sunday.
    week_day = line.split()[4]
    assume(week_day not in ("sat-mon", "5-7", "fri-sun"))
    theirs_line = line.replace("l,15", "L,15").replace(" l ", " L ")
    if week_day.startswith("l"):
        theirs_line = theirs_line.replace(week_day, f"{week_day[1:]}L")
    ours = [
        datetime.combine(day, at)
        for day in parsed.dates(date(2027, 1, 1), date(2032, 12, 31))
        for at in parsed.times
    ][:60]
    theirs = list(itertools.islice(CronSim(theirs_line, JUST_BEFORE_2027), len(ours)))
    assert ours == theirs


def test_a_line_of_every_minute_is_understood_though_no_policy_may_use_it() -> None:
    parsed = CronLine.parse("* * * * *")
    assert len(parsed.times) == 24 * 60
    assert len(list(parsed.dates(date(2027, 1, 1), date(2027, 1, 1) + timedelta(days=364)))) == 365
