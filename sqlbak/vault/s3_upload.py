"""One multipart upload to S3: begun, fed, and completed on condition that the key is free."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlbak.errors import (
    ObjectDamaged,
    ObjectNotFound,
    PreconditionFailed,
    StoreUnreachable,
    UploadGone,
)
from sqlbak.vault.retry import Attempts, Retry
from sqlbak.vault.s3_checksum import ALGORITHM, HEADER
from sqlbak.vault.s3_client import S3Bucket, object_info
from sqlbak.vault.s3_parts import Part
from sqlbak.vault.store import ObjectInfo

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import (
        CompletedPartTypeDef,
        HeadObjectOutputTypeDef,
        UploadPartOutputTypeDef,
    )

__all__ = ["S3Upload", "abort_upload", "begin_upload"]

_TOKEN = "sqlbak-upload"  # noqa: S105 - the name of a metadata entry


def begin_upload(bucket: S3Bucket, key: str, retry: Retry) -> S3Upload:
    """Begin an upload. Tried again after a lost answer it leaves an empty upload behind, which
    the sweep removes."""
    # Tells an object of ours from anybody else's when the answer to "complete" is lost.
    token = uuid.uuid4().hex
    created = retry.call(
        lambda: bucket.ask(
            "CreateMultipartUpload",
            key,
            lambda: bucket.client.create_multipart_upload(
                Bucket=bucket.name,
                Key=bucket.full_key(key),
                Metadata={_TOKEN: token},
                ChecksumAlgorithm=ALGORITHM,
                ChecksumType="FULL_OBJECT",
            ),
        )
    )
    return S3Upload(bucket, key, retry, created["UploadId"], token)


def abort_upload(bucket: S3Bucket, key: str, upload_id: str) -> bool:
    """Forget an upload and its parts; False if it was gone already."""
    try:
        bucket.ask(
            "AbortMultipartUpload",
            key,
            lambda: bucket.client.abort_multipart_upload(
                Bucket=bucket.name, Key=bucket.full_key(key), UploadId=upload_id
            ),
        )
    except (UploadGone, ObjectNotFound):
        return False
    return True


class S3Upload:
    """Made by ``begin_upload``. Every request is retried here, since only the one who uploads
    still has the bytes. ``send`` and ``send_copy`` may be called from several threads."""

    def __init__(
        self, bucket: S3Bucket, key: str, retry: Retry, upload_id: str, token: str
    ) -> None:
        self._bucket = bucket
        self._key = key
        self._retry = retry
        self._upload_id = upload_id
        self._token = token

    def send(self, part: Part) -> CompletedPartTypeDef:
        """Send one part."""
        sum_text = part.checksum()
        checked: dict[str, Any] = {HEADER: sum_text}

        def request() -> UploadPartOutputTypeDef:
            body: dict[str, Any] = {"Body": part.body()}  # from its beginning, at each attempt
            return self._bucket.client.upload_part(
                **self._part_request(part.number), **checked, **body
            )

        answer = self._retry.call(lambda: self._bucket.ask("UploadPart", self._key, request))
        if answer.get(HEADER, sum_text) != sum_text:
            raise ObjectDamaged(
                f"part {part.number} of {self._key} arrived damaged in bucket {self._bucket.name}"
            )
        completed: dict[str, Any] = {"PartNumber": part.number, "ETag": answer["ETag"], **checked}
        return completed  # type: ignore[return-value]

    def send_copy(
        self, number: int, source: ObjectInfo, start: int, length: int
    ) -> CompletedPartTypeDef:
        """Make ``length`` bytes of another object a part, without moving them through us."""
        answer = self._retry.call(
            lambda: self._bucket.ask(
                "UploadPartCopy",
                self._key,
                lambda: self._bucket.client.upload_part_copy(
                    **self._part_request(number),
                    CopySource={
                        "Bucket": self._bucket.name,
                        "Key": self._bucket.full_key(source.key),
                    },
                    CopySourceRange=f"bytes={start}-{start + length - 1}",
                ),
            )
        )
        result: dict[str, Any] = dict(answer["CopyPartResult"])
        completed = {name: result[name] for name in ("ETag", HEADER) if name in result}
        return {"PartNumber": number, **completed}  # type: ignore[typeddict-item]

    def complete(self, parts: Sequence[CompletedPartTypeDef], size: int) -> ObjectInfo:
        """Make the object of ``size`` bytes visible if its key is free, else PreconditionFailed."""
        numbers = [part["PartNumber"] for part in parts]
        if numbers != list(range(1, len(numbers) + 1)):
            raise ObjectDamaged(f"parts of {self._key} are missing, so it is not completed")
        attempts = Attempts(self._retry)
        while True:
            try:
                etag = self._complete_once(parts, size)
                break
            except (PreconditionFailed, UploadGone):
                # The upload vanishes with the first attempt that reached the store, even if its
                # answer did not reach us.
                if not attempts.is_first and (info := self._retry.call(lambda: self._ours(size))):
                    return info
                raise
            except StoreUnreachable as error:
                if info := self._ours_if_reachable(size):
                    return info
                attempts.wait_after(error)
        return self._checked(etag, size)

    def abort(self) -> None:
        """Forget the parts. None may still be on its way: it would stay for ever. Not tried for
        long: what stays is swept."""
        policy = replace(self._retry.policy, attempts=min(3, self._retry.policy.attempts))
        replace(self._retry, policy=policy).call(
            lambda: abort_upload(self._bucket, self._key, self._upload_id)
        )

    def _part_request(self, number: int) -> dict[str, Any]:
        return {
            "Bucket": self._bucket.name,
            "Key": self._bucket.full_key(self._key),
            "UploadId": self._upload_id,
            "PartNumber": number,
        }

    def _complete_once(self, parts: Sequence[CompletedPartTypeDef], size: int) -> str:
        answer = self._bucket.ask(
            "CompleteMultipartUpload",
            self._key,
            lambda: self._bucket.client.complete_multipart_upload(
                Bucket=self._bucket.name,
                Key=self._bucket.full_key(self._key),
                UploadId=self._upload_id,
                MultipartUpload={"Parts": parts},
                MpuObjectSize=size,
                IfNoneMatch="*",
            ),
        )
        return answer["ETag"]

    def _head(self) -> HeadObjectOutputTypeDef:
        return self._bucket.ask(
            "HeadObject",
            self._key,
            lambda: self._bucket.client.head_object(
                Bucket=self._bucket.name, Key=self._bucket.full_key(self._key)
            ),
        )

    def _checked(self, etag: str, size: int) -> ObjectInfo:
        """The facts of the completed object, after a look that it is what was sent."""
        head = self._retry.call(self._head)
        if head["Metadata"].get(_TOKEN, self._token) != self._token:
            raise PreconditionFailed(self._key)
        if head["ContentLength"] != size or head["ETag"] != etag:
            raise ObjectDamaged(
                f"{self._key} holds {head['ContentLength']} bytes in bucket {self._bucket.name}, "
                f"but {size} were sent"
            )
        return object_info(self._key, size, etag, head["LastModified"])

    def _ours(self, size: int) -> ObjectInfo | None:
        try:
            head = self._head()
        except ObjectNotFound:
            return None
        if head["Metadata"].get(_TOKEN) != self._token or head["ContentLength"] != size:
            return None
        return object_info(self._key, size, head["ETag"], head["LastModified"])

    def _ours_if_reachable(self, size: int) -> ObjectInfo | None:
        try:
            return self._ours(size)
        except StoreUnreachable:
            return None  # the error that led here is raised when attempts run out
