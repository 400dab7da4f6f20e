"""Backups that other tools took, as recovery points: what their own headers prove, and no more.

The server reads the headers. Their dates are wall-clock time in whole seconds, cut off, and a day
in autumn has one hour twice: an instant that is derived from them is the careful one of its
readings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final

from sqlbak.engines.port import BackupResult
from sqlbak.engines.sqlserver.backing import CLOCK_GRAIN
from sqlbak.engines.sqlserver.connection import Session, StatementFailed
from sqlbak.engines.sqlserver.headers import BackupHeader, read_header
from sqlbak.engines.sqlserver.rows import Row, document_of, guid, number, text
from sqlbak.engines.sqlserver.statements import (
    Device,
    devices_clause,
    header_statement,
    label_statement,
)
from sqlbak.errors import RestoreFailed, SqlbakError
from sqlbak.model import Fork, PointType

__all__ = ["AdoptableSet", "MediaLabel", "read_label", "read_sets", "result_of"]

_SECOND: Final = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class MediaLabel:
    """Which part of which media set a file is. ``families``: how many files belong together."""

    media_set: str
    family: int
    families: int


@dataclass(frozen=True, slots=True)
class AdoptableSet:
    """One backup set on its media. ``problem``: why it cannot become a recovery point; None: it
    can, if what it builds on can."""

    header: BackupHeader
    row: Row
    file_list: tuple[Row, ...]
    problem: str | None


def read_label(session: Session, device: Device) -> MediaLabel:
    """Ask the server what a file is. StatementFailed when it is no backup."""
    row = session.rows(label_statement(device), doing="reading a media label")[0]
    families = number(row, "FamilyCount") or 1
    media_set = guid(row, "MediaSetId")
    if media_set is None and families > 1:
        raise RestoreFailed(f"{device.name}: its media label does not say which set it belongs to")
    # Media without a label of its own (older tools) stand alone.
    return MediaLabel(media_set or device.name, number(row, "FamilySequenceNumber") or 1, families)


def read_sets(session: Session, devices: Sequence[Device]) -> list[AdoptableSet]:
    """Every backup set on one whole media set. StatementFailed when the server cannot read it."""
    rows = session.rows(
        header_statement(devices), doing="reading the headers of a backup", limit_seconds=None
    )
    found: list[AdoptableSet] = []
    for row in rows:
        try:
            header = read_header(row)
        except SqlbakError:
            continue  # a set that was broken off has no header worth the name
        file_list: tuple[Row, ...] = ()
        problem = _problem(header)
        if problem is None:
            try:
                file_list = tuple(
                    session.rows(
                        f"RESTORE FILELISTONLY FROM {devices_clause(devices)}"
                        + (f" WITH FILE = {header.position:d}" if len(rows) > 1 else ""),
                        doing="reading the list of files of a backup",
                        limit_seconds=None,
                    )
                )
            except StatementFailed as failed:
                problem = failed.explained(RestoreFailed).message
        found.append(AdoptableSet(header, row, file_list, problem))
    return found


def _problem(header: BackupHeader) -> str | None:
    if header.type is None:
        return "it holds single files or filegroups, not the whole database"
    if header.is_snapshot:
        return "a snapshot backup: its data is not in the file"
    if header.is_damaged:
        return "it was taken of damaged pages (CONTINUE_AFTER_ERROR)"
    if header.first_fork != header.fork and header.fork_lsn is None:
        return "it crosses a recovery fork at an unknown place"
    return None


def result_of(
    found: AdoptableSet, zone: tzinfo, *, streams: Sequence[str], files: Sequence[str]
) -> BackupResult:
    """What the set proves, for the manifest and the planner. ``zone``: where the wall clock of the
    server that took it hung; a log says its own offset in its header."""
    header = found.header
    is_log = header.type is PointType.LOG
    offset = _own_offset(found.row) if is_log else None
    # Not later than it began; not earlier than it ended.
    began = _utc(header.started, zone, offset, earliest=True)
    ended = _utc(header.finished, zone, offset, earliest=False) + _SECOND + CLOCK_GRAIN
    crosses = header.first_fork != header.fork
    return BackupResult(
        type=header.type or PointType.FULL,
        lineage=header.fork,
        first_lineage=header.first_fork if is_log and crosses else None,
        first_lsn=header.first_lsn,
        last_lsn=header.last_lsn,
        started_at=began,
        finished_at=max(ended, began),
        reachable_from=None if is_log else max(ended, began),
        covers_until=began - CLOCK_GRAIN if is_log else None,
        has_bulk_logged=header.has_bulk_logged,
        forks=(Fork(header.fork, header.first_fork, header.fork_lsn),)
        if crosses and header.fork_lsn is not None
        else (),
        facts=_facts(found, zone, ended, offset, streams, files),
    )


def _facts(
    found: AdoptableSet,
    zone: tzinfo,
    ended: datetime,
    offset: timedelta | None,
    streams: Sequence[str],
    files: Sequence[str],
) -> Mapping[str, Any]:
    row = found.row
    seen = offset if offset is not None else ended.astimezone(zone).utcoffset() or timedelta(0)
    version = ".".join(
        str(number(row, f"SoftwareVersion{part}") or 0) for part in ("Major", "Minor", "Build")
    )
    return {
        "header": document_of(row),
        "file_list": [document_of(one) for one in found.file_list],
        "msdb": None,
        "set_name": found.header.name,
        "streams": list(streams),
        "delivery": "disk",
        "server": {
            "name": text(row, "ServerName"),
            "version": version,
            "edition": None,
            "platform": None,
            "collation": text(row, "Collation"),
            "utc_offset_minutes": int(seen.total_seconds() // 60),
            "time_zone": str(zone),
        },
        "recovery_model": found.header.recovery_model,
        "owner": None,
        "adopted": {"files": list(files)},
    }


def _own_offset(row: Row) -> timedelta | None:
    """A log's own offset from UTC, in quarters of an hour; 127 is "unknown"."""
    quarters = number(row, "TimeZone")
    if quarters is None or not -48 <= quarters <= 56:
        return None
    return timedelta(minutes=15 * quarters)


def _utc(wall: datetime, zone: tzinfo, offset: timedelta | None, *, earliest: bool) -> datetime:
    """The instant of a wall time; where it can be read twice, the careful one."""
    readings = [wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)]
    if offset is not None:
        # The header's own offset is that of its beginning, which may differ at its end.
        readings.append((wall - offset).replace(tzinfo=UTC))
        near = [each for each in readings[:2] if each == readings[2]]
        readings = near or readings
    return min(readings) if earliest else max(readings)
