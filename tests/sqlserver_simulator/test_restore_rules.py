"""What a RESTORE accepts, what it refuses and what it leaves behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from .instance import Unknowns
from .rules import Rules
from .simulator import Simulator


@pytest.fixture
def rules(simulator: Simulator) -> Rules:
    simulator.create_database("shop", rows=["a"])
    return Rules(simulator)


def restore(path: str, kind: str = "DATABASE", name: str = "copy", options: str = "") -> str:
    return f"RESTORE {kind} {name} FROM DISK = '{path}' WITH NORECOVERY{options}"


def test_full_differential_and_logs_bring_back_every_row(
    rules: Rules, simulator: Simulator
) -> None:
    full = rules.full()
    simulator.insert("shop", "b")
    rules.log()
    simulator.execute("UPDATE shop.dbo.t SET v = N'A' WHERE v = N'a'")
    differential = rules.differential()
    simulator.execute("DELETE FROM shop.dbo.t WHERE v = N'b'; INSERT shop.dbo.t VALUES (N'c')")
    log = rules.log()
    rules.restore(full)
    rules.restore(differential)
    rules.apply(log)
    assert rules.recover() == ["A", "c"]
    history = simulator.execute(
        "SELECT restore_type, recovery FROM msdb.dbo.restorehistory ORDER BY restore_history_id"
    )
    assert history == [("D", False), ("I", False), ("L", False)]


def test_a_table_dropped_and_made_again_is_right_in_a_differential(
    rules: Rules, simulator: Simulator
) -> None:
    full = rules.full()
    simulator.execute("DROP TABLE shop.dbo.t; CREATE TABLE shop.dbo.t (v nvarchar(9))")
    simulator.insert("shop", "new")
    simulator.execute("SELECT v INTO shop.dbo.other FROM shop.dbo.t")
    differential = rules.differential()
    rules.restore(full)
    rules.restore(differential, options="RECOVERY")
    assert simulator.rows("copy") == ["new"]
    assert simulator.rows("copy", "other") == ["new"]


def test_a_log_needs_a_database_that_is_restoring(rules: Rules) -> None:
    full = rules.full()
    rules.simulator.insert("shop", "b")
    log = rules.log()
    rules.refused(restore(log, "LOG", "nowhere"), 3118, 3013)
    rules.refused(restore(log, "LOG", "shop"), 3117, 3013)
    rules.restore(full)
    rules.refused(restore(full, "LOG"), 3135, 3013)
    rules.refused(restore(log), 3135, 3013)
    rules.refused("RESTORE DATABASE shop WITH RECOVERY", 3153, 3013)


def test_logs_go_in_order_and_an_earlier_one_is_refused(rules: Rules) -> None:
    full = rules.full()
    logs = []
    for value in "bcd":
        rules.simulator.insert("shop", value)
        logs.append(rules.log())
    rules.restore(full)
    rules.refused(restore(logs[1], "LOG"), 4305, 3013)
    rules.apply(logs[0])
    rules.apply(logs[1])
    rules.refused(restore(logs[0], "LOG"), 4326, 3013)
    redo = rules.simulator.execute(
        "SELECT redo_start_lsn FROM sys.master_files WHERE database_id = DB_ID('copy') "
        "AND file_id = 1"
    )
    assert redo == [(rules.header(logs[1]).last_lsn,)]
    rules.apply(logs[2])
    assert rules.recover() == ["a", "b", "c", "d"]


@pytest.mark.parametrize("accepted", [True, False])
def test_an_empty_log_at_the_restored_position(media: Path, accepted: bool) -> None:
    simulator = Simulator({"/backup": media}, unknowns=Unknowns(empty_log_restores=accepted))
    simulator.create_database("shop")
    rules = Rules(simulator)
    full = rules.full()
    simulator.insert("shop", "b")
    log, empty = rules.log(), rules.log()
    rules.restore(full)
    rules.apply(log)
    if accepted:
        rules.apply(empty)
    else:
        rules.refused(restore(empty, "LOG"), 4326, 3013)
    assert rules.recover() == ["b"]


def test_a_recovery_forks_and_both_branches_use_the_same_lsns(
    rules: Rules, simulator: Simulator
) -> None:
    full = rules.full()
    simulator.insert("shop", "b")
    first = rules.log()
    simulator.insert("shop", "old branch")
    old = rules.log()
    simulator.execute(restore(full, name="shop", options=", REPLACE"))
    simulator.execute(restore(first, "LOG", "shop"))
    rules.recover("shop")
    simulator.insert("shop", "new branch")
    new = rules.log()
    old_facts, new_facts = rules.header(old), rules.header(new)
    assert new_facts.first_lsn == old_facts.first_lsn
    assert new_facts.fork_point_lsn == new_facts.first_lsn
    assert new_facts.first_recovery_fork_guid == old_facts.last_recovery_fork_guid
    assert new_facts.last_recovery_fork_guid != old_facts.last_recovery_fork_guid
    assert new_facts.family_guid == old_facts.family_guid
    assert new_facts.database_guid == old_facts.database_guid
    simulator.insert("shop", "later")
    later = rules.log()
    assert rules.header(later).fork_point_lsn is None

    rules.restore(full)
    rules.apply(first)
    rules.apply(new)
    rules.apply(later)
    assert rules.recover() == ["a", "b", "new branch", "later"]
    rules.restore(full, "second")
    rules.apply(first, "second")
    rules.apply(old, "second")
    rules.refused(restore(new, "LOG", "second"), 4330, 3013)
    assert rules.recover("second") == ["a", "b", "old branch"]


def test_a_copy_gets_a_guid_of_its_own_and_keeps_the_family(rules: Rules) -> None:
    facts = rules.header(rules.full())
    rules.restore(rules.full(), options="RECOVERY")
    copied = rules.header(rules.full("copy"))
    assert copied.family_guid == facts.family_guid
    assert copied.database_guid != facts.database_guid


def test_after_a_restore_log_and_differential_go_on_without_a_new_full(
    rules: Rules, simulator: Simulator
) -> None:
    full = rules.full()
    simulator.execute(f"RESTORE DATABASE shop FROM DISK = '{full}' WITH REPLACE")
    simulator.insert("shop", "b")
    differential = rules.header(rules.differential())
    assert differential.differential_base_guid == rules.header(full).backup_set_uuid
    rules.log()


def test_the_tail_of_the_log_is_protected(rules: Rules, simulator: Simulator) -> None:
    full = rules.full()
    simulator.insert("shop", "b")
    rules.refused(f"RESTORE DATABASE shop FROM DISK = '{full}'", 3159, 3013)
    tail = rules.log(options=", NORECOVERY")
    assert rules.header(tail).is_force_offline
    assert simulator.database("shop").state == "RESTORING"
    rules.refused("SELECT * FROM shop.dbo.t", 927)
    simulator.execute(restore(full, name="shop"))
    simulator.execute(restore(tail, "LOG", "shop"))
    assert rules.recover("shop") == ["a", "b"]


def test_a_tail_can_be_undone_by_recovering(rules: Rules, simulator: Simulator) -> None:
    rules.full()
    simulator.insert("shop", "b")
    tail = rules.header(rules.log(options=", NORECOVERY"))
    assert rules.recover("shop") == ["a", "b"]
    simulator.insert("shop", "c")
    after = rules.header(rules.log())
    assert after.first_lsn == tail.last_lsn
    assert after.fork_point_lsn is None


def test_a_tail_waits_for_no_one(rules: Rules, connect) -> None:
    rules.full()
    cursor = connect().cursor()
    cursor.execute("USE shop")
    rules.refused("BACKUP LOG shop TO DISK = '/backup/t' WITH NORECOVERY", 3101, 3013)
    rules.simulator.execute("ALTER DATABASE shop SET SINGLE_USER WITH ROLLBACK IMMEDIATE")
    rules.log(options=", NORECOVERY")


def test_standby_lets_rows_be_read_between_logs(rules: Rules, simulator: Simulator) -> None:
    full = rules.full()
    simulator.insert("shop", "b")
    log = rules.log()
    rules.restore(full, options="STANDBY = '/backup/undo'")
    assert simulator.rows("copy") == ["a"]
    shown = simulator.execute(
        "SELECT state_desc, is_in_standby FROM sys.databases WHERE name = 'copy'"
    )
    assert shown == [("ONLINE", True)]
    rules.refused("INSERT INTO copy.dbo.t (v) VALUES (N'x')", 3906)
    rules.refused("BACKUP DATABASE copy TO DISK = '/backup/x'", 3036, 3013)
    rules.apply(log, options="STANDBY = '/backup/undo'")
    assert simulator.rows("copy") == ["a", "b"]
    assert rules.recover() == ["a", "b"]


def test_stripes_must_all_be_named(rules: Rules, simulator: Simulator, media: Path) -> None:
    simulator.database("shop").filler_bytes = 1_000_000
    three = ", ".join(f"DISK = '/backup/s{number}.bak'" for number in range(3))
    simulator.execute(f"BACKUP DATABASE shop TO {three} WITH FORMAT, CHECKSUM")
    sizes = [(media / f"s{number}.bak").stat().st_size for number in range(3)]
    assert min(sizes) > 250_000
    label = simulator.execute("RESTORE LABELONLY FROM DISK = '/backup/s1.bak'")
    assert label[0][2:4] == (3, 2)
    two = three.rpartition(",")[0]
    rules.refused(f"RESTORE DATABASE copy FROM {two}", 3132, 3013)
    rules.refused(f"RESTORE VERIFYONLY FROM {two}", 3132, 3013)
    rules.refused(f"RESTORE DATABASE copy FROM {two}, DISK = '/backup/s0.bak'", 3227, 3013)
    simulator.execute("BACKUP DATABASE shop TO DISK = '/backup/other' WITH FORMAT")
    rules.refused(f"RESTORE DATABASE copy FROM {two}, DISK = '/backup/other'", 3258, 3013)
    rules.refused("BACKUP DATABASE shop TO DISK = '/backup/s0.bak'", 3231, 3013)
    swapped = ", ".join(reversed(three.split(", ")))
    simulator.execute(f"RESTORE VERIFYONLY FROM {swapped}")


def test_damage_to_media_is_found(rules: Rules, simulator: Simulator, media: Path) -> None:
    simulator.database("shop").filler_bytes = 300_000
    path = rules.full(options=", CHECKSUM")
    file = media / Path(path).name
    whole = file.read_bytes()
    middle = len(whole) // 2
    file.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    rules.refused(f"RESTORE VERIFYONLY FROM DISK = '{path}'", 3189, 3013)
    file.write_bytes(whole[:middle])
    assert simulator.execute(f"RESTORE HEADERONLY FROM DISK = '{path}'")[0][0] == (
        "*** INCOMPLETE ***"
    )
    rules.refused(f"RESTORE VERIFYONLY FROM DISK = '{path}'", 3203, 3013)
    file.write_bytes(b"garbage" + whole)
    rules.refused(f"RESTORE HEADERONLY FROM DISK = '{path}'", 3241, 3013)
    rules.refused(f"BACKUP DATABASE shop TO DISK = '{path}'", 3241, 3013)
    file.write_bytes(b"")
    rules.refused(f"RESTORE HEADERONLY FROM DISK = '{path}'", 3254, 3013)


def test_checksums_cannot_be_asked_of_a_set_without_them(rules: Rules) -> None:
    path = rules.full()
    rules.refused(f"RESTORE VERIFYONLY FROM DISK = '{path}' WITH CHECKSUM", 3187, 3013)


def test_appending_and_overwriting_media(rules: Rules, simulator: Simulator) -> None:
    path = rules.full()
    simulator.execute(f"BACKUP LOG shop TO DISK = '{path}'")
    simulator.execute(f"BACKUP LOG shop TO DISK = '{path}' WITH NOINIT")
    assert len(simulator.execute(f"RESTORE HEADERONLY FROM DISK = '{path}'")) == 3
    rules.refused(f"BACKUP LOG shop TO DISK = '{path}' WITH COMPRESSION", 3098, 3013)
    before = simulator.execute(f"RESTORE LABELONLY FROM DISK = '{path}'")[0][1]
    simulator.execute(f"BACKUP LOG shop TO DISK = '{path}' WITH INIT")
    assert len(simulator.execute(f"RESTORE HEADERONLY FROM DISK = '{path}'")) == 1
    assert simulator.execute(f"RESTORE LABELONLY FROM DISK = '{path}'")[0][1] == before
    simulator.execute(f"BACKUP LOG shop TO DISK = '{path}' WITH FORMAT, COMPRESSION")
    assert simulator.execute(f"RESTORE LABELONLY FROM DISK = '{path}'")[0][1] != before


def test_a_newer_servers_backup_is_refused_by_an_older_one(media: Path) -> None:
    newer = Simulator({"/backup": media}, year=2025)
    older = Simulator({"/backup": media}, year=2019)
    newer.create_database("shop", rows=["a"])
    older.create_database("attic", rows=["b"])
    Rules(newer).full()
    Rules(older).refused("RESTORE DATABASE shop FROM DISK = '/backup/1.bak'", 3169, 3013)
    Rules(older).full("attic")
    newer.execute("RESTORE DATABASE attic FROM DISK = '/backup/1.bak'")
    assert newer.rows("attic") == ["b"]
    assert len(older.execute("RESTORE HEADERONLY FROM DISK = '/backup/1.bak'")[0]) == 56
    assert len(newer.execute("RESTORE HEADERONLY FROM DISK = '/backup/1.bak'")[0]) == 59


def test_two_files_cannot_go_to_one_place(rules: Rules) -> None:
    full = rules.full()
    where = "/var/opt/mssql/data/same"
    sql = restore(full, options=f", MOVE 'shop' TO '{where}', MOVE 'shop_log' TO '{where}'")
    rules.refused(sql, 3176, 3119, 3013)
    rules.refused(
        restore(full, options=", MOVE 'shop' TO '/no/x', MOVE 'shop_log' TO '/no/y'"),
        5133, 3156, 5133, 3156, 3119, 3013,
    )  # fmt: skip
    rules.simulator.faults.free_data_bytes = 10
    free = ", MOVE 'shop' TO '/backup/a.mdf', MOVE 'shop_log' TO '/backup/b.ldf'"
    rules.refused(restore(full, options=free), 3257, 3013)


def test_an_encrypted_backup_needs_its_certificate(rules: Rules, simulator: Simulator) -> None:
    encryption = ", ENCRYPTION (ALGORITHM = AES_256, SERVER CERTIFICATE = vault)"
    rules.refused(
        f"BACKUP DATABASE shop TO DISK = '/backup/x' WITH FORMAT{encryption}", 15151, 3013
    )
    simulator.instance.certificates["vault"] = bytes(range(20))
    path = rules.full(options=encryption)
    assert rules.header(path).encryptor_thumbprint == bytes(range(20))
    simulator.instance.certificates.clear()
    rules.refused(f"RESTORE VERIFYONLY FROM DISK = '{path}'", 33111, 3013)


def test_options_of_the_database_come_from_the_backup(rules: Rules, simulator: Simulator) -> None:
    simulator.execute("ALTER DATABASE shop SET RESTRICTED_USER WITH ROLLBACK IMMEDIATE")
    full = rules.full()
    rules.restore(full, options="RECOVERY")
    assert simulator.database("copy").user_access == "RESTRICTED_USER"


def test_a_restore_that_dies_leaves_the_database_restoring(
    rules: Rules, simulator: Simulator
) -> None:
    full = rules.full()
    simulator.faults.add("read", at_percent=50, command="RESTORE DATABASE", device=full)
    moves = (
        ", MOVE 'shop' TO '/var/opt/mssql/data/c.mdf', "
        "MOVE 'shop_log' TO '/var/opt/mssql/data/c.ldf'"
    )
    rules.refused(restore(full, options=moves), 3203, 3013)
    assert simulator.database("copy").state == "RESTORING"
    rules.refused("RESTORE DATABASE copy WITH RECOVERY", 4333, 3013)
    rules.restore(full)
    simulator.insert("shop", "b")
    first, second = rules.log(), rules.log()
    simulator.faults.add("kill", at_percent=50, command="RESTORE LOG")
    rules.refused(restore(first, "LOG"), 596)
    rules.refused(restore(second, "LOG"), 4319, 3013)
    rules.apply(first)
    rules.apply(second)
    assert rules.recover() == ["a", "b"]
    simulator.execute("DROP DATABASE copy")


def test_a_backup_that_died_left_a_set_that_is_known_as_incomplete(
    rules: Rules, simulator: Simulator
) -> None:
    simulator.faults.add("write", at_percent=100, leaves_partial=True)
    rules.refused("BACKUP DATABASE shop TO DISK = '/backup/dead'", 3202, 3013)
    shown = simulator.execute("RESTORE HEADERONLY FROM DISK = '/backup/dead'")
    assert shown[0][0] == "*** INCOMPLETE ***"
    rules.refused("RESTORE DATABASE copy FROM DISK = '/backup/dead'", 3256, 3013)


def test_msdb_can_be_purged_and_can_fail(rules: Rules, simulator: Simulator) -> None:
    rules.full()
    simulator.faults.msdb_fails = True
    rules.full()
    count = "SELECT COUNT(*) FROM msdb.dbo.backupset"
    assert simulator.execute(count) == [(1,)]
    assert any("3009" in line for line in simulator.instance.error_log)
    simulator.execute("EXEC msdb.dbo.sp_delete_database_backuphistory N'shop'")
    assert simulator.execute(count) == [(0,)]


def test_another_family_is_only_overwritten_with_replace(
    rules: Rules, simulator: Simulator
) -> None:
    simulator.create_database("other", model="SIMPLE")
    full = rules.full()
    rules.refused(f"RESTORE DATABASE other FROM DISK = '{full}'", 3154, 3013)
    rules.restore(full, "other", "REPLACE")
    assert simulator.rows("other") == ["a"]


def test_a_file_added_within_a_log_has_to_be_moved_too(rules: Rules, simulator: Simulator) -> None:
    full = rules.full()
    simulator.execute(
        "ALTER DATABASE shop ADD FILE (NAME = more, FILENAME = '/var/opt/mssql/data/more.ndf', "
        "SIZE = 8 MB)"
    )
    simulator.insert("shop", "b")
    log = rules.log()
    rules.restore(full)
    rules.refused(restore(log, "LOG"), 1834, 3156, 3119, 3013)
    rules.apply(log, options="NORECOVERY, MOVE 'more' TO '/var/opt/mssql/data/copied.ndf'")
    assert rules.recover() == ["a", "b"]
    files = simulator.execute("SELECT name FROM copy.sys.database_files ORDER BY file_id")
    assert files == [("shop",), ("shop_log",), ("more",)]
    listed = simulator.execute(f"RESTORE FILELISTONLY FROM DISK = '{log}'")
    assert [row[0] for row in listed] == ["shop", "shop_log", "more"]


def test_users_travel_with_their_database_and_belong_to_a_login_by_its_identity(
    rules: Rules, media: Path
) -> None:
    here = rules.simulator
    here.execute(
        "CREATE LOGIN taker WITH PASSWORD = 'x'; USE shop; CREATE USER taker FOR LOGIN taker"
    )
    path = rules.full()
    here.execute("USE shop; ALTER ROLE db_backupoperator ADD MEMBER taker")
    log = rules.log()
    there = Simulator({"/backup": media})
    there.execute("CREATE LOGIN taker WITH PASSWORD = 'x'")
    there.execute(f"RESTORE DATABASE shop FROM DISK = '{path}' WITH NORECOVERY")
    there.execute(f"RESTORE LOG shop FROM DISK = '{log}'")
    assert there.database("shop").users["taker"].roles == {"db_backupoperator"}
    orphans = (
        "SELECT dp.name FROM shop.sys.database_principals AS dp LEFT JOIN sys.server_principals "
        "AS sp ON sp.sid = dp.sid WHERE dp.type = 'S' AND sp.sid IS NULL"
    )
    assert here.execute(orphans) == []
    assert there.execute(orphans) == [("taker",)]
    there.execute("USE shop; ALTER USER taker WITH LOGIN = taker")
    assert there.execute(orphans) == []


def test_a_database_under_tde_needs_its_certificate_elsewhere(rules: Rules, media: Path) -> None:
    here = rules.simulator
    here.instance.certificates["tde"] = bytes(20)
    here.database("shop").tde_thumbprint = bytes(20)
    path = rules.full()
    there = Simulator({"/backup": media})
    Rules(there).refused(f"RESTORE DATABASE shop FROM DISK = '{path}'", 33111, 3013)
    there.instance.certificates["any name"] = bytes(20)
    there.execute(f"RESTORE DATABASE shop FROM DISK = '{path}'")
    assert there.execute("SELECT is_encrypted FROM sys.databases WHERE name = 'shop'") == [(True,)]
