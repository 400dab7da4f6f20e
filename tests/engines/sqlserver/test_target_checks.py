"""What stands in the way of a restore is found before the target is touched, all of it at once."""

from __future__ import annotations

import pytest

from sqlbak.engines.port import DatabaseTarget, TailChoice
from sqlbak.engines.sqlserver.target import Drive
from sqlbak.engines.sqlserver.target_checks import CheckedTarget, check_target
from sqlbak.errors import FeatureUnsupported, Refused, TargetNotUsable, UsageError
from sqlbak.model import PointType
from tests.engines.sqlserver.making import (
    SALES,
    existing,
    files,
    full_and_logs,
    server,
    server_file,
    somebody,
    step,
)

COPY = DatabaseTarget("Copy")
OVER = DatabaseTarget("Sales", replaces=True, tail=TailChoice.DISCARD)


def checked(target=COPY, *, steps=None, there=None, **facts) -> CheckedTarget:
    return check_target(
        [each.facts for each in steps or full_and_logs()],
        source_database="Sales",
        target=target,
        server=server(**facts),
        existing=there,
    )


def refused(target=COPY, **arguments) -> str:
    with pytest.raises(TargetNotUsable) as error:
        checked(target, **arguments)
    return f"{error.value.message} | {error.value.hint}"


def test_a_copy_gets_files_of_its_own_in_the_servers_folders() -> None:
    found = checked()
    assert found.files.paths == {
        "Sales": "/var/opt/mssql/data/Copy_Sales.mdf",
        "Sales_log": "/var/opt/mssql/log/Copy_Sales_log.ldf",
    }
    assert found.files.steps[1:] == ({}, {})
    assert not found.gives_up_tail


def test_a_path_that_another_database_has_is_never_chosen() -> None:
    taken = (server_file(8, "x", "/VAR/opt/mssql/data/copy_sales.mdf"),)
    assert checked(files=taken).files.paths["Sales"] == "/var/opt/mssql/data/Copy_Sales_2.mdf"


def test_a_path_that_is_named_and_belongs_to_another_database_is_refused_by_name() -> None:
    taken = (server_file(8, "x", "D:\\x.mdf"),)
    moved = DatabaseTarget("Copy", moves={"Sales": "d:\\X.mdf"})
    assert "belongs to Other" in refused(moved, files=taken)


def test_two_files_never_go_to_one_path() -> None:
    moved = DatabaseTarget("Copy", moves={"Sales": "/x", "sales_log": "/X"})
    assert "two files would go to" in refused(moved)


def test_a_file_that_the_backup_lacks_is_named_with_those_that_it_has() -> None:
    text = refused(DatabaseTarget("Copy", moves={"Salse": "/x"}))
    assert "Salse" in text
    assert "Sales, Sales_log" in text


def test_a_file_that_was_added_later_is_placed_by_the_step_that_brings_it() -> None:
    added = SALES + files(("Extra", "D", "/var/opt/mssql/data/Extra.ndf", 1))
    steps = [*full_and_logs(1), step(2, PointType.LOG, 300, 400, file_list=added)]
    found = checked(steps=steps)
    assert found.files.steps[2] == {"Extra": "/var/opt/mssql/data/Copy_Extra.ndf"}


def test_windows_folders_get_windows_paths() -> None:
    found = checked(data_path="D:\\Data\\", log_path="L:\\Log")
    assert found.files.paths["Sales"] == "D:\\Data\\Copy_Sales.mdf"
    assert found.files.paths["Sales_log"] == "L:\\Log\\Copy_Sales_log.ldf"


def test_a_database_that_exists_is_replaced_only_when_that_is_said() -> None:
    text = refused(DatabaseTarget("Sales"), there=existing())
    assert "exists already" in text
    assert "--as NAME" in text
    assert "--overwrite" in text


def test_what_is_replaced_keeps_its_files_where_they_are() -> None:
    found = checked(OVER, there=existing())
    assert found.files.paths["Sales"] == "/data/live/Sales.mdf"
    assert found.gives_up_tail
    assert not found.takes_tail


@pytest.mark.parametrize("state", ["SUSPECT", "OFFLINE", "RECOVERY_PENDING"])
@pytest.mark.parametrize("tail", list(TailChoice))
def test_the_end_of_a_broken_databases_log_can_be_saved_by_hand_first(
    state: str, tail: TailChoice
) -> None:
    there = existing(state=state, family=None, fork=None, last_log_backup=None)
    text = refused(DatabaseTarget("Sales", replaces=True, tail=tail), there=there)
    assert f"is {state}" in text
    assert "save the end of its log" in text
    assert "DROP DATABASE [Sales]" in text


def test_a_name_that_is_none_is_told_before_anything_is_fetched() -> None:
    with pytest.raises(UsageError, match="130 characters"):
        checked(DatabaseTarget("x" * 130))


def test_log_that_is_in_no_backup_is_never_lost_without_a_word() -> None:
    text = refused(DatabaseTarget("Sales", replaces=True), there=existing())
    assert "--tail backup" in text
    assert "--tail discard" in text
    taken = checked(
        DatabaseTarget("Sales", replaces=True, tail=TailChoice.BACKUP), there=existing()
    )
    assert taken.takes_tail
    assert not taken.gives_up_tail


