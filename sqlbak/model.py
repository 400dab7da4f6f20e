"""The words of sqlbak as plain values. This module imports nothing of ours.

All times are aware and in UTC, on the database server's clock. Log positions (LSNs) are ``int``;
ranges of them are half-open, ``[first, last)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

__all__ = [
    "Catalog",
    "DifferentialMethod",
    "EngineName",
    "Fork",
    "Item",
    "LogPosition",
    "Note",
    "NoteCode",
    "Point",
    "PointType",
    "ShippedLog",
    "Window",
]


class EngineName(StrEnum):
    """The database engines that sqlbak speaks."""

    POSTGRES = "postgres"
    SQLSERVER = "sqlserver"


class PointType(StrEnum):
    """What kind of backup a recovery point is."""

    FULL = "full"
    DIFFERENTIAL = "differential"
    LOG = "log"


class DifferentialMethod(StrEnum):
    """How it is found out what changed since the full. AUTO: what is proven to be safe.

    PAGES compares every page with the full's page map; NATIVE trusts what the server says
    (PostgreSQL 17 and later: BASE_BACKUP with INCREMENTAL).
    """

    AUTO = "auto"
    PAGES = "pages"
    NATIVE = "native"


@dataclass(frozen=True, slots=True)
class Item:
    """What is protected: one PostgreSQL cluster (``database`` is None) or one SQL Server database.

    ``id`` is its folder in the vault: a readable slug and a hash of ``identity``, which is the
    engine's own name for it (PostgreSQL: the system identifier).
    """

    id: str
    engine: EngineName
    instance: str
    database: str | None
    identity: str

    @property
    def name(self) -> str:
        """How people write it: ``instance`` or ``instance/database``."""
        return self.instance if self.database is None else f"{self.instance}/{self.database}"


@dataclass(frozen=True, slots=True)
class LogPosition:
    """One place in the log: on ``lineage``, at ``lsn``."""

    lineage: str
    lsn: int


@dataclass(frozen=True, slots=True)
class Fork:
    """``lineage`` split off from ``parent`` at ``lsn``: log before ``lsn`` is the parent's.

    PostgreSQL: one line of a timeline history file. SQL Server: a recovery fork point.
    """

    lineage: str
    parent: str
    lsn: int


@dataclass(frozen=True, slots=True)
class Point:
    """One recovery point with everything that the planner needs, and nothing more.

    Attributes:
        id: unique in the vault.
        type: full, differential or log.
        lineage: the lineage at its end (PostgreSQL: the timeline as a decimal number;
            SQL Server: the recovery fork GUID).
        first_lineage: for a log that crosses a fork, the lineage at its beginning; else None.
        first_lsn, last_lsn: the log range it holds. A restore of a full or differential ends
            exactly at ``last_lsn``; a log carries a restore from anywhere in ``[first, last)``
            to ``last``. A log with ``first_lsn == last_lsn`` is empty.
        started_at, finished_at: when it was taken. No transaction that it holds committed
            after ``finished_at``.
        reachable_from: full and differential only: the earliest instant at which a restore based
            on it may stop. Its own end is this very instant.
        covers_until: the latest instant that is proven: every transaction committed up to then,
            on this lineage, lies before ``last_lsn``. None: it proves nothing.
        probable_until: later than ``covers_until`` where more is likely but not proven
            (SQL Server headers without a start time); else None.
        base_id: differential only: the id of its full.
        is_copy_only: never the base of a differential, outside the schedule.
        has_bulk_logged: SQL Server: no instant inside this log can be restored.
        size_bytes: what a restore has to fetch.
        is_tail: no recovery point but shipped log that a plan ends with (see ``ShippedLog``); it
            is planned with like a log.
    """

    id: str
    type: PointType
    lineage: str
    first_lsn: int
    last_lsn: int
    started_at: datetime
    finished_at: datetime
    reachable_from: datetime | None = None
    covers_until: datetime | None = None
    probable_until: datetime | None = None
    first_lineage: str | None = None
    base_id: str | None = None
    is_copy_only: bool = False
    has_bulk_logged: bool = False
    size_bytes: int = 0
    is_tail: bool = False

    @property
    def is_empty_log(self) -> bool:
        """A log that holds no record; it only proves that nothing happened."""
        return self.type is PointType.LOG and self.first_lsn == self.last_lsn

    @property
    def position(self) -> LogPosition:
        """Where a restore stands after it."""
        return LogPosition(self.lineage, self.last_lsn)


@dataclass(frozen=True, slots=True)
class ShippedLog:
    """One piece of log that was shipped ahead of the next log backup. No recovery point.

    Attributes:
        name: of its object, unique in its lineage.
        lineage: the lineage it was written on.
        first_lsn, last_lsn: the log range that it holds; empty when it only proves that nothing
            happened.
        covers_until: every transaction committed up to then lies before ``last_lsn``; None: the
            piece proves nothing by itself.
        finished_at: no transaction that it holds committed after.
        run: pieces of one run are one history, without a turn in between.
        anchor_id: the recovery point that the run was known to continue when it was written.
        facts_id: pieces with the same one hold the same facts of the engine.
        raw_checksum: xxh3_128 of its log bytes, hexadecimal.
        object_checksum: xxh3_64 of its object, hexadecimal.
        size_bytes: what a restore has to fetch.
    """

    name: str
    lineage: str
    first_lsn: int
    last_lsn: int
    covers_until: datetime | None
    finished_at: datetime
    run: str
    anchor_id: str
    facts_id: str
    raw_checksum: str
    object_checksum: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Catalog:
    """All that is known of one item's recovery points, of how its lineages descend, and of log
    shipped beyond them. ``notes``: what was seen beside all this and is told with a plan."""

    item: str
    points: tuple[Point, ...]
    forks: tuple[Fork, ...] = ()
    shipped: tuple[ShippedLog, ...] = ()
    notes: tuple[str, ...] = ()


class NoteCode(StrEnum):
    """What a note is about. The words are stable: records keep them, and programs decide by them.

    TAKEN_INSTEAD: another type of backup than the one asked for. Facts ``asked``, ``taken``, and
    ``new_item``, the item's id, where it goes on as another item.
    NEW_ITEM: what is backed up is another server, database or history than before.
    FOREIGN_BACKUP: somebody else's backup broke into the chain. Facts, as far as the server tells
    them: ``kind`` (full, differential, log), ``set`` (its id), ``name``, ``login``, ``started`` (by
    the server's wall clock), ``device``, ``device_kind`` (file, virtual).
    LOG_MISSING: log between two recovery points is in no backup.
    LOG_UNUSABLE: a recovery point that no log can go on from.
    COVERAGE_UNPROVEN: the backup covers less than its end.
    METHOD_CHANGED: a differential was taken by another method than the one asked for.
    SERVER_NOT_TOLD: the server still holds log that it could discard.
    SHIPPED_LOG: log that was shipped ahead could not be compared, or not be removed.
    LEFTOVERS: what an earlier run left was used or removed.
    CLEANUP_FAILED: something beside the backup could not be removed.
    OTHER: what this version has no word for.
    """

    TAKEN_INSTEAD = "taken_instead"
    NEW_ITEM = "new_item"
    FOREIGN_BACKUP = "foreign_backup"
    LOG_MISSING = "log_missing"
    LOG_UNUSABLE = "log_unusable"
    COVERAGE_UNPROVEN = "coverage_unproven"
    METHOD_CHANGED = "method_changed"
    SERVER_NOT_TOLD = "server_not_told"
    SHIPPED_LOG = "shipped_log"
    LEFTOVERS = "leftovers"
    CLEANUP_FAILED = "cleanup_failed"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Note:
    """Something worth knowing of a backup that was taken. ``text`` is for people only: whatever is
    decided on a note is decided on its ``code`` and ``facts``."""

    code: NoteCode
    text: str
    facts: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Window:
    """A span of time of one lineage in which every instant can be restored, ends included."""

    item: str
    lineage: str
    start: datetime
    end: datetime
