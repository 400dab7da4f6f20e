"""What each backup makes of the log chain and of the differential base."""

from __future__ import annotations

import pytest

from .instance import Unknowns
from .rules import Rules
from .simulator import Simulator


@pytest.fixture
def rules(simulator: Simulator) -> Rules:
    simulator.create_database("shop", rows=["a"])
    return Rules(simulator)


def state(rules: Rules, columns: str = "last_log_backup_lsn") -> object:
    return rules.simulator.execute(
        f"SELECT {columns} FROM sys.database_recovery_status WHERE database_id = DB_ID('shop')"
    )[0][0]


def base(rules: Rules) -> object:
    return rules.simulator.execute(
        "SELECT differential_base_guid FROM sys.master_files WHERE database_id = DB_ID('shop') "
        "AND file_id = 1"
    )[0][0]


def test_before_the_first_full_there_is_no_log_and_no_differential(rules: Rules) -> None:
    rules.refused("BACKUP LOG shop TO DISK = '/backup/x'", 4214, 3013)
    rules.refused("BACKUP DATABASE shop TO DISK = '/backup/x' WITH DIFFERENTIAL", 3035, 3013)
    assert state(rules) is None


def test_the_first_log_begins_at_the_first_full_and_not_at_the_latest(rules: Rules) -> None:
    first = rules.header(rules.full())
    rules.simulator.insert("shop", "b")
    rules.full()
    log = rules.header(rules.log())
    assert log.first_lsn == first.first_lsn
    assert log.begins_log_chain


def test_logs_follow_each_other_without_a_gap_across_fulls_and_differentials(rules: Rules) -> None:
    rules.full()
    rules.simulator.insert("shop", "b")
    first = rules.header(rules.log())
    rules.full()
    rules.simulator.insert("shop", "c")
    rules.differential()
    second = rules.header(rules.log())
    assert second.first_lsn == first.last_lsn
    assert not second.begins_log_chain
    assert second.last_lsn > second.first_lsn


def test_an_idle_database_gives_an_empty_log(rules: Rules) -> None:
    rules.full()
    rules.log()
    empty = rules.header(rules.log())
    assert empty.first_lsn == empty.last_lsn
    assert empty.last_valid_restore_time is None


def test_copy_only_changes_neither_chain_nor_base(rules: Rules) -> None:
    rules.full()
    was, where = base(rules), state(rules)
    rules.simulator.insert("shop", "b")
    rules.full(options=", COPY_ONLY")
    copied = rules.header(rules.log(options=", COPY_ONLY"))
    assert (base(rules), state(rules)) == (was, where)
    log = rules.header(rules.log())
    assert log.first_lsn == copied.first_lsn


def test_a_differential_names_its_base_by_set_and_checkpoint(rules: Rules) -> None:
    full = rules.header(rules.full())
    differential = rules.header(rules.differential())
    assert differential.differential_base_guid == full.backup_set_uuid
    assert differential.differential_base_lsn == full.checkpoint_lsn
    assert differential.database_backup_lsn == full.checkpoint_lsn
    assert differential.flags == 2560


def test_copy_only_is_ignored_with_differential(rules: Rules) -> None:
    rules.full()
    assert not rules.header(rules.differential(options=", COPY_ONLY")).is_copy_only


def test_a_foreign_full_and_a_vss_snapshot_move_the_base(rules: Rules) -> None:
    full = rules.full()
    rules.simulator.snapshot_backup("shop")
    differential = rules.differential()
    assert rules.header(differential).differential_base_guid != (rules.header(full).backup_set_uuid)
    rules.restore(full)
    rules.refused(f"RESTORE DATABASE copy FROM DISK = '{differential}' WITH NORECOVERY", 3136, 3013)
    device = rules.simulator.execute(
        "SELECT f.physical_device_name, f.device_type, s.is_snapshot FROM msdb.dbo.backupset s "
        "JOIN msdb.dbo.backupmediafamily f ON f.media_set_id = s.media_set_id "
        "WHERE s.is_snapshot = 1"
    )
    assert device[0][1:] == (7, True)
    assert device[0][0].startswith("{")


def test_a_log_to_nul_steals_its_part_of_the_chain(rules: Rules) -> None:
    full = rules.full()
    rules.simulator.insert("shop", "b")
    rules.simulator.execute("BACKUP LOG shop TO DISK = N'NUL'")
    rules.simulator.insert("shop", "c")
    late = rules.log()
    rules.restore(full)
    texts = rules.refused(f"RESTORE LOG copy FROM DISK = '{late}' WITH NORECOVERY", 4305, 3013)
    assert str(rules.header(late).first_lsn) in texts[0]


