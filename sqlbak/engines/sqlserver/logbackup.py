"""Log backups of one database, each beginning exactly where the last one ended.

The server hands every piece of log out once: what BACKUP LOG wrote and nobody kept is gone. So a
log backup that a crashed run took but did not ship is looked for first, and shipped if it is whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from sqlbak.engines.port import BackupResult, LogGap, PayloadSink, PlacedSink
from sqlbak.engines.sqlserver.backing import Backing, WrittenSet
from sqlbak.engines.sqlserver.foreign import ForeignBackups, logs_since, restore_named
from sqlbak.engines.sqlserver.headers import BackupHeader
from sqlbak.engines.sqlserver.logend import is_of_one_primary
from sqlbak.engines.sqlserver.opening import (
    has_leftovers,
    historians,
    open_backing,
    require_quiet,
    siblings,
)
from sqlbak.engines.sqlserver.past import require_same_history
from sqlbak.engines.sqlserver.rows import number, text
from sqlbak.engines.sqlserver.server import read_clock
from sqlbak.engines.sqlserver.source import Source
from sqlbak.engines.sqlserver.taking import is_backup_running, read_set
from sqlbak.engines.sqlserver.url_delivery import UrlPlace, is_whole_set
from sqlbak.errors import BackupFailed, BackupPaused, LogChainBroken, LogRewritten
from sqlbak.model import LogPosition, Note, NoteCode, PointType
from sqlbak.progress import NO_PROGRESS, Progress
from sqlbak.stopping import StopSignal

__all__ = ["explain_gap", "left_in_vault", "oldest_position", "take_left", "take_log"]

_LOG = 2


def take_log(
    source: Source,
    sink: PayloadSink,
    *,
    since: LogPosition,
    since_facts: Mapping[str, Any] | None,
    leaves_restoring: bool,
    progress: Progress,
    stop: StopSignal,
) -> BackupResult:
    """The log from ``since`` on. ``since_facts`` are those of the recovery point that ends there;
    None: it is a log. LogChainBroken when the server's log begins later, or on another fork;
    LogRewritten when it was set back; BackupPaused when there is none to take."""
    header_row = {} if since_facts is None else since_facts.get("header", {})
    follows_log = since_facts is None or number(header_row, "BackupType") == _LOG
    with open_backing(source, progress, stop, sink, kind=PointType.LOG) as backing:
        backing.require(PointType.LOG)
        if backing.lineage != since.lineage:
            raise LogChainBroken(_forked(backing))
        require_same_history(backing, since_facts, "the last backup")
        with _left(backing) as left:
            for there, written in left:
                if (result := _shipped_late(there, written, since, follows_log, sink)) is not None:
                    return result
        _require_continuation(backing, since, follows_log)
        written = backing.write(PointType.LOG, leaves_restoring=leaves_restoring)
        header = written.taken.header
        if header.is_copy_only or not _joins(header, since, follows_log):
            written.files.remove()
            found = _taken_since(backing, since.lsn, own=header.name)
            raise LogChainBroken(
                f"{source.where}: the log that the server gave begins at {header.first_lsn}, not "
                f"at {since.lsn}: {found.who}",
                findings=found.notes(source.database),
            )
        backing.ship(written, sink)
        return _dated(backing, backing.result(written))


def _dated(backing: Backing, result: BackupResult) -> BackupResult:
    """The same, marked where the log may hold times of servers in different zones: an instant
    inside it cannot be told then."""
    if backing.database.replica is None or is_of_one_primary(backing, result.first_lsn):
        return result
    with siblings(backing) as (others, _silent):
        clocks = [read_clock(one.session, one.server, stop=one.stop) for one in (backing, *others)]
    if len({clock.utc_offset_minutes for clock in clocks}) == 1:
        return result
    group = {**result.facts["availability_group"], "clocks_differ": True}
    return replace(result, facts={**result.facts, "availability_group": group})


def _shipped_late(
    there: Backing, written: WrittenSet, since: LogPosition, follows_log: bool, sink: PayloadSink
) -> BackupResult | None:
    """A log backup that an earlier run left, shipped; None when it is of no use: then it is
    removed."""
    header = written.taken.header
    begin = there.database.last_log_backup_lsn
    if header.fork == since.lineage and header.last_lsn <= since.lsn:
        written.files.remove()  # the vault has it
        return None
    if there.database.replica is not None and begin is not None and header.last_lsn > begin:
        # The primary never heard that it was done, and gives the same log out again.
        written.files.remove()
        broken = f"a log backup that broke off was removed: {written.files.shown}"
        there.notes.append(Note(NoteCode.LEFTOVERS, broken))
        return None
    if not _joins(header, since, follows_log):
        # The chain went on without it: of another fork, or behind a gap that was bridged.
        written.files.remove()
        useless = (
            "a log backup that an earlier run left joins nothing any more and was removed: "
            f"{written.files.shown}, log {header.first_lsn} to {header.last_lsn}"
        )
        there.notes.append(Note(NoteCode.LEFTOVERS, useless))
        return None
    shipped = "a log backup that an earlier run took and did not ship was shipped"
    there.notes.append(Note(NoteCode.LEFTOVERS, shipped))
    there.ship(written, sink)
    more = LogPosition(header.fork, header.last_lsn)
    return replace(_dated(there, there.result(written)), continues_on=more)


def _joins(header: BackupHeader, since: LogPosition, follows_log: bool) -> bool:
    """Whether a log goes on from ``since``: exactly where a log ended, or around a base's end."""
    if header.first_fork != since.lineage and header.fork != since.lineage:
        return False
    if follows_log:
        return header.first_lsn == since.lsn
    return header.first_lsn <= since.lsn <= header.last_lsn


