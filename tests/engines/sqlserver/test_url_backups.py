"""SQL Server writes its backups into the vault itself: what comes of it, and what is refused."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import pytest

from sqlbak.engines.sqlserver import url_delivery
from sqlbak.engines.sqlserver.connection import Session
from sqlbak.errors import (
    BackupFailed,
    ConfigurationInvalid,
    FeatureUnsupported,
    Interrupted,
    ServerNotReady,
    SqlbakError,
    StoreUnreachable,
    TargetNotUsable,
)
from sqlbak.model import PointType
from sqlbak.stopping import StopSignal
from sqlbak.vault import s3_client
from sqlbak.vault.payload import PayloadWriter
from tests.engines.sqlserver.site import DIFFERENTIAL, FULL, LOG, SERVER_FOLDER, Site, site_in
from tests.engines.sqlserver.test_crashes import (
    COMMANDS,
    killed_after_the_server_ended,
    killed_while_the_server_writes,
    started,
)
from tests.engines.sqlserver.test_grants import PAGE, granted
from tests.engines.sqlserver.tsql_oracle import needs_oracle, parse
from tests.engines.sqlserver.url_site import (
    CREDENTIAL,
    HOST,
    URL,
    Bucket,
    by_url,
    drop_credential,
    make_credential,
    url_site,
)
from tests.vault.s3_servers import BUCKET, SECRET_KEY, S3Server, start_moto

pytestmark = pytest.mark.s3


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with start_moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture(scope="module")
def shared(store: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with url_site(tmp_path_factory.mktemp("url") / "site", store) as site:
        yield site


@pytest.fixture(scope="module", autouse=True)
def _one_client() -> Iterator[None]:
    """Making a client anew for each command takes longer than most that a test does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(s3_client, "make_client", lru_cache(maxsize=8)(s3_client.make_client))
        yield


@pytest.fixture
def site(shared: Site) -> Iterator[Site]:
    shared.simulator.faults.clear()
    yield shared
    shared.simulator.faults.clear()


@pytest.fixture
def bucket(store: S3Server) -> Bucket:
    return Bucket(store)


def restored(site: Site, name: str, to: str) -> list[str]:
    """The rows of a restore by the program itself, as a database that is dropped again."""
    answer = site.json("restore", f"erp/{name}", "--to", to, "--as", "Restored")
    assert answer["state"] == "ONLINE", answer
    rows = site.simulator.rows("Restored")
    site.simulator.execute("DROP DATABASE [Restored]")
    return rows


def history(site: Site, name: str) -> str:
    """Fulls, differential and logs; an instant between the last two rows."""
    site.simulator.create_database(name, rows=["one"])
    site.point(name, FULL)
    site.simulator.insert(name, "two")
    site.point(name, DIFFERENTIAL)
    site.simulator.insert(name, "three")
    site.point(name, LOG)
    site.simulator.insert(name, "four")
    time.sleep(0.05)  # more than the grain of commit times
    between = datetime.now(UTC).isoformat()
    time.sleep(0.05)
    site.simulator.insert(name, "five")
    site.point(name, LOG)
    return between


def test_a_chain_is_written_by_the_server_and_restored_to_the_second(
    site: Site, bucket: Bucket
) -> None:
    between = history(site, "Sales")
    assert restored(site, "Sales", between) == ["one", "two", "three", "four"]
    assert restored(site, "Sales", "latest") == ["one", "two", "three", "four", "five"]
    # Nothing went through the folder, nothing lies in the bucket but whole backups.
    assert site.files() == []
    payload = [key.rpartition("/")[2] for key in bucket.of(site, "Sales")]
    assert sorted(payload) == ["1of1.bak", "1of1.bak", "1of1.trn", "1of1.trn"]
    assert bucket.of(site, "Sales", "/running/") == []
    assert bucket.uploads() == []


