"""Fulls and differentials of one database."""

from __future__ import annotations

from sqlbak.engines.port import BackupResult, DifferentialBase, PayloadSink
from sqlbak.engines.sqlserver.backing import Backing, WrittenSet
from sqlbak.engines.sqlserver.foreign import full_named, restore_named
from sqlbak.engines.sqlserver.opening import clear, historians, open_backing
from sqlbak.engines.sqlserver.past import require_same_history
from sqlbak.engines.sqlserver.rows import guid
from sqlbak.engines.sqlserver.source import Source
from sqlbak.errors import BackupFailed, BaseUnusable, LogRewritten
from sqlbak.model import PointType
from sqlbak.progress import Progress
from sqlbak.stopping import StopSignal

__all__ = ["take_differential", "take_full"]

_DATA = (PointType.FULL, PointType.DIFFERENTIAL)


def take_full(
    source: Source,
    sink: PayloadSink,
    *,
    label: str,
    is_copy_only: bool,
    progress: Progress,
    stop: StopSignal,
) -> BackupResult:
    """A full. From then on differentials are of it, unless it is copy-only."""
    with open_backing(source, progress, stop, sink) as backing:
        backing.require(PointType.FULL)
        clear(backing, *_DATA)
        written = backing.write(PointType.FULL, label=label, is_copy_only=is_copy_only)
        if written.taken.header.is_copy_only != is_copy_only:
            written.files.remove()
            raise BackupFailed(
                f"{source.where}: the full that was written is "
                + ("copy-only, though it should not be" if not is_copy_only else "not copy-only")
            )
        return _shipped(backing, written, sink)


def take_differential(
    source: Source,
    base: DifferentialBase,
    sink: PayloadSink,
    *,
    label: str,
    progress: Progress,
    stop: StopSignal,
) -> BackupResult:
    """What changed since the full ``base``. BaseUnusable when the server's differentials are of
    another full now, which is named; LogRewritten when the database was restored since, but goes
    on under the same recovery fork."""
    base_guid = guid(base.facts.get("header", {}), "BackupSetGUID")
    with open_backing(source, progress, stop, sink) as backing:
        backing.require(PointType.DIFFERENTIAL)
        clear(backing, *_DATA)
        database = backing.database
        if backing.lineage != base.point.lineage:
            restored = restore_named(backing.session, database.name, stop=stop)
            raise BaseUnusable(
                f"{source.where} was restored after {base.point.id} ({restored}) and is on "
                f"another recovery fork, {backing.lineage}"
            )
        require_same_history(backing, base.facts, base.point.id)
        if base_guid is None or database.base_guid != base_guid:
            raise _another_base(backing, base)
        written = backing.write(PointType.DIFFERENTIAL, label=label)
        header = written.taken.header
        # Somebody may have taken a full between that look and the backup.
        if header.base_guid != base_guid or header.fork != base.point.lineage:
            written.files.remove()
            backing.database = backing.look()
            raise _another_base(backing, base)
        if header.last_lsn < base.point.last_lsn:
            written.files.remove()
            raise LogRewritten(
                f"{source.where} ends before its full {base.point.id}: it was set back to an older "
                "state"
            )
        return _shipped(backing, written, sink)


def _another_base(backing: Backing, base: DifferentialBase) -> BaseUnusable:
    where, guid_now = backing.source.where, backing.database.base_guid
    if guid_now is None:
        return BaseUnusable(f"{where}: the server knows of no full that a differential could be of")
    with historians(backing) as asked:
        found = full_named(asked, guid_now, stop=backing.stop)
    return BaseUnusable(
        f"{where}: differentials are of another full than {base.point.id} now: {found.who}",
        findings=found.notes(backing.source.database),
    )


def _shipped(backing: Backing, written: WrittenSet, sink: PayloadSink) -> BackupResult:
    try:
        backing.ship(written, sink)
        return backing.result(written)
    except BaseException:
        written.files.remove()
        raise
