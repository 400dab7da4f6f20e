"""A site whose server writes its backups into the vault itself, a bucket on this machine."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3

from tests.engines.sqlserver.site import DIFFERENTIAL, FULL, LOG, Site, site_in
from tests.vault.s3_servers import ACCESS_KEY, BUCKET, SECRET_KEY, S3Server

HOST = "s3.example.com:9000"
"""The store as the server knows it, which speaks https only."""

URL = f"s3://{HOST}/{BUCKET}/prod"
CREDENTIAL = f"s3://{HOST}/{BUCKET}"


@contextmanager
def url_site(
    root: Path, store: S3Server, *, prefix: str = "prod", **options: Any
) -> Iterator[Site]:
    """A site that is up; the credential is there."""
    with site_in(root, s3_endpoints={HOST: store.endpoint}, **options) as site:
        by_url(site, store, prefix=prefix)
        make_credential(site)
        yield site


def by_url(site: Site, store: S3Server, *, prefix: str = "prod") -> None:
    """Have the site's server write into a bucket, which is the vault."""
    (site.root / "access").write_text(ACCESS_KEY)
    (site.root / "secret").write_text(SECRET_KEY)
    site.vault_settings = {
        "url": f"s3://{BUCKET}/{prefix}",
        "s3": {
            "endpoint": store.endpoint,
            "access_key": f"file:{site.root}/access",
            "secret_key": f"file:{site.root}/secret",
        },
    }
    site.settings |= {"delivery": {"url": f"s3://{HOST}/{BUCKET}/{prefix}"}}
    site.write_policies()


def make_credential(site: Site, name: str = CREDENTIAL, identity: str = "S3 Access Key") -> None:
    site.simulator.execute(
        f"CREATE CREDENTIAL [{name}] WITH IDENTITY = '{identity}', "
        f"SECRET = '{ACCESS_KEY}:{SECRET_KEY}'"
    )


def drop_credential(site: Site, name: str = CREDENTIAL) -> None:
    site.simulator.execute(f"DROP CREDENTIAL [{name}]")


def client_of(store: S3Server) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=store.endpoint,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name="us-east-1",
    )


class Bucket:
    """What lies in the store, seen past sqlbak."""

    def __init__(self, store: S3Server) -> None:
        self.client = client_of(store)

    def keys(self, part: str = "/data/") -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return [
            one["Key"] for page in pages for one in page.get("Contents", []) if part in one["Key"]
        ]

    def of(self, site: Site, name: str, part: str = "/data/") -> list[str]:
        """Keys of one database's items."""
        ids = [stored.item.id for stored in site.stored(name)]
        return [key for key in self.keys(part) if any(f"/{one}/" in key for one in ids)]

    def uploads(self) -> list[str]:
        answer = self.client.list_multipart_uploads(Bucket=BUCKET)
        return [one["Key"] for one in answer.get("Uploads", [])]

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=BUCKET, Key=key, Body=data)

    def get(self, key: str) -> bytes:
        data: bytes = self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        return data

    def manifest(self, key: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.get(key))
        return document


def restored(site: Site, name: str, to: str) -> list[str]:
    """The rows of a restore by the program itself, as a database that is dropped again."""
    answer = site.json("restore", f"erp/{name}", "--to", to, "--as", "Restored")
    assert answer["state"] == "ONLINE", answer
    rows = site.simulator.rows("Restored")
    site.simulator.execute("DROP DATABASE [Restored]")
    return rows


def history(site: Site, name: str) -> str:
    """Fulls, differential and logs; an instant between the last two rows."""
    site.simulator.create_database(name, rows=["one"])
    site.point(name, FULL)
    site.simulator.insert(name, "two")
    site.point(name, DIFFERENTIAL)
    site.simulator.insert(name, "three")
    site.point(name, LOG)
    site.simulator.insert(name, "four")
    time.sleep(0.05)  # more than the grain of commit times
    between = datetime.now(UTC).isoformat()
    time.sleep(0.05)
    site.simulator.insert(name, "five")
    site.point(name, LOG)
    return between
