"""The planner by example: what it chooses, what it refuses, and how it says so."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from sqlbak.errors import (
    InstantUnreachable,
    LineageAmbiguous,
    LineageContradictory,
    NothingToRestore,
    PositionUnreachable,
    UnknownName,
)
from sqlbak.model import Catalog, Fork, Point, PointType
from sqlbak.restore.estimate import DEFAULT_RATES
from sqlbak.restore.explanation import explain
from sqlbak.restore.planner import (
    LATEST,
    RestorePlan,
    plan,
    plan_document,
    plan_to_point,
    plan_to_position,
)
from sqlbak.restore.windows import windows


def at(minute: float) -> datetime:
    return datetime(2024, 5, 1, 10, 0, tzinfo=UTC) + timedelta(minutes=minute)


def full(name: str, lsn: int, minute: float, *, lineage: str = "1", size: int = 100) -> Point:
    return Point(
        id=name,
        type=PointType.FULL,
        lineage=lineage,
        first_lsn=lsn - 5,
        last_lsn=lsn,
        started_at=at(minute - 1),
        finished_at=at(minute),
        reachable_from=at(minute),
        size_bytes=size,
    )


def differential(name: str, base: str, lsn: int, minute: float, *, size: int = 10) -> Point:
    point = full(name, lsn, minute, size=size)
    return replace(point, type=PointType.DIFFERENTIAL, base_id=base)


def log(name: str, first: int, last: int, minute: float, *, lineage: str = "1") -> Point:
    return Point(
        id=name,
        type=PointType.LOG,
        lineage=lineage,
        first_lsn=first,
        last_lsn=last,
        started_at=at(minute),
        finished_at=at(minute + 0.5),
        covers_until=at(minute),
        size_bytes=1,
    )


def catalog(*points: Point, forks: tuple[Fork, ...] = ()) -> Catalog:
    return Catalog("shop", points, forks)


WEEK = catalog(
    full("sunday", 100, 0),
    log("l1", 100, 200, 15),
    log("l2", 200, 300, 30),
    differential("monday", "sunday", 300, 31),
    log("l3", 300, 400, 45),
    log("l4", 400, 500, 60),
)


def steps(found: RestorePlan) -> list[str]:
    return [step.id for step in found.steps]


def reasons(found: RestorePlan) -> dict[str, str]:
    return {rejection.point_id: rejection.reason for rejection in found.rejected}


def week(*, differential_megabytes: int, log_megabytes: int) -> Catalog:
    sizes = {PointType.FULL: 500, PointType.LOG: log_megabytes}
    return catalog(
        *(
            replace(p, size_bytes=sizes.get(p.type, differential_megabytes) * 1_000_000)
            for p in WEEK.points
        )
    )


BY_LOGS = ["sunday", "l1", "l2", "l3", "l4"]
BY_DIFFERENTIAL = ["sunday", "monday", "l3", "l4"]


@pytest.mark.parametrize(
    ("differential_megabytes", "log_megabytes", "expected"),
    [(30, 20, BY_DIFFERENTIAL), (100, 20, BY_DIFFERENTIAL), (200, 20, BY_LOGS), (10, 1, BY_LOGS)],
)
def test_the_least_time_wins_and_log_takes_longer_than_data(
    differential_megabytes: int, log_megabytes: int, expected: list[str]
) -> None:
    history = week(differential_megabytes=differential_megabytes, log_megabytes=log_megabytes)
    assert steps(plan(history, at(50))) == expected


def test_of_much_the_same_bytes_the_fewest_steps_win() -> None:
    assert steps(plan(WEEK, at(50))) == BY_DIFFERENTIAL


def test_the_estimate_is_in_the_plan_and_its_document() -> None:
    found = plan(week(differential_megabytes=100, log_megabytes=20), at(50))
    expected = 600e6 / DEFAULT_RATES.data_bytes_per_second
    expected += 40e6 / DEFAULT_RATES.log_bytes_per_second
    expected += 4 * DEFAULT_RATES.microseconds_a_step / 1e6
    assert found.estimated_seconds == pytest.approx(expected)
    assert plan_document(found)["estimated_seconds"] == round(expected, 1)
    assert "estimated at 25 s" in explain(found)


def test_a_lost_log_is_bridged_by_a_later_differential() -> None:
    rest = catalog(*(p for p in WEEK.points if p.id != "l2"))
    found = plan(rest, at(50))
    assert steps(found) == ["sunday", "monday", "l3", "l4"]
    assert reasons(found) == {"l1": "ends before the differential that the logs follow"}


def test_a_lost_full_is_bridged_by_an_older_one_and_its_logs() -> None:
    older = full("before", 50, -30)
    rest = [p for p in WEEK.points if p.id != "sunday"]
    found = plan(catalog(older, log("l0", 50, 100, 5), *rest), at(50))
    assert steps(found) == ["before", "l0", "l1", "l2", "l3", "l4"]
    assert reasons(found)["monday"] == "its full is missing"


def test_an_instant_between_the_last_log_before_a_full_and_its_end_uses_the_older_full() -> None:
    points = catalog(full("old", 50, -30), log("l0", 50, 150, 5), full("new", 140, 3))
    assert steps(plan(points, at(2))) == ["old", "l0"]
    assert steps(plan(points, at(3))) == ["new"]
    assert steps(plan(points, at(4)))[-1] == "l0"


def test_an_empty_log_is_no_step_but_proves_that_nothing_happened() -> None:
    idle = log("idle", 500, 500, 75)
    found = plan(catalog(*WEEK.points, idle), at(70))
    assert steps(found)[-1] == "l4"
    assert found.proven_by == "idle"
    assert found.to_the_end
    assert reasons(found)["idle"] == "empty: it proves the instant and holds nothing to apply"


def test_latest_is_the_end_of_the_last_window() -> None:
    found = plan(WEEK, LATEST)
    assert found.stop_at == windows(WEEK)[-1].end == at(60)


@pytest.mark.parametrize(
    ("minute", "why", "nearest"),
    [
        (-1, "the first instant that can be restored is 2024-05-01T10:00:00", [0]),
        (61, "the last instant that can be restored is 2024-05-01T11:00:00", [60]),
    ],
)
def test_outside_the_windows_is_refused(minute: int, why: str, nearest: list[int]) -> None:
    with pytest.raises(InstantUnreachable, match=why) as refused:
        plan(WEEK, at(minute))
    assert refused.value.nearest == tuple(at(each) for each in nearest)


def test_inside_a_gap_is_refused_with_both_sides_and_the_missing_lsns() -> None:
    rest = catalog(*(p for p in WEEK.points if p.id != "l2"))
    with pytest.raises(InstantUnreachable, match=r"the log 200\.\.300 is missing") as refused:
        plan(rest, at(20))
    assert refused.value.nearest == (at(15), at(31))


def test_inside_a_bulk_logged_log_is_refused_and_behind_it_is_not() -> None:
    points = catalog(
        *(replace(p, has_bulk_logged=True) if p.id == "l3" else p for p in WEEK.points)
    )
    with pytest.raises(InstantUnreachable, match="bulk-logged log l3") as refused:
        plan(points, at(40))
    assert refused.value.nearest == (at(31), at(45.5))
    assert "l3" in steps(plan(points, at(50)))


def test_where_the_clock_was_set_back_the_first_occurrence_counts_and_a_note_says_so() -> None:
    points = catalog(full("f", 100, 0), log("l1", 100, 200, 30), log("l2", 200, 300, 10))
    found = plan(points, at(20))
    assert steps(found) == ["f", "l1"]
    assert "first occurrence" in found.notes[0]
    assert plan(points, at(5)).notes == ()


def test_a_full_after_the_clock_had_passed_the_instant_is_not_used() -> None:
    points = catalog(
        full("f", 100, 0), log("l1", 100, 200, 30), full("g", 250, 10), log("l2", 200, 300, 40)
    )
    found = plan(points, at(20))
    assert steps(found) == ["f", "l1"]
    assert "clock" in reasons(found)["g"]
    assert steps(plan(points, at(10))) == ["f", "l1"]


FAILOVER = catalog(
    full("f", 100, 0),
    log("a1", 100, 200, 15),
    log("a2", 200, 300, 30),
    log("b1", 250, 350, 45, lineage="2"),
    forks=(Fork("2", "1", 250),),
)


def test_a_fork_is_followed_and_the_log_it_cuts_is_named() -> None:
    found = plan(FAILOVER, at(40))
    assert (found.lineage, steps(found)) == ("2", ["f", "a1", "a2", "b1"])
    assert [(cut.point_id, cut.lsn) for cut in found.cuts] == [("a2", 250)]
    assert plan_document(found)["steps"][2] == {"point": "a2", "type": "log", "stop_lsn": 250}
    assert reasons(plan(FAILOVER, at(20), lineage="1"))["b1"] == "other lineage (2)"


def test_before_the_fork_the_newest_lineage_is_named_and_after_it_a_choice_is_needed() -> None:
    assert plan(FAILOVER, at(10)).lineage == "2"
    with pytest.raises(LineageAmbiguous, match="1, 2"):
        plan(FAILOVER, at(20))


def test_an_abandoned_branch_is_only_restored_when_it_is_named() -> None:
    promoted = replace(full("g", 300, 40, lineage="2"), started_at=at(35))
    came_back = log("a3", 300, 400, 60)
    points = catalog(
        full("f", 100, 0),
        log("a1", 100, 200, 15),
        log("a2", 200, 300, 30),
        promoted,
        came_back,
        forks=(Fork("2", "1", 250),),
    )
    assert steps(plan(points, at(20))) == ["f", "a1", "a2"]  # nothing of 2 was there yet
    for instant in (at(50), LATEST):
        with pytest.raises(LineageAmbiguous, match="lineage 2 had been begun") as refused:
            plan(points, instant)
        assert "--lineage 1" in refused.value.hint
    assert steps(plan(points, at(50), lineage="1")) == ["f", "a1", "a2", "a3"]
    assert steps(plan(points, at(40), lineage="2")) == ["g"]


def test_of_two_branches_the_younger_one_needs_no_name() -> None:
    points = catalog(
        full("f", 100, 0),
        full("g", 250, 40, lineage="2"),
        full("h", 350, 60, lineage="3"),
        log("c", 350, 400, 75, lineage="3"),
        forks=(Fork("2", "1", 200), Fork("3", "1", 300)),
    )
    assert steps(plan(points, at(70))) == ["h", "c"]


def test_lineages_that_share_a_state_beyond_a_fork_need_no_choice() -> None:
    third = log("c1", 350, 400, 60, lineage="3")
    points = catalog(*FAILOVER.points, third, forks=(*FAILOVER.forks, Fork("3", "2", 350)))
    found = plan(points, at(40))
    assert (found.lineage, steps(found)) == ("3", ["f", "a1", "a2", "b1"])


def test_a_window_begins_only_where_the_log_that_decides_can_be_reached() -> None:
    points = catalog(full("f", 100, 0), log("late", 150, 200, 10), log("wide", 100, 300, 30))
    with pytest.raises(InstantUnreachable):
        plan(points, at(5))
    tick = timedelta(microseconds=1)
    assert [(w.start, w.end) for w in windows(points)] == [
        (at(0), at(0)),
        (at(10) + tick, at(30)),
    ]


@pytest.mark.parametrize(
    "forks",
    [
        (Fork("1", "2", 50), Fork("2", "1", 60)),
        (Fork("1", "1", 50),),
        (Fork("1", "0", 50), Fork("1", "0", 60)),
        (Fork("1", "0", 50), Fork("0", "9", 80)),
    ],
)
def test_forks_that_cannot_be_true_are_refused(forks: tuple[Fork, ...]) -> None:
    points = catalog(*WEEK.points, forks=forks)
    with pytest.raises(LineageContradictory):
        plan(points, at(20))
    with pytest.raises(LineageContradictory):
        windows(points)


def test_an_unknown_lineage_or_point_is_named_with_the_choices() -> None:
    with pytest.raises(UnknownName, match="lineage '7'"):
        plan(WEEK, at(20), lineage="7")
    with pytest.raises(UnknownName, match="recovery point 'l9'") as unknown:
        plan_to_point(WEEK, "l9")
    assert "monday" in unknown.value.hint


def test_without_a_full_there_is_nothing_to_restore() -> None:
    for points in ((), WEEK.points[1:]):
        with pytest.raises(NothingToRestore, match="no full backup"):
            plan(catalog(*points), LATEST)


def test_a_point_is_restored_to_its_very_end() -> None:
    assert steps(plan_to_point(WEEK, "monday")) == ["sunday", "monday"]
    found = plan_to_point(WEEK, "l2")
    assert steps(found) == ["sunday", "monday"]
    assert found.stop_at is None
    found = plan_to_point(catalog(*(p for p in WEEK.points if p.id != "monday")), "l2")
    assert steps(found) == ["sunday", "l1", "l2"]
    assert plan_document(found)["stop_at"] is None
    rest = catalog(*(p for p in WEEK.points if p.id not in {"l1", "monday"}))
    with pytest.raises(NothingToRestore, match=r"l2 .* log 100\.\.200 is missing"):
        plan_to_point(rest, "l2")


def test_what_is_only_probable_is_planned_and_says_so() -> None:
    last = replace(WEEK.points[-1], probable_until=at(62))
    points = catalog(*WEEK.points[:-1], last)
    found = plan(points, at(61))
    assert found.certainty == "probable"
    assert "probable, not proven" in found.notes[0]
    assert windows(points)[-1].end == at(60)


def test_the_explanation_names_steps_proof_and_reasons() -> None:
    text = explain(plan(WEEK, at(20)))
    assert "restore shop to 2024-05-01T10:20:00.000000+00:00 on lineage 1 (proven)" in text
    assert "full          sunday  95..100  100 B  until 2024-05-01T10:00:00.000000+00:00" in text
    assert "3 steps, 102 B to fetch, estimated at 1 s" in text
    assert "l2 proves that nothing before it is missing" in text
    assert "monday: ends after the instant asked for" in text
    assert "2 points: begins after the instant asked for (such as l3)" in text


def test_the_explanation_of_a_long_chain_stays_short() -> None:
    logs = [log(f"l{n}", 100 + n, 101 + n, n + 1) for n in range(1000)]
    aside = [replace(each, id=f"x{each.id}", lineage=each.id) for each in logs]
    text = explain(plan(catalog(full("f", 100, 0), *logs, *aside), at(900), lineage="1"))
    assert len(text.splitlines()) < 40
    assert "more logs in between" in text
    assert "more reasons" in text


def test_a_year_of_logs_is_planned_without_deep_recursion() -> None:
    logs = [log(f"l{n}", 100 + n, 101 + n, n + 1) for n in range(35_000)]
    year = catalog(full("f", 100, 0), *logs)
    assert len(plan(year, LATEST).steps) == 35_001
    assert len(windows(year)) == 1


PROMOTED = (
    full("f", 100, 0),
    log("a1", 100, 200, 15),
    log("b1", 200, 300, 45, lineage="2"),
)


def test_an_idle_parent_proves_nothing_of_what_its_child_did_since_the_fork() -> None:
    idle = log("idle", 200, 200, 30)
    points = catalog(*PROMOTED, idle, forks=(Fork("2", "1", 200),))
    assert steps(plan(points, at(20), lineage="2")) == ["f", "a1", "b1"]
    assert steps(plan(points, at(20), lineage="1")) == ["f", "a1"]


def test_a_full_of_the_idle_parent_proves_nothing_of_its_child_either() -> None:
    parents = full("g", 200, 30)
    childs = full("h", 250, 20, lineage="2", size=1)
    points = catalog(*PROMOTED, parents, childs, forks=(Fork("2", "1", 200),))
    assert steps(plan(points, at(25), lineage="2")) == ["h", "b1"]
    assert steps(plan(points, at(30), lineage="1")) == ["g"]
    assert steps(plan(points, at(30), lineage="2")) == ["h", "b1"]


def test_a_log_carries_a_restore_only_on_its_own_side_of_a_fork() -> None:
    reaching_back = log("b1", 150, 300, 45, lineage="2")
    points = catalog(full("f", 180, 0), reaching_back, forks=(Fork("2", "1", 200),))
    with pytest.raises(InstantUnreachable):
        plan(points, at(20), lineage="2")
    crossing = replace(reaching_back, first_lineage="1")
    points = catalog(full("f", 180, 0), crossing, forks=(Fork("2", "1", 200),))
    assert steps(plan(points, at(20))) == ["f", "b1"]


def test_a_position_is_planned_by_the_log_around_it() -> None:
    found = plan_to_position(WEEK, 350)
    assert steps(found) == steps(plan(WEEK, at(45)))
    assert plan_document(found)["stop_lsn"] == 350
    assert "to log position 350" in explain(found)
    assert steps(plan_to_position(WEEK, 300)) == ["sunday", "monday"]
    assert steps(plan_to_position(WEEK, 100)) == ["sunday"]
    assert steps(plan_to_position(WEEK, 101)) == ["sunday", "l1"]


@pytest.mark.parametrize(
    ("lsn", "why"),
    [(99, "the first full ends at 100"), (501, "ends at 500"), (250, "is not there")],
)
def test_a_position_that_cannot_be_reached_is_refused(lsn: int, why: str) -> None:
    points = catalog(*(point for point in WEEK.points if point.id != "l2"))
    with pytest.raises(PositionUnreachable, match=why):
        plan_to_position(points, lsn)


def test_a_position_before_a_fork_needs_no_choice_and_behind_it_one() -> None:
    assert plan_to_position(FAILOVER, 240).lineage == "2"
    with pytest.raises(LineageAmbiguous, match="log position 300"):
        plan_to_position(FAILOVER, 300)
    assert plan_to_position(FAILOVER, 300, lineage="1").lineage == "1"
