"""Shipped log in planning: it carries on where recovery points end, and joins nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlbak.errors import InstantUnreachable, LineageAmbiguous, NothingToRestore
from sqlbak.model import Catalog, Fork, Point, ShippedLog
from sqlbak.restore.explanation import explain
from sqlbak.restore.planner import LATEST, plan, plan_document
from sqlbak.restore.windows import windows
from tests.restore.test_planner import at, full, log, reasons, steps

RUN = "0123456789ab"


def piece(
    first: int,
    last: int,
    minute: float | None,
    *,
    anchor: str = "sunday",
    run: str = RUN,
    lineage: str = "1",
) -> ShippedLog:
    return ShippedLog(
        name=f"{run}-{first}-{last}-{minute}",
        lineage=lineage,
        first_lsn=first,
        last_lsn=last,
        covers_until=None if minute is None else at(minute),
        finished_at=at(minute or 0),
        run=run,
        anchor_id=anchor,
        facts_id="00000000",
        raw_checksum="0" * 32,
        object_checksum="0" * 16,
        size_bytes=1,
    )


def shipped(*points: Point, tail: tuple[ShippedLog, ...]) -> Catalog:
    return Catalog("shop", points, shipped=tail)


FULL = full("sunday", 100, 0)
FIRST = log("l1", 100, 200, 15)
TAIL = (piece(200, 210, 16), piece(210, 230, 17), piece(230, 260, 18))


def test_windows_and_plans_reach_up_to_what_the_last_piece_covers() -> None:
    catalog = shipped(FULL, FIRST, tail=TAIL)
    assert [(w.start, w.end) for w in windows(catalog)] == [(at(0), at(18))]
    found = plan(catalog, at(16.5))
    assert steps(found) == ["sunday", "l1", "tail-1-c8-e6"]
    assert [each.last_lsn for each in found.shipped] == [210, 230]
    assert found.size_bytes == 103
    assert plan(catalog, LATEST).stop_at == at(18)
    with pytest.raises(InstantUnreachable) as refused:
        plan(catalog, at(18.5))
    assert list(refused.value.nearest) == [at(18)]


def test_a_plan_says_that_it_uses_shipped_log_and_up_to_when() -> None:
    found = plan(shipped(FULL, FIRST, tail=TAIL), at(16.5))
    document = plan_document(found)
    assert document["steps"][-1] == {"point": "tail-1-c8-e6", "type": "tail"}
    assert document["proven_by"] == "tail-1-c8-e6"
    assert "log shipped continuously up to 2024-05-01T10:17:00" in document["notes"][0]
    assert "tail" in explain(found)
    assert reasons(found) == {}


def test_what_recovery_points_reach_is_planned_with_them_alone() -> None:
    sealed = log("l2", 200, 250, 17.5)
    catalog = shipped(FULL, FIRST, sealed, tail=TAIL)
    assert steps(plan(catalog, at(16.5))) == ["sunday", "l1", "l2"]
    # Beyond them: what the crash between commit and deletion left.
    beyond = plan(catalog, at(17.9))
    assert steps(beyond) == ["sunday", "l1", "l2", "tail-1-fa-104"]
    assert [(each.first_lsn, each.last_lsn) for each in beyond.shipped] == [(230, 260)]


def test_idle_time_is_reached_without_a_byte_of_log() -> None:
    catalog = shipped(FULL, FIRST, tail=(piece(200, 200, 16), piece(200, 200, 17)))
    found = plan(catalog, at(16.5))
    assert steps(found) == ["sunday", "l1", "tail-1-c8-c8"]
    assert found.shipped == ()
    last = found.steps[-1]
    assert (last.first_lsn, last.last_lsn, last.covers_until) == (200, 200, at(17))


def test_pieces_after_a_gap_prove_nothing() -> None:
    catalog = shipped(FULL, FIRST, tail=(TAIL[0], TAIL[2]))
    assert windows(catalog)[-1].end == at(16)


def test_shipped_log_whose_recovery_point_is_gone_is_of_no_use() -> None:
    lost = tuple(replace(each, anchor_id="l0") for each in TAIL)
    assert windows(shipped(FULL, FIRST, tail=lost))[-1].end == at(15)
    with pytest.raises(NothingToRestore):
        plan(shipped(tail=TAIL), LATEST)


def test_log_that_begins_elsewhere_is_not_joined_to_a_run() -> None:
    """A healing full and its log, of a server that was put back to an older state: their positions
    overlap the run's, their history is another."""
    healed = full("healed", 240, 30)
    other = log("l9", 240, 900, 45)
    catalog = shipped(FULL, FIRST, healed, other, tail=TAIL)
    old = plan(catalog, at(17.5))
    assert steps(old) == ["sunday", "l1", "tail-1-c8-104"]
    assert "does not continue" in reasons(old)["l9"]
    assert steps(plan(catalog, at(40))) == ["healed", "l9"]
    with pytest.raises(InstantUnreachable) as refused:
        plan(catalog, at(20))
    assert list(refused.value.nearest) == [at(18), at(30)]


