"""One recovery point after another, for the tests of the vault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count

from sqlbak.engines.port import BackupResult
from sqlbak.model import EngineName, Fork, Item, Point, PointType
from sqlbak.vault.names import new_point_id
from sqlbak.vault.point_writer import PointWriter
from sqlbak.vault.running import RunningRecord
from sqlbak.vault.store import ObjectStore
from sqlbak.vault.vault_keys import NO_KEYS, KeySettings, VaultKeys

NOW = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
ITEM = Item("orders-0123456789abcdef", EngineName.POSTGRES, "orders", None, "7301234567890123456")
FORK = Fork("2", "1", 0x3000060)
RESULT = BackupResult(
    type=PointType.FULL,
    lineage="2",
    first_lsn=0x4000028,
    last_lsn=0x4000130,
    started_at=NOW - timedelta(minutes=5),
    finished_at=NOW,
    reachable_from=NOW,
    covers_until=NOW,
    forks=(FORK,),
    histories={"2": b"1\t0/3000060\tno recovery target specified\n"},
    facts={"version": "18.4"},
)
CONTENT = bytes(range(256)) * 20

_numbers = count()


def no_fence() -> None:
    """A lease that is never lost."""


@dataclass
class Job:
    """A backup job in steps that a test can stop between."""

    store: ObjectStore
    grant: str = "grant"
    keys: KeySettings = NO_KEYS
    record: RunningRecord = field(init=False)
    writer: PointWriter = field(init=False)

    def __post_init__(self) -> None:
        self.record = RunningRecord(
            job_id=f"job-{next(_numbers)}",
            point_id=new_point_id(NOW),
            started_at=NOW,
            host="test",
            pid=1,
            lease=ITEM.id,
            grant=self.grant,
        )
        self.writer = PointWriter(
            self.store,
            ITEM,
            self.record,
            VaultKeys(self.store, self.keys),
            frame_bytes=1000,
            volume_bytes=200,
        )

    def begin(self) -> None:
        self.writer.__enter__()

    def fill(self) -> None:
        for name in ("base.tar", "page-map"):
            with self.writer.sink.stream(name) as stream:
                stream.write(CONTENT)

    def commit(self, result: BackupResult = RESULT, fence: Callable[[], None] = no_fence) -> Point:
        return self.writer.commit(result, fence=fence, slot=NOW, label="by hand")

    def run(self) -> Point:
        with self.writer:
            self.fill()
            return self.commit()


def keys(store: ObjectStore, prefix: str = "items/") -> list[str]:
    return [info.key for info in store.list(prefix)]