def test_a_point_holds_what_the_store_said_and_where_the_server_wrote(
    site: Site, bucket: Bucket
) -> None:
    site.simulator.create_database("Noted", rows=["one"])
    point = site.point("Noted", FULL)
    (key,) = bucket.of(site, "Noted")
    manifest = site.manifest("Noted", point)
    (written,) = manifest.payload.objects
    head = bucket.client.head_object(Bucket=BUCKET, Key=key)
    assert (written.stored_bytes, written.etag) == (head["ContentLength"], head["ETag"])
    assert point.size_bytes == written.stored_bytes
    facts = manifest.facts or {}
    assert facts["delivery"] == "url"
    assert facts["urls"] == [f"s3://{HOST}/{BUCKET}/{key}"]
    assert manifest.point.id in key
    # An older version must not take it for one of its own.
    (name,) = bucket.of(site, "Noted", "/points/")
    assert bucket.manifest(name)["format"] == 2


def test_the_statement_is_what_s3_takes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    said = heard(monkeypatch)
    site.simulator.create_database("Said", rows=["one"])
    site.point("Said", FULL)
    site.point("Said", DIFFERENTIAL)
    site.point("Said", LOG)
    site.point("Said", FULL, is_copy_only=True)
    backups = [text for text in said if text.startswith("BACKUP")]
    assert len(backups) == 4
    for text in backups:
        assert f" TO URL = N'{URL}/items/" in text
        for option in ("FORMAT", "COMPRESSION", "CHECKSUM", "MAXTRANSFERSIZE = 20971520"):
            assert f", {option}" in text.replace("WITH ", ", ")
        assert "BACKUP_OPTIONS" not in text
    assert "COPY_ONLY" in backups[3]


