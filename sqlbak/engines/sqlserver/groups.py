"""Availability groups: what the servers of an instance say of its databases. Asks, decides nothing.

The replicas of a database are several servers with one log. Which of them is the primary, and
which is to be backed up, is only ever what they themselves say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from sqlbak.engines.port import Problem
from sqlbak.engines.sqlserver.address import ServerAddress
from sqlbak.engines.sqlserver.connection import Session, StatementFailed
from sqlbak.engines.sqlserver.databases import Database, read_databases
from sqlbak.engines.sqlserver.rows import Row, cell, guid, number, text
from sqlbak.engines.sqlserver.server import Clock, Server, read_clock, read_server
from sqlbak.engines.sqlserver.statements import identifier
from sqlbak.errors import ServerRefused, ServerUnreachable
from sqlbak.stopping import NEVER, StopSignal

__all__ = ["Gathered", "Group", "Member", "Peer", "View", "gather"]

_GROUPS: Final = (
    "SELECT g.group_id, g.name AS group_name, g.automated_backup_preference_desc,"
    " g.basic_features, g.is_distributed, p.primary_replica,"
    " r.replica_server_name, r.backup_priority, s.role_desc, s.connected_state_desc"
    " FROM sys.availability_groups AS g"
    " JOIN sys.availability_replicas AS r ON r.group_id = g.group_id"
    " LEFT JOIN sys.dm_hadr_availability_group_states AS p ON p.group_id = g.group_id"
    " LEFT JOIN sys.dm_hadr_availability_replica_states AS s ON s.replica_id = r.replica_id"
)
_COPYING: Final = (
    "SELECT r.database_id, t.text FROM sys.dm_exec_requests AS r"
    " CROSS APPLY sys.dm_exec_sql_text(r.sql_handle) AS t WHERE r.command = N'BACKUP DATABASE'"
)


@dataclass(frozen=True, slots=True)
class Member:
    """One server of an instance. ``name`` is the server's own, by the policy; empty for the one
    that ``host`` leads to."""

    name: str
    address: ServerAddress

    @property
    def called(self) -> str:
        """Its name for people."""
        return self.name or self.address.where


@dataclass(frozen=True, slots=True)
class Peer:
    """One replica of a group, as the server that was asked knows it. ``is_connected`` is known on
    the primary only."""

    name: str
    backup_priority: int | None
    role: str | None
    is_connected: bool | None


@dataclass(frozen=True, slots=True)
class Group:
    """An availability group. ``preference``: PRIMARY, SECONDARY_ONLY, SECONDARY or NONE."""

    id: str
    name: str
    preference: str
    is_basic: bool
    is_distributed: bool
    primary: str | None
    peers: tuple[Peer, ...]


@dataclass(frozen=True, slots=True)
class View:
    """What one server said. ``copying``: names of databases of which a full or differential is
    being taken there; ``grants``: what the login may do with each, and ``problems``, where that was
    asked."""

    member: Member
    server: Server
    clock: Clock
    databases: tuple[Database, ...]
    groups: Mapping[str, Group] = field(default_factory=dict)
    copying: frozenset[str] = frozenset()
    grants: Mapping[str, Row] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()

    @property
    def is_home(self) -> bool:
        """Whether it is the server behind ``host``."""
        return not self.member.name

    def find(self, name: str) -> Database | None:
        """One of its databases."""
        return next((one for one in self.databases if one.name == name), None)

    def group_of(self, database: Database) -> Group | None:
        """The group of a database of this view; None: in none, or the login may not see it."""
        if database.replica is None:
            return None
        found = [self.groups[one] for one in sorted(database.replica.groups) if one in self.groups]
        return next((one for one in found if not one.is_distributed), None)


Ask = Callable[[Session, View], tuple[Mapping[str, Row], Sequence[Problem]]]
"""Asks a server for the grants of the databases that matter, by their names, and for what stands in
the way of all of them."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """What all servers of an instance said that were asked, the one behind ``host`` first where it
    answered; and why others did not, by their names."""

    views: tuple[View, ...]
    silent: Mapping[str, str]
    members: tuple[Member, ...] = ()


def gather(
    home: ServerAddress,
    members: Sequence[Member],
    *,
    name: str | None = None,
    ask: Ask | None = None,
    stop: StopSignal = NEVER,
) -> Gathered:
    """Ask ``home``, and as many of ``members`` as it takes to know the primary of every database
    in a group (of the one called ``name``) and where its log is to be backed up. One connection
    each. Raises what ``home`` raised when nobody answers."""
    views: list[View] = []
    silent: dict[str, str] = {}
    failure: ServerUnreachable | ServerRefused | None = None
    asked: set[str] = set()
    for member in (Member("", home), *members):
        is_home = member.address is home
        if not is_home and (_is_enough(views, name) or member.address.where in asked):
            continue
        if member.name.lower() in {view.server.name.lower() for view in views}:
            continue
        if _is_cut_off(views, member):
            silent[member.name] = "the primary says that it is disconnected"
            continue
        try:
            views.append(_view(member, name, ask, stop))
        except (ServerUnreachable, ServerRefused) as error:
            failure = failure or error
            asked.add(member.address.where)
            silent[member.called] = error.message
            if is_home and not members:
                raise
    if not views and failure is not None:
        raise failure
    return Gathered(tuple(views), silent, tuple(members))


def _is_enough(views: Sequence[View], name: str | None) -> bool:
    """Whether nothing is left to ask: of every database in a group both places are known."""
    if not views or (name is not None and views[0].find(name) is None):
        return False
    for database in views[0].databases:
        if database.replica is None:
            continue
        found = [view.find(database.name) for view in views]
        replicas = [one.replica for one in found if one is not None and one.replica is not None]
        if not any(one.is_primary for one in replicas):
            return False
        if not any(one.is_preferred and one.is_synchronizing for one in replicas):
            return False
    return True


def _is_cut_off(views: Sequence[View], member: Member) -> bool:
    """Whether the primary of every group that the member is in has no connection to it: it can
    back nothing up then, and asking a server that is down takes long."""
    states = [
        peer.is_connected
        for view in views
        for group in view.groups.values()
        for peer in group.peers
        if peer.name.lower() == member.name.lower()
        and (group.primary or "").lower() == view.server.name.lower()
    ]
    return bool(states) and not any(state is not False for state in states)


def _view(member: Member, name: str | None, ask: Ask | None, stop: StopSignal) -> View:
    with Session.open(member.address, stop=stop) as session:
        server = read_server(session, stop=stop)
        databases = tuple(
            read_databases(session, name=name, with_replicas=server.is_hadr_enabled, stop=stop)
        )
        view = View(member, server, read_clock(session, server, stop=stop), databases)
        if any(one.replica is not None for one in databases):
            groups = _groups(session, stop)
            view = replace(view, groups=groups, copying=_copying(session, databases, stop))
        if ask is None:
            return view
        grants, problems = ask(session, view)
        return replace(view, grants=grants, problems=tuple(problems))


def _groups(session: Session, stop: StopSignal) -> dict[str, Group]:
    """The groups by their ids; those that the login may see (VIEW ANY DEFINITION)."""
    try:
        rows = session.rows(_GROUPS, doing="looking at availability groups", stop=stop)
    except StatementFailed:
        return {}
    found: dict[str, Group] = {}
    for row in rows:
        group_id = guid(row, "group_id") or ""
        peers = tuple(
            Peer(
                text(one, "replica_server_name") or "",
                number(one, "backup_priority"),
                text(one, "role_desc"),
                None
                if text(one, "connected_state_desc") is None
                else text(one, "connected_state_desc") == "CONNECTED",
            )
            for one in rows
            if one["group_id"] == row["group_id"]
        )
        found[group_id] = Group(
            id=group_id,
            name=text(row, "group_name") or "",
            preference=(text(row, "automated_backup_preference_desc") or "").upper(),
            is_basic=bool(cell(row, "basic_features")),
            is_distributed=bool(cell(row, "is_distributed")),
            primary=text(row, "primary_replica"),
            peers=peers,
        )
    return found


def _copying(session: Session, databases: Sequence[Database], stop: StopSignal) -> frozenset[str]:
    """Databases of which data is being backed up; none where the login may not see it."""
    try:
        rows = session.rows(_COPYING, doing="looking for running backups", stop=stop)
    except StatementFailed:
        return frozenset()
    running = {number(row, "database_id") for row in rows}
    texts = [text(row, "text") or "" for row in rows]
    return frozenset(
        one.name
        for one in databases
        # The id may be that of the session's own database.
        if one.database_id in running
        or any(f"BACKUP DATABASE {identifier(one.name)} " in said for said in texts)
    )
