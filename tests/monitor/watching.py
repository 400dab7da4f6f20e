"""Items as the tests of the monitor see them: policies, recovery points and servers as values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlbak.engines.port import DiscoveredItem, Inspection, Problem, Severity
from sqlbak.model import Catalog, EngineName, LogPosition, Point, PointType
from sqlbak.monitor.holdings import holdings_of
from sqlbak.monitor.watched import Look, Watched
from sqlbak.policy.cron import CronLine
from sqlbak.policy.schema import LogCadence, Policy
from sqlbak.vault.job_records import JobOutcome, JobRecord
from sqlbak.vault.names import new_point_id

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
MIB = 1 << 20


def policy_of(
    full: str = "0 1 * * *", log: str | None = "15m", differential: str | None = None, **more: Any
) -> Policy:
    return Policy(
        vault="main",
        full=CronLine.parse(full),
        differential=None if differential is None else CronLine.parse(differential),
        log=None if log is None else LogCadence(log),
        **more,
    )


GOLD = policy_of()


def history(begins: Iterable[tuple[PointType, datetime]], size_bytes: int = MIB) -> list[Point]:
    """Points that chain, taken at these instants, each done a minute later."""
    points: list[Point] = []
    lsn, base = 1000, None
    for kind, at in sorted(begins, key=lambda pair: pair[1]):
        is_log = kind is PointType.LOG
        point = Point(
            id=new_point_id(at),
            type=kind,
            lineage="1",
            first_lsn=lsn if is_log else lsn - 10,
            last_lsn=lsn + 100 if is_log else lsn,
            started_at=at,
            finished_at=at + MINUTE,
            reachable_from=None if is_log else at + MINUTE,
            covers_until=at if is_log else at + MINUTE,
            base_id=base if kind is PointType.DIFFERENTIAL else None,
            size_bytes=size_bytes,
        )
        if is_log:
            lsn += 100
        if kind is PointType.FULL:
            base = point.id
        points.append(point)
    return points


def served(until: datetime, days: int = 3, every: timedelta = 15 * MINUTE) -> list[Point]:
    """What a scheduler that does its work makes of GOLD up to ``until``."""
    first = (until - days * DAY).replace(hour=1, minute=0, second=0, microsecond=0)
    fulls = [(PointType.FULL, first + day * DAY) for day in range(days + 1)]
    count = (until - first) // every
    logs = [(PointType.LOG, first + number * every) for number in range(1, count + 1)]
    return history([pair for pair in [*fulls, *logs] if pair[1] <= until])


def watched(points: list[Point] | None, policy: Policy = GOLD, **more: Any) -> Watched:
    item = Watched("orders", "postgres", "gold", policy, "main", **more)
    if points is None:
        return item
    catalog = Catalog("orders", tuple(points))
    return replace(item, item_id="orders-1", holdings=holdings_of(catalog))


def look(
    at: datetime = NOON,
    *,
    clock: datetime | None = None,
    problems: tuple[Problem, ...] = (),
    **slot: Any,
) -> Look:
    facts: dict[str, Any] = {
        "name": "sqlbak_1",
        "exists": True,
        "is_active": False,
        "restart_lsn": 1000,
        "wal_status": "reserved",
        "safe_wal_size": 1000 * MIB,
        **slot,
    }
    found = DiscoveredItem("7301", None, LogPosition("1", 1000 + MIB))
    inspection = Inspection(
        EngineName.POSTGRES, "17.4", clock or at, (found,), problems, {"slot": facts}
    )
    return Look(at, inspection)


def problem(code: str, severity: Severity) -> Problem:
    return Problem(code, severity, f"{code} is so", f"mend {code}")


def failure(kind: PointType, at: datetime) -> JobRecord:
    return JobRecord(
        "j1", kind.value, at, at + MINUTE, JobOutcome.FAILED, None, "backup_failed", "disk is full"
    )