def heard(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every statement that is sent from now on."""
    said: list[str] = []
    running = Session._running

    def hears(self: Session, statement: str, *rest: object) -> object:
        said.append(statement)
        return running(self, statement, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Session, "_running", hears)
    return said


def test_stripes_are_written_side_by_side_and_read_together(site: Site, bucket: Bucket) -> None:
    site.simulator.create_database("Wide", rows=["one"], filler_bytes=300_000)
    site.settings["stripes"] = 3
    site.write_policies()
    try:
        site.point("Wide", FULL)
    finally:
        del site.settings["stripes"]
        site.write_policies()
    names = [key.rpartition("/")[2] for key in bucket.of(site, "Wide")]
    assert names == ["1of3.bak", "2of3.bak", "3of3.bak"]
    assert restored(site, "Wide", "latest") == ["one"]


def test_without_a_credential_nothing_begins_and_the_statement_is_told(
    site: Site, bucket: Bucket
) -> None:
    site.simulator.create_database("Keyless", rows=["one"])
    before = bucket.keys("/items/")
    drop_credential(site)
    try:
        with pytest.raises(ServerNotReady) as told:
            site.backup("Keyless", FULL)
        assert (
            f"CREATE CREDENTIAL [{CREDENTIAL}] WITH IDENTITY = 'S3 Access Key'" in told.value.hint
        )
        assert SECRET_KEY not in told.value.hint + told.value.message
        make_credential(site, identity="AWS")
        with pytest.raises(ServerNotReady, match="'AWS', and S3 needs 'S3 Access Key'"):
            site.backup("Keyless", FULL)
        drop_credential(site)
        # Another bucket's, whose name ours begins with.
        make_credential(site, f"s3://{HOST}/{BUCKET[:-1]}")
        with pytest.raises(ServerNotReady, match="no credential"):
            site.backup("Keyless", FULL)
        drop_credential(site, f"s3://{HOST}/{BUCKET[:-1]}")
    finally:
        make_credential(site)
    assert bucket.keys("/items/") == before
    site.point("Keyless", FULL)


def test_the_documented_grants_are_enough_to_write_to_a_bucket(
    store: S3Server, tmp_path: Path
) -> None:
    with url_site(tmp_path / "site", store, prefix="least", settings={"user": "sqlbak"}) as site:
        site.simulator.create_database("Sales", rows=["one"])
        granted(site)
        with pytest.raises(ServerNotReady) as told:
            site.backup("Sales", FULL)
        assert told.value.hint == "GRANT ALTER ANY CREDENTIAL TO [sqlbak]"
        page = PAGE.read_text().split("### Or the bucket")[1]
        assert told.value.hint.replace("[", "").replace("]", "") in page
        site.simulator.execute(told.value.hint)
        for kind in (FULL, DIFFERENTIAL, LOG):
            site.point("Sales", kind)


def test_a_url_that_is_another_place_is_found_before_anything_is_written(
    store: S3Server, bucket: Bucket, tmp_path: Path
) -> None:
    """The same bucket and prefix, but of another server: no look at the text tells."""
    (tmp_path / "moto").mkdir()
    with start_moto(tmp_path / "moto") as other, url_site(tmp_path / "site", store) as site:
        site.simulator.create_database("Astray", rows=["one"])
        site.simulator.instance.s3_endpoints[HOST] = other.endpoint
        with pytest.raises(ServerNotReady, match="is not the vault"):
            site.backup("Astray", FULL)
        assert Bucket(other).keys("") == []
        assert site.simulator.execute("SELECT backup_set_id FROM msdb.dbo.backupset") == []
        assert bucket.of(site, "Astray", "/running/") == []


@pytest.mark.parametrize("options", [{"year": 2019}, {"edition": "Express Edition (64-bit)"}])
def test_a_server_that_cannot_says_so_and_what_to_do(
    store: S3Server, tmp_path: Path, options: dict[str, object]
) -> None:
    with site_in(tmp_path / "site", s3_endpoints={HOST: store.endpoint}, **options) as site:
        by_url(site, store)
        site.simulator.create_database("Old", rows=["one"])
        with pytest.raises(ServerNotReady, match="writes no backups to s3://") as told:
            site.backup("Old", FULL)
        assert "delivery: {disk:" in told.value.hint


@pytest.mark.parametrize(
    ("reason", "meaning"),
    [
        ("5(Access is denied.)", "the clocks"),
        ("50(The request is not supported.)", "CREATE CREDENTIAL"),
        ("12175(failed to retrieve text for this error. Reason: 15105)", "certificate"),
    ],
)
def test_what_the_store_says_to_the_server_is_explained(
    site: Site, reason: str, meaning: str
) -> None:
    name = f"Told{reason.partition('(')[0]}"
    site.simulator.create_database(name, rows=["one"])
    site.simulator.faults.s3_error = reason
    with pytest.raises(ServerNotReady) as told:
        site.backup(name, FULL)
    site.simulator.faults.s3_error = None
    assert meaning in f"{told.value.message} {told.value.hint}"


def test_a_long_name_fits_and_too_long_a_url_is_refused_by_its_line(
    site: Site, store: S3Server, tmp_path: Path
) -> None:
    name = "An exceedingly long name of a database " * 3
    site.simulator.create_database(name, rows=["one"])
    point = site.point(name, FULL)
    (url,) = (site.manifest(name, point).facts or {})["urls"]
    assert len(url) < 200
    site.settings["delivery"] = {"url": f"s3://{HOST}/{BUCKET}/{'long/' * 30}prod"}
    site.write_policies()
    with pytest.raises(ConfigurationInvalid, match="137 at most"), site.fleet():
        pass
    site.settings["delivery"] = {"url": URL}
    site.write_policies()


def test_a_backup_that_may_not_fit_is_refused_before_it_begins(
    site: Site, monkeypatch: pytest.MonkeyPatch, bucket: Bucket
) -> None:
    site.simulator.create_database("Huge", rows=["one"])
    monkeypatch.setattr(url_delivery, "_BYTES_A_STRIPE", 1000)
    monkeypatch.setattr(url_delivery, "_MAX_BYTES_A_STRIPE", 2000)
    with pytest.raises(FeatureUnsupported, match="does not fit on 64 URLs"):
        site.backup("Huge", FULL)
    assert bucket.of(site, "Huge") == []


def test_another_region_is_told_to_the_server_in_every_statement(
    store: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = heard(monkeypatch)
    with url_site(tmp_path / "site", store, prefix="region") as site:
        site.vault_settings["s3"]["region"] = "eu-x-1"
        site.write_policies()
        site.simulator.create_database("Far", rows=["one"])
        site.point("Far", FULL)
        site.point("Far", LOG)
        assert restored(site, "Far", "latest") == ["one"]
    about = [text for text in said if "URL = N'" in text]
    assert about
    for text in about:
        which = "BACKUP_OPTIONS" if text.startswith("BACKUP") else "RESTORE_OPTIONS"
        assert f"""{which} = N'{{"s3": {{"region": "eu-x-1"}}}}'""" in text


# Failures in the middle.

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
    assert "taken by another" in " ".join(outcome.notes)
    site.simulator.execute("BACKUP DATABASE Healed TO DISK = 'NUL'")
    outcome = site.backup("Healed", DIFFERENTIAL)
    assert [point.type for point in outcome.points] == [FULL]
    assert restored(site, "Healed", "latest") == ["one", "two", "three"]


# Restores.


def test_a_server_without_credential_takes_it_through_its_folder(
    site: Site, bucket: Bucket
) -> None:
    between = history(site, "Staged")
    site.settings["delivery"] = {
        "disk": {"server_path": SERVER_FOLDER, "local_path": str(site.folder)}
    }
    site.write_policies()
    drop_credential(site)
    try:
        assert restored(site, "Staged", between) == ["one", "two", "three", "four"]
        assert site.files() == []
        # And what is damaged there is told before the target is made.
        id_of_full = next(one.id for one in site.points("Staged") if one.type is FULL)
        (full,) = [key for key in bucket.of(site, "Staged") if id_of_full in key]
        content = bucket.get(full)
        bucket.put(full, b"x" * len(content))
        with pytest.raises(SqlbakError):
            restored(site, "Staged", "latest")
        assert site.simulator.instance.find("Restored") is None
    finally:
        make_credential(site)
        site.settings["delivery"] = {"url": URL}
        site.write_policies()


def test_a_chain_of_both_kinds_is_restored_where_both_reach_the_server(site: Site) -> None:
    site.simulator.create_database("Both", rows=["one"], filler_bytes=300_000)
    site.settings["delivery"] = {
        "disk": {"server_path": SERVER_FOLDER, "local_path": str(site.folder)}
    }
    site.write_policies()
    site.point("Both", FULL)
    disk = site.settings["delivery"]
    site.settings["delivery"] = {"url": URL}
    site.write_policies()
    site.simulator.insert("Both", "two")
    site.point("Both", LOG)
    with pytest.raises(TargetNotUsable, match="no folder through which"):
        restored(site, "Both", "latest")
    site.settings["delivery"] = disk
    site.write_policies()
    try:
        site.simulator.insert("Both", "three")
        site.point("Both", LOG)
        assert restored(site, "Both", "latest") == ["one", "two", "three"]
        assert site.files() == []
    finally:
        site.settings["delivery"] = {"url": URL}
        site.write_policies()


def test_a_server_that_reaches_it_in_no_way_says_so(site: Site) -> None:
    site.simulator.create_database("Nowhere", rows=["one"])
    site.point("Nowhere", FULL)
    drop_credential(site)
    try:
        with pytest.raises(TargetNotUsable, match="no credential") as told:
            restored(site, "Nowhere", "latest")
        assert f"CREATE CREDENTIAL [{CREDENTIAL}]" in told.value.hint
    finally:
        make_credential(site)


def test_another_backup_under_the_same_url_is_never_restored(site: Site, bucket: Bucket) -> None:
    for name in ("Swapped", "Other"):
        site.simulator.create_database(name, rows=[name])
        site.point(name, FULL)
    (full,) = bucket.of(site, "Swapped")
    (other,) = bucket.of(site, "Other")
    bucket.put(full, bucket.get(other))
    with pytest.raises(TargetNotUsable, match="does not hold the backup"):
        restored(site, "Swapped", "latest")
    assert site.simulator.instance.find("Restored") is None


def test_files_are_plain_backups_beside_a_script(site: Site, tmp_path: Path) -> None:
    between = history(site, "Plain")
    answer = site.json("restore", "erp/Plain", "--to", between, "--files", str(tmp_path / "files"))
    assert "error" not in answer, answer
    names = sorted(path.name for path in (tmp_path / "files").iterdir())
    assert [name.rpartition(".")[2] for name in names] == ["bak", "trn", "trn", "sql"]
    script = (tmp_path / "files" / "restore.sql").read_text("utf-8-sig")
    assert "URL =" not in script


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


@needs_oracle
def test_whatever_the_server_was_really_sent_is_t_sql(site: Site) -> None:
    """By all the tests before this one."""
    seen = [
        text
        for text in dict.fromkeys(site.simulator.instance.statements)
        if "URL =" in text or "credential" in text
    ]
    for text, (errors, _) in zip(seen, parse(seen), strict=True):
        assert errors == [], text


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