def _require_continuation(backing: Backing, since: LogPosition, follows_log: bool) -> None:
    """Raise what keeps the server's next log backup from going on from ``since``."""
    where, database = backing.source.where, backing.database
    begin = database.last_log_backup_lsn
    if begin is None:
        raise LogChainBroken(_no_chain(backing))
    if follows_log and begin < since.lsn:
        if database.is_read_only:
            raise BackupPaused(
                f"{where} is read-only: its log was backed up to the end and does not grow"
            )
        raise LogRewritten(
            f"{where}: the server's log goes on from {begin}, before the end of what is backed up "
            f"({since.lsn}): it was set back to an older state"
        )
    if begin > since.lsn:
        stolen = _stolen(backing, since)
        raise LogChainBroken(stolen.why, findings=stolen.findings)


def _taken_since(backing: Backing, position: int, own: str | None = None) -> ForeignBackups:
    """Who took the log behind ``position``, as every replica's msdb tells."""
    with historians(backing) as asked:
        return logs_since(asked, backing.source.database, position, stop=backing.stop, own=own)


def _stolen(backing: Backing, since: LogPosition) -> LogGap:
    database = backing.source.database
    found = _taken_since(backing, since.lsn)
    where = backing.source.where
    return LogGap(
        f"{where}: the log since the last backup was taken by another: {found.who}",
        found.notes(database),
    )


def _no_chain(backing: Backing) -> str:
    return (
        f"{backing.source.where}: the log chain was ended, by a switch to the SIMPLE recovery "
        "model and back, or by a revert to a snapshot (SQL Server's error log tells by whom)"
    )


def _forked(backing: Backing) -> str:
    who = restore_named(backing.session, backing.source.database, stop=backing.stop)
    return (
        f"{backing.source.where} was restored ({who}) and goes on under another recovery fork, "
        f"{backing.lineage}"
    )


