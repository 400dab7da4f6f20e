"""Planning offline from SQL Server backup headers: rows -> catalog -> plan.

Rules: Microsoft's own sequence test (SMO, BackupSet), GUIDs for bases and forks, header seconds are
cut off. ``database_backup_lsn`` of a log never has to match anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import tzinfo
from itertools import pairwise
from typing import Final

from sqlbak.errors import LineageAmbiguous, NameNeeded, Refused, UnknownName
from sqlbak.model import Catalog, Fork, Point, PointType
from sqlbak.restore.chain import SQL_SERVER_RULES
from sqlbak.restore.headers_clock import ONE_SECOND, HeaderClock, clock_of, read_target
from sqlbak.restore.headers_rows import BackupSet, read_rows, rows_in
from sqlbak.restore.planner import LATEST, Rejection, RestorePlan, plan

__all__ = ["HeaderCatalog", "plan_headers", "read_headers"]

_UNKNOWN_FORK: Final = "unknown"


@dataclass(frozen=True, slots=True)
class HeaderCatalog:
    """What the headers of one database say.

    ``catalog`` has its times on the headers' wall clock, carried as UTC. ``rejected``: the rows
    that no chain can use. ``notes``: what had to be assumed, as columns are missing.
    """

    catalog: Catalog
    rejected: tuple[Rejection, ...]
    notes: tuple[str, ...]
    clock: HeaderClock
    sets: tuple[BackupSet, ...]


def plan_headers(
    rows: object,
    to_text: str | None,
    *,
    item: str | None = None,
    zone: tzinfo | None = None,
    lineage: str | None = None,
) -> RestorePlan:
    """Plan a restore from exported headers (parsed JSON) to ``to_text``.

    ``to_text``: ISO 8601, or None or ``latest`` for the last proven instant. Without an offset it
    is on the servers' wall clock, as the headers' dates are. ``item``: the database, where the
    rows tell of several. ``zone``: where the server's clock hangs. The plan's ``stop_at`` is that
    wall clock carried as UTC; ``plan_document`` and ``explain`` show it as STOPAT needs it.

    Raises what ``read_headers`` and ``planner.plan`` raise, and UsageError for a bad ``to_text``.
    """
    headers = read_headers(rows, item=item, zone=zone)
    clock, assumed = headers.clock, headers.notes
    target = None
    if to_text is not None and to_text.strip().lower() != LATEST.value:
        target, clock, notes = read_target(to_text, clock, headers.sets)
        assumed += notes
    try:
        found = plan(
            headers.catalog,
            LATEST if target is None else target,
            lineage=lineage,
            rules=SQL_SERVER_RULES,
            clock=clock,
        )
    except Refused as refusal:
        refusal.nearest = tuple(clock.real(instant) for instant in refusal.nearest)
        raise
    cuts = tuple(
        f"apply {cut.point_id} only up to its fork: STOPBEFOREMARK = 'lsn:{cut.lsn}'"
        for cut in found.cuts
    )
    return replace(
        found,
        notes=(*found.notes, *assumed, *cuts),
        rejected=(*found.rejected, *headers.rejected),
    )


def read_headers(
    rows: object, *, item: str | None = None, zone: tzinfo | None = None
) -> HeaderCatalog:
    """The catalog of one database in exported headers.

    Raises:
        InputUnreadable: rows that cannot be read, all of them at once.
        NameNeeded, UnknownName: several databases, or not the one named by ``item``.
        LineageAmbiguous: logs of different forks that cannot be told apart.
    """
    read = read_rows(rows_in(rows))
    name, sets, others = _one_database(read.sets, item)
    clock = clock_of(sets, zone)
    notes = _missing_columns(sets)
    lineages, unplaced = _lineages(sets, name, notes)
    points: list[Point] = []
    rejected = [*read.rejected, *others, *unplaced]
    for each in sets:
        if each.id in lineages:
            base = _base_of(each, sets, lineages, notes)
            points.append(_point(each, lineages[each.id], base, clock))
    forks = {
        Fork(each.fork, each.first_fork, each.fork_lsn)
        for each in sets
        if each.id in lineages
        and each.fork is not None
        and each.first_fork is not None
        and each.fork != each.first_fork
        and each.fork_lsn is not None
    }
    catalog = Catalog(name, tuple(points), tuple(sorted(forks, key=lambda fork: fork.lineage)))
    return HeaderCatalog(catalog, tuple(rejected), tuple(notes), clock, sets)


def _one_database(
    sets: Sequence[BackupSet], item: str | None
) -> tuple[str, tuple[BackupSet, ...], list[Rejection]]:
    """The sets of one database; families keep together what was renamed or restored."""
    families: dict[str, set[str]] = {}
    for each in sets:
        if each.family and each.database:
            families.setdefault(each.database.casefold(), set()).add(each.family)

    def key(each: BackupSet) -> str:
        known = families.get((each.database or "").casefold(), set())
        if each.family is not None:
            return each.family
        return next(iter(known)) if len(known) == 1 else f"name {(each.database or '').casefold()}"

    groups: dict[str, list[BackupSet]] = {}
    for each in sets:
        groups.setdefault(key(each), []).append(each)
    names = {group: _name_of(members) for group, members in groups.items()}
    shown = {
        group: name if list(names.values()).count(name) == 1 else f"{name} ({group})"
        for group, name in names.items()
    }
    if item is not None:
        chosen = [
            group
            for group, members in groups.items()
            if item.casefold() in {shown[group].casefold(), group}
            or item.casefold() in {(each.database or "").casefold() for each in members}
        ]
        if not chosen:
            raise UnknownName("database", item, list(shown.values()))
    else:
        chosen = list(groups)
    if len(chosen) > 1:
        raise NameNeeded("database", [shown[group] for group in chosen])
    if not chosen:
        return item or "database", (), []
    others = [
        Rejection(each.id, f"another database ({shown[group]})")
        for group, members in groups.items()
        if group != chosen[0]
        for each in members
    ]
    return names[chosen[0]], tuple(groups[chosen[0]]), others


def _name_of(members: Sequence[BackupSet]) -> str:
    newest = max(members, key=lambda each: (each.last_lsn, each.row))
    return newest.database or newest.family or "database"


def _missing_columns(sets: Sequence[BackupSet]) -> list[str]:
    notes: list[str] = []
    if any(each.guid is None for each in sets):
        notes.append("BackupSetGUID is missing: ids are made up from types and LSNs")
    if any(each.started is None for each in sets if each.type is PointType.LOG):
        notes.append("BackupStartDate is missing: until when a log holds everything is not proven")
    if any(each.size_bytes is None for each in sets):
        notes.append("sizes are missing: the cheapest chain is chosen without them")
    return notes


def _lineages(
    sets: Sequence[BackupSet], name: str, notes: list[str]
) -> tuple[Mapping[str, str], list[Rejection]]:
    """Each set's recovery fork, by id; and the sets whose fork cannot be known."""
    known = {each.fork for each in sets if each.fork is not None}
    lineages: dict[str, str] = {}
    rejected: list[Rejection] = []
    for each in sets:
        crosses = each.first_fork != each.fork
        if each.fork is None and len(known) > 1:
            rejected.append(Rejection(each.id, "its recovery fork is unknown"))
        elif crosses and each.type is PointType.LOG and each.fork_lsn is None:
            rejected.append(Rejection(each.id, "it crosses a fork at an unknown LSN"))
        else:
            lineages[each.id] = each.fork or next(iter(known), _UNKNOWN_FORK)
    if any(each.fork is None for each in sets) and len(known) <= 1:
        _refuse_overlaps([each for each in sets if each.id in lineages], name)
        notes.append(
            "recovery fork ids are missing: that all backups are of one history is only assumed"
        )
    return lineages, rejected


