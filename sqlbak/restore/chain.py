"""The cheapest way from a base through logs to a position of one path.

One sweep over the path in log order finds, for every position, the best arrival there. What "best"
means is the caller's: estimated time for a plan, the earliest usable instant for windows.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from sqlbak.model import Point
from sqlbak.restore.estimate import DEFAULT_RATES, RestoreRates
from sqlbak.restore.path import Base, LogOnPath, Path, Proof

__all__ = [
    "LOOSE_RULES",
    "SQL_SERVER_RULES",
    "Arrival",
    "Certainty",
    "Chain",
    "ChainRules",
    "Key",
    "chain_to_instant",
    "chain_to_position",
    "own_ends",
    "sweep",
]

Key = tuple[int, ...]
"""What arrivals are compared by; smaller is better."""


class Certainty(StrEnum):
    """PROVEN: the recovery points show that the state will be the one asked for. PROBABLE: they
    do not contradict it."""

    PROVEN = "proven"
    PROBABLE = "probable"


@dataclass(frozen=True, slots=True)
class ChainRules:
    """What an engine promises of its backups.

    Attributes:
        bases_prove_their_end: nothing commits between a full's or differential's ``last_lsn`` and
            its ``reachable_from``, so that it alone restores to that instant.
        logs_join_exactly: a log that follows a log begins where that one ended (Microsoft's
            sequence test); an overlap means another fork, or a foreign backup.
        newest_lineage_is_meant: where nobody names a lineage, one that goes on beside a newer one
            is abandoned.
        uses_copy_only_logs: what only a copy-only log holds is planned with it as the last one.
        rates: how fast they are restored.
    """

    bases_prove_their_end: bool = True
    logs_join_exactly: bool = False
    newest_lineage_is_meant: bool = True
    uses_copy_only_logs: bool = False
    rates: RestoreRates = DEFAULT_RATES


LOOSE_RULES: Final = ChainRules()
SQL_SERVER_RULES: Final = ChainRules(
    bases_prove_their_end=False, logs_join_exactly=True, newest_lineage_is_meant=False
)


@dataclass(frozen=True, slots=True)
class Arrival:
    """The best way to one position: the last step (None: the base itself) and where from."""

    key: Key
    base: Base
    log: LogOnPath | None
    previous: Arrival | None

    def logs(self) -> tuple[LogOnPath, ...]:
        """The logs on the way, in the order of applying."""
        found: list[LogOnPath] = []
        arrival: Arrival | None = self
        while arrival is not None and arrival.log is not None:
            found.append(arrival.log)
            arrival = arrival.previous
        return tuple(reversed(found))


@dataclass(frozen=True, slots=True)
class Chain:
    """A way to restore, and what proves where it ends."""

    path: Path
    base: Base
    logs: tuple[LogOnPath, ...]
    end: int
    certainty: Certainty
    proven_by: str

    @property
    def steps(self) -> tuple[Point, ...]:
        """The points to apply, in order."""
        return (*self.base.points, *(log.point for log in self.logs))


class _Lowest:
    """Arrivals by rising position; answers with the best one at or after a position."""

    __slots__ = ("arrivals", "positions")

    def __init__(self) -> None:
        self.positions: list[int] = []
        self.arrivals: list[Arrival] = []

    def add(self, position: int, arrival: Arrival) -> None:
        while self.arrivals and self.arrivals[-1].key >= arrival.key:
            self.positions.pop()
            self.arrivals.pop()
        self.positions.append(position)
        self.arrivals.append(arrival)

    def best_from(self, position: int) -> Arrival | None:
        index = bisect_left(self.positions, position)
        return self.arrivals[index] if index < len(self.arrivals) else None


def sweep(
    bases: Sequence[tuple[Base, Key]],
    logs: Iterable[LogOnPath],
    extend: Callable[[Key, LogOnPath], Key],
    rules: ChainRules,
) -> Mapping[int, Arrival]:
    """The best arrival at every position that can be reached exactly.

    ``bases`` by rising position and ``logs`` by rising end. ``extend`` must keep the order of
    keys: what was no worse before a log is no worse after it. O(n log n).
    """
    arrivals: dict[int, Arrival] = {}
    anywhere, joined = _Lowest(), dict[int, Arrival]()
    pending = list(logs)
    base_index = log_index = 0
    while base_index < len(bases) or log_index < len(pending):
        position = min(
            [base[0].position for base in bases[base_index : base_index + 1]]
            + [log.end for log in pending[log_index : log_index + 1]]
        )
        entered: Arrival | None = None
        joining: Arrival | None = None
        while base_index < len(bases) and bases[base_index][0].position == position:
            base, key = bases[base_index]
            entered = _better(entered, Arrival(key, base, None, None))
            base_index += 1
        while log_index < len(pending) and pending[log_index].end == position:
            log = pending[log_index]
            log_index += 1
            previous = _better(anywhere.best_from(log.start), joined.get(log.start))
            if previous is None:
                continue
            arrival = Arrival(extend(previous.key, log), previous.base, log, previous)
            if rules.logs_join_exactly and not log.is_cut:
                joining = _better(joining, arrival)
            else:
                entered = _better(entered, arrival)
        if entered is not None:
            anywhere.add(position, entered)
        if joining is not None:
            joined[position] = joining
        best = _better(entered, joining)
        if best is not None:
            arrivals[position] = best
    return arrivals


def _better(one: Arrival | None, other: Arrival | None) -> Arrival | None:
    if one is None or other is None:
        return one if other is None else other
    return other if other.key < one.key else one


def chain_to_position(
    path: Path, bases: Sequence[Base], end: int, rules: ChainRules, *, to: datetime | None
) -> Arrival | None:
    """The cheapest arrival at exactly ``end``: least estimated time, then fewest bytes, then
    fewest steps, then the newest base.

    ``to``: leave out bulk-logged logs that the instant may lie in (None: all are applied whole).
    """
    entries = [(base, cost_of(base, rules)) for base in bases if base.position <= end]
    if not entries:
        return None
    first = bisect_left(path.logs, entries[0][0].position, key=lambda log: log.end)
    after = bisect_left(path.logs, end + 1, key=lambda log: log.end)
    logs = (log for log in path.logs[first:after] if to is None or is_safe_for(log.point, to))

    def extend(key: Key, log: LogOnPath) -> Key:
        time = key[0] + rules.rates.microseconds(log.point)
        return (time, key[1] + log.point.size_bytes, key[2] + 1, *key[3:])

    return sweep(entries, logs, extend, rules).get(end)


def cost_of(base: Base, rules: ChainRules) -> Key:
    """Estimated microseconds, bytes, steps, and the newest base first."""
    time = sum(rules.rates.microseconds(point) for point in base.points)
    return (time, base.size_bytes, len(base.points), -base.order)


def is_safe_for(log: Point, to: datetime) -> bool:
    """False for a bulk-logged log that may hold commits after ``to``: SQL Server cannot stop in
    it, it can only be applied whole."""
    return not log.has_bulk_logged or log.finished_at <= to


def bases_for(path: Path, to: datetime) -> list[Base]:
    """The bases that end, on the server's clock, at or before ``to``."""
    return [base for base in path.bases if base.usable_from and base.usable_from <= to]


