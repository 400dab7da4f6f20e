"""Which server takes which backup of a database, by what its servers said. Pure.

Fulls and differentials are taken on the primary, as only it can. Logs are taken where the server's
own function says that the group prefers it (sys.fn_hadr_backup_is_preferred_replica): the log is
one, whichever replica gives it out (SQL Server docs, "Offload supported backups to secondary
replicas").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sqlbak.engines.port import Problem, Severity
from sqlbak.engines.sqlserver.databases import Database
from sqlbak.engines.sqlserver.groups import Gathered, Group, View
from sqlbak.engines.sqlserver.statements import identifier
from sqlbak.model import PointType

__all__ = ["Route", "route_of"]

_DATA = (PointType.FULL, PointType.DIFFERENTIAL)


@dataclass(frozen=True, slots=True)
class Route:
    """Where the backups of one database are taken.

    Attributes:
        database: as its primary tells of it; without one, as the first that was asked does.
        primary: the server that writes it; for a database in no group the one that was asked.
        log: the server that its log is backed up on; None: none can, see ``paused``.
        paused: what cannot be taken, and why.
        problem: what keeps everything from being taken.
        notes: why the log is not taken where the group prefers it.
        holders: every server that answered and holds it.
    """

    database: Database
    primary: View | None
    log: View | None
    paused: Mapping[PointType, str] = field(default_factory=dict)
    problem: Problem | None = None
    notes: tuple[str, ...] = ()
    holders: tuple[View, ...] = ()


def route_of(gathered: Gathered, name: str) -> Route | None:
    """The way for one database; None: no server that answered has it."""
    held = [
        (view, one)
        for view in gathered.views
        if (one := view.find(name)) is not None
        # What is in no group there is another database than the one of that name behind host.
        and (view.is_home or one.replica is not None)
    ]
    if not held:
        return None
    first, found = held[0]
    grouped = [(view, one) for view, one in held if one.replica is not None]
    if not gathered.members or not grouped:
        return Route(found, first, first, found.paused(), holders=(first,))
    holders = tuple(view for view, _ in grouped)
    primaries = [(v, one) for v, one in grouped if one.replica and one.replica.is_primary]
    if len(primaries) != 1:
        return _without_primary(gathered, grouped, [view for view, _ in primaries])
    primary, database = primaries[0]
    paused = dict(replace(database, replica=None).paused())
    log, notes, why = _log_place(gathered, grouped, primary, database)
    if why is not None:
        paused.setdefault(PointType.LOG, why)
    return Route(database, primary, log, paused, notes=notes, holders=holders)


def _without_primary(
    gathered: Gathered, grouped: Sequence[tuple[View, Database]], primaries: Sequence[View]
) -> Route:
    """None of the servers that answered, or more than one, says that it is the primary."""
    database = grouped[0][1]
    holders = tuple(each for each, _ in grouped)
    group = next((g for v, one in grouped if (g := v.group_of(one)) is not None), None)
    called = "its availability group" if group is None else f"the availability group {group.name}"
    named = group.primary if group is not None else None
    configured = {member.name.lower() for member in gathered.members}
    if primaries:
        told = " and ".join(each.server.name for each in primaries)
        what = f"{told} both say that they are the primary of {database.name} in {called}"
        remedy = "ALTER AVAILABILITY GROUP … SET (ROLE = SECONDARY) on the one that is not"
    elif named is not None and named.lower() not in configured:
        why = (
            f"the primary replica of {database.name} in {called} is {named}, which is not among "
            f"replicas: write {named}: {{host: …}} there"
        )
        return Route(database, None, None, dict.fromkeys(PointType, why), holders=holders)
    else:
        reasons = "; ".join(f"{name}: {why}" for name, why in gathered.silent.items())
        what = (
            f"none of the servers that answer is the primary of {database.name} in {called}"
            + (f" (it is {named})" if named else "")
            + (f": {reasons}" if reasons else "")
        )
        remedy = "look whether the group is failing over, and whether its primary can be reached"
    problem = Problem("no_primary", Severity.BLOCKING, what, remedy, database.name)
    return Route(database, None, None, {}, problem, holders=holders)


def _log_place(
    gathered: Gathered,
    grouped: Sequence[tuple[View, Database]],
    primary: View,
    database: Database,
) -> tuple[View | None, tuple[str, ...], str | None]:
    """Where the log is taken, what to say about it; or why nowhere."""
    group = primary.group_of(database)
    if group is not None and group.is_basic:
        return primary, (), None  # its secondary takes no backups at all
    on_primary = database.replica
    if on_primary is not None and on_primary.is_preferred:
        return primary, (), None
    preferred = next(
        (view for view, one in grouped if view is not primary and _is_fit(one, database)), None
    )
    is_copying = database.name in primary.copying
    if preferred is not None and not is_copying:
        return preferred, (), None
    if preferred is not None:
        # Backups of one database on two replicas at once are not supported.
        why = f"a full or differential is being taken on {primary.server.name}"
    else:
        why = "; ".join(_reasons(gathered, grouped, primary, database, group))
    called = "the availability group" if group is None else f"the availability group {group.name}"
    if group is not None and group.preference in ("SECONDARY", "NONE"):
        note = (
            f"{called} prefers another replica for the log of {database.name}, but it was taken on "
            f"{primary.server.name}: {why}"
        )
        return primary, (note,), None
    if preferred is not None:
        return None, (), f"the log of {database.name} waits: {why}"
    if group is None:
        return (
            None,
            (),
            f"the availability group of {database.name} prefers another replica for its log: {why} "
            "(GRANT VIEW ANY DEFINITION TO [login] lets sqlbak see the group's preference)",
        )
    return (
        None,
        (),
        f"{called} wants the log of {database.name} backed up on a secondary replica only, and "
        f"none can: {why} (mend that, or ALTER AVAILABILITY GROUP {identifier(group.name)} SET "
        "(AUTOMATED_BACKUP_PREFERENCE = SECONDARY), with which it is taken on the primary then)",
    )


def _is_fit(one: Database, primary: Database) -> bool:
    """Whether a secondary is the one to be backed up. One of a distributed group's second group
    cannot: it does not speak with the primary."""
    if one.replica is None or primary.replica is None:
        return False
    return (
        one.replica.is_preferred
        and one.replica.is_synchronizing
        and one.replica.groups <= primary.replica.groups
    )


def _reasons(
    gathered: Gathered,
    grouped: Sequence[tuple[View, Database]],
    primary: View,
    database: Database,
    group: Group | None,
) -> Iterator[str]:
    """Why each secondary does not take the log."""
    told: set[str] = {primary.server.name.lower()}
    for name, why in gathered.silent.items():
        told.add(name.lower())
        yield f"{name}: {why}"
    priorities = {} if group is None else {peer.name.lower(): peer for peer in group.peers}
    for view, one in grouped:
        server = view.server.name
        if view is primary or server.lower() in told or one.replica is None:
            continue
        told.add(server.lower())
        peer = priorities.get(server.lower())
        if not one.replica.is_synchronizing:
            yield f"{server} is {one.replica.state or 'in an unknown state'}"
        elif peer is not None and peer.backup_priority == 0:
            yield f"{server} has backup priority 0"
        else:
            yield f"{server} is not the one that the group prefers"
    for peer in () if group is None else group.peers:
        if peer.name.lower() not in told and peer.backup_priority != 0:
            yield f"{peer.name} is not among replicas"
    if len(told) == 1 and (group is None or len(group.peers) == 1):
        yield f"no other replica of {database.name} is known"
