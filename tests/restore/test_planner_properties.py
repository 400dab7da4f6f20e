"""What holds for every history: the planner against the simulated truth and the brute force."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from sqlbak.errors import LineageAmbiguous, Refused
from sqlbak.restore.chain import LOOSE_RULES, Certainty, ChainRules
from sqlbak.restore.estimate import RestoreRates
from sqlbak.restore.parting import begun_by
from sqlbak.restore.planner import RestorePlan, plan, plan_to_point, plan_to_position
from sqlbak.restore.windows import windows
from tests.restore.oracle import Answer, Oracle
from tests.restore.strategies import Story, rates, stories

thorough = settings(deadline=None, max_examples=150)


def planned(
    story: Story, to, lineage: str | None, rules: ChainRules = LOOSE_RULES
) -> RestorePlan | None:
    try:
        return plan(story.catalog, to, lineage=lineage, rules=rules)
    except Refused:
        return None


def proven(story: Story, to, lineage: str, rules: ChainRules = LOOSE_RULES) -> RestorePlan | None:
    found = planned(story, to, lineage, rules)
    return found if found is not None and found.certainty is Certainty.PROVEN else None


@thorough
@given(stories(set_back=False), st.data())
def test_a_plan_restores_exactly_the_commits_up_to_the_instant(story: Story, data) -> None:
    for lineage in story.lineages():
        for to in story.instants():
            found = planned(story, to, lineage)
            if found is None:
                continue
            commits = story.server.carry_out(found)
            least, most = story.server.truth(lineage, to)
            assert least == most == len(commits)
            assert commits == [e for e in story.server.history(lineage) if e.is_commit][:most]


@thorough
@given(stories())
def test_after_the_clock_was_set_back_a_plan_restores_the_first_occurrence(story: Story) -> None:
    for lineage in story.lineages():
        for to in story.instants():
            found = planned(story, to, lineage)
            if found is not None:
                least, most = story.server.truth(lineage, to)
                # What lies inside the base is restored whole: that the clock had been ahead
                # before it can only be known when a backup saw it (the oracle checks that).
                alone = replace(found, steps=tuple(s for s in found.steps if s.type != "log"))
                within_base = len(story.server.carry_out(alone))
                assert least <= len(story.server.carry_out(found))
                assert len(story.server.carry_out(found)) <= most or within_base > most


@thorough
@given(stories(most_steps=12), rates())
def test_a_plan_exists_exactly_when_some_chain_does_and_none_is_cheaper(
    story: Story, speed: RestoreRates
) -> None:
    for lineage in story.lineages():
        oracle = Oracle(story.catalog, lineage, speed)
        for to in story.instants():
            found = proven(story, to, lineage, ChainRules(rates=speed))
            time = found and round(found.estimated_seconds * 1_000_000)
            assert (
                found and Answer(time or 0, found.size_bytes, len(found.steps))
            ) == oracle.answer(to)


@thorough
@given(stories())
def test_an_instant_lies_in_a_window_exactly_when_its_plan_is_proven(story: Story) -> None:
    spans = windows(story.catalog)
    for lineage in story.lineages():
        for to in story.instants():
            inside = any(w.lineage == lineage and w.start <= to <= w.end for w in spans)
            assert inside == (proven(story, to, lineage) is not None)


@thorough
@given(stories())
def test_windows_are_maximal_ordered_and_apart(story: Story) -> None:
    spans = windows(story.catalog)
    for one, other in pairwise(spans):
        if one.lineage == other.lineage:
            assert (other.start - one.end).total_seconds() > 1e-6
    assert all(span.start <= span.end for span in spans)


@thorough
@given(stories())
def test_every_point_is_a_step_or_has_a_reason(story: Story) -> None:
    for to in story.instants():
        found = planned(story, to, None)
        if found is not None:
            named = [step.id for step in found.steps] + [r.point_id for r in found.rejected]
            assert sorted(named) == sorted(point.id for point in story.catalog.points)
            assert all(r.reason and "None" not in r.reason for r in found.rejected)


@thorough
@given(stories(), st.randoms())
def test_the_order_of_the_catalog_does_not_matter(story: Story, random) -> None:
    points = list(story.catalog.points)
    random.shuffle(points)
    shuffled = Story(story.server, story.server.catalog(points))
    for to in story.instants():
        one, other = planned(story, to, None), planned(shuffled, to, None)
        assert (one and (one.steps, one.lineage)) == (other and (other.steps, other.lineage))


@thorough
@given(stories())
def test_a_point_restores_to_its_own_end(story: Story) -> None:
    for point in story.catalog.points:
        try:
            found = plan_to_point(story.catalog, point.id)
        except Refused:
            continue
        left = point.last_lsn
        held = [e for e in story.server.history(point.lineage) if e.is_commit and e.end <= left]
        assert story.server.carry_out(found) == held
        assert found.stop_at is None


@thorough
@given(stories())
def test_a_position_is_restored_with_all_before_it_and_nothing_behind_it(
    story: Story,
) -> None:
    for lineage in story.lineages():
        history = story.server.history(lineage)
        for lsn in sorted({e.end + shift for e in history for shift in (-1, 0, 1)}):
            try:
                found = plan_to_position(story.catalog, lsn, lineage=lineage)
            except Refused:
                continue
            held = [event for event in history if event.is_commit and event.end <= lsn]
            assert story.server.carry_out(found) == held
            assert (found.stop_at, found.stop_lsn) == (None, lsn)


@thorough
@given(stories())
def test_the_end_of_a_point_that_can_be_restored_is_a_position_that_can(story: Story) -> None:
    for point in story.catalog.points:
        try:
            plan_to_point(story.catalog, point.id)
        except Refused:
            continue
        plan_to_position(story.catalog, point.last_lsn, lineage=point.lineage)


@thorough
@given(stories())
def test_a_refusal_names_the_nearest_instants_that_can_be_restored(story: Story) -> None:
    for lineage in story.lineages():
        for to in story.instants():
            try:
                plan(story.catalog, to, lineage=lineage)
            except Refused as refusal:
                for instant in refusal.nearest:
                    assert proven(story, instant, lineage) is not None
                assert "None" not in refusal.message


@thorough
@given(stories())
def test_without_a_lineage_the_state_is_that_of_every_lineage_that_holds_the_instant(
    story: Story,
) -> None:
    for to in story.instants():
        each = {k: p for k in story.lineages() if (p := planned(story, to, k)) is not None}
        try:
            found = plan(story.catalog, to)
        except LineageAmbiguous:
            # Several hold it, or the one that does was abandoned for another by then.
            begun = {
                p.lineage for p in story.catalog.points if begun_by(story.catalog, p.lineage) <= to
            }
            assert len(each) > 1 or begun - set(each)
            continue
        except Refused:
            assert not each
            continue
        assert found == each[found.lineage]
        commits = story.server.carry_out(found)
        assert all(story.server.carry_out(other) == commits for other in each.values())


@thorough
@given(stories(forks=False, set_back=False, overlaps=False, losses=False))
def test_without_losses_all_time_from_the_first_full_to_the_last_log_is_one_window(
    story: Story,
) -> None:
    points = [replace(p, has_bulk_logged=False, is_copy_only=False) for p in story.catalog.points]
    start = min((p.reachable_from for p in points if p.type == "full"), default=None)
    end = max((p.covers_until for p in points if p.covers_until), default=None)
    if start is not None and end is not None and start <= end:
        spans = windows(story.server.catalog(points))
        assert any(span.start <= start and end <= span.end for span in spans)
