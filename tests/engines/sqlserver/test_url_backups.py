"""SQL Server writes its backups into the vault itself: what comes of it, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sqlbak.engines.sqlserver import url_delivery
from sqlbak.engines.sqlserver.connection import Session
from sqlbak.errors import (
    ConfigurationInvalid,
    FeatureUnsupported,
    ServerNotReady,
    SqlbakError,
    TargetNotUsable,
)
from tests.engines.sqlserver.site import DIFFERENTIAL, FULL, LOG, SERVER_FOLDER, Site, site_in
from tests.engines.sqlserver.test_grants import PAGE, granted
from tests.engines.sqlserver.tsql_oracle import needs_oracle, parse
from tests.engines.sqlserver.url_site import (
    CREDENTIAL,
    HOST,
    URL,
    Bucket,
    by_url,
    drop_credential,
    history,
    make_credential,
    restored,
    url_site,
)
from tests.sqlserver_simulator import Simulator
from tests.vault.s3_servers import BUCKET, SECRET_KEY, S3Server, start_moto

pytestmark = pytest.mark.s3


@pytest.fixture
def site(url_site_of_module: Site) -> Iterator[Site]:
    url_site_of_module.simulator.faults.clear()
    yield url_site_of_module
    url_site_of_module.simulator.faults.clear()


@pytest.fixture
def bucket(store: S3Server) -> Bucket:
    return Bucket(store)


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


def test_each_replica_of_a_group_writes_into_the_vault(tmp_path: Path, store: S3Server) -> None:
    options = {"prefix": "group", "server_name": "NODE1", "databases": ["Shared"]}
    second = Simulator({}, server_name="NODE2", s3_endpoints={HOST: store.endpoint})
    with url_site(tmp_path / "site", store, **options) as site, second:
        group = site.simulator.group("ag", ["Shared"], [second])
        site.settings["replicas"] = {
            node.instance.server_name: {"host": node.host, "port": node.port}
            for node in (site.simulator, second)
        }
        site.write_policies()
        with pytest.raises(ServerNotReady, match="credential"):
            site.backup("Shared", LOG)
        make_credential(replace(site, simulator=second))
        taken = {}
        for kind in (FULL, LOG, DIFFERENTIAL, LOG):
            site.simulator.insert("Shared", kind.value)
            facts = site.manifest("Shared", site.point("Shared", kind)).facts or {}
            taken[kind] = (facts["delivery"], facts["server"]["name"])
        assert taken == {
            FULL: ("url", "NODE1"),
            DIFFERENTIAL: ("url", "NODE1"),
            LOG: ("url", "NODE2"),
        }
        group.fail_over(second.instance)
        second.insert("Shared", "after the failover")
        site.point("Shared", LOG)
        rows = ["full", "log", "differential", "log", "after the failover"]
        assert restored(site, "Shared", "latest") == rows


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
