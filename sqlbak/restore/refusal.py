"""Why an instant or a recovery point cannot be restored, and which instants near it can."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlbak.errors import InstantUnreachable, NothingToRestore, PositionUnreachable
from sqlbak.model import Point, PointType
from sqlbak.restore.chain import (
    ChainRules,
    bases_for,
    chain_to_instant,
    is_safe_for,
    own_ends,
)
from sqlbak.restore.path import Base, Path
from sqlbak.restore.rejection import Reach
from sqlbak.restore.restore_plan import Clock
from sqlbak.restore.windows import windows_of

__all__ = ["unreachable_instant", "unreachable_point", "unreachable_position"]


def unreachable_instant(
    item: str, paths: Sequence[Path], to: datetime, rules: ChainRules, clock: Clock
) -> InstantUnreachable:
    """The refusal for ``to``: what is in the way, and the nearest instants on these paths."""
    spans = [(span.start, span.end) for path in paths for span in windows_of(path, rules)]
    spans += [(end, end) for path in paths for end, _ in own_ends(path)]
    before = max((end for _, end in spans if end < to), default=None)
    after = min((start for start, _ in spans if start > to), default=None)
    asked = f"{item}: {clock.text(to)} cannot be restored: "
    inside = _bulk_logged_around(paths, to, rules)
    if inside is not None:
        why = (
            f"it may lie inside the bulk-logged log {inside.id}, which ended at "
            f"{clock.text(inside.finished_at)}, and SQL Server cannot stop inside such a log"
        )
    elif before is None and after is None:
        why = "no instant of this item is proven to be restorable"
    elif before is None and after is not None:
        why = f"the first instant that can be restored is {clock.text(after)}"
    elif before is not None and after is None:
        why = f"the last instant that can be restored is {clock.text(before)}"
        why += _missing(paths, to, rules)
    elif before is not None and after is not None:
        why = f"it lies in the gap from {clock.text(before)} to {clock.text(after)}"
        why += _missing(paths, to, rules)
    nearest = [instant for instant in (before, after) if instant is not None]
    listed = " and ".join(clock.text(instant) for instant in nearest)
    hint = f"the nearest instants that can be restored: {listed}" if nearest else ""
    return InstantUnreachable(asked + why, hint=hint, nearest=nearest)


def unreachable_point(item: str, path: Path, point: Point, rules: ChainRules) -> NothingToRestore:
    """The refusal for the end of one recovery point."""
    reason = path.off_path.get(point.id) if not point.is_empty_log else None
    if reason is None and point.type is PointType.LOG:
        bases = [base for base in path.bases if base.position <= point.last_lsn]
        reason = "no full backup ends before it"
        if bases:
            reason = _gap_behind(path, bases[-1], point.last_lsn, rules, None)
    return NothingToRestore(
        f"{item}: recovery point {point.id} cannot be restored: {reason}",
        hint="sqlbak windows shows what can be restored",
    )


def unreachable_position(item: str, paths: Sequence[Path], lsn: int) -> PositionUnreachable:
    """The refusal for a position in the log: how far base backups and logs reach around it."""
    first = min(base.position for path in paths for base in path.bases)
    ends = [log.end for path in paths for log in path.logs]
    last = max([first, *ends, *(base.position for path in paths for base in path.bases)])
    if lsn < first:
        why = f"the first full ends at {first}, and nothing before it can be restored"
    elif lsn > last:
        why = f"the log in the vault ends at {last}"
    else:
        why = "the log between it and the nearest base before it is not there"
    return PositionUnreachable(
        f"{item}: log position {lsn} cannot be restored: {why}",
        hint="sqlbak list shows which log there is",
    )


def _bulk_logged_around(paths: Sequence[Path], to: datetime, rules: ChainRules) -> Point | None:
    """The bulk-logged log that alone keeps ``to`` from being reached."""
    for path in paths:
        chain = chain_to_instant(path, to, rules, ignore_bulk=True)
        if chain is not None:
            for log in chain.logs:
                if not is_safe_for(log.point, to):
                    return log.point
    return None


def _missing(paths: Sequence[Path], to: datetime, rules: ChainRules) -> str:
    """Which log is missing behind the newest base that could serve."""
    for path in paths:
        proof = path.proof_of(to)
        bases = bases_for(path, to)
        if proof is not None and bases and bases[-1].position < proof.end:
            return f" ({_gap_behind(path, bases[-1], proof.end, rules, to)})"
    return ""


def _gap_behind(path: Path, base: Base, end: int, rules: ChainRules, to: datetime | None) -> str:
    missing = Reach(path, end, rules, to).missing_after(base.position)
    if missing is None:
        return f"the logs behind {base.points[-1].id} do not join"
    return f"the log {missing[0]}..{missing[1]} is missing"
