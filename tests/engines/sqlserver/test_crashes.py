"""Whatever breaks off in the middle: no point that does not restore, no silent gap, no file."""

from __future__ import annotations

import random
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen

import pytest

from sqlbak.engines.sqlserver.connection import ConnectionLost, Session
from sqlbak.errors import BackupFailed, Interrupted, SqlbakError, StoreUnreachable
from sqlbak.model import PointType
from sqlbak.stopping import StopSignal
from sqlbak.vault.payload import PayloadWriter
from tests.engines.sqlserver.site import DIFFERENTIAL, FULL, LOG, Site, environment

COMMANDS = {FULL: "BACKUP DATABASE", DIFFERENTIAL: "BACKUP DATABASE", LOG: "BACKUP LOG"}


def prepared(site: Site, name: str, kind: PointType) -> None:
    """A database of which a backup of that kind can be taken."""
    site.simulator.create_database(name, rows=["one"], filler_bytes=300_000)
    if kind is not FULL:
        site.point(name, FULL)
    site.simulator.insert(name, "two")


def all_is_well(site: Site, name: str, *, kinds: tuple[PointType, ...] = (LOG,)) -> None:
    """What follows a crash: the next backup, and a restore of everything."""
    site.simulator.faults.clear()
    site.simulator.insert(name, "three")
    for kind in kinds:
        site.backup(name, kind)
    site.simulator.insert(name, "four")
    site.point(name, LOG)
    assert site.restored(name) == ["one", "two", "three", "four"]
    assert site.files() == []
    for point in site.points(name):
        site.restored(name, point.id)


@pytest.mark.parametrize("kind", [FULL, DIFFERENTIAL, LOG])
@pytest.mark.parametrize("percent", [0, 50, 100])
def test_a_connection_lost_in_the_middle_leaves_no_half_point(
    site: Site, kind: PointType, percent: int
) -> None:
    name = f"Drop{kind.value}{percent}"
    prepared(site, name, kind)
    before = len(site.points(name)) if kind is not FULL else 0
    site.simulator.faults.add("drop", at_percent=percent, command=COMMANDS[kind], database=name)
    try:
        site.backup(name, kind)
        made = True
    except SqlbakError as error:
        assert isinstance(error, BackupFailed)
        made = False
    assert len(site.points(name)) == before + made
    all_is_well(site, name, kinds=(kind,))


