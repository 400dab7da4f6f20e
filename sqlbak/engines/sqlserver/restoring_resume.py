"""Where an interrupted restore goes on: only where the server's own record shows that nothing but
this chain was restored so far. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlbak.engines.port import RestoreStep
from sqlbak.engines.sqlserver.headers import read_header
from sqlbak.engines.sqlserver.target import ExistingDatabase, RestoredSet
from sqlbak.errors import TargetNotUsable
from sqlbak.model import PointType

__all__ = ["steps_done"]

_AGAIN = "begin again from the full with --overwrite"


def steps_done(
    steps: Sequence[RestoreStep],
    history: Sequence[RestoredSet],
    existing: ExistingDatabase,
    *,
    stop_at: str | None,
) -> int:
    """How many of the chain's steps the database has already.

    ``history``: what the server recorded since the last full. ``stop_at``: what STOPAT would be
    told for the last step. TargetNotUsable when what was restored is not the beginning of this
    chain, or the server does not tell where the database stands.
    """
    name = existing.name
    position = existing.redo_start
    if position is None or not history:
        raise TargetNotUsable(
            f"the interrupted restore of {name} had not finished its first step",
            hint=_AGAIN,
        )
    done = 0
    for index, restored in enumerate(history):
        wanted = read_header(steps[done].facts["header"]).set_guid if done < len(steps) else None
        if restored.set_guid is None or restored.set_guid != wanted:
            if index and done and restored.set_guid == _guid_before(steps, done):
                continue  # the same step twice: an earlier run had resumed in the middle of it
            raise TargetNotUsable(
                f"what was restored into {name} so far is not the beginning of this plan: its step "
                f"{index + 1} was the backup set {restored.set_guid}",
                hint=_AGAIN,
            )
        is_last = done == len(steps) - 1
        told = None if restored.stop_at is None else restored.stop_at
        if told is not None and not (is_last and stop_at is not None and _same(told, stop_at)):
            raise TargetNotUsable(
                f"{name} was restored up to {told.isoformat()} before, and this plan stops "
                f"{'at ' + stop_at if stop_at else 'elsewhere'}",
                hint=_AGAIN,
            )
        if is_last and stop_at is not None and told is None:
            raise TargetNotUsable(f"{name} was restored beyond the instant asked for", hint=_AGAIN)
        done += 1
    last = steps[done - 1].point
    following = steps[done].point if done < len(steps) else last
    # The record may be that of an earlier database of this name: the position has to agree. One
    # before the end of the last step means that this step was begun anew and did not end.
    stopped = done == len(steps) and stop_at is not None
    lowest = last.first_lsn if stopped else last.last_lsn
    if not lowest <= position <= max(last.last_lsn, following.last_lsn):
        raise TargetNotUsable(
            f"{name} stands at log position {position}, and its restores so far do not lead there",
            hint=_AGAIN,
        )
    # A log whose record was lost, though it was applied whole.
    while (
        done < len(steps) - 1
        and steps[done].point.type is PointType.LOG
        and position >= steps[done].point.last_lsn
    ):
        done += 1
    return done


def _guid_before(steps: Sequence[RestoreStep], done: int) -> str:
    return read_header(steps[done - 1].facts["header"]).set_guid


def _same(told: datetime, literal: str) -> bool:
    """The server keeps 1/300 second; both were written on that grid."""
    return abs((told - datetime.fromisoformat(literal)).total_seconds()) < 0.002
