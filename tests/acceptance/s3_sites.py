"""Sites whose vault is a bucket of a real S3 server on this machine."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3.session
from botocore.config import Config

from tests.acceptance.site import Site
from tests.vault.s3_servers import ACCESS_KEY, BUCKET, SECRET_KEY, S3Server

__all__ = ["S3Site", "s3_site"]


@dataclass
class S3Site:
    """A site, and a client of its own to look into the bucket behind sqlbak's back."""

    site: Site
    client: Any
    prefix: str

    def keys(self) -> list[str]:
        """All objects of the vault, without its prefix."""
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=BUCKET, Prefix=self.prefix
        )
        return [
            entry["Key"].removeprefix(self.prefix)
            for page in pages
            for entry in page.get("Contents", [])
        ]

    def contents(self) -> dict[str, bytes]:
        """Key and bytes of all objects."""
        return {
            key: self.client.get_object(Bucket=BUCKET, Key=self.prefix + key)["Body"].read()
            for key in self.keys()
        }

    def uploads(self) -> list[str]:
        """Multipart uploads that nobody finished."""
        found = self.client.list_multipart_uploads(Bucket=BUCKET, Prefix=self.prefix)
        return [upload["Key"] for upload in found.get("Uploads", [])]

    def assert_nothing_left(self) -> None:
        """No unfinished upload, no running record, no payload without its manifest."""
        keys = self.keys()
        assert self.uploads() == []
        assert [key for key in keys if "/running/" in key or key.startswith("probe/")] == []
        points = {key.split("/")[3].partition("_")[0] for key in keys if "/points/" in key}
        assert {key.split("/")[3] for key in keys if "/data/" in key} <= points


def s3_site(
    root: Path,
    dsn: str,
    server: S3Server,
    *,
    endpoint: str | None = None,
    bucket: str = BUCKET,
    secret_key: str = SECRET_KEY,
) -> S3Site:
    """A site with a fresh prefix of the server's bucket as its vault."""
    prefix = uuid.uuid4().hex
    site = Site(
        root,
        dsn,
        vault_url=f"s3://{bucket}/{prefix}",
        vault_options=(
            "    s3:\n"
            f"      endpoint: {endpoint or server.endpoint}\n"
            "      access_key: env:VAULT_ACCESS_KEY\n"
            "      secret_key: env:VAULT_SECRET_KEY\n"
        ),
        environment={"VAULT_ACCESS_KEY": ACCESS_KEY, "VAULT_SECRET_KEY": secret_key},
    )
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=server.endpoint,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=Config(s3={"addressing_style": "path"}),
    )
    return S3Site(site, client, prefix + "/")
