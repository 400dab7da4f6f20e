"""Adopting backups that other tools took: their files are copied into the vault, and what their
headers prove becomes recovery points like any other. The originals are never touched.

By reference would be cheaper, but a file that another tool may delete tomorrow is no backup.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, tzinfo

from sqlbak.engines.port import BackupResult, PayloadSink
from sqlbak.engines.sqlserver.adopted import (
    AdoptableSet,
    MediaLabel,
    read_label,
    read_sets,
    result_of,
)
from sqlbak.engines.sqlserver.connection import Session, StatementFailed
from sqlbak.engines.sqlserver.delivery import stream_names
from sqlbak.engines.sqlserver.failures import server_text
from sqlbak.engines.sqlserver.restoring import TargetServer
from sqlbak.engines.sqlserver.rows import guid
from sqlbak.engines.sqlserver.statements import Device
from sqlbak.errors import InputUnreadable, ObjectDamaged, ObjectNotFound, TargetNotUsable
from sqlbak.fleet import Fleet
from sqlbak.jobs.adoptable_files import BackupPlace, FoundFile, shown_to_server
from sqlbak.model import EngineName, Item, Point, PointType
from sqlbak.progress import NO_PROGRESS, Progress
from sqlbak.stopping import NEVER, StopSignal
from sqlbak.vault.names import new_point_id
from sqlbak.vault.point_writer import PointWriter
from sqlbak.vault.running import RunningRecord
from sqlbak.vault.vault import Vault

__all__ = ["AdoptedSet", "Adoption", "adopt"]

_ORDER = {PointType.FULL: 0, PointType.DIFFERENTIAL: 1, PointType.LOG: 2}


@dataclass(frozen=True, slots=True)
class AdoptedSet:
    """One backup set that was found. ``point``: the recovery point that it became; None with
    ``reason``: why it became none; None with neither: it would become one (a dry run)."""

    files: tuple[str, ...]
    database: str
    type: PointType | None
    first_lsn: int
    last_lsn: int
    started: datetime
    item: str
    point: Point | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Adoption:
    """What was found, in the order of each database's log; and files that are no backups, with what
    the server said of them."""

    sets: tuple[AdoptedSet, ...]
    unreadable: Mapping[str, str]


@dataclass(slots=True)
class _Media:
    """The files that make one media set, in the order of its families, and what is on it."""

    files: tuple[FoundFile, ...]
    sets: list[AdoptableSet]


@dataclass(slots=True)
class _Run:
    fleet: Fleet
    server: TargetServer
    place: BackupPlace
    instance: str
    zone: tzinfo
    progress: Progress
    stop: StopSignal
    now: Callable[[], datetime]
    unreadable: dict[str, str] = field(default_factory=dict)


def adopt(
    fleet: Fleet,
    instance: str,
    place: BackupPlace,
    *,
    zone: tzinfo,
    database: str | None = None,
    is_dry: bool = False,
    progress: Progress = NO_PROGRESS,
    stop: StopSignal = NEVER,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Adoption:
    """Adopt the backups in ``place`` as recovery points of databases of ``instance``, whose server
    reads their headers.

    ``zone``: where the wall clock of the server that took them hung. ``database``: only this one.
    ``is_dry``: only look. What is in the vault already is passed over, so that adopting may be
    repeated. Raises InputUnreadable; TargetNotUsable; what server and vault raise.
    """
    server = fleet.restore_server(instance)
    run = _Run(fleet, server, place, instance, zone, progress, stop, now)
    media = _read(run)
    found: list[AdoptedSet] = []
    for family, group in _by_family(media, database).items():
        found += _adopt_database(run, family, group, is_dry=is_dry)
    return Adoption(tuple(found), dict(run.unreadable))


def _read(run: _Run) -> list[_Media]:
    """Look at every file, then at every whole media set."""
    files = run.place.files()
    folder = run.server.folder
    if folder is None:
        raise TargetNotUsable(
            f"{run.instance} has no folder through which its server could read backups",
            hint="write delivery: {disk: {server_path: …, local_path: …}} for it",
        )
    run.progress.phase("looking at files", sum(file.size_bytes for file in files))
    groups: dict[str, list[tuple[MediaLabel, FoundFile]]] = {}
    media: list[_Media] = []
    with Session.open(run.server.address, stop=run.stop) as session:
        for file in files:
            with shown_to_server(run.place, [file], folder, run.stop) as devices:
                try:
                    label = read_label(session, devices[0])
                except StatementFailed as failed:
                    run.unreadable[file.name] = _said(failed)
                    continue
                key = label.media_set if label.families > 1 else file.name
                groups.setdefault(key, []).append((label, file))
                if label.families == 1:
                    # Read while it is there: a copy is not made twice.
                    media += _media(run, session, (file,), devices)
            run.progress.advance(file.size_bytes)
        for members in groups.values():
            if members[0][0].families == 1:
                continue
            whole = _whole(run, members)
            if whole is not None:
                with shown_to_server(run.place, whole, folder, run.stop) as devices:
                    media += _media(run, session, whole, devices)
    return media


def _media(
    run: _Run, session: Session, files: tuple[FoundFile, ...], devices: Sequence[Device]
) -> list[_Media]:
    try:
        return [_Media(files, read_sets(session, devices))]
    except StatementFailed as failed:
        for file in files:
            run.unreadable[file.name] = _said(failed)
        return []


def _whole(run: _Run, members: list[tuple[MediaLabel, FoundFile]]) -> tuple[FoundFile, ...] | None:
    """The stripes in order; None when one is missing, which is told."""
    count = members[0][0].families
    by_family = {label.family: file for label, file in members}
    missing = [number for number in range(1, count + 1) if number not in by_family]
    if missing or len(by_family) != len(members):
        why = f"{len(by_family)} of the {count} files of its media set are there"
        for _, file in members:
            run.unreadable[file.name] = why
        return None
    return tuple(by_family[number] for number in range(1, count + 1))


def _said(failed: StatementFailed) -> str:
    return server_text(failed.error.texts[0]) if failed.error.texts else f"error {failed.number}"


def _by_family(
    media: Sequence[_Media], database: str | None
) -> dict[str, list[tuple[_Media, AdoptableSet]]]:
    """The sets of each database, fulls before what builds on them, in log order."""
    groups: dict[str, list[tuple[_Media, AdoptableSet]]] = {}
    named = {found.header.database for each in media for found in each.sets}
    if database is not None and database not in named:
        # Most servers take names so; one that tells them apart by case has the very name.
        named = {name for name in named if name.casefold() == database.casefold()}
    elif database is not None:
        named = {database}
    for each in media:
        for found in each.sets:
            if found.header.database in named:
                groups.setdefault(found.header.family, []).append((each, found))
    if database is not None and not groups:
        names = sorted({found.header.database for each in media for found in each.sets})
        raise InputUnreadable(
            f"there is no backup of {database} among the files",
            hint="they are of: " + (", ".join(names) or "nothing that the server can read"),
        )
    for group in groups.values():
        group.sort(
            key=lambda pair: (
                _ORDER.get(pair[1].header.type or PointType.LOG, 2),
                pair[1].header.last_lsn,
                pair[1].header.first_lsn,
            )
        )
    return groups


def _adopt_database(
    run: _Run, family: str, group: list[tuple[_Media, AdoptableSet]], *, is_dry: bool
) -> list[AdoptedSet]:
    newest = max((found.header for _, found in group), key=lambda header: header.finished)
    vault = run.fleet.vault(run.instance)
    if is_dry:
        item = vault.find_item(
            EngineName.SQLSERVER,
            run.instance,
            newest.database,
            family,
            configured_names=run.fleet.configured_names(f"{run.instance}/{newest.database}"),
        )
    else:
        item = vault.find_or_create_item(
            EngineName.SQLSERVER,
            run.instance,
            newest.database,
            family,
            configured_names=run.fleet.configured_names(f"{run.instance}/{newest.database}"),
            now=run.now(),
        )
    known = {} if item is None else _known_sets(vault, item)
    name = f"{run.instance}/{newest.database}" if item is None else item.name
    made: list[AdoptedSet] = []
    for media, found in group:
        run.stop.check()
        header = found.header
        shown = AdoptedSet(
            files=tuple(file.name for file in media.files),
            database=header.database,
            type=header.type,
            first_lsn=header.first_lsn,
            last_lsn=header.last_lsn,
            started=header.started,
            item=name,
        )
        reason = found.problem
        if reason is None and header.set_guid in known:
            reason = "it is in the vault already"
        is_differential = header.type is PointType.DIFFERENTIAL
        if reason is None and is_differential and header.base_guid not in known:
            reason = "the full that it builds on is not in the vault nor among the files"
        if reason is not None:
            made.append(replace(shown, reason=reason))
            continue
        if is_dry or item is None:
            known[header.set_guid] = ""
            made.append(shown)
            continue
        point = _store(run, vault, item, media, found, known)
        known[header.set_guid] = point.id
        made.append(replace(shown, point=point))
    return made


def _known_sets(vault: Vault, item: Item) -> dict[str, str]:
    """Backup sets that the vault has, by GUID; the ids of their recovery points."""
    known: dict[str, str] = {}
    for point in vault.points(item.id):
        try:
            facts = vault.manifest(item.id, point.id).facts or {}
        except (ObjectDamaged, ObjectNotFound):
            continue
        set_guid = guid(facts.get("header") or {}, "BackupSetGUID")
        if set_guid is not None:
            known[set_guid] = point.id
    return known


def _store(
    run: _Run,
    vault: Vault,
    item: Item,
    media: _Media,
    found: AdoptableSet,
    known: Mapping[str, str],
) -> Point:
    """Copy one set's files into the vault and commit the recovery point."""
    started_at = run.now()
    leases = run.fleet.leases(run.instance)
    with leases.acquire(
        f"{item.id}.data", purpose=f"adopting backups of {item.name}", stop=run.stop
    ) as lease:
        record = RunningRecord(
            job_id=secrets.token_hex(8),
            point_id=new_point_id(started_at),
            started_at=started_at,
            host=socket.gethostname(),
            pid=os.getpid(),
            lease=lease.name,
            grant=lease.grant,
        )
        with PointWriter(vault.store, item, record, vault.keys, stop=run.stop) as writer:
            result = _ship(run, writer.sink, media, found)
            base = found.header.base_guid if result.type is PointType.DIFFERENTIAL else None
            return writer.commit(
                result,
                base_id=None if base is None else known[base],
                is_copy_only=found.header.is_copy_only,
                label=f"adopted: {found.header.name}"[:200],
                fence=lease.check,
            )


def _ship(run: _Run, sink: PayloadSink, media: _Media, found: AdoptableSet) -> BackupResult:
    names = stream_names(len(media.files))
    run.progress.phase("copying", sum(file.size_bytes for file in media.files))
    for name, file in zip(names, media.files, strict=True):
        sent = 0
        with sink.stream(name) as stream:
            for block in run.place.blocks(file):
                run.stop.check()
                stream.write(block)
                sent += len(block)
                run.progress.advance(len(block))
            if sent != file.size_bytes:
                raise InputUnreadable(
                    f"{file.name} changed while it was read: {sent} bytes instead of "
                    f"{file.size_bytes}",
                    hint="adopt again when nothing writes there",
                )
    return result_of(found, run.zone, streams=names, files=[file.name for file in media.files])
