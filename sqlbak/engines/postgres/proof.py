"""Proves what a recovering server has reached, before it may leave recovery.

Two independent witnesses: the server's answers over SQL while it is paused at the target, and the
lines that its recovery wrote to the log. Promotion then leaves a third, the history file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg

from sqlbak.engines.postgres.recovery import StopPoint
from sqlbak.engines.postgres.timelines import format_lsn, parse_lsn
from sqlbak.errors import RestoreNotProven

__all__ = ["Reached", "StandbyState", "ask_standby", "prove_history", "prove_log", "prove_standby"]

_STOPPED_BEFORE = re.compile(r"recovery stopping before (?:commit|abort)\D* (\d+), time (.+)")
_STOPPED_AFTER = re.compile(r'recovery stopping after WAL location \(LSN\) "([0-9A-F]+/[0-9A-F]+)"')
_REDO_DONE = re.compile(r"redo done at ([0-9A-F]+/[0-9A-F]+)")
_LAST_COMMIT = re.compile(r"last completed transaction was at log time (.+)")


@dataclass(frozen=True, slots=True)
class Reached:
    """Where recovery stands: the end of the last record replayed, on which timeline, and when
    the last transaction that it holds ended (None: none since the backup began)."""

    timeline: int
    lsn: int
    last_commit_at: datetime | None


@dataclass(frozen=True, slots=True)
class StandbyState:
    """What a hot standby says of itself."""

    is_in_recovery: bool
    is_paused: bool
    lsn: int | None
    last_commit_at: datetime | None


def ask_standby(connection: psycopg.Connection[Any]) -> StandbyState:
    """Ask a server how far its recovery is. The log position and the time are read only while
    they cannot move any more, when they matter."""
    row = connection.execute(
        "SELECT pg_is_in_recovery(),"
        " CASE WHEN pg_is_in_recovery() THEN pg_get_wal_replay_pause_state() = 'paused' END,"
        " pg_last_wal_replay_lsn()::text,"
        " extract(epoch FROM pg_last_xact_replay_timestamp()) * 1000000"
    ).fetchone()
    if row is None:
        raise RestoreNotProven("the recovering server did not say how far it is")
    return StandbyState(
        bool(row[0]),
        bool(row[1]),
        None if row[2] is None else parse_lsn(row[2]),
        None if row[3] is None else _from_microseconds(int(row[3])),
    )


def _from_microseconds(microseconds: int) -> datetime:
    seconds, rest = divmod(microseconds, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)


def _parse_log_time(text: str) -> datetime:
    """``2026-11-22 14:04:05.123456+00`` or ``… UTC``, as a server with timezone UTC writes it."""
    cleaned = text.strip().removesuffix(" UTC").removesuffix("+00")
    return datetime.fromisoformat(cleaned).replace(tzinfo=UTC)


def prove_standby(
    state: StandbyState, log: str, stop_point: StopPoint, *, consistent_from: int, ends_at: int
) -> Reached:
    """A server that is paused: is it where it was told to stop? RestoreNotProven if not.

    ``consistent_from``: the end of the base backup; ``ends_at``: where the last record of the
    chain ends.
    """
    if not state.is_in_recovery or not state.is_paused or state.lsn is None:
        raise RestoreNotProven("the server is not paused in recovery")
    _prove_stop_line(log, stop_point)
    _prove_position(state.lsn, stop_point, consistent_from, ends_at)
    _prove_last_commit(state.last_commit_at, stop_point)
    return Reached(stop_point.timeline, state.lsn, state.last_commit_at)


def prove_log(log: str, stop_point: StopPoint, *, ends_at: int) -> datetime | None:
    """A server that has finished recovery and waits at the gate: what its log says. Returns when
    the last transaction ended. RestoreNotProven if it did not stop at the target."""
    _prove_stop_line(log, stop_point)
    done = _last(_REDO_DONE, log)
    if done is None or parse_lsn(done[1]) >= ends_at:
        raise RestoreNotProven("the server's log does not say that recovery ended in the chain")
    match = _last(_LAST_COMMIT, log)
    last_commit_at = _parse_log_time(match[1]) if match else None
    _prove_last_commit(last_commit_at, stop_point)
    return last_commit_at


def _prove_stop_line(log: str, stop_point: StopPoint) -> None:
    if stop_point.time is not None:
        match = _last(_STOPPED_BEFORE, log)
        if match is None or _parse_log_time(match[2]) <= stop_point.time:
            raise RestoreNotProven(
                "the server's log does not say that it stopped before a transaction later than "
                f"{stop_point.time.isoformat()}"
            )
    else:
        match = _last(_STOPPED_AFTER, log)
        if match is None or parse_lsn(match[1]) != stop_point.lsn:
            raise RestoreNotProven(
                "the server's log does not say that it stopped at the end of the chain, "
                f"{format_lsn(stop_point.lsn or 0)}"
            )


def _prove_position(lsn: int, stop_point: StopPoint, consistent_from: int, ends_at: int) -> None:
    wanted = ends_at if stop_point.lsn is not None else None
    if lsn < consistent_from or lsn > ends_at or (wanted is not None and lsn != wanted):
        raise RestoreNotProven(
            f"the server replayed log up to {format_lsn(lsn)}; the base ends at "
            f"{format_lsn(consistent_from)} and the chain at {format_lsn(ends_at)}"
        )


def _prove_last_commit(last_commit_at: datetime | None, stop_point: StopPoint) -> None:
    latest = stop_point.no_later_than
    if latest is not None and last_commit_at is not None and last_commit_at > latest:
        raise RestoreNotProven(
            f"the server holds a transaction of {last_commit_at.isoformat()}, later than "
            f"{latest.isoformat()}"
        )


def _last(pattern: re.Pattern[str], log: str) -> re.Match[str] | None:
    found: re.Match[str] | None = None
    for match in pattern.finditer(log):
        found = match
    return found


def prove_history(content: str, stop_point: StopPoint, reached_lsn: int | None) -> int:
    """The history file that promotion wrote: the new timeline must leave ours where recovery was
    seen to have stopped (None: the server could not be asked). Returns the position where it
    begins. RestoreNotProven if it is another."""
    lines = [line for line in content.splitlines() if line.strip()]
    fields = lines[-1].split(None, 2) if lines else []
    if len(fields) < 2 or int(fields[0]) != stop_point.timeline:
        raise RestoreNotProven(f"the new timeline does not descend from {stop_point.timeline}")
    switched_at = parse_lsn(fields[1])
    if reached_lsn is not None and switched_at != reached_lsn:
        raise RestoreNotProven(
            f"the new timeline begins at {fields[1]}, and recovery stopped at "
            f"{format_lsn(reached_lsn)}"
        )
    return switched_at
