"""Copy-only logs: the last resort for what no ordinary log holds, and never a link of the chain."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings

from sqlbak.errors import InstantUnreachable, NothingToRestore
from sqlbak.jobs.log_chain import is_set_back, next_log_start
from sqlbak.model import Catalog, LogPosition, Point, PointType
from sqlbak.restore.chain import LOOSE_RULES, SQL_SERVER_RULES
from sqlbak.restore.copy_only_logs import copy_only_views
from sqlbak.restore.planner import LATEST, plan, plan_to_point
from sqlbak.restore.windows import windows
from tests.restore.strategies import Story, stories
from tests.restore.test_planner import at, full, log
from tests.restore.test_planner_properties import planned, proven

RULES = replace(SQL_SERVER_RULES, uses_copy_only_logs=True)


def copy(name: str, first: int, last: int, minute: float) -> Point:
    return replace(log(name, first, last, minute), is_copy_only=True)


def catalog(*points: Point) -> Catalog:
    return Catalog("erp/Sales", points)


BASE = (full("full", 100, 0), log("one", 90, 200, 10))
TAIL = copy("tail", 200, 300, 20)


def chosen(points: tuple[Point, ...], minute: float) -> list[str]:
    return [step.id for step in plan(catalog(*points), at(minute), rules=RULES).steps]


def test_what_only_a_copy_only_log_holds_is_restored_with_it_as_the_last_one() -> None:
    assert chosen((*BASE, TAIL), 15) == ["full", "one", "tail"]
    made = plan(catalog(*BASE, TAIL), LATEST, rules=RULES)
    assert made.stop_at == TAIL.covers_until
    assert made.steps[-1] == TAIL
    assert windows(catalog(*BASE, TAIL), rules=RULES)[-1].end == TAIL.covers_until
    assert plan_to_point(catalog(*BASE, TAIL), "tail", rules=RULES).steps[-1] == TAIL


def test_an_instant_that_ordinary_logs_reach_is_planned_without_it() -> None:
    after = log("two", 200, 400, 30)
    points = (*BASE, TAIL, after)
    assert chosen(points, 15) == ["full", "one", "two"]
    assert copy_only_views(catalog(*points), "1") == []


def test_nothing_ever_goes_on_behind_it() -> None:
    stolen = log("later", 300, 400, 30)
    points = (*BASE, TAIL, stolen)
    assert chosen(points, 15) == ["full", "one", "tail"]
    with pytest.raises(InstantUnreachable):
        plan(catalog(*points), at(25), rules=RULES)
    with pytest.raises(NothingToRestore):
        plan_to_point(catalog(*points), "later", rules=RULES)


def test_of_several_that_begin_together_the_longest_serves() -> None:
    longer = copy("longer", 200, 350, 25)
    assert chosen((*BASE, TAIL, longer), 12) == ["full", "one", "longer"]


def test_without_the_rule_it_is_left_out() -> None:
    with pytest.raises(InstantUnreachable):
        plan(catalog(*BASE, TAIL), at(15), rules=SQL_SERVER_RULES)


def test_the_next_log_backup_goes_on_from_the_ordinary_log() -> None:
    points = (*BASE, TAIL)
    oldest = LogPosition("1", 200)
    start = next_log_start(points, oldest, lineage="1", after_differentials=True)
    assert start == LogPosition("1", 200)
    assert not is_set_back(points, "1", 200)


@settings(deadline=None, max_examples=60)
@given(stories(set_back=False))
def test_with_any_history_the_state_is_right_and_ordinary_logs_come_first(story: Story) -> None:
    rules = replace(LOOSE_RULES, uses_copy_only_logs=True)
    spans = windows(story.catalog, rules=rules)
    for lineage in story.lineages():
        for to in story.instants():
            found, plain = (planned(story, to, lineage, each) for each in (rules, LOOSE_RULES))
            inside = any(w.lineage == lineage and w.start <= to <= w.end for w in spans)
            assert inside == (proven(story, to, lineage, rules) is not None)
            if plain is not None:
                assert found is not None
                assert found.steps == plain.steps
            if found is None:
                continue
            logs = [step for step in found.steps if step.type is PointType.LOG]
            assert not any(step.is_copy_only for step in logs[:-1])
            # The simulated server takes them as what they are: logs that fit.
            fitting = replace(
                found,
                steps=tuple(
                    replace(step, is_copy_only=False) if step in logs else step
                    for step in found.steps
                ),
            )
            commits = story.server.carry_out(fitting)
            least, most = story.server.truth(lineage, to)
            assert least == most == len(commits)
