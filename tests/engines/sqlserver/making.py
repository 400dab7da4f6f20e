"""Manifest facts, chains and servers as values, for tests that need no server."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlbak.engines.port import RestoreStep
from sqlbak.engines.sqlserver.restoring import DatabaseChain
from sqlbak.engines.sqlserver.target import (
    Drive,
    ExistingDatabase,
    ServerFacts,
    ServerFile,
    UserSession,
)
from sqlbak.model import Point, PointType

FAMILY = "11111111-1111-1111-1111-111111111111"
FORK = "22222222-2222-2222-2222-222222222222"
START = datetime(2026, 5, 1, tzinfo=UTC)
KINDS = {PointType.FULL: 1, PointType.LOG: 2, PointType.DIFFERENTIAL: 5}


class Payload:
    """Streams held in memory; implements PayloadSource."""

    def __init__(self, streams: dict[str, bytes], frame_bytes: int = 7) -> None:
        self._streams = streams
        self._frame_bytes = frame_bytes

    def streams(self) -> Sequence[str]:
        return list(self._streams)

    def size(self, stream: str) -> int:
        return len(self._streams[stream])

    def frame_starts(self, stream: str) -> Sequence[int]:
        return range(0, self.size(stream), self._frame_bytes)

    def read_frame(self, stream: str, index: int) -> bytes:
        start = index * self._frame_bytes
        return self._streams[stream][start : start + self._frame_bytes]


def set_guid(number: int) -> str:
    return str(uuid.UUID(int=number + 1))


def files(*names: tuple[str, str, str, int]) -> list[dict[str, Any]]:
    """Rows of a file list: logical name, type, path, size."""
    return [
        {
            "LogicalName": name,
            "Type": kind,
            "PhysicalName": path,
            "Size": size,
            "UniqueId": str(uuid.uuid5(uuid.NAMESPACE_URL, name)),
            "TDEThumbprint": None,
        }
        for name, kind, path, size in names
    ]


SALES = files(
    ("Sales", "D", "/var/opt/mssql/data/Sales.mdf", 8 << 20),
    ("Sales_log", "L", "/var/opt/mssql/data/Sales_log.ldf", 1 << 20),
)


def step(
    number: int,
    kind: PointType,
    first: int,
    last: int,
    *,
    file_list: list[dict[str, Any]] | None = None,
    streams: int = 1,
    header: dict[str, Any] | None = None,
) -> RestoreStep:
    """The step ``number`` hours after START."""
    began = START + timedelta(hours=number)
    ended = began + timedelta(minutes=1)
    names = [f"media-{part}" for part in range(1, streams + 1)]
    is_log = kind is PointType.LOG
    point = Point(
        id=f"20260501T{number:02d}0000Z-aaaaaaaaaa",
        type=kind,
        lineage=FORK,
        first_lsn=first,
        last_lsn=last,
        started_at=began,
        finished_at=ended,
        reachable_from=None if is_log else ended,
        covers_until=began if is_log else None,
    )
    local = began + timedelta(hours=2)
    row: dict[str, Any] = {
        "BackupName": f"sqlbak {number}",
        "BackupType": KINDS[kind],
        "DatabaseName": "Sales",
        "FamilyGUID": FAMILY,
        "RecoveryForkID": FORK,
        "FirstRecoveryForkID": FORK,
        "BackupSetGUID": set_guid(number),
        "FirstLSN": str(first),
        "LastLSN": str(last),
        "BackupStartDate": local.replace(tzinfo=None).isoformat(),
        "BackupFinishDate": (local + timedelta(minutes=1)).replace(tzinfo=None).isoformat(),
        "SoftwareVersionMajor": 16,
        "HasBackupChecksums": True,
        "Position": 1,
        "RecoveryModel": "FULL",
        "EncryptorThumbprint": None,
        **(header or {}),
    }
    facts = {
        "header": row,
        "file_list": SALES if file_list is None else file_list,
        "streams": names,
        "delivery": "disk",
        "server": {"utc_offset_minutes": 120, "time_zone": "W. Europe Standard Time"},
        "owner": "sa",
    }
    payload = Payload({name: f"{kind.value} {number} {name}".encode() for name in names})
    return RestoreStep(point, facts, payload)


def chain(*steps: RestoreStep, **changes: Any) -> DatabaseChain:
    return DatabaseChain(steps=tuple(steps), database="Sales", lineage=FORK, **changes)


def full_and_logs(logs: int = 2) -> list[RestoreStep]:
    return [
        step(0, PointType.FULL, 100, 200),
        *(
            step(number, PointType.LOG, 100 + 100 * number, 200 + 100 * number)
            for number in range(1, logs + 1)
        ),
    ]


def server(**changes: Any) -> ServerFacts:
    values: dict[str, Any] = {
        "name": "erp",
        "version": "16.0.4236.2",
        "edition": "Developer Edition",
        "engine_edition": 3,
        "data_path": "/var/opt/mssql/data/",
        "log_path": "/var/opt/mssql/log/",
        "files": (),
        "database_names": {7: "Sales", 8: "Other"},
        "drives": (Drive("/", 1 << 40),),
        "certificates": frozenset(),
        "credentials": (),
    }
    return ServerFacts(**(values | changes))


def existing(**changes: Any) -> ExistingDatabase:
    values: dict[str, Any] = {
        "database_id": 7,
        "name": "Sales",
        "state": "ONLINE",
        "user_access": "MULTI_USER",
        "recovery_model": "FULL",
        "is_standby": False,
        "is_snapshot": False,
        "is_in_group": False,
        "owner": "sa",
        "family": FAMILY,
        "fork": FORK,
        "last_log_backup": 400,
        "files": (
            server_file(7, "Sales", "/data/live/Sales.mdf"),
            server_file(7, "Sales_log", "/data/live/Sales_log.ldf"),
        ),
        "sessions": (),
    }
    return ExistingDatabase(**(values | changes))


def server_file(
    database_id: int, name: str, path: str, redo_start: int | None = None
) -> ServerFile:
    return ServerFile(database_id, name, "ROWS", path, 8 << 20, redo_start, None)


def somebody() -> UserSession:
    return UserSession(55, "app", "web1", "shop")
