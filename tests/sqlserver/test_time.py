"""To the second, over changes of the clocks and with every answer that a real server may give."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from sqlbak.errors import InstantUnreachable, RestoreNotProven
from tests.sqlserver.site import Site
from tests.sqlserver_simulator.instance import Unknowns

FOLD = datetime(2026, 10, 25, 1, tzinfo=UTC)
SPRING = datetime(2026, 3, 29, 1, tzinfo=UTC)
QUARTER = timedelta(minutes=15)


def over(site: Site, change: datetime, *, every: timedelta = QUARTER) -> None:
    """A commit every seven minutes and a log every ``every`` from two hours before to after."""
    site.simulator.clock.set(change - timedelta(hours=2, minutes=5))
    site.simulator.create_database("Sales")
    site.backup("Sales", "full")
    site.simulator.clock.set(change - timedelta(hours=2))
    due = change - timedelta(hours=2) + every
    while site.simulator.clock.utc() < change + timedelta(hours=2):
        site.insert("Sales", f"{site.simulator.clock.utc():%H:%M}")
        site.advance(minutes=7)
        if site.simulator.clock.utc() >= due:
            site.backup("Sales", "log")
            due += every
    site.backup("Sales", "log")


def restored_or_refused(site: Site, instants: list[datetime]) -> dict[datetime, bool]:
    found = {}
    for instant in instants:
        try:
            site.restore("Sales", instant)
        except InstantUnreachable as refused:
            assert "showed twice" in refused.message
            assert site.state("Copy") is None
            found[instant] = False
            continue
        assert site.rows("Copy") == site.rows_at("Sales", instant), instant
        site.drop("Copy")
        found[instant] = True
    return found


def test_in_the_hour_that_is_shown_twice_it_is_right_or_refused(make_site) -> None:
    site = make_site("Europe/Berlin")
    over(site, FOLD)
    minutes = [-61, -45, -20, -3, 0, 20, 45, 61]
    found = restored_or_refused(site, [FOLD + timedelta(minutes=m) for m in minutes])
    by_minute = dict(zip(minutes, found.values(), strict=True))
    assert by_minute[-61]
    assert by_minute[-45]
    assert by_minute[-20]
    assert by_minute[61]
    assert not by_minute[20]
    assert not by_minute[45]


def test_one_long_log_over_the_repeated_hour_is_never_stopped_inside_it(make_site) -> None:
    site = make_site("Europe/Berlin")
    over(site, FOLD, every=timedelta(hours=9))
    minutes = [-90, -30, 30, 90]
    found = restored_or_refused(site, [FOLD + timedelta(minutes=m) for m in minutes])
    assert list(found.values()) == [True, False, False, True]
    # What a restore would refuse, a plan refuses too.
    codes = [site.program("plan", "erp/Sales", "--to", instant.isoformat()) for instant in found]
    assert codes == [0, 3, 3, 0]


def test_in_spring_every_instant_is_restored(make_site) -> None:
    site = make_site("Europe/Berlin")
    over(site, SPRING, every=timedelta(hours=1))
    found = restored_or_refused(site, [SPRING + timedelta(minutes=m) for m in (-40, -1, 0, 1, 40)])
    assert all(found.values())


def test_an_old_server_that_does_not_tell_its_zone_is_right_or_refused(make_site) -> None:
    site = make_site("Europe/Berlin", year=2019)
    site.simulator.clock.set(FOLD - timedelta(hours=2))
    site.simulator.create_database("Sales")
    site.backup("Sales", "full")
    for minute in range(0, 240, 20):
        site.simulator.clock.set(FOLD + timedelta(minutes=minute - 115))
        site.insert("Sales", str(minute))
        site.advance(minutes=10)
        site.backup("Sales", "log")
    for minutes in (-90, -25, 25, 100):
        instant = FOLD + timedelta(minutes=minutes)
        try:
            site.restore("Sales", instant)
        except InstantUnreachable:
            assert abs(minutes) < 90
            continue
        assert site.rows("Copy") == site.rows_at("Sales", instant), minutes
        site.drop("Copy")


@pytest.mark.parametrize(
    "unknowns",
    [
        Unknowns(done_per_message=False),
        Unknowns(empty_log_restores=False),
        Unknowns(warning_4322_comes_last=True),
        Unknowns(plain_recovery_forks=False),
    ],
    ids=["one-done", "empty-log-refused", "warning-last", "no-fork"],
)
def test_whatever_a_real_server_answers_where_nobody_has_measured(
    make_site, unknowns: Unknowns
) -> None:
    site = make_site(unknowns=unknowns)
    site.write_history("Sales")
    for number in (4, 8, 11):
        at = site.commits["Sales"][number][0]
        site.restore("Sales", at)
        assert site.rows("Copy") == site.rows_at("Sales", at)
        site.drop("Copy")


def test_an_instant_that_only_the_log_could_deny_is_never_opened_when_it_does(
    make_site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vault says that the log reaches the instant, the server says that it does not (4322)."""
    from sqlbak.engines.sqlserver import restoring

    site = make_site()
    site.write_history("Sales")
    real = restoring.stop_of
    later = site.simulator.clock.utc() + timedelta(days=1)

    def wrong(chain):
        found = real(chain)
        return None if found is None else restoring.StopAt(f"{later:%Y-%m-%dT%H:%M:%S}.000", later)

    monkeypatch.setattr(restoring, "stop_of", wrong)
    from sqlbak.restore import databases

    original = databases._chain

    def unproven(planned, steps):
        from dataclasses import replace

        return replace(original(planned, steps), is_proven=False)

    monkeypatch.setattr(databases, "_chain", unproven)
    with pytest.raises(RestoreNotProven, match="4322") as failed:
        site.restore("Sales", site.commits["Sales"][7][0])
    assert "is left RESTORING" in failed.value.message
    assert site.state("Copy") == "RESTORING"
    with pytest.raises(RestoreNotProven, match="4322"):
        site.restore("Sales", site.commits["Sales"][7][0], resumes=True)
    assert site.state("Copy") == "RESTORING"


def test_two_weeks_under_a_policy_over_a_change_of_the_clocks(make_site) -> None:
    """A full a week, a differential and a log a day; any second of the two weeks."""
    site = make_site("Europe/Berlin")
    start = FOLD - timedelta(days=7, hours=1)
    site.simulator.clock.set(start)
    site.simulator.create_database("Sales")
    number = 0
    for day in range(14):
        site.simulator.clock.set(start + timedelta(days=day))
        site.backup("Sales", "full" if day % 7 == 0 else "differential")
        for _ in range(4):
            number += 1
            site.advance(hours=3, milliseconds=number)
            site.insert("Sales", f"row {number}")
        site.advance(minutes=30)
        site.backup("Sales", "log")
    instants = [FOLD + timedelta(hours=h, seconds=h) for h in (-160, -25, -2, 0, 1, 2, 140)]
    found = restored_or_refused(site, instants)
    assert sum(found.values()) >= 4