def own_ends(path: Path) -> list[tuple[datetime, Base]]:
    """The instants that a base reaches alone; not those that the clock had passed before it."""
    found: list[tuple[datetime, Base]] = []
    for base in path.bases:
        if base.own_end is not None and base.own_end == base.usable_from:
            proof = path.proof_of(base.own_end)
            if proof is None or base.position <= proof.end:
                found.append((base.own_end, base))
    return found


def chain_to_instant(
    path: Path, to: datetime, rules: ChainRules, *, ignore_bulk: bool = False
) -> Chain | None:
    """The cheapest proven chain to ``to`` on this path; else the cheapest probable one; else None.

    ``ignore_bulk`` is for finding out why there is none.
    """
    bases = bases_for(path, to)
    limit = None if ignore_bulk else to
    proof, likely = path.proof_of(to), path.likely_proof_of(to)
    ending_there = [base for instant, base in own_ends(path) if instant == to]
    own_end = min(ending_there, key=lambda base: cost_of(base, rules), default=None)
    arrival = chain_to_position(path, bases, proof.end, rules, to=limit) if proof else None
    if (
        own_end is not None
        and rules.bases_prove_their_end
        and (arrival is None or cost_of(own_end, rules) <= arrival.key)
    ):
        return _own_end(path, own_end, Certainty.PROVEN)
    if proof is not None and arrival is not None:
        return _chain(path, arrival, proof, Certainty.PROVEN)
    arrival = chain_to_position(path, bases, likely.end, rules, to=limit) if likely else None
    if likely is not None and arrival is not None:
        return _chain(path, arrival, likely, Certainty.PROBABLE)
    return _own_end(path, own_end, Certainty.PROBABLE) if own_end is not None else None


def _own_end(path: Path, base: Base, certainty: Certainty) -> Chain:
    return Chain(path, base, (), base.position, certainty, base.points[-1].id)


def _chain(path: Path, arrival: Arrival, proof: Proof, certainty: Certainty) -> Chain:
    return Chain(path, arrival.base, arrival.logs(), proof.end, certainty, proof.point.id)
