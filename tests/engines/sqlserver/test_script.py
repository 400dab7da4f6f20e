"""Files and a script that restore a database without sqlbak."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest

from sqlbak.engines.sqlserver.script import restore_script, write_files
from sqlbak.errors import TargetNotUsable
from sqlbak.model import PointType
from sqlbak.progress import NO_PROGRESS
from sqlbak.stopping import NEVER
from tests.engines.sqlserver.making import START, chain, full_and_logs, step
from tests.engines.sqlserver.tsql_oracle import needs_oracle, parse


def test_the_files_are_the_servers_own_bytes_and_the_script_stands_beside_them(
    tmp_path: Path,
) -> None:
    steps = [
        step(0, PointType.FULL, 100, 200, streams=2),
        step(1, PointType.DIFFERENTIAL, 150, 250),
        step(2, PointType.LOG, 200, 300),
    ]
    written = write_files(
        chain(*steps), tmp_path / "out", database="Copy", progress=NO_PROGRESS, stop=NEVER
    )
    assert [path.name for path in written.files] == [
        "001-full-1of2.bak",
        "001-full-2of2.bak",
        "002-differential.bak",
        "003-log.trn",
    ]
    assert written.files[1].read_bytes() == b"full 0 media-2"
    assert written.files[3].read_bytes() == b"log 2 media-1"
    script = written.script.read_text(encoding="utf-8-sig")
    for path in written.files:
        assert f"N'{path.name}'" in script
    assert f"N'{tmp_path / 'out'}/'" in script


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(TargetNotUsable, match="not empty"):
        write_files(
            chain(*full_and_logs()), tmp_path, database="C", progress=NO_PROGRESS, stop=NEVER
        )
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_every_step_is_without_recovery_and_only_the_last_log_stops() -> None:
    script = restore_script(
        chain(*full_and_logs(2), stop_at=START + timedelta(hours=1, minutes=30), to_the_end=False),
        Path("/b"),
        database="Copy",
    )
    steps = re.findall(r"RESTORE (?:DATABASE|LOG) .*?;", script, re.DOTALL)
    assert len(steps) == 4
    assert all("NORECOVERY" in statement for statement in steps[:3])
    assert ["STOPAT" in statement for statement in steps] == [False, False, True, False]
    assert "STOPAT = N'2026-05-01T03:30:00.000'" in steps[2]
    assert steps[3] == "RESTORE DATABASE [Copy] WITH RECOVERY;"
    assert "ONLINE" in script


def test_master_gets_the_one_statement_that_it_takes() -> None:
    script = restore_script(chain(step(0, PointType.FULL, 100, 200)), Path("/b"), database="master")
    statements = re.findall(r"^RESTORE .*?;", script, re.DOTALL | re.MULTILINE)
    assert statements == [
        "RESTORE DATABASE [master]\n    FROM DISK = @step1_1\n"
        "    WITH REPLACE, CHECKSUM, STATS = 10;"
    ]
    assert "NORECOVERY" not in script
    assert "with -m" in script


def test_msdb_is_replaced_where_it_is() -> None:
    script = restore_script(chain(step(0, PointType.FULL, 100, 200)), Path("/b"), database="msdb")
    assert "WITH NORECOVERY, REPLACE, CHECKSUM" in script
    assert "MOVE" not in script
    assert "RESTORE DATABASE [msdb] WITH RECOVERY;" in script


def test_names_with_quotes_and_brackets_stay_names() -> None:
    named = chain(*full_and_logs(1))
    script = restore_script(named, Path("/it's"), database="a]b'c\n; DROP DATABASE x")
    assert "[a]]b'c\n; DROP DATABASE x]" in script
    assert "N'/it''s/'" in script
    comments = [line for line in script.splitlines() if line.startswith("-- Restores")]
    assert len(comments) == 1
    assert "DROP DATABASE x" in comments[0]


def test_a_plan_that_is_only_probable_says_so() -> None:
    script = restore_script(chain(*full_and_logs(1), is_proven=False), Path("/b"), database="Copy")
    assert "left in the restoring state" in script


def test_a_position_is_stopped_before() -> None:
    script = restore_script(chain(*full_and_logs(1), stop_lsn=250), Path("/b"), database="Copy")
    assert "STOPBEFOREMARK = N'lsn:250'" in script


@needs_oracle
def test_microsofts_own_parser_understands_the_script() -> None:
    steps = [
        step(0, PointType.FULL, 100, 200, streams=2),
        step(1, PointType.DIFFERENTIAL, 150, 250),
        step(2, PointType.LOG, 200, 300),
    ]
    scripts = [
        restore_script(chain(*steps), Path("/it's"), database="a]b'c\n; DROP DATABASE x"),
        restore_script(
            chain(*steps, stop_at=START + timedelta(hours=2), to_the_end=False),
            Path("/b"),
            database="Copy",
        ),
    ]
    # The judge takes one statement at a time.
    for errors, _ in parse([f"IF 1 = 1\nBEGIN\n{script}\nEND" for script in scripts]):
        assert not errors, errors
