"""An interrupted restore goes on only where the server's record shows that it is this very one."""

from __future__ import annotations

from datetime import datetime

import pytest

from sqlbak.engines.sqlserver.restoring_resume import steps_done
from sqlbak.engines.sqlserver.target import RestoredSet
from sqlbak.errors import TargetNotUsable
from tests.engines.sqlserver.making import existing, full_and_logs, server_file, set_guid

STOP = "2026-05-01T04:10:00.000"


def restored(*numbers: int, stop: datetime | None = None) -> list[RestoredSet]:
    kinds = {0: "D"}
    sets = [RestoredSet(set_guid(number), kinds.get(number, "L"), None) for number in numbers]
    if stop is not None:
        sets[-1] = RestoredSet(sets[-1].set_guid, "L", stop)
    return sets


def half_restored(redo: int | None):
    return existing(state="RESTORING", files=(server_file(7, "Sales", "/x", redo),))


def done(history, redo, *, logs=3, stop_at=None) -> int:
    return steps_done(full_and_logs(logs), history, half_restored(redo), stop_at=stop_at)


def test_it_goes_on_behind_the_last_step_that_is_recorded() -> None:
    assert done(restored(0), 200) == 1
    assert done(restored(0, 1, 2), 400) == 3


def test_a_step_that_was_broken_off_in_the_middle_is_applied_again() -> None:
    assert done(restored(0, 1), 350) == 2


def test_a_log_whose_record_was_lost_is_known_by_the_position() -> None:
    assert done(restored(0), 300) == 2


def test_a_step_may_be_recorded_twice() -> None:
    assert done(restored(0, 1, 1, 2), 400) == 3


def test_a_first_step_that_never_ended_is_begun_again() -> None:
    with pytest.raises(TargetNotUsable, match="first step"):
        done(restored(0), None)
    with pytest.raises(TargetNotUsable, match="first step"):
        done([], 200)


def test_another_chain_is_not_continued() -> None:
    with pytest.raises(TargetNotUsable, match="not the beginning of this plan"):
        done(restored(0, 2), 400)


def test_a_restore_to_another_instant_is_not_continued() -> None:
    earlier = restored(0, 1, 2, 3, stop=datetime.fromisoformat("2026-05-01T04:09:00"))
    with pytest.raises(TargetNotUsable, match="was restored up to"):
        done(earlier, 450, stop_at=STOP)
    with pytest.raises(TargetNotUsable, match="was restored up to"):
        done(earlier, 450, stop_at=None)


def test_a_restore_to_the_same_instant_is_only_recovered() -> None:
    same = restored(0, 1, 2, 3, stop=datetime.fromisoformat(STOP))
    assert done(same, 450, stop_at=STOP) == 4


def test_one_that_went_past_the_instant_is_not_continued() -> None:
    with pytest.raises(TargetNotUsable, match="beyond the instant"):
        done(restored(0, 1, 2, 3), 500, stop_at=STOP)


def test_a_position_outside_of_the_plan_is_not_believed() -> None:
    with pytest.raises(TargetNotUsable, match="do not lead there"):
        done(restored(0, 1), 9_999)


def test_a_full_that_was_begun_anew_is_not_taken_for_the_recorded_one() -> None:
    with pytest.raises(TargetNotUsable, match="do not lead there"):
        done(restored(0), 150)
    same = restored(0, 1, 2, 3, stop=datetime.fromisoformat(STOP))
    with pytest.raises(TargetNotUsable, match="do not lead there"):
        done(same, 150, stop_at=STOP)


def test_a_database_of_which_a_file_is_not_restored_yet_has_no_position() -> None:
    half = existing(
        state="RESTORING",
        files=(server_file(7, "Sales", "/x", 200), server_file(7, "More", "/y", None)),
    )
    with pytest.raises(TargetNotUsable, match="first step"):
        steps_done(full_and_logs(3), restored(0), half, stop_at=None)