def test_simple_ends_the_chain_and_a_differential_begins_it_again(rules: Rules) -> None:
    full = rules.full()
    rules.simulator.execute(
        "ALTER DATABASE shop SET RECOVERY SIMPLE; ALTER DATABASE shop SET RECOVERY FULL"
    )
    rules.refused("BACKUP LOG shop TO DISK = '/backup/x'", 4214, 3013)
    rules.simulator.insert("shop", "b")
    differential = rules.differential()
    rules.simulator.insert("shop", "c")
    log = rules.log()
    assert rules.header(log).begins_log_chain
    rules.restore(full)
    rules.restore(differential)
    rules.apply(log)
    assert rules.recover() == ["a", "b", "c"]


def test_bulk_changes_mark_the_next_log_only(rules: Rules) -> None:
    rules.full()
    rules.simulator.execute("ALTER DATABASE shop SET RECOVERY BULK_LOGGED")
    rules.simulator.bulk_insert("shop", "b", "c")
    assert rules.header(rules.log()).has_bulk_logged_data
    rules.simulator.insert("shop", "d")
    assert not rules.header(rules.log()).has_bulk_logged_data


def test_the_log_before_an_open_transaction_belongs_to_the_full(
    rules: Rules, simulator: Simulator, connect
) -> None:
    open_one = connect().cursor()
    open_one.execute("BEGIN TRAN; INSERT INTO shop.dbo.t (v) VALUES (N'open')")
    full = rules.full()
    facts = rules.header(full)
    assert facts.first_lsn < facts.checkpoint_lsn < facts.last_lsn
    open_one.execute("COMMIT")
    log = rules.log()
    rules.restore(full)
    rules.restore(full, "other", "RECOVERY")
    assert simulator.rows("other") == ["a"]
    rules.apply(log)
    assert rules.recover() == ["a", "open"]


def test_writes_during_a_full_are_in_it(rules: Rules, simulator: Simulator) -> None:
    simulator.faults.add(
        "call", at_percent=50, action=lambda: simulator.insert("shop", "meanwhile")
    )
    full = rules.full()
    rules.restore(full, options="RECOVERY")
    assert simulator.rows("copy") == ["a", "meanwhile"]


def test_a_log_may_be_taken_while_a_full_runs(rules: Rules, simulator: Simulator) -> None:
    rules.full()
    taken: list[str] = []
    simulator.faults.add(
        "call",
        at_percent=50,
        command="BACKUP DATABASE",
        action=lambda: (simulator.insert("shop", "b"), taken.append(rules.log())),
    )
    full = rules.full()
    simulator.insert("shop", "c")
    last = rules.log()
    assert rules.header(taken[0]).last_lsn < rules.header(full).last_lsn
    rules.restore(full)
    rules.refused(f"RESTORE LOG copy FROM DISK = '{taken[0]}' WITH NORECOVERY", 4326, 3013)
    rules.apply(last)
    assert rules.recover() == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("sql", "numbers"),
    [
        ("BACKUP LOG master TO DISK = '/backup/x'", (4212, 3013)),
        ("BACKUP DATABASE master TO DISK = '/backup/x' WITH DIFFERENTIAL", (3024, 3013)),
        ("BACKUP DATABASE tempdb TO DISK = '/backup/x'", (3147, 3013)),
        ("BACKUP DATABASE shop TO DISK = '/backup/x' WITH FORMAT, NOFORMAT", (3031, 3013)),
        ("BACKUP DATABASE shop TO DISK = '/backup/x' WITH MAXTRANSFERSIZE = 100", (3250, 3013)),
        ("BACKUP DATABASE shop TO DISK = '/backup/x' WITH NORECOVERY", (3032, 3013)),
        ("BACKUP DATABASE shop TO URL = 's3:/host/b/x.bak'", (3078, 3013)),
        ("BACKUP DATABASE shop TO TAPE_1", (3206, 3013)),
        ("BACKUP DATABASE shop TO DISK = ''", (3044, 3013)),
        ("BACKUP DATABASE shop TO DISK = '/backup/x', URL = 's3://h/b/x'", (3011, 3013)),
    ],
)
def test_a_backup_that_cannot_be_is_refused(
    rules: Rules, sql: str, numbers: tuple[int, ...]
) -> None:
    rules.full()
    rules.refused(sql, *numbers)


