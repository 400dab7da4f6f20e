"""Which server takes which backup, decided from what the servers said."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from sqlbak.engines.sqlserver.address import ServerAddress
from sqlbak.engines.sqlserver.databases import Database, Replica
from sqlbak.engines.sqlserver.groups import Gathered, Group, Member, Peer, View
from sqlbak.engines.sqlserver.routes import Route, route_of
from sqlbak.engines.sqlserver.server import Clock, Server
from sqlbak.model import PointType

FULL, LOG = PointType.FULL, PointType.LOG
GROUP, OTHER, DISTRIBUTED = "group-1", "group-2", "distributed"


def view(
    name: str,
    *,
    primary: bool = False,
    preferred: bool = False,
    groups: tuple[str, ...] = (GROUP,),
    state: str = "SYNCHRONIZED",
    preference: str | None = "SECONDARY",
    copying: bool = False,
) -> View:
    address = ServerAddress(name.lower(), 1433, "sqlbak", "secret")
    server = Server(name, "16.0.1", "Developer", 3, "Linux", "Latin1_General_CI_AS", True)
    replica = Replica(primary, preferred, "sales", frozenset(groups), state)
    database = Database("Sales", 5, "ONLINE", "FULL", family="f", fork="r", replica=replica)
    peers = tuple(Peer(f"NODE{number}", 50, None, None) for number in (1, 2, 3))
    known = (
        {}
        if preference is None
        else {
            GROUP: Group(GROUP, "ag", preference, False, False, "NODE1", peers),
            DISTRIBUTED: Group(DISTRIBUTED, "both", "PRIMARY", False, True, None, ()),
        }
    )
    return View(
        Member(name, address),
        server,
        Clock(datetime(2026, 5, 1, tzinfo=UTC), 0, None),
        (database,),
        known,
        frozenset({"Sales"}) if copying else frozenset(),
    )


def routed(*views: View, **silent: str) -> Route:
    members = [one.member for one in views]
    members += [Member(name, members[0].address) for name in silent]
    found = route_of(Gathered(views, silent, tuple(members)), "Sales")
    assert found is not None
    return found


def server_of(found: View | None) -> str | None:
    return None if found is None else found.server.name


def test_two_primaries_stop_everything() -> None:
    found = routed(view("NODE1", primary=True, preferred=True), view("NODE2", primary=True))
    assert (found.primary, found.log) == (None, None)
    assert found.problem is not None
    assert "NODE1 and NODE2 both say" in found.problem.what


def test_a_group_without_a_primary_is_no_choice_of_its_owner() -> None:
    found = routed(view("NODE2"), view("NODE3", preferred=True), NODE1="nothing answers there")
    assert found.paused == {}
    assert found.problem is not None
    assert "NODE1: nothing answers there" in found.problem.what


def test_the_second_group_of_a_distributed_one_takes_no_log() -> None:
    first = view("NODE1", primary=True, groups=(GROUP, DISTRIBUTED))
    forwarder = view("FAR1", preferred=True, groups=(OTHER, DISTRIBUTED))
    far = view("FAR2", preferred=True, groups=(OTHER,))
    near = view("NODE2", preferred=True)
    assert server_of(routed(first, forwarder, far).log) == "NODE1"
    assert server_of(routed(first, forwarder, far, near).log) == "NODE2"


def test_a_secondary_that_does_not_synchronize_takes_no_log() -> None:
    primary = view("NODE1", primary=True)
    for state, expected in (
        ("SYNCHRONIZED", "NODE2"),
        ("SYNCHRONIZING", "NODE2"),
        ("NOT SYNCHRONIZING", "NODE1"),
        ("REVERTING", "NODE1"),
        ("INITIALIZING", "NODE1"),
    ):
        assert (
            server_of(routed(primary, view("NODE2", preferred=True, state=state)).log) == expected
        )


def test_a_preference_that_is_not_shown_lets_no_log_fall_back() -> None:
    primary = view("NODE1", primary=True, preference=None)
    found = routed(primary, view("NODE2", preference=None))
    assert server_of(found.primary) == "NODE1"
    assert found.log is None
    assert "VIEW ANY DEFINITION" in found.paused[LOG]
    assert FULL not in found.paused


def test_replicas_that_are_not_named_are_told() -> None:
    primary = view("NODE1", primary=True, preference="SECONDARY_ONLY")
    found = routed(primary, view("NODE2", preference="SECONDARY_ONLY"))
    assert found.log is None
    assert "NODE3 is not among replicas" in found.paused[LOG]


def test_a_database_of_that_name_in_no_group_is_another_one() -> None:
    near = view("NODE1", primary=True, preferred=True)
    far = view("NODE2")
    local = replace(far, databases=(replace(far.databases[0], replica=None),))
    assert route_of(Gathered((local,), {}, (local.member,)), "Sales") is None
    assert server_of(routed(near, local).log) == "NODE1"