def _refuse_overlaps(sets: Sequence[BackupSet], name: str) -> None:
    """Logs of one fork never overlap (copy-only ones apart), so overlapping ones are of several."""
    logs = sorted(
        (each.first_lsn, each.last_lsn, each.id)
        for each in sets
        if each.type is PointType.LOG and not each.is_copy_only and each.first_lsn < each.last_lsn
    )
    for one, other in pairwise(logs):
        if other[0] < one[1]:
            raise LineageAmbiguous(
                f"{name}: the logs {one[2]} and {other[2]} hold the same LSNs, so they are of "
                "different recovery forks, and the headers do not say of which",
                hint="export the columns FirstRecoveryForkID, RecoveryForkID and ForkPointLSN too",
            )


def _base_of(
    each: BackupSet,
    sets: Sequence[BackupSet],
    lineages: Mapping[str, str],
    notes: list[str],
) -> str | None:
    """The id of a differential's full: by GUID, else by its checkpoint's LSN."""
    if each.type is not PointType.DIFFERENTIAL:
        return None
    fulls = [full for full in sets if full.type is PointType.FULL and not full.is_copy_only]
    if each.base_guid is not None:
        named = [full.id for full in sets if full.guid == each.base_guid]
        return named[0] if named else each.base_guid
    fulls = [
        full
        for full in fulls
        if each.full_checkpoint_lsn is not None and full.checkpoint_lsn == each.full_checkpoint_lsn
    ]
    same_fork = [full for full in fulls if lineages.get(full.id) == lineages[each.id]]
    fulls = same_fork or fulls
    if len(fulls) != 1:
        return None
    note = "DifferentialBaseGUID is missing: fulls of differentials were found by checkpoint LSN"
    if note not in notes:
        notes.append(note)
    return fulls[0].id


def _point(each: BackupSet, lineage: str, base: str | None, clock: HeaderClock) -> Point:
    """One backup set as a recovery point, on the headers' wall clock."""
    started = None if each.started is None else clock.wall(each.started)
    ended = clock.wall(each.finished) + ONE_SECOND
    is_log = each.type is PointType.LOG
    probable = None
    if is_log:
        last_commit = None if each.last_commit is None else clock.wall(each.last_commit)
        later = last_commit if last_commit and started and last_commit > started else None
        probable = later or ended
    return Point(
        id=each.id,
        type=each.type,
        lineage=lineage,
        first_lsn=each.first_lsn,
        last_lsn=each.last_lsn,
        started_at=started or clock.wall(each.finished),
        finished_at=ended,
        reachable_from=None if is_log else ended,
        covers_until=started if is_log else None,
        probable_until=probable,
        first_lineage=each.first_fork if is_log and each.first_fork != each.fork else None,
        base_id=base,
        is_copy_only=each.is_copy_only,
        has_bulk_logged=each.has_bulk_logged,
        size_bytes=each.size_bytes or 0,
    )