@pytest.mark.parametrize("kind", [FULL, LOG])
def test_a_backup_that_the_server_finished_unseen_is_found_by_its_name(
    site: Site, kind: PointType, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"Unseen{kind.value}"
    prepared(site, name, kind)
    run = Session.run

    def lost_after(self: Session, statement: str, **options: object) -> tuple[str, ...]:
        said = run(self, statement, **options)  # type: ignore[arg-type]
        if statement.startswith("BACKUP"):
            monkeypatch.setattr(Session, "run", run)
            raise ConnectionLost("the answer never came")
        return said

    monkeypatch.setattr(Session, "run", lost_after)
    site.point(name, kind)
    all_is_well(site, name)


def test_a_kill_by_the_administrator_fails_the_backup_only(site: Site) -> None:
    prepared(site, "Killed", FULL)
    site.simulator.faults.add("kill", at_percent=40, command="BACKUP DATABASE", database="Killed")
    with pytest.raises(BackupFailed):
        site.backup("Killed", FULL)
    assert site.points("Killed") == []
    assert site.files() == []
    all_is_well(site, "Killed", kinds=(FULL,))


@pytest.mark.parametrize("kind", [FULL, LOG])
def test_a_stop_reaches_a_running_backup(site: Site, kind: PointType) -> None:
    name = f"Stopped{kind.value}"
    prepared(site, name, kind)
    fault = site.simulator.faults.add(
        "pause", at_percent=30, command=COMMANDS[kind], database=name, seconds=60
    )
    stop = StopSignal()

    def ask() -> None:
        fault.reached.wait(30)
        stop.request("stopped by a test")

    asking = threading.Thread(target=ask)
    asking.start()
    began = time.monotonic()
    with pytest.raises(Interrupted):
        site.backup(name, kind, stop=stop)
    asking.join()
    assert time.monotonic() - began < 30
    all_is_well(site, name, kinds=(kind,))


SOME = [
    pytest.param(FULL, marks=pytest.mark.soak),
    pytest.param(DIFFERENTIAL, marks=pytest.mark.soak),
    LOG,
]


@pytest.mark.parametrize("kind", SOME)
def test_kill_9_while_the_server_writes(site: Site, kind: PointType) -> None:
    name = f"Nine{kind.value}"
    prepared(site, name, kind)
    before = len(site.points(name)) if kind is not FULL else 0
    killed_while_the_server_writes(site, name, kind)
    if before:
        assert len(site.points(name)) == before
    all_is_well(site, name, kinds=(kind,))


@pytest.mark.parametrize("kind", SOME)
def test_kill_9_between_the_servers_end_and_the_vault(site: Site, kind: PointType) -> None:
    """The server gives each piece of log out once: only the file has it then."""
    name = f"Between{kind.value}"
    prepared(site, name, kind)
    if kind is LOG:
        site.point(name, LOG)
        site.simulator.insert(name, "in the file only")
    killed_after_the_server_ended(site, name, kind)
    assert len(site.files()) == 1
    site.simulator.insert(name, "three")
    outcome = site.backup(name, kind)
    assert site.files() == []
    if kind is not LOG:
        assert [point.type for point in outcome.points] == [kind]
        return
    assert [point.type for point in outcome.points] == [LOG, LOG]
    logs = [point for point in site.points(name) if point.type is LOG]
    assert [log.first_lsn for log in logs[1:]] == [log.last_lsn for log in logs[:-1]]
    assert site.restored(name) == ["one", "two", "in the file only", "three"]
    assert site.restored(name, outcome.points[0].id) == ["one", "two", "in the file only"]


def test_a_log_file_that_was_shipped_but_not_removed_is_not_shipped_twice(site: Site) -> None:
    prepared(site, "Once", LOG)
    killed_after_the_server_ended(site, "Once", LOG)
    (left,) = site.folder.iterdir()
    content = left.read_bytes()
    first = site.backup("Once", LOG).points
    assert len(first) == 2
    left.write_bytes(content)
    site.simulator.insert("Once", "three")
    assert len(site.backup("Once", LOG).points) == 1
    assert site.files() == []
    assert site.restored("Once") == ["one", "two", "three"]


@pytest.mark.parametrize("kind", [DIFFERENTIAL, LOG])
def test_what_the_vault_did_not_take_is_taken_later(
    site: Site, kind: PointType, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"Away{kind.value}"
    prepared(site, name, kind)
    site.point(name, LOG)
    site.simulator.insert(name, "in the file only")

    def away(*_: object, **__: object) -> None:
        raise StoreUnreachable("the vault is away")

    with monkeypatch.context() as patch:
        patch.setattr(PayloadWriter, "seal", away)
        with pytest.raises(StoreUnreachable):
            site.backup(name, kind)
    assert len(site.files()) == 1
    site.simulator.insert(name, "three")
    made = site.backup(name, kind).points
    assert [point.type for point in made] == ([LOG, LOG] if kind is LOG else [DIFFERENTIAL])
    site.simulator.insert(name, "four")
    site.point(name, LOG)
    assert site.restored(name) == ["one", "two", "in the file only", "three", "four"]
    assert site.files() == []


def test_a_log_file_of_another_fork_is_removed_and_told(site: Site) -> None:
    prepared(site, "Forked", LOG)
    site.point("Forked", LOG)
    site.simulator.execute(
        "BACKUP DATABASE Forked TO DISK = '/var/opt/mssql/backup/f' WITH COPY_ONLY"
    )
    site.simulator.insert("Forked", "on the old fork")
    killed_after_the_server_ended(site, "Forked", LOG)
    site.simulator.execute(
        "RESTORE DATABASE Forked FROM DISK = '/var/opt/mssql/backup/f' WITH REPLACE, RECOVERY"
    )
    (site.folder / "f").unlink()
    assert [point.type for point in site.backup("Forked", LOG).points] == [FULL]
    site.simulator.insert("Forked", "three")
    outcome = site.backup("Forked", LOG)
    assert [point.type for point in outcome.points] == [LOG]
    assert "joins nothing any more" in " ".join(map(str, outcome.notes))
    assert site.files() == []
    assert site.restored("Forked", outcome.points[0].id) == ["one", "two", "three"]


def test_half_a_log_file_is_removed_and_its_log_taken_again(site: Site) -> None:
    prepared(site, "Half", LOG)
    site.point("Half", LOG)
    site.simulator.insert("Half", "three")
    killed_after_the_server_ended(site, "Half", LOG)
    (left,) = site.folder.iterdir()
    left.write_bytes(left.read_bytes()[:100])
    outcome = site.backup("Half", LOG)
    # That log is lost, which is told, and bridged at once.
    assert [point.type for point in outcome.points] == [DIFFERENTIAL]
    assert "taken by another" in " ".join(map(str, outcome.notes))
    assert site.files() == []
    site.simulator.insert("Half", "four")
    site.point("Half", LOG)
    assert site.restored("Half") == ["one", "two", "three", "four"]


def started(site: Site, name: str, kind: PointType, reached: threading.Event) -> Popen[bytes]:
    """The program, taking a backup, once the server is in the middle of it."""
    process = Popen(
        site.command("backup", f"erp/{name}", "--type", kind.value),
        env=environment(),
        stdout=PIPE,
        stderr=STDOUT,
    )
    assert reached.wait(60), process.communicate()[0]
    assert process.poll() is None
    return process


def killed_while_the_server_writes(site: Site, name: str, kind: PointType) -> None:
    fault = site.simulator.faults.add(
        "pause", at_percent=50, command=COMMANDS[kind], database=name, seconds=20
    )
    process = started(site, name, kind, fault.reached)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def killed_after_the_server_ended(site: Site, name: str, kind: PointType) -> None:
    """It is stopped while the server writes, and killed when that has written everything."""
    sets = f"SELECT backup_set_id FROM msdb.dbo.backupset WHERE database_name = N'{name}'"
    before = len(site.simulator.execute(sets))
    fault = site.simulator.faults.add(
        "pause", at_percent=50, command=COMMANDS[kind], database=name, seconds=0.3
    )
    process = started(site, name, kind, fault.reached)
    process.send_signal(signal.SIGSTOP)
    deadline = time.monotonic() + 60
    while len(site.simulator.execute(sets)) == before:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    site.simulator.faults.clear()


def test_files_of_others_are_never_touched(site: Site) -> None:
    prepared(site, "Tidy", LOG)
    others = [
        "theirs.bak",
        "sqlbak-other0000owner00-0123456789ab-f-20260101T000000Z-abcdefghij.1of1.bak",
        "sqlbak.txt",
    ]
    for name in others:
        (site.folder / name).write_bytes(b"TAPE")
    for kind in (FULL, DIFFERENTIAL, LOG):
        site.point("Tidy", kind)
    assert site.files() == sorted(others)
    for name in others:
        Path(site.folder / name).unlink()


def test_logs_go_on_while_a_full_runs(site: Site) -> None:
    prepared(site, "Busy", LOG)
    fault = site.simulator.faults.add(
        "pause", at_percent=50, command="BACKUP DATABASE", database="Busy", seconds=60
    )
    stop = StopSignal()
    failures: list[BaseException] = []

    def full() -> None:
        try:
            site.backup("Busy", FULL, stop=stop)
        except Interrupted as error:
            failures.append(error)

    running = threading.Thread(target=full)
    running.start()
    assert fault.reached.wait(30)
    site.point("Busy", LOG)
    # A log that a crashed run left is shipped meanwhile, too.
    site.simulator.insert("Busy", "in the file only")
    killed_after_the_server_ended(site, "Busy", LOG)
    assert [point.type for point in site.backup("Busy", LOG).points] == [LOG, LOG]
    stop.request()
    running.join(60)
    assert len(failures) == 1
    site.point("Busy", FULL)
    assert site.restored("Busy") == ["one", "two", "in the file only"]
    assert site.files() == []


def test_a_backup_of_a_dead_run_that_still_writes_is_left_alone(site: Site) -> None:
    prepared(site, "Zombie", LOG)
    fault = site.simulator.faults.add(
        "pause", at_percent=50, command="BACKUP DATABASE", database="Zombie", seconds=60
    )
    process = started(site, "Zombie", FULL, fault.reached)
    process.send_signal(signal.SIGSTOP)
    (writing,) = site.files()
    # Its lease is gone as far as anybody knows, and its statement still runs.
    for lease in (site.vault / "leases").iterdir():
        lease.unlink()
    with pytest.raises(BackupFailed, match="still runs"):
        site.backup("Zombie", FULL)
    assert site.files() == [writing]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    all_is_well(site, "Zombie", kinds=(FULL,))


@pytest.mark.soak
def test_many_rounds_of_kills_and_cuts(site: Site) -> None:
    """At the end everything that was committed is there, and every point restores."""
    chance = random.Random()
    seed = chance.randrange(10**9)
    chance.seed(seed)
    name = f"Rounds{seed}"
    site.simulator.create_database(name, rows=["0"])
    rows = ["0"]
    for number in range(1, 60):
        kind = chance.choice([FULL, DIFFERENTIAL, LOG, LOG])
        way = chance.choice(["kill -9 while", "kill -9 after", "drop", "kill", "write", "none"])
        site.simulator.insert(name, str(number))
        rows.append(str(number))
        if way.startswith("kill -9") and site.points(name):
            # What was asked for may become another kind, which the server then never reaches.
            killed_while_the_server_writes(site, name, LOG)
        elif way in ("drop", "kill", "write"):
            site.simulator.faults.add(way, at_percent=chance.choice([0, 30, 100]), database=name)
        with suppress(SqlbakError):
            site.backup(name, kind)
        site.simulator.faults.clear()
    site.backup(name, LOG)
    site.simulator.insert(name, "last")
    site.backup(name, LOG)
    assert site.restored(name) == [*rows, "last"], seed
    for point in site.points(name):
        held = site.restored(name, point.id)
        assert held == rows[: len(held)] or held == [*rows, "last"], seed
    assert site.files() == [], seed
