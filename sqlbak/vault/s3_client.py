"""How an S3 server is spoken to: a boto3 client and the part of a bucket that is the vault's."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import urlsplit

import boto3.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from sqlbak.errors import VaultUnusable
from sqlbak.vault.s3_errors import s3_error
from sqlbak.vault.s3_options import S3Options
from sqlbak.vault.store import ObjectInfo

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

__all__ = ["S3Bucket", "make_client", "object_info"]

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class S3Bucket:
    """A client, and the part of a bucket that is the vault's. ``prefix`` is empty or ends
    in ``/``."""

    client: S3Client
    name: str
    prefix: str

    def full_key(self, key: str) -> str:
        """The key in the bucket."""
        return self.prefix + key

    def ask(self, action: str, key: str, request: Callable[[], Answer]) -> Answer:
        """Make one request (``action`` is its name in the S3 API), raising the vault's errors."""
        try:
            return request()
        except (ClientError, BotoCoreError, ResponseParserError, HTTPError, OSError) as error:
            raise s3_error(error, action, key, self.name) from error


def object_info(key: str, size: int, etag: str, modified_at: datetime) -> ObjectInfo:
    """The facts of an object from an answer; boto3's times have a zone of dateutil's."""
    return ObjectInfo(key, size, etag, modified_at.astimezone(UTC))


def make_client(options: S3Options) -> S3Client:
    """A client that makes each request once. Raises VaultUnusable for options that make no
    sense; connects to nothing yet."""
    if bool(options.access_key) != bool(options.secret_key):
        raise VaultUnusable(
            "an access key and its secret key belong together, but only one of them is given",
            hint="give both, or none to use boto3's default chain",
        )
    encrypted = options.endpoint is None or urlsplit(options.endpoint).scheme == "https"
    config = Config(
        signature_version="s3v4",
        s3={
            "addressing_style": _addressing(options),
            # Over TLS the body need not be hashed with SHA-256 once more: that costs more CPU
            # than everything else together. Over plain HTTP the signature guards it.
            "payload_signing_enabled": not encrypted,
        },
        connect_timeout=options.connect_timeout_seconds,
        read_timeout=options.read_timeout_seconds,
        tcp_keepalive=True,
        max_pool_connections=32,
        retries={"mode": "standard", "total_max_attempts": 1},
        # Checksums are set by us, in headers.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    region = options.region or ("us-east-1" if options.endpoint else None)
    try:
        client = boto3.session.Session().client(
            "s3",
            endpoint_url=options.endpoint,
            region_name=region,
            verify=None if options.ca_bundle is None else str(options.ca_bundle),
            aws_access_key_id=options.access_key,
            aws_secret_access_key=options.secret_key,
            aws_session_token=options.session_token,
            config=config,
        )
    except (BotoCoreError, ValueError) as error:
        raise VaultUnusable(
            f"the options of the S3 store cannot be used: {error}",
            hint="an endpoint looks like https://s3.example.com:9000",
        ) from error
    client.meta.events.register("before-sign.s3.DeleteObjects", _add_content_md5)
    return client


def _addressing(options: S3Options) -> Literal["path", "virtual"]:
    if options.addressing != "auto":
        return options.addressing
    host = urlsplit(options.endpoint or "https://s3.amazonaws.com").hostname or ""
    # Only Amazon's names resolve with any bucket in front; others need that to be set up.
    return "virtual" if host.endswith((".amazonaws.com", ".amazonaws.com.cn")) else "path"


def _add_content_md5(request: Any, **_: Any) -> None:
    """The API's first form of DeleteObjects demanded Content-MD5, and some servers still do."""
    digest = hashlib.md5(request.data, usedforsecurity=False).digest()
    request.headers["Content-MD5"] = base64.b64encode(digest).decode()