def test_a_run_goes_on_only_behind_log_that_begins_exactly_where_its_anchor_ends() -> None:
    other = log("x", 150, 240, 17.5)
    found = plan(shipped(FULL, FIRST, other, tail=TAIL), at(17.8))
    assert steps(found) == ["sunday", "l1", "tail-1-c8-104"]


def test_a_newer_full_inside_the_run_is_a_base_only_for_what_is_later() -> None:
    newer = full("monday", 225, 16.8, size=1)
    catalog = shipped(FULL, FIRST, newer, tail=TAIL)
    assert steps(plan(catalog, at(17.5))) == ["monday", "tail-1-e1-104"]
    assert steps(plan(catalog, at(16.5))) == ["sunday", "l1", "tail-1-c8-e6"]


def test_two_runs_are_never_joined() -> None:
    other = piece(260, 300, 20, run="ba9876543210", anchor="l7")
    catalog = shipped(FULL, FIRST, tail=(*TAIL, other))
    assert windows(catalog)[-1].end == at(18)
    follows = piece(255, 300, 20, run="ba9876543210")
    assert windows(shipped(FULL, FIRST, tail=(*TAIL, follows)))[-1].end == at(18)


def test_two_lineages_that_hold_an_instant_in_different_states_need_a_choice() -> None:
    catalog = Catalog(
        "shop",
        (FULL, FIRST, log("l2", 205, 400, 18, lineage="2"), log("c", 200, 205, 15.5)),
        (Fork("2", "1", 205),),
        shipped=TAIL,
    )
    with pytest.raises(LineageAmbiguous):
        plan(catalog, at(17))
    assert plan(catalog, at(17), lineage="1").shipped
    assert not plan(catalog, at(17), lineage="2").shipped


@st.composite
def tails(draw: st.DrawFn) -> tuple[ShippedLog, ...]:
    """Pieces in a row, some overlapping, some lost, some that prove nothing."""
    pieces: list[ShippedLog] = []
    end, minute = 200, 15.0
    for _ in range(draw(st.integers(0, 8))):
        size = draw(st.integers(0, 20))
        back = draw(st.integers(0, 3))
        minute += draw(st.sampled_from([0.25, 0.5]))
        proves = draw(st.booleans())
        pieces.append(piece(max(200, end - back), end + size, minute if proves else None))
        end += size
    lost = draw(st.sets(st.integers(0, 7)))
    return tuple(each for number, each in enumerate(pieces) if number not in lost)


@given(tails(), st.integers(0, 100))
def test_every_instant_of_a_window_has_a_plan_whose_pieces_join_and_cover_it(
    tail: tuple[ShippedLog, ...], eighth: int
) -> None:
    catalog = shipped(FULL, FIRST, tail=tail)
    to = at(14 + eighth / 8)
    inside = any(window.start <= to <= window.end for window in windows(catalog))
    try:
        found = plan(catalog, to)
    except InstantUnreachable:
        assert not inside
        return
    assert inside
    end = 200
    for each in found.shipped:
        assert each.first_lsn <= end < each.last_lsn
        end = each.last_lsn
    covers = found.steps[-1].covers_until
    assert covers is not None
    assert covers >= to
    if found.steps[-1].is_tail:
        assert to > at(15)
        assert found.steps[-1].first_lsn == 200
        assert found.steps[-1].last_lsn == end