@pytest.mark.parametrize(
    ("state", "number"), [("RESTORING", 927), ("OFFLINE", 942), ("SUSPECT", 926)]
)
def test_a_database_that_is_not_online_is_not_backed_up(
    rules: Rules, state: str, number: int
) -> None:
    rules.full()
    rules.simulator.database("shop").state = state
    rules.refused("BACKUP DATABASE shop TO DISK = '/backup/x'", number, 3013)


def test_the_tail_of_a_damaged_database_is_taken_with_no_truncate(rules: Rules) -> None:
    full = rules.full()
    rules.simulator.insert("shop", "b")
    rules.simulator.database("shop").state = "SUSPECT"
    rules.refused("BACKUP LOG shop TO DISK = '/backup/x'", 926, 3013)
    tail = rules.log(options=", NO_TRUNCATE")
    assert rules.header(tail).has_incomplete_metadata
    rules.restore(full)
    rules.apply(tail)
    assert rules.recover() == ["a", "b"]


def test_a_damaged_page_fails_a_backup_unless_errors_are_to_be_passed(rules: Rules) -> None:
    rules.simulator.database("shop").is_damaged = True
    rules.refused("BACKUP DATABASE shop TO DISK = '/backup/x' WITH CHECKSUM", 3043, 3013)
    passed = rules.full(options=", CHECKSUM, CONTINUE_AFTER_ERROR")
    assert rules.header(passed).is_damaged
    rules.refused(f"RESTORE DATABASE copy FROM DISK = '{passed}'", 3182, 3013)
    rules.restore(passed, options="NORECOVERY, CONTINUE_AFTER_ERROR")
    log = rules.log()
    rules.refused(f"RESTORE LOG copy FROM DISK = '{log}' WITH NORECOVERY", 4323, 3013)
    rules.apply(log, options="RECOVERY, CONTINUE_AFTER_ERROR")
    rules.refused("DBCC CHECKDB (copy) WITH NO_INFOMSGS", 8939, 8990, 8958)


def test_a_database_snapshot_is_not_backed_up(rules: Rules, simulator: Simulator) -> None:
    simulator.execute(
        "CREATE DATABASE snap ON (NAME = shop, FILENAME = '/var/opt/mssql/data/s.ss') "
        "AS SNAPSHOT OF shop"
    )
    rules.refused("BACKUP DATABASE snap TO DISK = '/backup/x'", 3002, 3013)
    rules.full()
    simulator.insert("shop", "b")
    simulator.execute("RESTORE DATABASE shop FROM DATABASE_SNAPSHOT = 'snap'")
    assert simulator.rows("shop") == ["a"]
    rules.refused("BACKUP LOG shop TO DISK = '/backup/x'", 4214, 3013)
    last = simulator.execute("SELECT restore_type FROM msdb.dbo.restorehistory")
    assert last == [("R",)]


def test_a_second_backup_waits_and_then_gives_up(
    rules: Rules, simulator: Simulator, connect
) -> None:
    hold = simulator.faults.add("hold", at_percent=50, command="BACKUP DATABASE")
    first, second = connect().cursor(), connect().cursor()
    import threading

    thread = threading.Thread(
        target=lambda: first.execute("BACKUP DATABASE shop TO DISK = '/backup/one'")
    )
    thread.start()
    assert hold.reached.wait(10)
    second.execute("SET LOCK_TIMEOUT 50")
    with pytest.raises(Exception, match="must be serialized") as error:
        second.execute("BACKUP DATABASE shop TO DISK = '/backup/two'")
    assert error.value.args[0] == 3023
    running = simulator.execute(
        "SELECT command, percent_complete FROM sys.dm_exec_requests WHERE command LIKE 'BACKUP%'"
    )
    assert running == [("BACKUP DATABASE", 50.0)]
    hold.released.set()
    thread.join()


def test_what_is_unknown_can_be_answered_either_way(media) -> None:
    unknowns = Unknowns(first_log_after_differential_begins_chain=False)
    simulator = Simulator({"/backup": media}, unknowns=unknowns)
    simulator.create_database("shop")
    rules = Rules(simulator)
    rules.full()
    simulator.execute(
        "ALTER DATABASE shop SET RECOVERY SIMPLE; ALTER DATABASE shop SET RECOVERY FULL"
    )
    rules.differential()
    assert not rules.header(rules.log()).begins_log_chain
