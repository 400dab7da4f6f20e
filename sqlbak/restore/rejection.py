"""Why a recovery point is not part of a plan: one line for each, in people's words."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from datetime import datetime

from sqlbak.model import Catalog, Point, PointType
from sqlbak.restore.chain import Chain, ChainRules, is_safe_for
from sqlbak.restore.path import LogOnPath, Path
from sqlbak.restore.restore_plan import Rejection

__all__ = ["MissingLog", "Reach", "rejections"]

MissingLog = tuple[int, int]
"""The LSNs ``[first, last)`` that no log holds."""


class Reach:
    """From which positions ``end`` can be reached by logs, and what is missing elsewhere."""

    def __init__(self, path: Path, end: int, rules: ChainRules, to: datetime | None) -> None:
        usable = [
            log
            for log in path.logs
            if log.end <= end and (to is None or is_safe_for(log.point, to))
        ]
        self._end = end
        self._ends: list[int] = []  # of the logs that lead to the end, rising
        self._lowest: list[int] = []  # the lowest start from there on
        self._held = _merged(usable)
        self._scan(usable, rules)

    def _scan(self, usable: list[LogOnPath], rules: ChainRules) -> None:
        starts: set[int] = set()
        leading: list[tuple[int, int]] = []
        lowest = self._end + 1
        group: list[LogOnPath] = []
        for log in [*reversed(usable), None]:
            if group and (log is None or log.end != group[0].end):
                for member in group:
                    starts.add(member.start)
                    lowest = min(lowest, member.start)
                    leading.append((member.end, lowest))
                group = []
            if log is None:
                break
            exactly = rules.logs_join_exactly and not log.is_cut
            joins = log.end in starts if exactly else lowest <= log.end
            if log.end == self._end or joins:
                group.append(log)
        leading.reverse()
        self._ends = [end for end, _ in leading]
        self._lowest = [start for _, start in leading]

    def holds(self, position: int) -> bool:
        """Whether logs lead from a base at ``position`` to the end."""
        if position == self._end:
            return True
        index = bisect_right(self._ends, position)
        return index < len(self._ends) and self._lowest[index] <= position

    def missing_after(self, position: int) -> MissingLog | None:
        """The first stretch of log behind ``position`` that nothing holds."""
        index = bisect_right(self._held, position, key=lambda held: held[0]) - 1
        first = position
        if index >= 0 and self._held[index][1] > position:
            first = self._held[index][1]
        if first >= self._end:
            return None
        after = bisect_left(self._held, first, key=lambda held: held[0])
        return (first, self._held[after][0] if after < len(self._held) else self._end)


def _merged(logs: list[LogOnPath]) -> list[tuple[int, int]]:
    held: list[tuple[int, int]] = []
    for start, end in sorted((log.start, log.end) for log in logs):
        if held and start <= held[-1][1]:
            held[-1] = (held[-1][0], max(end, held[-1][1]))
        else:
            held.append((start, end))
    return held


SET_BACK = "the server's clock had passed the instant before it, and was set back"


def rejections(
    catalog: Catalog, chain: Chain, to: datetime | None, rules: ChainRules
) -> tuple[Rejection, ...]:
    """A reason for every point of ``catalog`` that ``chain`` does not use, in its order."""
    chosen = {point.id for point in chain.steps}
    reach = Reach(chain.path, chain.end, rules, to)
    wider = reach
    if to is not None and not all(is_safe_for(log.point, to) for log in chain.path.logs):
        wider = Reach(chain.path, chain.end, rules, None)
    usable_from = {base.points[-1].id: base.usable_from for base in chain.path.bases}
    placed = {log.point.id: log for log in chain.path.logs}

    def reason(point: Point) -> str:
        if point.id == chain.proven_by and point.is_empty_log:
            return "empty: it proves the instant and holds nothing to apply"
        if point.id in chain.path.off_path:
            return chain.path.off_path[point.id]
        if point.type is PointType.LOG:
            return _log_reason(placed[point.id], chain, to)
        late = _too_late(point, chain, to, usable_from[point.id])
        if late is not None or reach.holds(point.last_lsn):
            return late or "a cheaper chain exists"
        if wider.holds(point.last_lsn):
            return "a bulk-logged log behind it may hold the instant"
        missing = reach.missing_after(point.last_lsn)
        if missing is None:
            return "the logs behind it do not join"
        return f"log gap: {missing[0]}..{missing[1]} is missing"

    return tuple(
        Rejection(point.id, reason(point))
        for point in catalog.points
        if point.id not in chosen and not point.is_tail
    )


def _log_reason(log: LogOnPath, chain: Chain, to: datetime | None) -> str:
    if log.end <= chain.base.position:
        return f"ends before the {chain.base.points[-1].type.value} that the logs follow"
    if log.start >= chain.end:
        return f"begins after the {_asked_for(to)} asked for"
    if log.end > chain.end:
        return f"reaches past the log that proves the {_asked_for(to)} asked for"
    if to is not None and not is_safe_for(log.point, to):
        return "bulk-logged, and the instant may lie inside it"
    return "a cheaper chain exists"


def _too_late(
    point: Point, chain: Chain, to: datetime | None, usable_from: datetime | None
) -> str | None:
    """Why a full or differential cannot be followed back to the state asked for."""
    if to is None:
        return "ends after the state asked for" if point.last_lsn > chain.end else None
    if point.reachable_from is None:
        return "the time at which it ended is unknown"
    if point.reachable_from > to:
        return "ends after the instant asked for"
    if usable_from is None:
        return "the time at which its full ended is unknown"
    return SET_BACK if usable_from > to or point.last_lsn > chain.end else None


def _asked_for(to: datetime | None) -> str:
    return "state" if to is None else "instant"
