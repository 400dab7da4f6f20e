"""Availability groups: one database on several instances, backed up where it is preferred."""

from __future__ import annotations

from pathlib import Path

import pytest

from .availability import AvailabilityGroup
from .rules import Rules
from .simulator import Simulator

Pair = tuple[Rules, Rules, AvailabilityGroup]


@pytest.fixture
def pair(media: Path) -> Pair:
    first = Simulator({"/backup": media}, server_name="NODE1")
    second = Simulator({"/backup": media}, server_name="NODE2")
    first.create_database("shop", rows=["a"])
    group = first.group("sales", ["shop"], [second])
    rules = Rules(second)
    rules.count = 100
    return Rules(first), rules, group


def preferred(rules: Rules) -> bool:
    found = rules.simulator.execute("SELECT sys.fn_hadr_backup_is_preferred_replica('shop')")
    return bool(found[0][0])


def test_the_preference_names_one_replica(pair: Pair) -> None:
    primary, secondary, group = pair
    assert (preferred(primary), preferred(secondary)) == (False, True)
    group.preference = "PRIMARY"
    assert (preferred(primary), preferred(secondary)) == (True, False)
    group.preference = "SECONDARY"
    group.not_synchronizing.add("NODE2")
    assert (preferred(primary), preferred(secondary)) == (True, False)
    group.preference = "SECONDARY_ONLY"
    assert (preferred(primary), preferred(secondary)) == (False, False)
    primary.simulator.create_database("alone")
    alone = "SELECT sys.fn_hadr_backup_is_preferred_replica('alone')"
    assert primary.simulator.execute(alone) == [(True,)]


def test_a_secondary_takes_logs_and_copies_only(pair: Pair) -> None:
    primary, secondary, group = pair
    primary.full()
    for sql in (
        "BACKUP DATABASE shop TO DISK = '/backup/x'",
        "BACKUP DATABASE shop TO DISK = '/backup/x' WITH DIFFERENTIAL",
        "BACKUP LOG shop TO DISK = '/backup/x' WITH COPY_ONLY",
    ):
        secondary.refused(sql, 3059, 3013)
    secondary.full(options=", COPY_ONLY")
    group.not_synchronizing.add("NODE2")
    secondary.refused("BACKUP LOG shop TO DISK = '/backup/x'", 3062, 3013)


def test_logs_of_all_replicas_make_one_chain_across_a_failover(pair: Pair) -> None:
    primary, secondary, group = pair
    full = primary.full()
    primary.simulator.insert("shop", "b")
    first = secondary.log()
    group.fail_over(secondary.simulator.instance)
    secondary.simulator.insert("shop", "c")
    second = primary.log()
    assert primary.header(second).first_lsn == secondary.header(first).last_lsn
    role = secondary.simulator.execute(
        "SELECT role_desc FROM sys.dm_hadr_availability_replica_states WHERE is_local = 1"
    )
    assert role == [("PRIMARY",)]
    primary.restore(full)
    primary.apply(first)
    primary.apply(second)
    assert primary.recover() == ["a", "b", "c"]
    count = "SELECT COUNT(*) FROM msdb.dbo.backupset"
    assert secondary.simulator.execute(count) == [(1,)]


def test_a_database_of_a_group_is_not_restored_over(pair: Pair) -> None:
    primary, _, _ = pair
    full = primary.full()
    primary.refused(f"RESTORE DATABASE shop FROM DISK = '{full}' WITH REPLACE", 3104, 3013)
    primary.refused("BACKUP LOG shop TO DISK = '/backup/x' WITH NORECOVERY", 3104, 3013)


def test_only_the_primary_is_written(pair: Pair) -> None:
    _, secondary, _ = pair
    secondary.refused("INSERT INTO shop.dbo.t (v) VALUES (N'x')", 3906)


def test_backup_priority_orders_replicas_and_zero_excludes_one(media: Path) -> None:
    nodes = [Simulator({"/backup": media}, server_name=f"NODE{number}") for number in (1, 2, 3)]
    nodes[0].create_database("shop")
    group = nodes[0].group("sales", ["shop"], nodes[1:])
    all_rules = [Rules(node) for node in nodes]
    group.priorities = {"NODE2": 20, "NODE3": 80}
    assert [preferred(rules) for rules in all_rules] == [False, False, True]
    group.priorities["NODE3"] = 0
    assert [preferred(rules) for rules in all_rules] == [False, True, False]
    group.priorities["NODE2"] = 0
    assert [preferred(rules) for rules in all_rules] == [True, False, False]
    group.preference = "SECONDARY_ONLY"
    assert [preferred(rules) for rules in all_rules] == [False, False, False]
    group.preference = "NONE"
    assert [preferred(rules) for rules in all_rules] == [True, False, False]


def test_a_secondary_gives_out_the_log_that_it_has(pair: Pair) -> None:
    primary, secondary, group = pair
    full = primary.full()
    primary.simulator.insert("shop", "b")
    group.hold(secondary.simulator.instance)
    primary.simulator.insert("shop", "c")
    first = secondary.log()
    group.catch_up(secondary.simulator.instance)
    second = secondary.log()
    assert secondary.header(second).first_lsn == secondary.header(first).last_lsn
    primary.restore(full)
    primary.apply(first)
    assert primary.recover() == ["a", "b"]


def test_a_forced_failover_loses_what_was_not_received_on_a_new_fork(pair: Pair) -> None:
    primary, secondary, group = pair
    primary.full()
    old = primary.simulator.database("shop").fork
    group.hold(secondary.simulator.instance)
    primary.simulator.insert("shop", "lost")
    group.fail_over(secondary.simulator.instance, forced=True)
    secondary.simulator.insert("shop", "b")
    assert secondary.simulator.rows("shop") == ["a", "b"]
    log = secondary.header(secondary.log())
    assert log.first_recovery_fork_guid == old
    assert log.last_recovery_fork_guid == secondary.simulator.database("shop").fork != old


def test_each_replica_has_a_binding_of_its_own_and_one_name_for_the_database(pair: Pair) -> None:
    names, bindings = set(), set()
    for rules in pair[:2]:
        names.update(rules.simulator.execute("SELECT group_database_id FROM sys.databases AS d"))
        bindings.update(
            rules.simulator.execute(
                "SELECT r.database_guid FROM sys.database_recovery_status AS r"
                " JOIN sys.databases AS d ON d.database_id = r.database_id WHERE d.name = 'shop'"
            )
        )
    assert (len(names - {(None,)}), len(bindings)) == (1, 2)
