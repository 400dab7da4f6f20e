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
