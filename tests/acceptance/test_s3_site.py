"""A bucket as the vault, through the whole program: what works, what is refused, and what servers
and networks do to it."""

from __future__ import annotations

import dataclasses
import signal
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.aftermath import assert_no_slot_left, own_slots, restored
from tests.acceptance.markers import Writer, assert_restored_exactly, commit_times
from tests.acceptance.s3_sites import S3Site, s3_site
from tests.acceptance.site import Answer
from tests.engines.postgres.clusters import Cluster, scratch_directory
from tests.vault.faulty_proxy import Fault, FaultyProxy, faulty_proxy
from tests.vault.s3_servers import (
    S3Server,
    rclone_program,
    start_rclone,
)

pytestmark = [pytest.mark.postgres, pytest.mark.s3]

SECRET = "marker-of-a-secret-key-4711"


@pytest.fixture(params=["moto", "ministack", "ceph"])
def server(request: pytest.FixtureRequest) -> S3Server:
    found: S3Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def home() -> Iterator[Path]:
    with scratch_directory() as path:
        yield path


@pytest.fixture(autouse=True)
def _own_slots(cluster: Cluster) -> Iterator[None]:
    with own_slots(cluster):
        yield


@pytest.fixture(scope="module")
def large(cluster: Cluster) -> Cluster:
    """The cluster, with enough in it for an upload in parts."""
    cluster.execute(
        "CREATE TABLE noise AS SELECT sha512(n::text::bytea) AS a, sha512((-n)::text::bytea) AS b"
        " FROM generate_series(1, 145000) AS n"
    )
    return cluster


def described(answer: Answer, code: int) -> dict[str, Any]:
    """The one error of a run that failed."""
    assert answer.code == code, answer.err + answer.out
    assert "Traceback" not in answer.err
    assert answer.err.count("sqlbak: ") == 1
    error: dict[str, Any] = answer.document["error"]
    return error


def test_full_logs_and_a_restore_through_a_bucket(
    server: S3Server, large: Cluster, tmp_path: Path, home: Path
) -> None:
    here = s3_site(tmp_path, large.dsn(), server)
    with Writer(large):
        here.site.backup("full")
        first = here.site.backup("log")
        time.sleep(0.5)
        last = here.site.backup("log")
    _, end = here.site.windows()[0]
    assert end == datetime.fromisoformat(last["covers_until"])
    here.assert_nothing_left()
    to = end - (end - datetime.fromisoformat(first["covers_until"])) / 2
    with restored(here.site, large, to.isoformat(), home / "data") as document:
        assert [step["type"] for step in document["steps"]] == ["full", "log", "log"]
        assert_restored_exactly(document, commit_times(large), to)


def test_a_store_without_conditional_writes_is_refused_with_what_it_lacks(
    cluster: Cluster, tmp_path: Path
) -> None:
    program = rclone_program()
    if program is None:
        pytest.skip("rclone is not here: it comes with the test extra")
    with start_rclone(tmp_path, program) as rclone:
        here = s3_site(tmp_path, cluster.dsn(), rclone)
        error = described(here.site.run("backup", "orders", "--type", "full"), 3)
        assert error["code"] == "feature_unsupported"
        assert "a second create of the same key was accepted" in error["message"]
        assert "conditional writes" in error["hint"]
        checked = here.site.run("vault", "check")
        assert checked.code == 3
        assert checked.document["usable"] is False
        assert here.keys() == []


def test_a_wrong_secret_key_is_named_once(
    ministack: S3Server, cluster: Cluster, tmp_path: Path
) -> None:
    """moto lets everybody in, and so does ministack: rclone asks for the signature."""
    program = rclone_program()
    if program is None:
        pytest.skip("rclone is not here: it comes with the test extra")
    with start_rclone(tmp_path, program) as rclone:
        here = s3_site(tmp_path, cluster.dsn(), rclone, secret_key=SECRET)
        answer = here.site.run("backup", "orders", "--type", "full")
        error = described(answer, 1)
        assert error["code"] == "access_denied"
        assert SECRET not in answer.out + answer.err


def test_a_missing_bucket_is_named_and_not_made(
    server: S3Server, cluster: Cluster, tmp_path: Path
) -> None:
    here = s3_site(tmp_path, cluster.dsn(), server, bucket="nobody-made-it")
    for words in (("backup", "orders", "--type", "full"), ("vault", "check"), ("list",)):
        error = described(here.site.run(*words), 1)
        assert error["code"] == "vault_unusable"
        assert "nobody-made-it" in error["message"]
        assert "make the bucket" in error["hint"]


