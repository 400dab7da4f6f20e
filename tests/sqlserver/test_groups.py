"""Availability groups: each backup on the replica that is to take it, one chain, one item."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from sqlbak.engines.sqlserver.logend import position_of
from sqlbak.errors import (
    BackupFailed,
    BackupPaused,
    InstantUnreachable,
    ServerNotReady,
    ServerRefused,
    SqlbakError,
)
from tests.engines.sqlserver.test_grants import documented
from tests.sqlserver.group_site import DIFFERENTIAL, FULL, LOG, START, GroupSite, group_site
from tests.sqlserver_simulator.instance import Unknowns

MakeSite = Callable[..., GroupSite]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeSite]:
    with ExitStack() as stack:

        def made(**options) -> GroupSite:
            folder = tmp_path / f"site{len(list(tmp_path.iterdir()))}"
            return stack.enter_context(group_site(folder, **options))

        yield made


def test_fulls_come_from_the_primary_and_logs_from_the_preferred_secondary(make: MakeSite) -> None:
    site = make()
    taken = {}
    for kind in (FULL, LOG, DIFFERENTIAL, LOG):
        site.insert(kind.value)
        site.advance(minutes=1)
        taken[kind] = site.taken_on(site.point(kind))
        site.advance(minutes=1)
    copy = site.backup(FULL, is_copy_only=True).points[0]
    assert taken == {FULL: "NODE1", DIFFERENTIAL: "NODE1", LOG: "NODE2"}
    assert site.taken_on(copy) == "NODE1"
    assert site.restored() == ["before", "full", "log", "differential", "log"]
    assert site.leftovers() == []
    assert len(site.items()) == 1


@pytest.mark.parametrize(
    ("preference", "server"),
    [("PRIMARY", "NODE1"), ("SECONDARY_ONLY", "NODE3"), ("NONE", "NODE3")],
)
def test_the_servers_own_preference_decides(make: MakeSite, preference: str, server: str) -> None:
    site = make(count=3, preference=preference, priorities={"NODE3": 80, "NODE2": 60})
    site.point(FULL)
    site.insert("one")
    assert site.taken_on(site.point(LOG)) == server
    site.group.priorities["NODE3"] = 0
    expected = "NODE1" if server == "NODE1" else "NODE2"
    assert site.taken_on(site.point(LOG)) == expected


@pytest.mark.parametrize("host", ["NODE1", "NODE2"])
def test_the_primary_is_found_by_asking_wherever_host_leads(make: MakeSite, host: str) -> None:
    site = make(host=host, preference="PRIMARY")
    site.point(FULL)
    site.insert("one")
    site.point(LOG)
    site.fail_over("NODE2")
    site.insert("two")
    for kind in (LOG, DIFFERENTIAL, FULL):
        assert site.taken_on(site.point(kind)) == "NODE2"
    assert site.restored() == ["before", "one", "two"]
    assert len(site.items()) == 1


def test_the_group_is_backed_up_while_the_server_behind_host_is_down(make: MakeSite) -> None:
    site = make(count=3, host="NODE1")
    for node in site.nodes.values():
        node.create_database("local")
    site.point(FULL)
    site.fail_over("NODE2")
    site.take_down("NODE1")
    site.insert("one")
    assert site.taken_on(site.point(LOG)) == "NODE3"
    with site.fleet() as fleet:
        assert fleet.item_names("erp") == ("erp/Sales",)
        # Nobody knows whether the database of that name behind host is still there.
        assert "erp/local" in fleet.configured_names("erp/Sales")
    with pytest.raises(ServerNotReady):
        site.backup(FULL, "erp/local")
    assert site.restored() == ["before", "one"]


def test_without_replicas_logs_pause_and_the_notice_tells_of_them(make: MakeSite) -> None:
    site = make(configured=())
    site.point(FULL)
    with pytest.raises(BackupPaused, match="replicas:"):
        site.backup(LOG)
    site.host = "NODE2"
    site.write_policy()
    for kind in (FULL, LOG):
        with pytest.raises(BackupPaused, match=r"secondary replica.*replicas:"):
            site.backup(kind)


def test_a_primary_that_is_not_named_pauses_with_its_name(make: MakeSite) -> None:
    site = make(host="NODE2", configured=("NODE2",))
    with pytest.raises(BackupPaused, match=r"is NODE1, which is not among replicas"):
        site.backup(FULL)


def test_logs_fall_back_to_the_primary_when_no_secondary_can(make: MakeSite) -> None:
    site = make()
    site.point(FULL)
    site.insert("one")
    site.take_down("NODE2")
    outcome = site.backup(LOG)
    assert site.taken_on(outcome.points[0]) == "NODE1"
    assert site.restored() == ["before", "one"]


def test_a_preferred_secondary_that_only_sqlbak_does_not_reach_is_named(make: MakeSite) -> None:
    site = make()
    site.point(FULL)
    site.nodes["NODE2"].stop()
    outcome = site.backup(LOG)
    assert site.taken_on(outcome.points[0]) == "NODE1"
    assert "NODE2" in outcome.notes[0].text
    assert "nothing answers" in outcome.notes[0].text


def test_secondary_only_never_takes_a_log_from_the_primary(make: MakeSite) -> None:
    site = make(preference="SECONDARY_ONLY")
    site.point(FULL)
    site.insert("one")
    site.group.not_synchronizing.add("NODE2")
    with pytest.raises(BackupPaused, match=r"NODE2.*AUTOMATED_BACKUP_PREFERENCE = SECONDARY"):
        site.backup(LOG)
    site.group.not_synchronizing.clear()
    assert site.taken_on(site.point(LOG)) == "NODE2"
    site.group.priorities["NODE2"] = 0
    with pytest.raises(BackupPaused, match="NODE2 has backup priority 0"):
        site.backup(LOG)
    assert any(one.code == "log_paused" for one in site.inspect().problems)


def test_a_basic_group_is_backed_up_on_its_primary_only(make: MakeSite) -> None:
    site = make(is_basic=True)
    site.point(FULL)
    assert site.taken_on(site.point(LOG)) == "NODE1"


@pytest.mark.parametrize("known", ["old", "null"])
def test_what_a_secondary_shows_of_the_chain_is_not_believed(make: MakeSite, known: str) -> None:
    site = make(host="NODE2", unknowns=Unknowns(status_of_secondary=known))
    site.point(FULL)
    site.insert("one")
    site.point(LOG)
    site.group.preference = "PRIMARY"
    site.insert("two")
    site.point(LOG)
    site.group.preference = "SECONDARY"
    site.insert("three")
    assert site.taken_on(site.point(LOG)) == "NODE2"
    assert site.restored() == ["before", "one", "two", "three"]
    assert len(site.items()) == 1


def test_no_log_is_taken_on_a_secondary_while_the_primary_takes_a_full(make: MakeSite) -> None:
    site = make()
    site.point(FULL)
    site.insert("one")
    found = []
    hold = site.nodes["NODE1"].faults.add("hold", at_percent=50, command="BACKUP DATABASE")
    full = threading.Thread(target=lambda: found.append(site.backup(FULL)))
    full.start()
    try:
        assert hold.reached.wait(20)
        outcome = site.backup(LOG)
        assert site.taken_on(outcome.points[0]) == "NODE1"
        assert "a full or differential is being taken on NODE1" in outcome.notes[0].text
        site.group.preference = "SECONDARY_ONLY"
        with pytest.raises(BackupPaused, match="waits"):
            site.backup(LOG)
    finally:
        hold.released.set()
        full.join()
    assert site.taken_on(site.point(LOG)) == "NODE2"
    assert site.restored() == ["before", "one"]


def test_log_that_another_tool_took_on_the_other_replica_is_named(make: MakeSite) -> None:
    site = make()
    site.point(FULL)
    site.insert("one")
    site.point(LOG)
    site.insert("stolen")
    site.foreign_log("NODE1", "theirs")
    site.insert("two")
    outcome = site.backup(LOG)
    assert [point.type for point in outcome.points] == [DIFFERENTIAL]
    assert "'theirs'" in outcome.notes[-1].text
    assert "on NODE1" in outcome.notes[-1].text
    site.insert("three")
    assert site.taken_on(site.point(LOG)) == "NODE2"
    assert site.restored() == ["before", "one", "stolen", "two", "three"]


def test_a_secondary_that_is_behind_proves_no_instant_that_it_has_not_seen(
    make: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sqlbak.engines.sqlserver.logend._WAIT_SECONDS", 0.0)
    site = make()
    site.point(FULL)
    site.advance(minutes=1)
    site.insert("one")
    site.advance(minutes=1)
    site.point(LOG)
    proven = max(window.end for window in site.windows())
    site.group.hold(site.nodes["NODE2"].instance)
    site.insert("not received yet")
    site.advance(minutes=5)
    late = site.backup(LOG)
    assert late.points[0].covers_until is None
    assert "behind" in late.notes[0].text
    assert max(window.end for window in site.windows()) == proven
    with pytest.raises(SqlbakError):
        site.restored(site.now())
    site.group.catch_up(site.nodes["NODE2"].instance)
    site.advance(minutes=5)
    site.point(LOG)
    assert max(window.end for window in site.windows()) > proven
    assert site.restored(START.replace(minute=4)) == ["before", "one", "not received yet"]


def test_where_the_end_of_the_log_is_hidden_only_a_log_of_the_primary_proves_an_instant(
    make: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sqlbak.engines.sqlserver.logend._end_of_log", lambda *_: None)
    site = make()
    site.point(FULL)
    assert site.point(LOG).covers_until is None
    site.group.preference = "PRIMARY"
    assert site.point(LOG).covers_until is not None


@pytest.mark.parametrize(
    ("written", "position"),
    [
        ("0000002f:00000a68:0001", 47000000266400001),
        ("ffffffff:ffffffff:ffff", 4294967295429496729565535),
        ("47:2664", None),
        ("47:2664:x", None),
        ("", None),
    ],
)
def test_positions_are_read_as_the_server_writes_them(written: str, position: int | None) -> None:
    assert position_of(written) == position


def test_instants_are_those_of_the_primarys_clock_and_zone(make: MakeSite) -> None:
    site = make(zones=["Europe/Berlin", "America/New_York"])
    site.nodes["NODE2"].clock.skew = site.now() - START.replace(minute=0, hour=5)
    site.point(FULL)
    for number in range(3):
        site.advance(minutes=1)
        site.insert(f"row {number}")
        site.advance(seconds=30)
        point = site.point(LOG)
        assert site.taken_on(point) == "NODE2"
        assert abs(point.started_at - site.now()).total_seconds() < 1
        facts = site.manifest(point).facts or {}
        assert facts["server"]["utc_offset_minutes"] == -240
        assert facts["log_clock"]["utc_offset_minutes"] == 120
    for number in (1, 2, 3):
        instant = site.instants[number + 1]
        assert site.restored(instant) == site.states[number + 1]
        assert site.restored(instant - timedelta(seconds=1)) == site.states[number]


def test_a_log_of_several_zones_is_restored_to_its_ends_only(make: MakeSite) -> None:
    site = make(zones=["Europe/Berlin", "America/New_York"], preference="PRIMARY")
    site.point(FULL)
    site.advance(minutes=1)
    site.insert("one")
    before = site.point(LOG)
    for number, name in enumerate(["NODE2", "NODE1"]):
        site.insert(f"row {number}")
        site.fail_over(name)
        site.insert(f"after {number}")
    inside = site.instants[-3]
    site.advance(minutes=1)
    mixed = site.point(LOG)
    assert site.taken_on(mixed) == "NODE1"
    with pytest.raises(InstantUnreachable, match="different zones"):
        site.restored(inside)
    assert site.restored(before.id) == ["before", "one"]
    rows = ["before", "one", "row 0", "after 0", "row 1", "after 1"]
    assert site.restored(mixed.id) == rows
    site.advance(minutes=1)
    site.insert("later")
    site.advance(minutes=1)
    site.point(LOG)
    assert site.restored(site.instants[-1]) == [*rows, "later"]
    site.group.preference = "SECONDARY"
    assert any(one.code == "replicas_in_zones" for one in site.inspect().problems)


def test_a_failover_between_backups_goes_on_with_one_chain(make: MakeSite) -> None:
    site = make(count=3)
    site.point(FULL)
    lasts = []
    for number, name in enumerate(["NODE2", "NODE3", "NODE1", "NODE2"]):
        site.advance(minutes=1)
        site.insert(f"row {number}")
        lasts.append(site.point(LOG))
        site.fail_over(name)
    site.point(LOG)
    site.point(DIFFERENTIAL)
    assert [one.first_lsn for one in lasts[1:]] == [one.last_lsn for one in lasts[:-1]]
    assert len(site.items()) == 1
    assert len({point.lineage for point in site.points()}) == 1
    assert site.restored() == ["before", *(f"row {number}" for number in range(4))]


@pytest.mark.parametrize(
    ("kind", "is_folder_shared"),
    [(FULL, False), (DIFFERENTIAL, True), (LOG, False)],
)
def test_a_failover_in_the_middle_of_a_backup_leaves_no_point(
    make: MakeSite, kind, is_folder_shared: bool
) -> None:
    site = make(is_folder_shared=is_folder_shared)
    site.point(FULL)
    site.insert("one")
    site.point(LOG)
    site.insert("two")
    before = site.points()
    node = "NODE2" if kind is LOG else "NODE1"
    site.nodes[node].faults.add("call", at_percent=50, action=lambda: site.fail_over("NODE2"))
    with pytest.raises((BackupFailed, ServerNotReady)):
        site.backup(kind)
    assert site.points() == before
    site.insert("three")
    assert site.taken_on(site.point(kind)) == ("NODE1" if kind is LOG else "NODE2")
    site.point(LOG)
    assert site.restored() == ["before", "one", "two", "three"]
    assert site.leftovers() == []
    assert len(site.items()) == 1


@pytest.mark.parametrize(
    ("is_folder_shared", "primary"), [(False, "NODE1"), (True, "NODE1"), (False, "NODE2")]
)
def test_a_log_that_was_not_shipped_is_found_on_the_replica_that_took_it(
    make: MakeSite, monkeypatch: pytest.MonkeyPatch, is_folder_shared: bool, primary: str
) -> None:
    site = make(is_folder_shared=is_folder_shared)
    site.point(FULL)
    site.insert("one")

    def broken(*_: object, **__: object) -> int:
        raise BackupFailed("the vault is away")

    with monkeypatch.context() as patch:
        patch.setattr("sqlbak.engines.sqlserver.backing.Backing.ship", broken)
        with pytest.raises(BackupFailed):
            site.backup(LOG)
    site.group.preference = "PRIMARY"
    site.fail_over(primary)
    site.insert("two")
    outcome = site.backup(LOG)
    assert [site.taken_on(point) for point in outcome.points] == ["NODE2", primary]
    assert site.restored() == ["before", "one", "two"]
    assert site.leftovers() == []


def test_a_log_that_the_primary_never_heard_of_is_taken_again(
    make: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make()
    site.point(FULL)
    site.insert("one")
    database = site.primary.database("Sales")
    begin = database.last_log_backup_lsn
    records = list(database.log)
    with monkeypatch.context() as patch:
        patch.setattr(
            "sqlbak.engines.sqlserver.backing.Backing.ship",
            lambda *_: (_ for _ in ()).throw(BackupFailed("the secondary lost its primary")),
        )
        with pytest.raises(BackupFailed):
            site.backup(LOG)
    # The secondary wrote the file, but could not tell the primary any more.
    database.last_log_backup_lsn = begin
    database.log[:0] = [one for one in records if one.lsn < database.log_from]
    database.log_from = begin or 0
    site.insert("two")
    outcome = site.backup(LOG)
    assert [point.first_lsn for point in outcome.points] == [begin]
    assert "broke off was removed" in outcome.notes[0].text
    site.insert("three")
    site.point(LOG)
    assert site.restored() == ["before", "one", "two", "three"]
    assert len(site.items()) == 1


def test_a_forced_failover_with_loss_begins_a_new_lineage_and_the_old_stays(
    make: MakeSite,
) -> None:
    site = make(preference="PRIMARY")
    site.point(FULL)
    site.insert("one")
    site.group.hold(site.nodes["NODE2"].instance)
    site.advance(minutes=1)
    site.insert("lost with the old primary")
    lost = site.instants[-1]
    site.advance(minutes=1)
    old = site.point(LOG)
    site.advance(minutes=1)
    site.fail_over("NODE2", forced=True)
    site.insert("two")
    site.advance(minutes=1)
    outcome = site.backup(LOG)
    assert [point.type for point in outcome.points] == [FULL]
    site.insert("three")
    site.point(LOG)
    assert site.restored() == ["before", "one", "two", "three"]
    rows = site.restored(lost, lineage=old.lineage)
    assert rows == ["before", "one", "lost with the old primary"]


def with_least_grants(site: GroupSite, *, without: str = "") -> None:
    """The login of the documentation on every server, with one SID."""
    once, in_each = documented()
    sids = []
    for node in site.nodes.values():
        database = "master"
        sids.append(node.create_login("sqlbak", node.sa_password))
        sids[-1].sid = sids[0].sid
        for statement in (*once[1:], "GRANT VIEW ANY DEFINITION TO sqlbak"):
            if statement.startswith("USE "):
                database = statement.removeprefix("USE ")
            elif not without or without not in statement:
                node.execute(statement, database=database)
    for statement in in_each:
        site.primary.execute(statement, database="Sales")
    site.user = "sqlbak"
    site.write_policy()


def test_the_documented_grants_are_enough_on_every_server(make: MakeSite) -> None:
    site = make()
    with_least_grants(site)
    assert not [one for one in site.inspect("erp").problems if one.code != "wire_in_clear"]
    for kind, node in ((FULL, "NODE1"), (LOG, "NODE2"), (DIFFERENTIAL, "NODE1")):
        assert site.taken_on(site.point(kind)) == node


def test_grants_that_a_group_needs_are_named_where_they_are_missing(make: MakeSite) -> None:
    site = make()
    with_least_grants(site, without="VIEW ANY DEFINITION")
    site.point(FULL)
    assert site.taken_on(site.point(LOG)) == "NODE2"
    hidden = [one for one in site.inspect().problems if one.code == "group_hidden"]
    assert [one.remedy for one in hidden] == ["GRANT VIEW ANY DEFINITION TO [sqlbak]"]
    site.nodes["NODE2"].stop()
    with pytest.raises(BackupPaused, match=r"NODE2: .*nothing answers.*VIEW ANY DEFINITION"):
        site.backup(LOG)
    for node in site.nodes.values():
        node.execute("REVOKE VIEW SERVER STATE TO sqlbak")
    with pytest.raises(ServerRefused) as refused:
        site.backup(LOG)
    assert "VIEW SERVER STATE" in (refused.value.hint or "")


def test_two_instances_of_one_group_are_not_backed_up_twice(make: MakeSite) -> None:
    site = make(host="NODE1", preference="PRIMARY")
    site.more_instances = {"another": "NODE1", "lonely": "NODE2"}
    site.write_policy()
    site.point(FULL)
    site.insert("one")
    for item in ("another/Sales", "lonely/Sales"):
        with pytest.raises(ServerNotReady, match="erp/Sales") as refused:
            site.backup(LOG, item)
        assert "replicas: of erp" in (refused.value.hint or "")
        assert any(one.code == "backed_up_twice" for one in site.inspect(item).problems)
    site.point(LOG)
    assert site.items() == ["erp/Sales"]


def test_of_two_instances_without_replicas_the_one_at_the_primary_takes_the_backups(
    make: MakeSite,
) -> None:
    site = make(configured=(), preference="PRIMARY", host="NODE1")
    site.more_instances = {"another": "NODE2"}
    site.write_policy()
    site.point(FULL)
    with pytest.raises(ServerNotReady, match="erp/Sales"):
        site.backup(FULL, "another/Sales")
    site.fail_over("NODE2")
    assert site.backup(FULL, "another/Sales").points
    with pytest.raises(ServerNotReady, match="another/Sales"):
        site.backup(LOG)
