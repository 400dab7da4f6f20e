"""The stores that the tests of the vault run against, each made fresh and empty."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sqlbak.vault.file_store import FileStore
from sqlbak.vault.memory_store import MemoryStore
from sqlbak.vault.s3_client import S3Bucket, make_client
from sqlbak.vault.s3_store import S3Store
from sqlbak.vault.store import ObjectStore
from tests.vault.s3_servers import BUCKET, S3Server


@dataclass(frozen=True, slots=True)
class Bench:
    """A fresh store, and how to leave it the way a killed process would."""

    kind: str
    store: ObjectStore
    crash_while_writing: Callable[[str, bytes], None]


def memory_bench() -> Bench:
    store = MemoryStore()

    def crash(key: str, data: bytes) -> None:
        store.writer(key).write(data)

    return Bench("memory", store, crash)


def file_bench(root: Path) -> Bench:
    store = FileStore(root)

    def crash(key: str, data: bytes) -> None:
        writer = store.writer(key)
        writer.write(data)
        os.close(writer._descriptor)

    return Bench("file", store, crash)


def fresh_bucket(server: S3Server) -> S3Bucket:
    """A prefix of its own for one test."""
    return S3Bucket(make_client(server.options), BUCKET, f"{uuid.uuid4().hex}/")


def s3_bench(server: S3Server) -> Bench:
    bucket = fresh_bucket(server)

    def crash(key: str, data: bytes) -> None:
        where = {"Bucket": bucket.name, "Key": bucket.full_key(key)}
        upload = bucket.client.create_multipart_upload(**where)
        bucket.client.upload_part(**where, UploadId=upload["UploadId"], PartNumber=1, Body=data)

    return Bench(server.kind, S3Store(bucket), crash)


@pytest.fixture(
    params=[
        "memory",
        "file",
        pytest.param("moto", marks=pytest.mark.s3),
        pytest.param("ministack", marks=pytest.mark.s3),
        pytest.param("ceph", marks=pytest.mark.s3),
    ]
)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    if request.param == "memory":
        made = memory_bench()
    elif request.param == "file":
        made = file_bench(tmp_path / "vault")
    else:
        made = s3_bench(request.getfixturevalue(request.param))
    yield made
    made.store.close()


@pytest.fixture
def store(bench: Bench) -> ObjectStore:
    return bench.store
