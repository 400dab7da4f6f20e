"""What only a store in S3 can get wrong."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from sqlbak.errors import (
    AccessDenied,
    ObjectDamaged,
    ObjectNotFound,
    PreconditionFailed,
    StoreFull,
    StoreThrottled,
    StoreUnreachable,
    UploadGone,
    VaultError,
    VaultUnusable,
)
from sqlbak.vault import s3_parts, s3_writer
from sqlbak.vault.memory_store import MemoryStore
from sqlbak.vault.retry import NO_RETRY
from sqlbak.vault.s3_checksum import checksum, checksum_text
from sqlbak.vault.s3_client import S3Bucket, make_client
from sqlbak.vault.s3_errors import s3_error
from sqlbak.vault.s3_options import S3Options
from sqlbak.vault.s3_parts import MAX_PARTS, Part, part_size_bytes
from sqlbak.vault.s3_store import S3Store
from sqlbak.vault.s3_writer import S3Writer
from tests.vault.certificates import Certificates, make_certificates
from tests.vault.conftest import fresh_bucket
from tests.vault.s3_servers import (
    BUCKET,
    S3Server,
    free_port,
    rclone_program,
    start_moto,
    start_rclone,
)

MIB = 1 << 20
PART = 5 * MIB  # the least that S3 allows


@pytest.fixture(
    params=[
        pytest.param("moto", marks=pytest.mark.s3),
        pytest.param("ministack", marks=pytest.mark.s3),
        pytest.param("ceph", marks=pytest.mark.s3),
    ]
)
def bucket(request: pytest.FixtureRequest) -> Iterator[S3Bucket]:
    made = fresh_bucket(request.getfixturevalue(request.param))
    yield made
    made.client.close()


def unfinished(bucket: S3Bucket) -> int:
    answer = bucket.client.list_multipart_uploads(Bucket=bucket.name, Prefix=bucket.prefix)
    return len(answer.get("Uploads", []))


class TestUploadsInParts:
    @pytest.mark.parametrize("extra", [-1, 0, 1, PART, PART + 1])
    def test_objects_around_the_size_of_parts_are_whole(self, bucket: S3Bucket, extra: int) -> None:
        data = os.urandom(PART + extra)
        store = S3Store(bucket, part_size=lambda _: PART)
        with store.writer("items/a/data") as writer:
            for start in range(0, len(data), 777_777):
                writer.write(data[start : start + 777_777])
            info = writer.commit()
        assert info == replace(store.head("items/a/data"), modified_at=info.modified_at)
        assert info.size == len(data)
        assert store.get("items/a/data") == data
        assert unfinished(bucket) == 0

    def test_one_great_write_is_cut(self, bucket: S3Bucket) -> None:
        data = os.urandom(3 * PART + 17)
        store = S3Store(bucket, part_size=lambda _: PART)
        with store.writer("k") as writer:
            writer.write(memoryview(data))
            writer.commit()
        assert store.get("k") == data

    def test_parts_that_wait_on_disk_arrive_whole(
        self, bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(s3_parts, "LARGEST_IN_MEMORY_BYTES", MIB)
        data = os.urandom(2 * PART + 17)
        store = S3Store(bucket, part_size=lambda _: PART)
        with store.writer("k") as writer:
            writer.write(data)
            writer.commit()
        assert store.get("k") == data

    def test_an_existing_object_is_not_overwritten(self, bucket: S3Bucket) -> None:
        store = S3Store(bucket, part_size=lambda _: PART)
        store.put("k", b"theirs")
        with store.writer("k") as writer:
            writer.write(bytes(PART + 1))
            with pytest.raises(PreconditionFailed):
                writer.commit()
        assert store.get("k") == b"theirs"
        assert unfinished(bucket) == 0

    def test_nothing_is_left_after_abort(self, bucket: S3Bucket) -> None:
        store = S3Store(bucket, part_size=lambda _: PART)
        writer = store.writer("k")
        writer.write(bytes(2 * PART))
        assert unfinished(bucket) == 1
        writer.abort()
        assert unfinished(bucket) == 0
        assert list(store.list("")) == []


class TestCopy:
    def test_a_large_object_is_copied_on_the_server(self, bucket: S3Bucket) -> None:
        data = os.urandom(16 * MIB + 2)
        store = S3Store(bucket, copy_part_bytes=6 * MIB)
        with store.writer("a") as writer:
            writer.write(data)
            writer.commit()
        assert store.copy("a", "b").size == len(data)
        assert store.get("b") == data
        with pytest.raises(PreconditionFailed):
            store.copy("a", "b")
        assert unfinished(bucket) == 0


class TestListing:
    def test_foreign_objects_are_passed_over(self, bucket: S3Bucket) -> None:
        for key in ("a/", "a/.hidden", "a//b", "a/ü", ".sqlbak/x"):
            bucket.client.put_object(Bucket=bucket.name, Key=bucket.full_key(key), Body=b"")
        store = S3Store(bucket)
        store.put("a/b", b"")
        assert [info.key for info in store.list("")] == ["a/b"]

    def test_more_objects_than_a_page_holds_come_in_order(self, bucket: S3Bucket) -> None:
        store = S3Store(bucket)
        keys = [f"k/{number:03}" for number in range(25)]
        for key in keys:
            store.put(key, b"")

        def small_pages(params: dict[str, Any], **_: object) -> None:
            params.setdefault("MaxKeys", 10)

        event = "before-parameter-build.s3.ListObjectsV2"
        bucket.client.meta.events.register(event, small_pages)
        assert [info.key for info in store.list("k/")] == keys

    def test_a_server_that_lists_in_another_order_is_refused(
        self, bucket: S3Bucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = datetime.now(UTC)
        page = {
            "Contents": [
                {"Key": bucket.full_key(key), "Size": 0, "ETag": "x", "LastModified": now}
                for key in ("b", "a")
            ]
        }
        store = S3Store(bucket)
        monkeypatch.setattr(store, "_pages", lambda *_: iter([page]))
        with pytest.raises(VaultUnusable, match="does not list its objects in order"):
            list(store.list(""))


class TestSecretsAndPlaces:
    def test_a_missing_bucket_is_named(self, bucket: S3Bucket) -> None:
        store = S3Store(replace(bucket, name="not-made-yet"))
        for act in (lambda: store.put("k", b""), lambda: list(store.list(""))):
            with pytest.raises(VaultUnusable, match="not-made-yet") as caught:
                act()
            assert "make the bucket" in caught.value.hint

    @pytest.mark.s3
    @pytest.mark.parametrize("wrong", ["access_key", "secret_key"])
    def test_a_wrong_key_is_access_denied(self, rclone: S3Server, wrong: str) -> None:
        options = (
            replace(rclone.options, access_key="wrong-key")
            if wrong == "access_key"
            else replace(rclone.options, secret_key="wrong-key")
        )
        store = S3Store(S3Bucket(make_client(options), BUCKET, ""))
        with pytest.raises(AccessDenied, match=f"PutObject of k in bucket {BUCKET}") as caught:
            store.put("k", b"")
        assert "wrong-key" not in str(caught.value) + caught.value.hint

    def test_a_server_that_is_not_there_is_unreachable(self) -> None:
        options = S3Options(
            endpoint=f"http://127.0.0.1:{free_port()}", access_key="AK", secret_key="SK"
        )
        with pytest.raises(StoreUnreachable, match="GetObject of k in bucket b"):
            S3Store(S3Bucket(make_client(options), "b", "")).get("k")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def tls_server(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[S3Server]:
    with start_moto(
        tmp_path_factory.mktemp("moto-tls"),
        certificate=certificates.server,
        key=certificates.server_key,
        ca_bundle=certificates.authority,
    ) as server:
        yield server


@pytest.mark.s3
class TestOverTls:
    def test_a_store_with_its_own_authority_works(self, tls_server: S3Server) -> None:
        store = S3Store(fresh_bucket(tls_server), part_size=lambda _: PART)
        with store.writer("k") as writer:
            writer.write(bytes(PART + 1))
            writer.commit()
        assert store.get("k") == bytes(PART + 1)
        store.close()

    def test_an_unknown_authority_is_named(self, tls_server: S3Server) -> None:
        options = replace(tls_server.options, ca_bundle=None)
        store = S3Store(S3Bucket(make_client(options), BUCKET, ""))
        with pytest.raises(VaultUnusable, match="certificate is not trusted") as caught:
            store.head("k")
        assert "ca_bundle" in caught.value.hint
        store.close()

    def test_bodies_are_guarded_by_a_checksum_in_the_header(self, tls_server: S3Server) -> None:
        bucket = fresh_bucket(tls_server)
        sent: list[dict[str, str]] = []

        def note(request: Any, **_: object) -> None:
            if request.method == "PUT":
                headers = {str(k).lower(): v for k, v in request.headers.items()}
                sent.append(
                    {k: v.decode() if isinstance(v, bytes) else v for k, v in headers.items()}
                )

        bucket.client.meta.events.register("before-send.s3", note)
        store = S3Store(bucket, part_size=lambda _: PART)
        store.put("small", b"x")
        with store.writer("large") as writer:
            writer.write(bytes(PART + 1))
            writer.commit()
        assert len(sent) == 3
        for headers in sent:
            assert any(name.startswith("x-amz-checksum-crc") for name in headers)
            # AWS refuses parts without it where the bucket has object lock; hashing each body
            # with SHA-256 as well would cost more than all the rest.
            assert headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
            assert "x-amz-trailer" not in headers
            assert "transfer-encoding" not in headers
        store.close()


class TestParts:
    def test_five_tebibytes_fit(self) -> None:
        sizes = [part_size_bytes(number) for number in range(1, MAX_PARTS + 1)]
        assert sum(sizes) >= 5 << 40
        assert sizes == sorted(sizes)
        assert min(sizes) >= 5 * MIB
        assert max(sizes) <= 5 << 30
        assert set(sizes[:4000]) == {16 * MIB}

    @pytest.mark.parametrize("on_disk", [False, True])
    def test_a_part_holds_what_it_took(
        self, on_disk: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if on_disk:
            monkeypatch.setattr(s3_parts, "LARGEST_IN_MEMORY_BYTES", 5)
        part = Part(1, 10)
        assert part.take(memoryview(b"123456")) == 6
        assert part.take(memoryview(b"7890ab")) == 4
        assert part.is_full
        assert part.content() == b"1234567890"
        assert part.checksum() == checksum_text(checksum(b"1234567890"))
        assert part.content() == b"1234567890"
        part.close()

    def test_no_room_for_temporary_files_is_a_full_store(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse() -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("tempfile.TemporaryFile", refuse)
        writer = offline_writer(33 * MIB)
        with pytest.raises(StoreFull, match="No space left"):
            writer.write(b"x")
        with pytest.raises(StoreFull):
            writer.commit()


@dataclass
class HeldUpload:
    """Takes parts, but does not finish one before it is told to."""

    go: threading.Event = field(default_factory=threading.Event)
    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    numbers: list[int] = field(default_factory=list)

    def send(self, part: Part) -> dict[str, object]:
        self.begun.release()
        self.go.wait()
        self.numbers.append(part.number)
        return {"PartNumber": part.number, "ETag": "x"}

    def abort(self) -> None:
        pass


def offline_writer(part_bytes: int) -> S3Writer:
    bucket: Any = None
    return S3Writer(MemoryStore(), bucket, "k", NO_RETRY, part_size=lambda _: part_bytes)


@pytest.mark.parametrize(("part_bytes", "held"), [(16 * MIB, 3), (32 * MIB, 1)])
def test_a_writer_holds_at_most_64_mib(
    part_bytes: int, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = HeldUpload()
    monkeypatch.setattr(s3_writer, "begin_upload", lambda *_: upload)
    writer = offline_writer(part_bytes)
    taken = 0
    is_done = threading.Event()

    def write() -> None:
        nonlocal taken
        for _ in range(8 * part_bytes // MIB):
            writer.write(bytes(MIB))
            taken += MIB
        is_done.set()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(held):
            assert upload.begun.acquire(timeout=30)
        # What is in flight is stuck now: one more part can be filled, but not a second one.
        assert not is_done.wait(0.5)
        assert taken <= (held + 1) * part_bytes == 64 * MIB
        assert sum(part.memory_bytes for part, _ in writer._in_flight) <= 64 * MIB
    finally:
        upload.go.set()
        thread.join()
    assert taken == 8 * part_bytes
    for _ in range(held, 7):  # the eighth part is sealed by a commit only
        assert upload.begun.acquire(timeout=30)
    writer.abort()
    assert sorted(upload.numbers)[:7] == list(range(1, 8))


def client_error(status: int, code: str, message: str = "") -> ClientError:
    response: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(response, "PutObject")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (client_error(404, "NoSuchKey"), ObjectNotFound),
        (client_error(404, "404"), ObjectNotFound),
        (client_error(404, "NoSuchBucket"), VaultUnusable),
        (client_error(404, "NoSuchUpload"), UploadGone),
        (client_error(412, "PreconditionFailed"), PreconditionFailed),
        (client_error(412, "412"), PreconditionFailed),
        (client_error(409, "ConditionalRequestConflict"), StoreThrottled),
        (client_error(503, "SlowDown"), StoreThrottled),
        (client_error(400, "ThrottlingException"), StoreThrottled),
        (client_error(429, "429"), StoreThrottled),
        (client_error(503, "ServiceUnavailable"), StoreUnreachable),
        (client_error(500, "InternalError"), StoreUnreachable),
        (client_error(504, "504"), StoreUnreachable),
        (client_error(403, "AccessDenied"), AccessDenied),
        (client_error(403, "403"), AccessDenied),
        (client_error(401, "Unauthorized"), AccessDenied),
        (client_error(403, "InvalidAccessKeyId"), AccessDenied),
        (client_error(403, "SignatureDoesNotMatch"), AccessDenied),
        (client_error(400, "ExpiredToken"), AccessDenied),
        (client_error(403, "RequestTimeTooSkewed"), AccessDenied),
        (client_error(403, "QuotaExceeded"), StoreFull),
        (client_error(507, "507"), StoreFull),
        (client_error(501, "NotImplemented"), VaultUnusable),
        (client_error(301, "PermanentRedirect"), VaultUnusable),
        (NoCredentialsError(), AccessDenied),
        (EndpointConnectionError(endpoint_url="http://x"), StoreUnreachable),
        (ConnectionResetError(104, "Connection reset by peer"), StoreUnreachable),
    ],
    ids=str,
)
def test_each_answer_has_one_meaning(error: Exception, kind: type[VaultError]) -> None:
    made = s3_error(error, "PutObject", "items/k", "acme")
    assert type(made) is kind
    if kind not in (ObjectNotFound, PreconditionFailed, UploadGone):
        assert "PutObject of items/k in bucket acme" in str(made)


def test_a_wrong_clock_and_a_missing_right_are_named() -> None:
    skewed = s3_error(client_error(403, "RequestTimeTooSkewed"), "PutObject", "k", "acme")
    assert "clock" in skewed.hint
    denied = s3_error(client_error(403, "AccessDenied"), "UploadPart", "k", "acme")
    assert denied.hint == "the account needs the right to s3:PutObject in bucket acme"


def test_programming_errors_are_not_disguised() -> None:
    with pytest.raises(TypeError):
        s3_error(TypeError("oops"), "PutObject", "k", "acme")


@pytest.mark.s3
def test_an_answer_that_shows_other_bytes_is_damage(
    moto: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = S3Store(fresh_bucket(moto))
    put_object = store.bucket.client.put_object

    def damaged(**parameters: Any) -> Any:
        return put_object(**{**parameters, "Body": b"fewer", "ChecksumCRC32": "QF2J1w=="})

    monkeypatch.setattr(store.bucket.client, "put_object", damaged)
    with pytest.raises(ObjectDamaged, match="arrived damaged"):
        store.put("k", b"bytes that were sent")
    store.close()


@pytest.mark.s3
class TestRanges:
    def read(
        self, moto: S3Server, monkeypatch: pytest.MonkeyPatch, status: int, told: str
    ) -> bytes:
        store = S3Store(fresh_bucket(moto))
        answer = {
            "Body": io.BytesIO(b"0123456789"),
            "ContentLength": 10,
            "ContentRange": told,
            "ResponseMetadata": {"HTTPStatusCode": status},
        }
        monkeypatch.setattr(store, "_get", lambda *_: answer)
        try:
            return store.read("k", 2, 20)
        finally:
            store.close()

    def test_everything_instead_of_a_range_is_cut(
        self, moto: S3Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert self.read(moto, monkeypatch, 200, "") == b"23456789"

    @pytest.mark.parametrize("told", ["bytes 2-21/100", "bytes 2-11/*", ""])
    def test_fewer_bytes_than_there_are_is_never_an_answer(
        self, moto: S3Server, monkeypatch: pytest.MonkeyPatch, told: str
    ) -> None:
        with pytest.raises(StoreUnreachable):
            self.read(moto, monkeypatch, 206, told)


@pytest.mark.s3
def test_a_server_that_never_saw_an_upload_has_none_to_sweep(tmp_path: Path) -> None:
    """rclone answers NoSuchUpload to the listing until a first upload has begun."""
    program = rclone_program()
    if program is None:
        pytest.skip("rclone is not here: it comes with the test extra")
    with start_rclone(tmp_path, program) as fresh:
        store = S3Store(fresh_bucket(fresh))
        assert store.sweep_unfinished("", older_than=datetime.now(UTC) + timedelta(hours=1)) == 0
        store.close()


@pytest.mark.s3
def test_a_sweep_takes_only_old_uploads_below_the_prefix(ministack: S3Server) -> None:
    bucket = fresh_bucket(ministack)
    for key in ("items/a/1", "items/b/1"):
        bucket.client.create_multipart_upload(Bucket=bucket.name, Key=bucket.full_key(key))
    store = S3Store(bucket)
    now = datetime.now(UTC)
    assert store.sweep_unfinished("", older_than=now - timedelta(hours=1)) == 0
    assert store.sweep_unfinished("items/a/", older_than=now + timedelta(hours=1)) == 1
    assert unfinished(bucket) == 1
    store.close()
