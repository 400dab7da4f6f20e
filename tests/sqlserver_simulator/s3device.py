"""TO URL = 's3://...': SQL Server as a client of S3-compatible storage ([D] "SQL Server backup to
URL for S3-compatible object storage" and its best-practices page)."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import boto3
import botocore.exceptions
from botocore.config import Config

from .errors import SqlError, not_modelled

if TYPE_CHECKING:
    from .instance import Instance, StoredCredential

NOT_SUPPORTED = "50(The request is not supported.)"
DENIED = "5(Access is denied.)"
MISSING = "2(The system cannot find the file specified.)"
TLS = "12175(failed to retrieve text for this error. Reason: 15105)"
BAD_PARAMETER = "87(The parameter is incorrect.)"
MAX_PARTS = 10_000


def _cannot_open(url: str, reason: str, *, reading: bool) -> SqlError:
    return SqlError(
        3201,
        f"Cannot open backup device '{url}'. Operating system error {reason}.",
        16,
        2 if reading else 1,
    )


def find_credential(
    instance: Instance, url: str, named: str | None, *, reading: bool
) -> StoredCredential:
    """WITH CREDENTIAL by name, else the longest credential that is a prefix of the URL's path."""
    if named is not None:
        found = instance.credentials.get(named.lower())
        if found is None:
            raise SqlError(
                3288,
                f"Credential name {named} does not exist or user does not have permission to "
                "access it.",
            )
    else:
        fits = [
            each
            for each in instance.credentials.values()
            if url.lower() == each.name.lower()
            or url.lower().startswith(each.name.lower().rstrip("/") + "/")
        ]
        if not fits:
            raise _cannot_open(url, NOT_SUPPORTED, reading=reading)
        found = max(fits, key=lambda each: len(each.name))
    if found.identity != "S3 Access Key":
        raise SqlError(
            3233,
            "Invalid Identity Specified for the S3 Credential. Credential Identity should be "
            "S3 Access Key.",
        )
    return found


@lru_cache(maxsize=8)
def client_for(endpoint: str, access: str, secret: str, region: str) -> Any:
    """Making a client takes longer than most of what it is asked for."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=access,
        aws_secret_access_key=secret,
        region_name=region,
        config=Config(
            retries={"max_attempts": 1}, s3={"addressing_style": "path"}, connect_timeout=5
        ),
    )


class _Object:
    """One object behind the endpoint that a URL names."""

    def __init__(
        self, instance: Instance, url: str, options: dict[str, object], *, reading: bool
    ) -> None:
        self.url = url
        self.reading = reading
        if url.lower().startswith("https://"):
            raise not_modelled("Azure blob storage")
        if not instance.version.has_s3:
            raise _cannot_open(url, NOT_SUPPORTED, reading=reading)
        credential = find_credential(
            instance, url, _text(options.get("CREDENTIAL")), reading=reading
        )
        if instance.faults.s3_error is not None:
            raise _cannot_open(url, instance.faults.s3_error, reading=reading)
        host, _, path = url[5:].partition("/")
        endpoint = instance.s3_endpoints.get(host)
        if endpoint is None:
            bucket, _, rest = host.partition(".")
            endpoint = instance.s3_endpoints.get(rest)
            if endpoint is None:
                raise _cannot_open(url, TLS, reading=reading)
            self.bucket, self.key = bucket, path
        else:
            self.bucket, _, self.key = path.partition("/")
        access, _, secret = credential.secret.partition(":")
        region = "us-east-1"
        for name in ("BACKUP_OPTIONS", "RESTORE_OPTIONS"):
            if (text := _text(options.get(name))) is not None:
                region = _region(text)
        self.client = client_for(endpoint, access, secret, region)

    def failed(self, error: Exception) -> SqlError:
        code = ""
        if isinstance(error, botocore.exceptions.ClientError):
            code = str(error.response.get("Error", {}).get("Code", ""))
        reason = {
            "NoSuchBucket": NOT_SUPPORTED, "404": MISSING, "NoSuchKey": MISSING,
            "AccessDenied": DENIED, "403": DENIED, "SignatureDoesNotMatch": DENIED,
            "InvalidAccessKeyId": DENIED,
        }.get(code, NOT_SUPPORTED)  # fmt: skip
        return _cannot_open(self.url, reason, reading=self.reading)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _region(text: str) -> str:
    try:
        return str(json.loads(text)["s3"]["region"])
    except (ValueError, KeyError, TypeError):
        raise SqlError(3217, "Invalid value specified for BACKUP_OPTIONS parameter.") from None


class S3Writer:
    """A multipart upload; its parts are as large as MAXTRANSFERSIZE (10 MB by default)."""

    def __init__(self, instance: Instance, url: str, options: dict[str, object]) -> None:
        self.object = _Object(instance, url, options, reading=False)
        self.size = int(str(options.get("MAXTRANSFERSIZE") or 10 * 1024 * 1024))
        self.buffer = bytearray()
        self.parts: list[dict[str, object]] = []
        client, where = self.object.client, self._where()
        try:
            client.head_bucket(Bucket=self.object.bucket)
        except Exception as error:
            found = self.object.failed(error)
            if "2(" in found.messages[0].text:
                found = _cannot_open(url, NOT_SUPPORTED, reading=False)
            raise found from error
        if "FORMAT" not in options and self._exists():
            raise SqlError(
                3296,
                f"The file {url} exists on the remote endpoint, and WITH FORMAT was not specified. "
                "Backup cannot proceed.",
            )
        try:
            self.upload = client.create_multipart_upload(**where)["UploadId"]
        except Exception as error:
            raise self.object.failed(error) from error

    def _where(self) -> dict[str, str]:
        return {"Bucket": self.object.bucket, "Key": self.object.key}

    def _exists(self) -> bool:
        try:
            self.object.client.head_object(**self._where())
        except botocore.exceptions.ClientError:
            return False
        return True

    def write(self, data: bytes) -> None:
        self.buffer += data
        while len(self.buffer) >= self.size:
            self._part(bytes(self.buffer[: self.size]))
            del self.buffer[: self.size]

    def _part(self, data: bytes) -> None:
        number = len(self.parts) + 1
        if number > MAX_PARTS:
            raise SqlError(
                3236,
                f"Write to S3 object storage device {self.object.url} failed. Device has reached "
                f"its limit of {MAX_PARTS} allowed parts.",
            )
        try:
            answer = self.object.client.upload_part(
                **self._where(), UploadId=self.upload, PartNumber=number, Body=data
            )
        except Exception as error:
            raise SqlError(3202, f'Write on "{self.object.url}" failed: {BAD_PARAMETER}') from error
        self.parts.append({"PartNumber": number, "ETag": answer["ETag"]})

    def close(self) -> None:
        if self.buffer or not self.parts:
            self._part(bytes(self.buffer))
        self.object.client.complete_multipart_upload(
            **self._where(), UploadId=self.upload, MultipartUpload={"Parts": self.parts}
        )

    def abort(self, *, leave: bool) -> None:
        """A failed backup leaves its parts; the bucket's lifecycle has to remove them."""


class S3Reader:
    """An object, read whole."""

    def __init__(self, instance: Instance, url: str, options: dict[str, object]) -> None:
        self.object = _Object(instance, url, options, reading=True)

    def read(self) -> bytes:
        try:
            answer = self.object.client.get_object(Bucket=self.object.bucket, Key=self.object.key)
            return bytes(answer["Body"].read())
        except Exception as error:
            raise self.object.failed(error) from error
