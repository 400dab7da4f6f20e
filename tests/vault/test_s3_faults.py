"""An S3 store behind a failing network: one clear error or success, never half an object."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from sqlbak.errors import (
    AccessDenied,
    Interrupted,
    PreconditionFailed,
    SqlbakError,
    StoreFull,
    StoreThrottled,
    StoreUnreachable,
    UploadGone,
)
from sqlbak.stopping import StopSignal
from sqlbak.vault.retry import NO_RETRY, Retry, RetryingStore, RetryPolicy
from sqlbak.vault.s3_client import S3Bucket, make_client
from sqlbak.vault.s3_options import S3Options
from sqlbak.vault.s3_store import S3Store
from tests.vault.conftest import fresh_bucket
from tests.vault.faulty_proxy import Fault, FaultyProxy, faulty_proxy
from tests.vault.s3_servers import S3Server

pytestmark = pytest.mark.s3

PART = 5 << 20  # the least that S3 allows
DATA = bytes(range(256)) * (11 << 12)  # 11 MiB: two parts and a bit
QUICK = Retry(RetryPolicy(attempts=3, first_wait_seconds=0.001, longest_wait_seconds=0.002))
FOREVER = 1000


class Bench:
    """One vault seen twice: through the faulty proxy, and directly."""

    def __init__(self, server: S3Server, proxy: FaultyProxy) -> None:
        self.proxy = proxy
        self.direct = fresh_bucket(server)
        self.options = replace(server.options, endpoint=proxy.endpoint)
        self.bucket = self._bucket(self.options)

    def _bucket(self, options: S3Options) -> S3Bucket:
        return S3Bucket(make_client(options), self.direct.name, self.direct.prefix)

    def store(self, retry: Retry = QUICK) -> RetryingStore:
        return RetryingStore(S3Store(self.bucket, retry=retry, part_size=lambda _: PART), retry)

    def fail(self, operation: str, *answers: tuple[int, str] | str, times: int = 1) -> None:
        for answer in answers:
            if answer == "stall":
                self.bucket.client.close()
                self.bucket = self._bucket(replace(self.options, read_timeout_seconds=2))
            if isinstance(answer, str):
                fault = Fault(operation, answer, times=times)  # type: ignore[arg-type]
            else:
                fault = Fault(operation, "answer", status=answer[0], code=answer[1], times=times)
            self.proxy.faults.append(fault)

    def visible(self) -> dict[str, bytes]:
        store = S3Store(self.direct)
        return {info.key: store.get(info.key) for info in store.list("")}

    def unfinished(self) -> int:
        answer = self.direct.client.list_multipart_uploads(
            Bucket=self.direct.name, Prefix=self.direct.prefix
        )
        return len(answer.get("Uploads", []))


@pytest.fixture
def bench(moto: S3Server) -> Iterator[Bench]:
    with faulty_proxy(moto.endpoint) as proxy:
        made = Bench(moto, proxy)
        yield made
        made.bucket.client.close()
        made.direct.client.close()


def upload(bench: Bench, retry: Retry = QUICK, data: bytes = DATA) -> None:
    with bench.store(retry).writer("data") as writer:
        for start in range(0, len(data), 1 << 20):
            writer.write(data[start : start + (1 << 20)])
        writer.commit()


PASSING: list[tuple[int, str] | str] = [
    (500, "InternalError"),
    (502, "BadGateway"),
    (503, "ServiceUnavailable"),
    (503, "SlowDown"),
    (429, "TooManyRequests"),
    (400, "RequestTimeout"),
    (400, "BadDigest"),
    "lose_answer",
    "stall",
]


class TestPassingFaults:
    @pytest.mark.parametrize("fault", [*PASSING, "cut_request"], ids=str)
    def test_a_part_is_sent_again(self, bench: Bench, fault: tuple[int, str] | str) -> None:
        bench.fail("UploadPart", fault)
        upload(bench)
        assert bench.visible() == {"data": DATA}
        assert bench.unfinished() == 0

    @pytest.mark.parametrize("fault", PASSING, ids=str)
    def test_a_completion_is_repeated_or_found_done(
        self, bench: Bench, fault: tuple[int, str] | str
    ) -> None:
        bench.fail("CompleteMultipartUpload", fault)
        upload(bench)
        assert bench.visible() == {"data": DATA}
        assert bench.unfinished() == 0

    @pytest.mark.parametrize("fault", [*PASSING, "cut_request"], ids=str)
    def test_a_small_object_is_put_again(self, bench: Bench, fault: tuple[int, str] | str) -> None:
        bench.fail("PutObject", fault)
        bench.store().put("lease", b"holder 1" * 1000)
        assert bench.visible() == {"lease": b"holder 1" * 1000}

    @pytest.mark.parametrize("fault", [*PASSING, "cut_answer"], ids=str)
    def test_a_read_is_repeated(self, bench: Bench, fault: tuple[int, str] | str) -> None:
        S3Store(bench.direct).put("k", DATA)
        bench.fail("GetObject", fault, fault)
        assert bench.store().get("k") == DATA
        bench.fail("GetObject", fault)
        assert bench.store().read("k", 1000, 1 << 20) == DATA[1000 : 1000 + (1 << 20)]

    @pytest.mark.parametrize("operation", ["ListObjectsV2", "HeadObject", "DeleteObjects"])
    @pytest.mark.parametrize("fault", [(500, "InternalError"), "lose_answer"], ids=str)
    def test_everything_else_is_repeated(
        self, bench: Bench, operation: str, fault: tuple[int, str] | str
    ) -> None:
        store = bench.store()
        store.put("a/1", b"x")
        bench.fail(operation, fault)
        assert store.head("a/1").size == 1
        assert [info.key for info in store.list("a/")] == ["a/1"]
        store.delete(["a/1"])
        assert bench.visible() == {}

    def test_a_lease_whose_answers_are_lost_stays_ours(self, bench: Bench) -> None:
        store = bench.store()
        bench.fail("PutObject", "lose_answer")
        etag = store.put("lease", b"us, 1").etag
        bench.fail("PutObject", "lose_answer")
        etag = store.replace("lease", b"us, 2", if_match=etag).etag
        assert bench.visible() == {"lease": b"us, 2"}
        bench.fail("DeleteObject", "lose_answer")
        store.delete_if("lease", if_match=etag)
        assert bench.visible() == {}

    def test_a_conflict_of_conditions_is_repeated(self, bench: Bench) -> None:
        bench.fail("PutObject", (409, "ConditionalRequestConflict"))
        bench.store().put("k", b"x")
        bench.fail("CompleteMultipartUpload", (409, "ConditionalRequestConflict"))
        upload(bench)
        assert bench.visible() == {"k": b"x", "data": DATA}


class TestLastingFaults:
    @pytest.mark.parametrize(
        ("fault", "kind"),
        [
            ((500, "InternalError"), StoreUnreachable),
            ((503, "SlowDown"), StoreThrottled),
            ((429, "TooManyRequests"), StoreThrottled),
            ((403, "AccessDenied"), AccessDenied),
            ((400, "ExpiredToken"), AccessDenied),
            ((507, "InsufficientStorage"), StoreFull),
            ((403, "QuotaExceeded"), StoreFull),
            ("cut_request", StoreUnreachable),
            ("lose_answer", StoreUnreachable),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("operation", ["UploadPart", "CreateMultipartUpload"])
    def test_an_upload_fails_with_one_clear_error_and_leaves_nothing(
        self, bench: Bench, operation: str, fault: tuple[int, str] | str, kind: type[SqlbakError]
    ) -> None:
        bench.fail(operation, fault, times=FOREVER)
        with pytest.raises(kind) as caught:
            upload(bench)
        assert type(caught.value) is kind
        assert operation in str(caught.value)
        assert bench.direct.name in str(caught.value)
        assert bench.visible() == {}
        if (operation, fault) != ("CreateMultipartUpload", "lose_answer"):
            assert bench.unfinished() == 0
        S3Store(bench.direct).sweep_unfinished("", older_than=datetime.now(UTC) + timedelta(1))
        assert bench.unfinished() == 0

    def test_a_refusal_in_mid_upload_is_final(self, bench: Bench) -> None:
        bench.proxy.faults.append(
            Fault("UploadPart", "answer", status=403, code="AccessDenied", skip=1)
        )
        with bench.store().writer("data") as writer:
            with pytest.raises(AccessDenied):
                for _ in range(20):
                    writer.write(DATA[:PART])
            for act in (writer.commit, lambda: writer.write(b"x")):
                with pytest.raises(AccessDenied):
                    act()
        assert "CompleteMultipartUpload" not in bench.proxy.asked
        assert bench.visible() == {}
        assert bench.unfinished() == 0

    def test_a_completion_that_never_succeeds_leaves_nothing(self, bench: Bench) -> None:
        bench.fail("CompleteMultipartUpload", (500, "InternalError"), times=FOREVER)
        with pytest.raises(StoreUnreachable):
            upload(bench)
        assert bench.visible() == {}
        assert bench.unfinished() == 0

    def test_what_cannot_be_aborted_is_left_for_the_sweep_and_said(self, bench: Bench) -> None:
        bench.fail("UploadPart", (403, "AccessDenied"), times=FOREVER)
        bench.fail("AbortMultipartUpload", (500, "InternalError"), times=FOREVER)
        with pytest.raises(AccessDenied) as caught:
            upload(bench)
        assert "could not be aborted" in caught.value.__notes__[0]
        assert bench.unfinished() == 1
        swept = S3Store(bench.direct).sweep_unfinished(
            "", older_than=datetime.now(UTC) + timedelta(1)
        )
        assert swept == 1
        assert bench.unfinished() == 0

    def test_a_read_that_breaks_off_never_returns_fewer_bytes(self, bench: Bench) -> None:
        S3Store(bench.direct).put("k", DATA)
        bench.fail("GetObject", "cut_answer", times=FOREVER)
        store = bench.store(NO_RETRY)
        with pytest.raises(StoreUnreachable):
            store.get("k")
        with pytest.raises(StoreUnreachable):
            store.read("k", 0, len(DATA))

    def test_deletions_tell_which_key_failed(self, bench: Bench) -> None:
        key = bench.bucket.full_key("a/2")
        body = (
            "<DeleteResult><Error><Code>AccessDenied</Code><Message>locked</Message>"
            f"<Key>{key}</Key></Error></DeleteResult>"
        )
        bench.proxy.faults.append(Fault("DeleteObjects", "answer", status=200, body=body))
        with pytest.raises(AccessDenied, match=r"DeleteObjects of a/2 .*locked"):
            bench.store().delete(["a/1", "a/2"])


class TestCompletionsInDoubt:
    @pytest.mark.parametrize("fault", ["lose_answer", "stall"])
    def test_it_is_found_done_even_without_a_retry(self, bench: Bench, fault: str) -> None:
        bench.fail("CompleteMultipartUpload", fault)
        upload(bench, NO_RETRY)
        assert bench.visible() == {"data": DATA}

    def test_an_object_of_somebody_else_is_not_taken_for_ours(self, bench: Bench) -> None:
        bench.fail("CompleteMultipartUpload", (500, "InternalError"))
        theirs = bytes(len(DATA))
        with bench.store().writer("data") as writer:
            writer.write(DATA)
            S3Store(bench.direct).put("data", theirs)
            with pytest.raises(PreconditionFailed):
                writer.commit()
        assert bench.visible() == {"data": theirs}
        assert bench.unfinished() == 0

    def test_an_upload_that_was_swept_is_named(self, bench: Bench) -> None:
        bench.fail("CompleteMultipartUpload", (404, "NoSuchUpload"))
        with pytest.raises(UploadGone, match="data was taken away"):
            upload(bench)
        assert bench.visible() == {}


def test_a_stop_ends_an_upload_that_waits_for_the_store(bench: Bench) -> None:
    stop = StopSignal()
    patient = Retry(RetryPolicy(attempts=100, first_wait_seconds=60), stop)
    bench.fail("UploadPart", (503, "SlowDown"), times=FOREVER)
    timer = threading.Timer(0.3, stop.request)
    timer.start()
    with pytest.raises(Interrupted):
        upload(bench, patient)
    timer.join()
    assert bench.visible() == {}
    assert bench.unfinished() == 0
