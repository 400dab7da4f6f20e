"""An object store in a bucket of Amazon S3 or of a server that speaks its API.

It relies on conditional writes (If-None-Match, If-Match), which not every server has;
sqlbak/vault/probe.py finds out. Sources: Amazon S3 API Reference; Amazon S3 User Guide,
"Add preconditions to S3 operations with conditional requests".
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from datetime import datetime
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from sqlbak.errors import (
    ObjectDamaged,
    ObjectNotFound,
    PreconditionFailed,
    StoreUnreachable,
    UploadGone,
    VaultUnusable,
)
from sqlbak.vault.keys import check_key, check_prefix, is_key
from sqlbak.vault.retry import NO_RETRY, Retry
from sqlbak.vault.s3_checksum import HEADER, checksum, checksum_text
from sqlbak.vault.s3_client import S3Bucket, object_info
from sqlbak.vault.s3_errors import s3_error
from sqlbak.vault.s3_parts import MAX_PARTS, part_size_bytes
from sqlbak.vault.s3_upload import abort_upload, begin_upload
from sqlbak.vault.s3_writer import S3Writer
from sqlbak.vault.store import ObjectInfo

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef, ObjectIdentifierTypeDef

__all__ = ["S3Store"]

_DELETE_BATCH = 1000
_SMALL_COPY_BYTES = 16 << 20
_COPY_PART_BYTES = 256 << 20


class S3Store:
    """See ObjectStore. ``retry`` serves streaming uploads; everything else asks once."""

    def __init__(
        self,
        bucket: S3Bucket,
        *,
        retry: Retry = NO_RETRY,
        part_size: Callable[[int], int] = part_size_bytes,
        copy_part_bytes: int = _COPY_PART_BYTES,
    ) -> None:
        self._bucket = bucket
        self._retry = retry
        self._part_size = part_size
        self._copy_part_bytes = copy_part_bytes

    @property
    def url(self) -> str:
        """``s3://bucket/prefix``."""
        return f"s3://{self._bucket.name}/{self._bucket.prefix}".rstrip("/")

    @property
    def bucket(self) -> S3Bucket:
        """What the store talks to, for probes of the server."""
        return self._bucket

    def in_parts_of(self, size_bytes: int) -> S3Store:
        """The same store with multipart uploads from ``size_bytes`` on."""
        return S3Store(self._bucket, retry=self._retry, part_size=lambda _: size_bytes)

    def put(self, key: str, data: bytes, *, if_absent: bool = True) -> ObjectInfo:
        """See ObjectStore.put."""
        return self._put(check_key(key), data, {"IfNoneMatch": "*"} if if_absent else {})

    def replace(self, key: str, data: bytes, *, if_match: str) -> ObjectInfo:
        """See ObjectStore.replace."""
        try:
            return self._put(check_key(key), data, {"IfMatch": if_match})
        except ObjectNotFound:
            raise PreconditionFailed(key) from None

    def writer(self, key: str) -> S3Writer:
        """See ObjectStore.writer."""
        return S3Writer(self, self._bucket, check_key(key), self._retry, part_size=self._part_size)

    def get(self, key: str) -> bytes:
        """See ObjectStore.get."""
        answer = self._get(check_key(key), {})
        return self._body(key, answer, answer["ContentLength"])

    def read(self, key: str, start: int, length: int) -> bytes:
        """See ObjectStore.read."""
        if length <= 0:
            self.head(key)
            return b""
        try:
            answer = self._get(check_key(key), {"Range": f"bytes={start}-{start + length - 1}"})
        except _RangeBeyondEnd:
            return b""
        # "bytes 0-99/1234"
        _, _, total = answer.get("ContentRange", "").rpartition("/")
        if total.isdecimal():
            return self._body(key, answer, min(length, int(total) - start))
        if answer["ResponseMetadata"]["HTTPStatusCode"] == 200:
            # A server that knows no ranges sends everything.
            return self._body(key, answer, answer["ContentLength"])[start : start + length]
        answer["Body"].close()
        raise StoreUnreachable(f"GetObject of {key} in bucket {self._bucket.name}: unclear range")

    def head(self, key: str) -> ObjectInfo:
        """See ObjectStore.head."""
        answer = self._bucket.ask(
            "HeadObject",
            key,
            lambda: self._bucket.client.head_object(**self._request(check_key(key))),
        )
        return object_info(key, answer["ContentLength"], answer["ETag"], answer["LastModified"])

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """See ObjectStore.list. Objects whose keys no store of ours could have written (markers
        of folders, for one) are passed over."""
        return self._listed(check_prefix(prefix))

    def delete(self, keys: Iterable[str]) -> None:
        """See ObjectStore.delete."""
        rest = iter(keys)
        while batch := [check_key(key) for key in islice(rest, _DELETE_BATCH)]:
            self._delete_batch(batch)

    def delete_if(self, key: str, *, if_match: str) -> None:
        """See ObjectStore.delete_if."""
        try:
            # Deleting what is gone succeeds on some servers whatever the condition is.
            if self.head(key).etag != if_match:
                raise PreconditionFailed(key)
            self._bucket.ask(
                "DeleteObject",
                key,
                lambda: self._bucket.client.delete_object(**self._request(key), IfMatch=if_match),
            )
        except ObjectNotFound:
            raise PreconditionFailed(key) from None

    def copy(self, source: str, target: str) -> ObjectInfo:
        """See ObjectStore.copy. Small objects go through us, for a PUT is refused atomically where
        the target exists; larger ones stay on the server, part by part for the same reason."""
        check_key(target)
        found = self.head(source)
        if found.size <= _SMALL_COPY_BYTES:
            return self.put(target, self.get(source))
        # Not needed for safety, but moving terabytes only to be refused is no use.
        try:
            self.head(target)
        except ObjectNotFound:
            return self._copy_by_parts(found, target)
        raise PreconditionFailed(target)

    def sweep_unfinished(self, prefix: str, *, older_than: datetime) -> int:
        """See ObjectStore.sweep_unfinished. S3 does not tell living uploads from dead ones, so
        ``older_than`` must leave the longest backup time enough."""
        start = self._bucket.full_key(check_prefix(prefix))
        pages = self._bucket.client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self._bucket.name, Prefix=start
        )
        try:
            uploads = [
                (upload["Key"].removeprefix(self._bucket.prefix), upload["UploadId"])
                for page in self._pages("ListMultipartUploads", prefix, pages)
                for upload in page.get("Uploads", [])
                if upload["Key"].startswith(start) and upload["Initiated"] < older_than
            ]
        except UploadGone:
            return 0  # how rclone says that nothing was ever uploaded in parts
        count = 0
        for key, upload_id in uploads:
            # else finished, or swept by somebody else, meanwhile
            count += abort_upload(self._bucket, key, upload_id)
        return count

    def close(self) -> None:
        """See ObjectStore.close."""
        self._bucket.client.close()

    def _request(self, key: str) -> dict[str, Any]:
        return {"Bucket": self._bucket.name, "Key": self._bucket.full_key(key)}

    def _put(self, key: str, data: bytes, condition: dict[str, str]) -> ObjectInfo:
        sum_text = checksum_text(checksum(data))
        headers: dict[str, Any] = {HEADER: sum_text, **condition}
        answer = self._bucket.ask(
            "PutObject",
            key,
            lambda: self._bucket.client.put_object(**self._request(key), Body=data, **headers),
        )
        etag = answer["ETag"]
        date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        stored_sum = answer.get(HEADER)
        proven = (
            stored_sum == sum_text
            if stored_sum
            else etag.strip('"') == hashlib.md5(data, usedforsecurity=False).hexdigest()
        )
        if proven and date is not None:
            return object_info(key, len(data), etag, parsedate_to_datetime(date))
        # The tag is no MD5 of the bytes where the server encrypts with a key of its own.
        found = self.head(key)
        if found.etag == etag and (stored_sum not in (None, sum_text) or found.size != len(data)):
            raise ObjectDamaged(f"{key} arrived damaged in {self.url}")
        return ObjectInfo(key, len(data), etag, found.modified_at)

    def _get(self, key: str, how: dict[str, Any]) -> GetObjectOutputTypeDef:
        def request() -> GetObjectOutputTypeDef:
            try:
                return self._bucket.client.get_object(**self._request(key), **how)
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] == 416:
                    raise _RangeBeyondEnd from error
                raise

        return self._bucket.ask("GetObject", key, request)

    def _body(self, key: str, answer: GetObjectOutputTypeDef, size: int) -> bytes:
        """The bytes of an answer, all ``size`` of them."""
        # As a context manager itself it would hand out urllib3's stream, with urllib3's errors.
        with closing(answer["Body"]) as body:
            data = self._bucket.ask("GetObject", key, body.read)
        if len(data) != size:
            raise StoreUnreachable(
                f"GetObject of {key} in bucket {self._bucket.name} broke off after {len(data)} of "
                f"{size} bytes"
            )
        return data

    def _listed(self, prefix: str) -> Iterator[ObjectInfo]:
        pages = self._bucket.client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket.name, Prefix=self._bucket.full_key(prefix)
        )
        last = ""
        for page in self._pages("ListObjectsV2", prefix, pages):
            for entry in page.get("Contents", []):
                key = entry["Key"].removeprefix(self._bucket.prefix)
                if not is_key(key):
                    continue
                if key <= last:
                    raise VaultUnusable(
                        f"{self.url} does not list its objects in order: {key} after {last}",
                        hint="Amazon's directory buckets do this; use a general purpose bucket",
                    )
                last = key
                yield object_info(key, entry["Size"], entry["ETag"], entry["LastModified"])

    def _pages(self, action: str, key: str, pages: Iterable[Any]) -> Iterator[Any]:
        iterator = iter(pages)
        while page := self._bucket.ask(action, key, lambda: next(iterator, None)):
            yield page

    def _copy_by_parts(self, source: ObjectInfo, target: str) -> ObjectInfo:
        size = max(self._copy_part_bytes, -(-source.size // MAX_PARTS))
        upload = begin_upload(self._bucket, target, self._retry)
        try:
            parts = [
                upload.send_copy(number, source, start, min(size, source.size - start))
                for number, start in enumerate(range(0, source.size, size), start=1)
            ]
            return upload.complete(parts, source.size)
        except BaseException:
            upload.abort()
            raise

    def _delete_batch(self, batch: Sequence[str]) -> None:
        objects: list[ObjectIdentifierTypeDef] = [
            {"Key": self._bucket.full_key(key)} for key in batch
        ]
        answer = self._bucket.ask(
            "DeleteObjects",
            batch[0],
            lambda: self._bucket.client.delete_objects(
                Bucket=self._bucket.name, Delete={"Objects": objects, "Quiet": True}
            ),
        )
        errors = [error for error in answer.get("Errors", []) if error.get("Code") != "NoSuchKey"]
        if errors:
            first = errors[0]
            key = first.get("Key", "").removeprefix(self._bucket.prefix)
            if len(errors) > 1:
                key += f" (and {len(errors) - 1} more)"
            answer_to_key: Any = {"Error": first}
            raise s3_error(
                ClientError(answer_to_key, "DeleteObjects"),
                "DeleteObjects",
                key,
                self._bucket.name,
            )


class _RangeBeyondEnd(Exception):
    """416: there is no byte at the range's start."""
