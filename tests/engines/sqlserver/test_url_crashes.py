"""SQL Server writes its backups into the vault itself: whatever breaks off in the middle leaves no
point that does not restore, no silent gap, no object."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from sqlbak.errors import BackupFailed, Interrupted, SqlbakError, StoreUnreachable
from sqlbak.model import PointType
from sqlbak.stopping import StopSignal
from sqlbak.vault.payload import PayloadWriter
from tests.engines.sqlserver.site import DIFFERENTIAL, FULL, LOG, Site
from tests.engines.sqlserver.test_crashes import (
    COMMANDS,
    killed_after_the_server_ended,
    killed_while_the_server_writes,
    started,
)
from tests.engines.sqlserver.url_site import Bucket, history, restored
from tests.vault.s3_servers import BUCKET, S3Server

pytestmark = pytest.mark.s3


@pytest.fixture
def site(url_site_of_module: Site) -> Iterator[Site]:
    url_site_of_module.simulator.faults.clear()
    yield url_site_of_module
    url_site_of_module.simulator.faults.clear()


@pytest.fixture
def bucket(store: S3Server) -> Bucket:
    return Bucket(store)


SOME = [
    pytest.param(FULL, marks=pytest.mark.soak),
    pytest.param(DIFFERENTIAL, marks=pytest.mark.soak),
    LOG,
]


@pytest.mark.parametrize("kind", SOME)
def test_a_connection_lost_in_the_middle_leaves_nothing(
    site: Site, bucket: Bucket, kind: PointType
) -> None:
    name = f"Drop{kind.value}"
    prepared(site, name, kind)
    before, points = bucket.of(site, name), len(bucket.of(site, name, "/points/"))
    site.simulator.faults.add("drop", at_percent=50, command=COMMANDS[kind], database=name)
    with pytest.raises(BackupFailed):
        site.backup(name, kind)
    site.simulator.faults.clear()
    assert bucket.of(site, name) == before
    assert bucket.uploads() == []
    assert len(bucket.of(site, name, "/points/")) == points
    assert bucket.of(site, name, "/running/") == []
    all_is_well(site, name, kind)


@pytest.mark.parametrize("kind", [FULL, pytest.param(LOG, marks=pytest.mark.soak)])
def test_what_the_server_refuses_in_the_middle_leaves_nothing(
    site: Site, bucket: Bucket, kind: PointType
) -> None:
    name = f"Refused{kind.value}"
    prepared(site, name, kind)
    before = bucket.of(site, name)
    theirs = f"prod/items/{name.lower()}/others.bak"
    upload = bucket.client.create_multipart_upload(Bucket=BUCKET, Key=theirs)["UploadId"]
    site.simulator.faults.add("write", at_percent=50, command=COMMANDS[kind], database=name)
    with pytest.raises(BackupFailed):
        site.backup(name, kind)
    site.simulator.faults.clear()
    assert bucket.of(site, name) == before
    assert bucket.uploads() == [theirs]
    bucket.client.abort_multipart_upload(Bucket=BUCKET, Key=theirs, UploadId=upload)
    all_is_well(site, name, kind)


@pytest.mark.parametrize("kind", [FULL, pytest.param(LOG, marks=pytest.mark.soak)])
def test_kill_9_while_the_server_writes_is_cleared_by_the_next_run(
    site: Site, bucket: Bucket, kind: PointType
) -> None:
    name = f"Nine{kind.value}"
    prepared(site, name, kind)
    points = len(bucket.of(site, name, "/points/"))
    killed_while_the_server_writes(site, name, kind)
    assert len(bucket.of(site, name, "/points/")) == points
    assert len(bucket.of(site, name, "/running/")) == 1
    all_is_well(site, name, kind)
    assert bucket.uploads() == []
    assert bucket.of(site, name, "/running/") == []
    assert len(bucket.of(site, name)) == len(site.points(name))


def test_log_that_a_killed_run_had_written_is_kept(site: Site, bucket: Bucket) -> None:
    """The server gives each piece of log out once: only the object has it then."""
    prepared(site, "Between", LOG)
    site.point("Between", LOG)
    site.simulator.insert("Between", "in the object only")
    killed_after_the_server_ended(site, "Between", LOG)
    dead = bucket.of(site, "Between", "/running/")
    left = {key: bucket.get(key) for key in [*dead, *bucket.of(site, "Between", ".trn")]}
    site.simulator.insert("Between", "three")
    # A full's run leaves it alone, as it is not its to take.
    site.point("Between", FULL)
    assert [key for key in bucket.of(site, "Between", "/running/") if key in dead] == dead
    outcome = site.backup("Between", LOG)
    assert [point.type for point in outcome.points] == [LOG, LOG]
    assert bucket.of(site, "Between", "/running/") == []
    logs = [point for point in site.points("Between") if point.type is LOG]
    assert [log.first_lsn for log in logs[1:]] == [log.last_lsn for log in logs[:-1]]
    assert len(bucket.of(site, "Between")) == len(site.points("Between"))
    assert restored(site, "Between", "latest")[-1] == "three"
    # A run that died between its commit and its clean-up does not make the next one do it again.
    for key, content in left.items():
        bucket.put(key, content)
    site.simulator.insert("Between", "four")
    assert [point.type for point in site.backup("Between", LOG).points] == [LOG]
    assert len(bucket.of(site, "Between")) == len(site.points("Between"))


@pytest.mark.parametrize("kind", SOME[1:])
def test_log_is_kept_when_the_vault_fails_at_the_commit(
    site: Site, bucket: Bucket, kind: PointType, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"Away{kind.value}"
    prepared(site, name, kind)
    before = bucket.of(site, name)

    def away(*_: object, **__: object) -> None:
        raise StoreUnreachable("the vault is away")

    with monkeypatch.context() as patch:
        patch.setattr(PayloadWriter, "seal", away)
        with pytest.raises(StoreUnreachable):
            site.backup(name, kind)
    assert len(bucket.of(site, name)) - len(before) == (kind is LOG)
    site.simulator.insert(name, "three")
    made = site.backup(name, kind).points
    assert [point.type for point in made] == ([LOG, LOG] if kind is LOG else [DIFFERENTIAL])
    assert restored(site, name, "latest") == ["one", "two", "three"]
    assert len(bucket.of(site, name)) == len(site.points(name))
    # Once only, whatever the next runs find.
    assert [point.type for point in site.backup(name, LOG).points] == [LOG]


@pytest.mark.soak
def test_log_that_a_dead_run_still_has_written_is_waited_for(site: Site, bucket: Bucket) -> None:
    prepared(site, "Zombie", LOG)
    fault = site.simulator.faults.add(
        "pause", at_percent=50, command="BACKUP LOG", database="Zombie", seconds=60
    )
    process = started(site, "Zombie", LOG, fault.reached)
    process.send_signal(signal.SIGSTOP)
    # Its lease is gone as far as anybody knows, and its statement still runs.
    for key in bucket.keys("/leases/"):
        bucket.client.delete_object(Bucket=BUCKET, Key=key)
    uploads = bucket.uploads()
    with pytest.raises(BackupFailed, match="still runs"):
        site.backup("Zombie", LOG)
    site.point("Zombie", FULL)
    assert bucket.uploads() == uploads
    process.send_signal(signal.SIGKILL)
    process.communicate()
    all_is_well(site, "Zombie", LOG)
    assert bucket.uploads() == []


@pytest.mark.soak
def test_the_tail_is_taken_before_the_original_is_replaced(site: Site, bucket: Bucket) -> None:
    between = history(site, "Tail")
    site.simulator.insert("Tail", "six")
    item = "erp/Tail"
    answer = site.json("restore", item, "--to", between, "--overwrite", "--tail", "backup")
    assert answer["state"] == "ONLINE"
    assert site.simulator.rows("Tail") == ["one", "two", "three", "four"]
    last = max(site.points("Tail"), key=lambda point: point.last_lsn)
    assert restored(site, "Tail", last.id) == ["one", "two", "three", "four", "five", "six"]
    site.simulator.insert("Tail", "seven")
    assert [point.type for point in site.backup("Tail", LOG).points] == [FULL]
    assert restored(site, "Tail", "latest") == ["one", "two", "three", "four", "seven"]
    assert len(bucket.of(site, "Tail")) == len(site.points("Tail"))


@pytest.mark.soak
def test_the_scheduler_and_every_look_work_as_with_a_folder(site: Site) -> None:
    site.simulator.create_database("Watched", rows=["one"])
    site.databases["include"] = ["Watched"]
    site.write_policies()
    try:
        site.run("run", "--once")
        site.simulator.insert("Watched", "two")
        site.point("Watched", LOG)
        (window,) = site.json("windows", "erp/Watched")["windows"]
        assert window["from"] < window["to"]
        listed = site.json("list", "erp/Watched")["points"]
        assert [point["type"] for point in listed] == ["full", "log"]
        assert all(point["size_bytes"] > 0 for point in listed)
        assert site.json("plan", "erp/Watched", "--to", "latest")["bytes"] > 0
        assert site.json("inspect", "erp")["problems"] is not None
    finally:
        del site.databases["include"]
        site.write_policies()


def test_a_stop_reaches_the_server_and_leaves_nothing(site: Site, bucket: Bucket) -> None:
    prepared(site, "Stopped", FULL)
    fault = site.simulator.faults.add(
        "pause", at_percent=30, command="BACKUP DATABASE", database="Stopped", seconds=60
    )
    stop = StopSignal()
    asking = threading.Thread(target=lambda: (fault.reached.wait(30), stop.request("a test")))
    asking.start()
    with pytest.raises(Interrupted):
        site.backup("Stopped", FULL, stop=stop)
    asking.join()
    site.simulator.faults.clear()
    assert bucket.of(site, "Stopped") == []
    assert bucket.uploads() == []
    assert bucket.of(site, "Stopped", "/running/") == []


@pytest.mark.soak
def test_a_foreign_log_backup_is_healed_by_a_differential(site: Site) -> None:
    prepared(site, "Healed", LOG)
    site.point("Healed", LOG)
    site.simulator.insert("Healed", "three")
    site.simulator.execute("BACKUP LOG Healed TO DISK = 'NUL'")
    outcome = site.backup("Healed", LOG)
    assert [point.type for point in outcome.points] == [DIFFERENTIAL]
    assert "taken by another" in " ".join(note.text for note in outcome.notes)
    site.simulator.execute("BACKUP DATABASE Healed TO DISK = 'NUL'")
    outcome = site.backup("Healed", DIFFERENTIAL)
    assert [point.type for point in outcome.points] == [FULL]
    assert restored(site, "Healed", "latest") == ["one", "two", "three"]


@pytest.mark.soak
def test_many_rounds_of_kills_and_cuts(site: Site, bucket: Bucket) -> None:
    """At the end everything that was committed is there, every point restores, nothing else is."""
    seed = random.SystemRandom().randrange(10**6)
    chance = random.Random(seed)
    name = f"Rounds{seed}"
    site.simulator.create_database(name, rows=["0"], filler_bytes=200_000)
    rows = ["0"]
    for number in range(1, 40):
        kind = chance.choice([FULL, DIFFERENTIAL, LOG, LOG])
        way = chance.choice(["kill -9 while", "kill -9 after", "drop", "kill", "write", "none"])
        site.simulator.insert(name, str(number))
        rows.append(str(number))
        if way.startswith("kill -9") and site.points(name):
            kill = killed_while_the_server_writes
            if way.endswith("after"):
                kill = killed_after_the_server_ended
            # What was asked for may become another kind, which the server then never reaches.
            with suppress(AssertionError):
                kill(site, name, LOG)
        elif way in ("drop", "kill", "write"):
            site.simulator.faults.add(way, at_percent=chance.choice([0, 30, 100]), database=name)
        with suppress(SqlbakError):
            site.backup(name, kind)
        site.simulator.faults.clear()
    site.backup(name, LOG)
    site.simulator.insert(name, "last")
    site.backup(name, LOG)
    assert restored(site, name, "latest") == [*rows, "last"], seed
    for point in site.points(name):
        held = restored(site, name, point.id)
        assert held == rows[: len(held)] or held == [*rows, "last"], seed
    of_points = {point.id for point in site.points(name)}
    assert {key.split("/data/")[1].partition("/")[0] for key in bucket.of(site, name)} == of_points
    assert [key for key in bucket.uploads() if name.lower() in key] == [], seed
    assert bucket.of(site, name, "/running/") == [], seed


def prepared(site: Site, name: str, kind: PointType) -> None:
    """A database of which a backup of that kind can be taken."""
    site.simulator.create_database(name, rows=["one"], filler_bytes=300_000)
    if kind is not FULL:
        site.point(name, FULL)
    site.simulator.insert(name, "two")


def all_is_well(site: Site, name: str, kind: PointType) -> None:
    """What follows a failure: the next backups, and a restore of everything."""
    site.simulator.faults.clear()
    site.simulator.insert(name, "three")
    site.backup(name, kind)
    site.simulator.insert(name, "four")
    site.point(name, LOG)
    assert restored(site, name, "latest") == ["one", "two", "three", "four"]
