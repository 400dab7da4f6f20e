"""A process that takes one recovery point after another under a lease, as schedulers do; many of
them share one item. Run with: python -m tests.scheduler.lease_contender PLACE ROOT TTL.

PLACE is a folder, or the endpoint of an S3 server with ROOT as the prefix in its bucket. Each point
carries as its positions the number of points that were there before: a slot that is served twice
shows as one number twice.
"""

from __future__ import annotations

import os
import random
import secrets
import sys
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from sqlbak.errors import SqlbakError
from sqlbak.vault.file_store import FileStore
from sqlbak.vault.layout import points_prefix
from sqlbak.vault.lease import Leases
from sqlbak.vault.names import new_point_id, parse_name
from sqlbak.vault.point_writer import PointWriter
from sqlbak.vault.retry import Retry, RetryingStore, RetryPolicy
from sqlbak.vault.running import RunningRecord
from sqlbak.vault.s3_client import S3Bucket, S3Options, make_client
from sqlbak.vault.s3_store import S3Store
from sqlbak.vault.store import ObjectStore
from sqlbak.vault.sweep import sweep
from sqlbak.vault.vault_keys import VaultKeys
from tests.vault.making import CONTENT, ITEM, RESULT
from tests.vault.s3_servers import ACCESS_KEY, BUCKET, SECRET_KEY


def open_place(place: str, root: str) -> ObjectStore:
    if not place.startswith("http"):
        return FileStore(Path(place))
    options = S3Options(
        endpoint=place,
        access_key=ACCESS_KEY,
        secret_key=SECRET_KEY,
        connect_timeout_seconds=1,
        read_timeout_seconds=2,
    )
    retry = Retry(RetryPolicy(attempts=3, total_seconds=3, first_wait_seconds=0.05))
    return RetryingStore(S3Store(S3Bucket(make_client(options), BUCKET, root), retry=retry), retry)


def numbers(store: ObjectStore) -> list[int]:
    """The slots that were served, one for each recovery point."""
    return sorted(parse_name(info.key).first_lsn for info in store.list(points_prefix(ITEM.id)))


def serve_one(store: ObjectStore, leases: Leases, chance: random.Random) -> None:
    with leases.acquire(f"{ITEM.id}.log", purpose="log backup of orders") as lease:
        sweep(
            store,
            ITEM.id,
            is_live=lambda record: not leases.is_lost(record.lease, record.grant),
            now=datetime.now(UTC),
        )
        number = len(numbers(store))
        now = datetime.now(UTC)
        record = RunningRecord(
            secrets.token_hex(8),
            new_point_id(now),
            now,
            "test",
            os.getpid(),
            lease.name,
            lease.grant,
        )
        with PointWriter(
            store, ITEM, record, VaultKeys(store), frame_bytes=1000, volume_bytes=4000
        ) as writer:
            with writer.sink.stream("wal") as stream:
                stream.write(CONTENT)
            time.sleep(chance.uniform(0, 0.1))
            result = replace(RESULT, first_lsn=number, last_lsn=number + 1)
            writer.commit(result, fence=lease.check)


def main(place: str, root: str, ttl_seconds: float) -> None:
    store = open_place(place, root)
    leases = Leases(store, holder=f"test:{os.getpid()}", ttl_seconds=ttl_seconds)
    chance = random.Random(os.getpid())
    while True:
        # Whatever happens to it, it tries again, as the loop of the scheduler does.
        with suppress(SqlbakError):
            serve_one(store, leases, chance)
        time.sleep(chance.uniform(0, 0.05))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
