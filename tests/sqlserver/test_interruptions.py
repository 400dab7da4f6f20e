"""A restore that is broken off never leaves a database without a word, and can go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sqlbak.engines.port import TailChoice
from sqlbak.errors import Interrupted, RestoreFailed, SqlbakError, TargetNotUsable
from sqlbak.stopping import StopSignal
from tests.sqlserver.site import Site


def target_of(site: Site):
    return site.commits["Sales"][10][0]


@pytest.fixture
def copy(sales: Site) -> Iterator[str]:
    """The name of a database that is dropped afterwards, whatever became of it."""
    name = "Broken"
    yield name
    sales.simulator.faults.clear()
    if sales.state(name) is not None:
        sales.drop(name)


STEPS = [
    ("RESTORE DATABASE", 1, "the full"),
    ("RESTORE DATABASE", 2, "the differential"),
    ("RESTORE LOG", 1, "the first log"),
    ("RESTORE LOG", 2, "the last log"),
]


def strike(site: Site, kind: str, command: str, number: int, percent: float = 50) -> None:
    """A fault in the ``number``-th statement of that kind from now on."""
    if number == 1:
        site.simulator.faults.add(kind, at_percent=percent, command=command)
        return
    site.simulator.faults.add(
        "call",
        at_percent=percent,
        command=command,
        action=lambda: strike(site, kind, command, number - 1, percent),
    )


@pytest.mark.parametrize("kind", ["drop", "kill", "drop_after", "read"])
@pytest.mark.parametrize(
    ("command", "number"), [step[:2] for step in STEPS], ids=[step[2] for step in STEPS]
)
def test_whatever_breaks_off_a_step_the_state_is_said_and_it_goes_on(
    sales: Site, copy: str, kind: str, command: str, number: int
) -> None:
    target = target_of(sales)
    strike(sales, kind, command, number)
    with pytest.raises(SqlbakError) as failed:
        sales.restore("Sales", target, copy)
    told = f"{failed.value.message} {failed.value.hint}"
    state = sales.state(copy)
    if state is None:
        sales.restore("Sales", target, copy)
    else:
        assert state == "RESTORING"
        assert isinstance(failed.value, RestoreFailed)
        assert f"erp/{copy} is left RESTORING" in told
        for way in ("--resume", "--overwrite", f"DROP DATABASE [{copy}]"):
            assert way in told
        try:
            restored = sales.restore("Sales", target, copy, resumes=True)
        except TargetNotUsable as refused:
            # Of a full that did not end nothing is known but that it has to be begun again.
            assert (command, number) == ("RESTORE DATABASE", 1)
            assert "--overwrite" in refused.hint
            restored = sales.restore("Sales", target, copy, replaces=True)
        else:
            assert restored.outcome.resumed_after >= 1
    assert sales.rows(copy) == sales.rows_at("Sales", target)
    assert sales.leftovers() == []


def test_a_stop_ends_the_statement_on_the_server_and_says_what_is_left(
    sales: Site, copy: str
) -> None:
    stop = StopSignal()
    sales.simulator.faults.add(
        "call", at_percent=50, command="RESTORE LOG", action=lambda: stop.request("asked to")
    )
    sales.simulator.faults.add("pause", at_percent=55, command="RESTORE LOG", seconds=30)
    began = time.monotonic()
    with pytest.raises(Interrupted) as interrupted:
        sales.restore("Sales", target_of(sales), copy, stop=stop)
    assert time.monotonic() - began < 25
    assert "is left RESTORING" in interrupted.value.message
    assert "--resume" in interrupted.value.hint
    assert sales.leftovers() == []
    sales.restore("Sales", target_of(sales), copy, resumes=True)
    assert sales.rows(copy) == sales.rows_at("Sales", target_of(sales))


def test_it_does_not_go_on_to_another_instant(sales: Site, copy: str) -> None:
    strike(sales, "drop_after", "RESTORE LOG", 2)
    with pytest.raises(SqlbakError):
        sales.restore("Sales", target_of(sales), copy)
    earlier = sales.commits["Sales"][8][0]
    with pytest.raises(TargetNotUsable, match=r"not the beginning|restored (up to|beyond)"):
        sales.restore("Sales", earlier, copy, resumes=True)
    assert sales.state(copy) == "RESTORING"


def test_somebody_elses_restore_is_not_taken_over(sales: Site, copy: str) -> None:
    sales.restore("Sales", sales.commits["Sales"][3][0], copy, recovers=False)
    with pytest.raises(TargetNotUsable, match="in the middle of a restore"):
        sales.restore("Sales", target_of(sales), copy)
    with pytest.raises(TargetNotUsable, match=r"not the beginning|restored (up to|beyond)"):
        sales.restore("Sales", target_of(sales), copy, resumes=True)


def test_a_tail_that_was_taken_leaves_a_way_back(site: Site) -> None:
    site.write_history("Sales")
    site.advance(minutes=1)
    site.insert("Sales", "tail")
    site.advance(minutes=1)
    everything = site.rows("Sales")
    site.simulator.faults.add("read", at_percent=0, command="RESTORE DATABASE")
    code = site.program(
        "restore",
        "erp/Sales",
        "--to",
        site.commits["Sales"][5][0].isoformat(),
        "--overwrite",
        "--tail",
        "backup",
    )
    assert code == 1
    assert site.state("Sales") == "RESTORING"
    # What was in the tail is in the vault.
    site.restore("Sales", "latest", "Copy")
    assert site.rows("Copy") == everything


def test_a_full_disk_in_the_delivery_folder_is_found_before_the_target_is_touched(
    sales: Site, copy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    usage = shutil.disk_usage(sales.delivery)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=10))
    with pytest.raises(TargetNotUsable, match="bytes free, and the largest piece takes"):
        sales.restore("Sales", target_of(sales), copy)
    assert sales.state(copy) is None


def test_a_server_that_cannot_read_the_folder_is_told_with_its_remedy(
    sales: Site, copy: str
) -> None:
    sales.simulator.faults.denied.add("/var/opt/mssql/backup")
    with pytest.raises(RestoreFailed) as failed:
        sales.restore("Sales", target_of(sales), copy)
    assert "error 3201" in failed.value.message
    assert "account that runs SQL Server" in failed.value.hint
    assert sales.leftovers() == []


def test_a_killed_sqlbak_leaves_files_that_the_next_run_removes(site: Site, tmp_path: Path) -> None:
    site.write_history("Sales")
    target = target_of(site)
    fault = site.simulator.faults.add("pause", at_percent=50, command="RESTORE LOG", seconds=60)
    program = subprocess.Popen(
        [
            sys.executable, "-m", "sqlbak", "--config", str(site.folder / "policies.yaml"),
            "restore", "erp/Sales", "--to", target.isoformat(), "--as", "Copy", "-q",
        ],
        env=os.environ | {"PYTHONPATH": str(Path.cwd()), "ERP_PASSWORD": site.password},
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert fault.reached.wait(60)
    os.kill(program.pid, signal.SIGKILL)
    program.wait()
    assert site.leftovers()
    deadline = time.monotonic() + 30
    while site.simulator.sessions() and time.monotonic() < deadline:
        time.sleep(0.1)
    site.simulator.faults.clear()
    with pytest.raises(TargetNotUsable, match="middle of a restore"):
        site.restore("Sales", target)
    restored = site.restore("Sales", target, resumes=True)
    assert restored.outcome.resumed_after >= 1
    assert site.rows("Copy") == site.rows_at("Sales", target)
    assert site.leftovers() == []


def test_over_a_lost_connection_the_replaced_original_goes_on_too(site: Site) -> None:
    site.write_history("Sales")
    target = target_of(site)
    strike(site, "drop", "RESTORE LOG", 1)
    with pytest.raises(SqlbakError):
        site.restore("Sales", target, "Sales", replaces=True, tail=TailChoice.DISCARD)
    assert site.state("Sales") == "RESTORING"
    site.restore("Sales", target, "Sales", resumes=True)
    assert site.rows("Sales") == site.rows_at("Sales", target)


def test_when_only_the_answer_to_recovering_is_lost_the_database_is_said_to_be_open(
    sales: Site, copy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlbak.engines.sqlserver import restoring
    from sqlbak.engines.sqlserver.connection import ConnectionLost, Session

    run = Session.run

    def lost(self, statement: str, **options):
        found = run(self, statement, **options)
        if statement.endswith("WITH RECOVERY"):
            raise ConnectionLost("the connection was lost while recovering the database")
        return found

    monkeypatch.setattr(restoring.Session, "run", lost)
    with pytest.raises(RestoreFailed, match="is ONLINE: all was applied"):
        sales.restore("Sales", target_of(sales), copy)
    assert sales.rows(copy) == sales.rows_at("Sales", target_of(sales))
