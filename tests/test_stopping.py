"""A part of the work is asked to stop with the whole, or by itself."""

from __future__ import annotations

import pytest

from sqlbak.errors import Interrupted
from sqlbak.stopping import StopSignal


def test_a_branch_stops_with_its_stem_and_says_why() -> None:
    stem = StopSignal()
    with stem.branch() as branch, branch.branch() as twig:
        assert not twig.is_requested
        stem.request("stopped by SIGTERM")
        assert twig.wait(0.0)
        with pytest.raises(Interrupted, match="SIGTERM"):
            twig.check()


def test_a_branch_that_is_stopped_leaves_its_stem_and_the_other_branches_alone() -> None:
    stem = StopSignal()
    with stem.branch() as one, stem.branch() as other:
        one.request("cancelled")
        assert (one.is_requested, other.is_requested, stem.is_requested) == (True, False, False)


def test_a_branch_of_a_stopped_stem_begins_stopped() -> None:
    stem = StopSignal()
    stem.request("over")
    with stem.branch() as branch:
        assert branch.is_requested


def test_a_branch_that_is_done_is_forgotten() -> None:
    stem = StopSignal()
    with stem.branch() as branch:
        pass
    stem.request()
    assert not branch.is_requested