@contextmanager
def _left(backing: Backing) -> Iterator[list[tuple[Backing, WrittenSet]]]:
    """Whole log backups that earlier runs left, each with the server that took it where that one
    answers; parts of broken ones are removed."""
    if not has_leftovers(backing, (PointType.LOG,)):
        yield []
        return
    with siblings(backing) as (others, silent):
        found: dict[str, tuple[Backing, WrittenSet]] = {}
        for there in (backing, *others):
            leftovers = there.leftovers((PointType.LOG,))
            require_quiet((backing, *others), leftovers)
            for files in leftovers:
                written = there.written_before(files)
                if written is not None:
                    name = text(written.taken.header_row, "ServerName")
                    if files.token not in found or name == there.server.name:
                        found[files.token] = there, written
                elif silent:
                    stays = f"{files.local[0].name} stays: {', '.join(silent)} may still write it"
                    backing.notes.append(Note(NoteCode.LEFTOVERS, stays))
                else:
                    files.remove()
                    broken = f"removed what a broken run left: {files.local[0].name}"
                    backing.notes.append(Note(NoteCode.LEFTOVERS, broken))
        yield sorted(found.values(), key=_extent)


def _extent(left: tuple[Backing, WrittenSet]) -> tuple[int, int]:
    header = left[1].taken.header
    return header.first_lsn, header.last_lsn


def left_in_vault(
    source: Source, prefix: str, names: Sequence[str], *, stop: StopSignal
) -> LogPosition | None:
    """Where the log backup ends that a dead run had the server write to the objects ``names`` below
    ``prefix`` of the vault; None when it is not whole, or not of this database. BackupFailed while
    the server still writes there."""
    if not isinstance(source.folder, UrlPlace):
        return None  # the server does not reach the vault (any more)
    with open_backing(source, NO_PROGRESS, stop) as backing:
        with siblings(backing) as (others, _silent):
            # No other backup has that run's own folder in its statement.
            if any(is_backup_running(one.session, prefix, stop=stop) for one in (backing, *others)):
                raise BackupFailed(
                    f"{source.where}: an earlier backup still runs on the server",
                    hint="it is waited for: the next run looks again",
                )
        if not is_whole_set(names):
            return None
        left = source.folder.left([prefix + name for name in names])
        found = read_set(backing.session, left, stop=stop)
        if found is None or backing.began(found, PointType.LOG, "") is None:
            return None
        return LogPosition(found.header.fork, found.header.last_lsn)


def take_left(
    source: Source,
    sink: PayloadSink,
    *,
    point_id: str,
    names: Sequence[str],
    progress: Progress,
    stop: StopSignal,
) -> BackupResult:
    """The log backup that the dead run of ``point_id`` had the server write to objects of these
    names, which are copied. BackupFailed when it is not whole."""
    if not isinstance(source.folder, UrlPlace) or not isinstance(sink, PlacedSink):
        raise BackupFailed(f"{source.where}: the server does not reach the vault")
    with open_backing(source, progress, stop, sink) as backing:
        written = backing.written_before(source.folder.taken_over(sink, point_id, names))
        if written is None:
            raise BackupFailed(f"{source.where}: what a broken run left is no whole backup")
        kept = "a log backup that an earlier run took and did not commit was kept"
        backing.notes.append(Note(NoteCode.LEFTOVERS, kept))
        backing.ship(written, sink)
        return _dated(backing, backing.result(written))


def oldest_position(source: Source, *, stop: StopSignal) -> LogPosition | None:
    """Where the oldest log begins that can still be had: on the server, or in files that an
    earlier run left behind."""
    with open_backing(source, NO_PROGRESS, stop) as backing:
        begin = backing.database.last_log_backup_lsn
        if begin is None or PointType.LOG in backing.paused:
            return None
        with _left(backing) as left:
            for _there, written in reversed(left):
                header = written.taken.header
                if header.fork == backing.lineage and header.last_lsn == begin:
                    begin = header.first_lsn
        return LogPosition(backing.lineage, begin)


def explain_gap(source: Source, since: LogPosition, *, stop: StopSignal) -> LogGap:
    """Why the log from ``since`` on cannot be had any more."""
    with open_backing(source, NO_PROGRESS, stop) as backing:
        if backing.lineage != since.lineage:
            return LogGap(_forked(backing))
        if backing.database.last_log_backup_lsn is None:
            return LogGap(_no_chain(backing))
        return _stolen(backing, since)
