"""Questions to an S3 server that no store would ask."""

from __future__ import annotations

from typing import Any

from sqlbak.errors import PreconditionFailed, StoreUnreachable, VaultUnusable
from sqlbak.vault.s3_checksum import HEADER, checksum, checksum_text
from sqlbak.vault.s3_client import S3Bucket

__all__ = ["honours_delete_if_match", "refuses_bad_checksum"]

_NO_ETAG = f'"{"0" * 32}"'


def honours_delete_if_match(bucket: S3Bucket, key: str) -> bool:
    """Whether the server itself refuses to delete a version that does not exist. (S3Store looks
    before it deletes, which hides the answer.)"""
    try:
        bucket.ask(
            "DeleteObject",
            key,
            lambda: bucket.client.delete_object(
                Bucket=bucket.name, Key=bucket.full_key(key), IfMatch=_NO_ETAG
            ),
        )
    except PreconditionFailed:
        return True
    return False


def refuses_bad_checksum(bucket: S3Bucket, key: str) -> bool:
    """Whether the server refuses bytes that do not have the checksum of their header. The bytes
    are stored under ``key`` otherwise."""
    wrong: dict[str, Any] = {HEADER: checksum_text(checksum(b"other bytes"))}
    try:
        bucket.ask(
            "PutObject",
            key,
            lambda: bucket.client.put_object(
                Bucket=bucket.name, Key=bucket.full_key(key), Body=b"bytes", **wrong
            ),
        )
    except (StoreUnreachable, VaultUnusable):  # BadDigest counts as damaged on the way
        return True
    return False
