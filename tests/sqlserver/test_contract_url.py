"""What sqlbak relies on where the server writes into the vault itself, over the wire alone: run
against the simulator and a bucket of this machine always, and against a real SQL Server beside a
real S3 server with ``pytest -m sqlserver --sqlserver=container``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from tests.sqlserver.servers import (
    INSTANCE,
    BucketPlace,
    Server,
    contained_with_bucket,
    simulated_with_bucket,
)
from tests.sqlserver.test_contract import backup, sqlbak, told

pytestmark = [pytest.mark.sqlserver, pytest.mark.s3]
__all__ = ["sqlbak", "told"]


@pytest.fixture(scope="module")
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("bucket")
    folder.chmod(0o777)
    is_real = request.config.getoption("--sqlserver") == "container"
    version = request.config.getoption("--sqlserver-version")
    opened = contained_with_bucket(folder, version) if is_real else simulated_with_bucket(folder)
    with opened as found:
        assert found.bucket is not None
        found.run(
            f"CREATE CREDENTIAL [s3://{found.bucket.host}/{found.bucket.bucket}] WITH IDENTITY = "
            f"'S3 Access Key', SECRET = '{found.bucket.access_key}:{found.bucket.secret_key}'"
        )
        yield found


@pytest.fixture
def place(server: Server) -> BucketPlace:
    assert server.bucket is not None
    return server.bucket


def test_a_chain_is_written_to_the_bucket_and_restored_from_it(
    server: Server,
    sqlbak: Callable[..., dict[str, Any]],
) -> None:
    server.create("Bucket")
    backup(sqlbak, "Bucket", "full")
    first = server.insert("Bucket", "one")
    time.sleep(0.05)
    server.insert("Bucket", "two")
    backup(sqlbak, "Bucket", "differential")
    third = server.insert("Bucket", "three")
    time.sleep(0.05)
    server.insert("Bucket", "four")
    backup(sqlbak, "Bucket", "log")
    for at, expected in ((first, ["one"]), (third, ["one", "two", "three"])):
        document = sqlbak(
            "restore",
            f"{INSTANCE}/Bucket",
            "--to",
            (at + timedelta(milliseconds=20)).isoformat(),
            "--as",
            "Bucket_copy",
        )
        assert document["state"] == "ONLINE"
        assert server.values("Bucket_copy") == expected
        server.run("DROP DATABASE Bucket_copy")


def test_measured_how_an_object_is_told_that_is_no_backup(
    server: Server,
    place: BucketPlace,
    told: Callable[[str], None],
) -> None:
    """The look at the vault relies on it: what is there is not told like what is not."""
    there = server.heard(f"RESTORE LABELONLY FROM URL = N'{place.url}/vault.json'")
    absent = server.heard(f"RESTORE LABELONLY FROM URL = N'{place.url}/absent.json'")
    told(f"an object that is no backup: {there}; one that is not there: {absent}")
    assert not any("Operating system error 2(" in text for text in there)
    assert any("Operating system error 2(" in text for text in absent)


def test_measured_what_a_refused_url_says(
    server: Server, place: BucketPlace, told: Callable[[str], None]
) -> None:
    for url in (f"s3://{place.host}/nosuchbucket/x", f"{place.url}x"):
        said = server.heard(f"BACKUP DATABASE model TO URL = N'{url}/y.bak' WITH FORMAT, COPY_ONLY")
        told(f"{url}: {said}")
    said = server.heard(
        f"BACKUP DATABASE model TO URL = N's3://{place.host}/nosuchbucket/y' WITH FORMAT, COPY_ONLY"
    )
    assert any("Operating system error 50" in text for text in said)