def test_an_endpoint_that_nobody_listens_on_is_one_error(
    moto: S3Server, cluster: Cluster, tmp_path: Path
) -> None:
    here = s3_site(tmp_path, cluster.dsn(), moto, endpoint="http://127.0.0.1:9")
    error = described(here.site.run("backup", "orders", "--type", "full"), 1)
    assert error["code"] == "store_unreachable"
    assert "127.0.0.1:9" in error["message"]
    assert error["hint"]


def test_a_backup_that_waits_for_its_store_can_be_interrupted(
    moto: S3Server, cluster: Cluster, tmp_path: Path
) -> None:
    with faulty_proxy(moto.endpoint) as proxy:
        here = s3_site(tmp_path, cluster.dsn(), moto, endpoint=proxy.endpoint)
        proxy.faults[:] = [Fault("*", "answer", 500, times=10_000)]
        process = here.site.start("backup", "orders", "--type", "full", "--json")
        while not proxy.asked:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert len(proxy.asked) < 8  # it did not go on to the end of its attempts
        error = described(Answer(process.returncode, out, err), 130)
        assert error["code"] == "interrupted"


FAULTS = {
    "503": Fault("*", "answer", 503, "SlowDown", times=2),
    "cut part": Fault("UploadPart", "cut_request", times=2),
    # The probe, which a new vault begins with, asks each thing once: no fault there.
    "lost answer of a put": Fault("PutObject", "lose_answer", times=3, skip=10_000),
    "lost answer of the last step": Fault("CompleteMultipartUpload", "lose_answer", skip=2),
    "cut listing": Fault("ListObjectsV2", "cut_answer", times=2, skip=1),
}


@pytest.fixture
def behind_proxy(
    moto: S3Server, large: Cluster, tmp_path: Path
) -> Iterator[tuple[S3Site, FaultyProxy]]:
    with faulty_proxy(moto.endpoint) as proxy:
        yield s3_site(tmp_path, large.dsn(), moto, endpoint=proxy.endpoint), proxy


@pytest.mark.parametrize("name", FAULTS)
def test_what_passes_is_outlived(
    behind_proxy: tuple[S3Site, FaultyProxy], large: Cluster, name: str
) -> None:
    here, proxy = behind_proxy
    fault = FAULTS[name]
    for kind, skip in (("full", fault.skip), ("log", 2)):
        proxy.faults[:] = [dataclasses.replace(fault, skip=skip)]
        here.site.backup(kind)
    here.assert_nothing_left()
    points = here.site.run("list").ok()["points"]
    assert [point["type"] for point in points] == ["full", "log"]
    assert_no_slot_left(large)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault("UploadPart", "answer", 507, "InsufficientStorage", times=100), "store_full"),
        (Fault("PutObject", "answer", 403, "AccessDenied", times=100, skip=6), "access_denied"),
        (Fault("CompleteMultipartUpload", "answer", 403, "AccessDenied", times=9), "access_denied"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.operation,
)
def test_what_lasts_is_one_error_and_the_next_run_starts_clean(
    behind_proxy: tuple[S3Site, FaultyProxy], large: Cluster, fault: Fault, code: str
) -> None:
    here, proxy = behind_proxy
    here.site.backup("full")
    here.site.backup("log")
    proxy.faults[:] = [fault]
    error = described(here.site.run("backup", "orders", "--type", "full"), 1)
    assert error["code"] == code
    assert error["hint"]
    proxy.faults.clear()
    assert here.uploads() == []
    points = here.site.run("list").ok()["points"]
    assert [point["type"] for point in points] == ["full", "log"]
    here.site.backup("full")
    assert here.site.run("backup", "orders", "--type", "log").ok()["notes"] == []
    here.assert_nothing_left()
    assert_no_slot_left(large)


@pytest.mark.soak
def test_a_store_that_goes_away_for_good_in_a_full_leaves_nothing_after_the_next_run(
    behind_proxy: tuple[S3Site, FaultyProxy], large: Cluster
) -> None:
    here, proxy = behind_proxy
    here.site.backup("full")
    here.site.backup("log")
    # Gone from the first part on, for deletes and records too.
    proxy.faults[:] = [Fault("*", "answer", 500, "InternalError", times=10_000, skip=16)]
    error = described(here.site.run("backup", "orders", "--type", "full", timeout=400), 1)
    assert error["code"] == "store_unreachable"
    proxy.faults.clear()
    assert here.site.run("backup", "orders", "--type", "log").ok()["notes"] == []
    here.site.backup("full")
    here.assert_nothing_left()
    assert_no_slot_left(large)
