"""The server's own way to find what changed since a full (PostgreSQL 17 and later).

Its summaries of the log have been wrong in silence after timeline changes, and for visibility maps
of clusters that do not log hint bits; summaries made by an older minor release stay wrong. Hence
the conditions here, beside those that any differential has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlbak.engines.port import PayloadSource
from sqlbak.engines.postgres.basebackup import (
    BaseBackupStart,
    begin_base_backup,
    upload_manifest,
)
from sqlbak.engines.postgres.connection import ReplicationConnection, SqlConnection, Watch
from sqlbak.engines.postgres.timelines import format_lsn, parse_lsn
from sqlbak.errors import (
    BaseUnusable,
    EngineError,
    ObjectDamaged,
    ObjectNotFound,
    ServerUnreachable,
)

__all__ = ["NativeRefused", "begin_native", "require_native", "summaries_reach_back"]

_FIRST_VERSION = 170000
_PIECE_BYTES = 64 << 10


class NativeRefused(Exception):
    """The native method is not to be used; the message says why."""


def require_native(
    base: Mapping[str, Any], session: SqlConnection, settings: Mapping[str, str | None]
) -> None:
    """NativeRefused unless the server can be trusted to know what changed since the full with the
    facts ``base``."""
    version = int(settings["server_version_num"] or 0)
    if version < _FIRST_VERSION:
        raise NativeRefused(f"PostgreSQL {settings['server_version']} does not have it")
    if version != int(base["server_version_num"]):
        raise NativeRefused(
            f"the full was taken of PostgreSQL {base['server_version']}, and the server is "
            f"{settings['server_version']} now"
        )
    if settings["summarize_wal"] != "on":
        raise NativeRefused("summarize_wal is off on the server")
    has_checksums = settings["data_checksums"] == "on"
    if has_checksums != bool(base["data_checksums"]):
        raise NativeRefused("data checksums were switched on or off since the full")
    if not has_checksums and settings["wal_log_hints"] != "on":
        raise NativeRefused("the server has neither data checksums nor wal_log_hints")
    start = int(base["start_lsn"])
    try:
        rows = session.rows(
            "SELECT start_lsn::text, end_lsn::text FROM pg_available_wal_summaries()"
            " WHERE tli = %s",
            [int(base["timeline"])],
            doing="looking at the summaries of the log",
        )
    except ServerUnreachable:
        raise
    except EngineError as error:
        raise NativeRefused(error.message) from error
    if not summaries_reach_back([(parse_lsn(a), parse_lsn(b)) for a, b in rows], start):
        raise NativeRefused(
            f"the server's summaries of the log do not reach back to {format_lsn(start)} "
            "without a gap"
        )


def summaries_reach_back(summaries: Sequence[tuple[int, int]], start: int) -> bool:
    """Whether the half-open ranges, without a gap, hold all from ``start`` to their end. True
    when none has come as far as ``start`` yet: the server waits for them, or says no itself."""
    reached = start
    for first, last in sorted(summaries):
        if first <= reached < last:
            reached = last
    return all(last <= reached for _, last in summaries)


def begin_native(
    source: PayloadSource, connection: ReplicationConnection, label: str, watch: Watch
) -> BaseBackupStart:
    """Upload the full's manifest, byte for byte, and begin. NativeRefused with the server's words
    when it does not want to; BaseUnusable when the manifest is damaged."""
    try:
        upload_manifest(connection, _pieces(source), watch)
        return begin_base_backup(connection, label, watch, is_incremental=True)
    except (ServerUnreachable, BaseUnusable):
        raise
    except EngineError as error:
        raise NativeRefused(error.message) from error


def _pieces(source: PayloadSource) -> Iterator[bytes]:
    for index in range(len(source.frame_starts("backup_manifest"))):
        try:
            frame = source.read_frame("backup_manifest", index)
        except (ObjectDamaged, ObjectNotFound) as error:
            raise BaseUnusable(f"the full's manifest is damaged: {error.message}") from error
        for at in range(0, len(frame), _PIECE_BYTES):
            yield frame[at : at + _PIECE_BYTES]