@pytest.mark.parametrize(
    "there",
    [
        existing(recovery_model="SIMPLE"),
        existing(state="RESTORING"),
        existing(last_log_backup=None),
    ],
    ids=["simple", "restoring", "never-backed-up"],
)
def test_a_database_without_a_tail_is_replaced_without_force(there) -> None:
    found = checked(DatabaseTarget("Sales", replaces=True), there=there)
    assert not found.gives_up_tail
    assert not found.takes_tail


def test_another_database_of_the_same_name_is_not_overwritten() -> None:
    other = existing(family="99999999-9999-9999-9999-999999999999")
    text = refused(OVER, there=other)
    assert "another database" in text
    assert "DROP DATABASE [Sales]" in text


def test_force_is_refused_where_the_server_hides_which_database_it_is() -> None:
    assert "does not tell" in refused(OVER, there=existing(family=None))


def test_sessions_are_named_and_ended_only_when_that_is_said() -> None:
    busy = existing(sessions=(somebody(),))
    text = refused(OVER, there=busy)
    assert "session 55 (app from web1, shop)" in text
    assert "--disconnect" in text
    forced = DatabaseTarget("Sales", replaces=True, tail=TailChoice.DISCARD, disconnects=True)
    assert checked(forced, there=busy).ends_sessions


def test_a_database_of_an_availability_group_is_refused() -> None:
    assert "availability group" in refused(OVER, there=existing(is_in_group=True))


def test_a_restore_under_way_is_continued_or_begun_again_only_when_that_is_said() -> None:
    text = refused(DatabaseTarget("Sales"), there=existing(state="RESTORING"))
    for way in ("--resume", "--overwrite", "DROP DATABASE [Sales]"):
        assert way in text
    assert "no restore of it was interrupted" in refused(
        DatabaseTarget("Sales", resumes=True), there=existing()
    )


def test_nothing_to_replace_is_said() -> None:
    assert "no database Copy that could be replaced" in refused(
        DatabaseTarget("Copy", replaces=True)
    )


def test_an_older_server_is_refused_with_both_versions() -> None:
    text = refused(version="15.0.4000.1")
    assert "2022" in text
    assert "2019" in text
    assert "--instance" in text
    checked(version="17.0.1.1")


def test_a_missing_certificate_is_named() -> None:
    encrypted = [step(0, PointType.FULL, 1, 2, header={"EncryptorThumbprint": "0xABCD"})]
    assert "0xabcd" in refused(steps=encrypted)
    checked(steps=encrypted, certificates=frozenset({"0xabcd"}))
    unknown = checked(steps=encrypted, certificates=None)
    assert "could not be checked" in " ".join(unknown.notes)


def test_an_encrypted_database_needs_its_certificate_too() -> None:
    rows = [row | {"TDEThumbprint": "0x01"} for row in SALES]
    assert "TDE" in refused(steps=[step(0, PointType.FULL, 1, 2, file_list=rows)])


def test_a_full_disk_is_found_by_the_drive_that_holds_the_path() -> None:
    drives = (Drive("/", 1 << 40), Drive("/var/opt/mssql/data", 1 << 20))
    text = refused(drives=drives)
    assert "/var/opt/mssql/data has 1048576 bytes free, and the files need 8388608" in text
    assert "not checked" in " ".join(checked(drives=()).notes)


def test_the_files_that_are_replaced_give_their_room() -> None:
    drives = (Drive("/data/live", 100),)
    checked(OVER, there=existing(), drives=drives)


def test_express_is_too_small_for_a_large_database() -> None:
    large = files(("Sales", "D", "/x/Sales.mdf", 11 << 30))
    steps = [step(0, PointType.FULL, 1, 2, file_list=large)]
    assert "Express" in refused(steps=steps, engine_edition=4, edition="Express Edition")
    checked(steps=steps, engine_edition=4, version="17.0.1.1")


@pytest.mark.parametrize("name", ["master", "MSDB", "model", "tempdb"])
def test_system_databases_are_no_target(name: str) -> None:
    with pytest.raises(FeatureUnsupported, match="system databases"):
        checked(DatabaseTarget(name))


def test_everything_that_stands_in_the_way_is_told_at_once() -> None:
    text = refused(
        DatabaseTarget("Sales", replaces=True),
        there=existing(sessions=(somebody(),)),
        steps=[step(0, PointType.FULL, 1, 2, file_list=files(("S", "D", "/x/S.mdf", 1 << 40)))],
        version="15.0.1.1",
        drives=(Drive("/", 1),),
    )
    for reason in ("older", "in use", "no backup", "bytes free"):
        assert reason in text


@pytest.mark.parametrize("name", ["a]b", "O'Brien", " lead", "x" * 128, "日本", "..", "a/b\\c"])
def test_any_legal_name_gives_usable_paths(name: str) -> None:
    paths = checked(DatabaseTarget(name)).files.paths.values()
    for path in paths:
        folder, _, file = path.rpartition("/")
        assert folder.startswith("/var/opt/mssql/")
        assert file.strip(".")
        assert len(path) < 250
        assert not set(file) & set("'\"[]\\/ ")


def test_a_refusal_is_one_that_programs_know() -> None:
    with pytest.raises(Refused):
        checked(DatabaseTarget("Sales"), there=existing())
