"""The settings of a restored cluster, and what counts as proof of where it stopped."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlbak.engines.postgres.proof import (
    StandbyState,
    prove_history,
    prove_log,
    prove_standby,
)
from sqlbak.engines.postgres.recovery import (
    StopPoint,
    absence_command,
    configuration_block,
    minimums,
    without_block,
)
from sqlbak.errors import RestoreNotProven

_T = datetime(2026, 11, 22, 14, 4, 5, 120000, UTC)
_TO_TIME = StopPoint(1, time=_T, no_later_than=_T)
_TO_END = StopPoint(1, lsn=0x3000028)
_STOPPED = (
    "2026-11-22 15:00:00.000 UTC [7] LOG:  recovery stopping before commit of transaction 740, "
    "time {}\n"
)
_DONE = "LOG:  redo done at 0/3000028 system usage: CPU: user: 0.00 s\n"
_LAST = "LOG:  last completed transaction was at log time {}\n"


def test_the_target_is_written_in_utc_with_microseconds_and_after_the_cleared_ones() -> None:
    berlin = timezone(timedelta(hours=1))
    settings = StopPoint(3, time=datetime(2024, 5, 1, 1, 2, 3, 45, berlin)).settings()
    assert settings["recovery_target_time"] == "2024-05-01 00:02:03.000045+00:00"
    assert settings["recovery_target_timeline"] == "3"
    assert settings["recovery_target_action"] == "pause"
    targets = [
        name
        for name in settings
        if name
        in {
            "recovery_target",
            "recovery_target_name",
            "recovery_target_xid",
            "recovery_target_lsn",
            "recovery_target_time",
        }
    ]
    assert len(targets) == 5
    assert targets[-1] == "recovery_target_time"


@given(st.lists(st.sampled_from([b"a = 'b'", b"# x", b"", b"port = 1"]), max_size=6))
def test_a_second_restore_replaces_the_lines_of_the_first(lines: list[bytes]) -> None:
    original = b"".join(line + b"\n" for line in lines)
    once = without_block(original) + configuration_block({"archive_mode": "off"})
    twice = without_block(once) + configuration_block({"archive_mode": "on"})
    assert twice.count(b"archive_mode") == 1
    assert without_block(twice).split() == original.split()


def test_settings_are_at_least_what_any_step_of_the_chain_recorded() -> None:
    found = minimums([{"max_connections": "300"}, {"max_connections": 50}, {}], 64 << 20)
    assert found["max_connections"] == "300"
    assert found["max_worker_processes"] == "8"
    assert found["min_wal_size"] == "128MB"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("000000010000000000000003", 1),  # there: the server takes it from pg_wal
        ("000000010000000000000004", 255),  # should be there: a loss
        ("000000010000000000000006", 1),  # beyond the end
        ("00000001000000010000000A", 1),
        ("00000002.history", 1),
    ],
)
def test_log_that_should_be_there_and_is_not_ends_recovery(
    name: str, code: int, tmp_path: Path
) -> None:
    (tmp_path / "pg_wal").mkdir()
    (tmp_path / "pg_wal" / "000000010000000000000003").touch()
    command = absence_command("000000010000000000000005").replace("%f", name)
    assert "%" not in command
    assert subprocess.run(["sh", "-c", command], cwd=tmp_path, check=False).returncode == code


def _standby(lsn: int = 0x3000000, last: datetime | None = _T) -> StandbyState:
    return StandbyState(True, True, lsn, last)


def test_a_pause_before_the_first_later_commit_is_proof() -> None:
    log = _STOPPED.format("2026-11-22 14:04:05.120001+00")
    reached = prove_standby(_standby(), log, _TO_TIME, consistent_from=0x2000000, ends_at=0x4000000)
    assert (reached.lsn, reached.last_commit_at) == (0x3000000, _T)
    assert (
        prove_log(
            log + _DONE + _LAST.format("2026-11-22 14:04:05.12+00"), _TO_TIME, ends_at=1 << 40
        )
        == _T
    )


@pytest.mark.parametrize(
    ("state", "log"),
    [
        (_standby(), ""),
        (_standby(), _STOPPED.format("2026-11-22 14:04:05.12+00")),  # not later than the target
        (_standby(lsn=0x1000000), _STOPPED.format("2026-11-22 14:04:06+00")),
        (_standby(lsn=0x5000000), _STOPPED.format("2026-11-22 14:04:06+00")),
        (_standby(last=_T + timedelta(microseconds=1)), _STOPPED.format("2026-11-22 15:00:00+00")),
        (StandbyState(True, False, 0x3000000, _T), _STOPPED.format("2026-11-22 15:00:00+00")),
        (StandbyState(False, True, 0x3000000, _T), _STOPPED.format("2026-11-22 15:00:00+00")),
    ],
)
def test_anything_else_is_no_proof(state: StandbyState, log: str) -> None:
    with pytest.raises(RestoreNotProven):
        prove_standby(state, log, _TO_TIME, consistent_from=0x2000000, ends_at=0x4000000)


def test_the_end_of_the_chain_is_proven_to_the_byte() -> None:
    log = 'LOG:  recovery stopping after WAL location (LSN) "0/3000028"\n'
    span = {"consistent_from": 0x2000000, "ends_at": 0x3000060}
    assert prove_standby(_standby(0x3000060), log, _TO_END, **span).lsn == 0x3000060
    with pytest.raises(RestoreNotProven):
        prove_standby(_standby(0x3000058), log, _TO_END, **span)
    with pytest.raises(RestoreNotProven):
        prove_standby(_standby(0x3000060), log.replace("28", "30"), _TO_END, **span)


@pytest.mark.parametrize(
    "log",
    [
        "",
        _DONE,
        _STOPPED.format("2026-11-22 14:04:06+00"),
        _STOPPED.format("2026-11-22 14:04:06+00") + _DONE.replace("0/3", "1/3"),
        _STOPPED.format("2026-11-22 14:04:06+00")
        + _DONE
        + _LAST.format("2026-11-22 14:04:05.2+00"),
    ],
)
def test_a_log_that_does_not_say_where_it_stopped_is_no_proof(log: str) -> None:
    with pytest.raises(RestoreNotProven):
        prove_log(log, _TO_TIME, ends_at=0x4000000)


def test_the_new_timeline_must_begin_where_recovery_stopped() -> None:
    history = "1\t0/3000060\tbefore 2026-11-22 14:04:06+00\n"
    assert prove_history(history, _TO_TIME, 0x3000060) == 0x3000060
    assert prove_history(history, _TO_TIME, None) == 0x3000060
    for content, stop_point in ((history, StopPoint(2, lsn=1)), ("", _TO_TIME)):
        with pytest.raises(RestoreNotProven):
            prove_history(content, stop_point, 0x3000060)
    with pytest.raises(RestoreNotProven):
        prove_history(history, _TO_TIME, 0x3000068)
