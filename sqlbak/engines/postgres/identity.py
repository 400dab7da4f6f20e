"""Which server this is, and what of it a restore needs to know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlbak.engines.postgres.connection import ReplicationConnection, SqlConnection, Watch
from sqlbak.engines.postgres.failures import ServerFileMissing
from sqlbak.engines.postgres.timelines import (
    HistoryDamaged,
    TimelineHistory,
    parse_history,
    parse_lsn,
)
from sqlbak.errors import BackupFailed, FeatureUnsupported, LogChainBroken

__all__ = [
    "OLDEST_VERSION",
    "Histories",
    "SystemIdentity",
    "identify",
    "read_facts",
    "read_histories",
    "read_settings",
    "require_identity",
    "require_one_server",
    "require_supported",
]

OLDEST_VERSION = 150000
"""``server_version_num`` of the oldest release whose BASE_BACKUP sends one stream of named
archives (14 and older send one copy a tablespace)."""

_SETTINGS = (
    "block_size",
    "config_file",
    "data_checksums",
    "data_directory",
    "fsync",
    "full_page_writes",
    "hba_file",
    "ident_file",
    "idle_replication_slot_timeout",
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_replication_slots",
    "max_slot_wal_keep_size",
    "max_wal_senders",
    "max_worker_processes",
    "server_version",
    "server_version_num",
    "shared_preload_libraries",
    "summarize_wal",
    "synchronous_standby_names",
    "track_commit_timestamp",
    "wal_block_size",
    "wal_level",
    "wal_log_hints",
    "wal_segment_size",
    "wal_sender_timeout",
)

_SETTINGS_FOR_RESTORE = (
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
    "shared_preload_libraries",
    "wal_level",
    "wal_log_hints",
    "fsync",
    "full_page_writes",
    "track_commit_timestamp",
    "block_size",
    "wal_block_size",
)


@dataclass(frozen=True, slots=True)
class SystemIdentity:
    """What IDENTIFY_SYSTEM says: whose cluster, which timeline, how far the log is flushed.

    ``is_standby``: it is in recovery. ``timeline`` is then that of the last record replayed, and
    log counts as flushed that was received on it, replayed or not (GetStandbyFlushRecPtr in
    walsender.c).
    """

    system_identifier: str
    timeline: int
    flushed_lsn: int
    is_standby: bool


def identify(connection: ReplicationConnection, watch: Watch) -> SystemIdentity:
    """Ask the server who it is."""
    row = connection.rows("IDENTIFY_SYSTEM", watch, doing="asking for the system identifier")[0]
    system_identifier, timeline, flushed_lsn = (_text(value) for value in row[:3])
    role = connection.rows("SHOW in_hot_standby", watch, doing="asking whether it is a standby")[0]
    return SystemIdentity(
        system_identifier,
        int(timeline),
        parse_lsn(flushed_lsn),
        is_standby=_text(role[0]) != "off",
    )


def require_one_server(
    session: SqlConnection, *connections: ReplicationConnection, where: str
) -> None:
    """BackupFailed unless all lead to one server: several standbys of one cluster have the same
    system identifier and timeline, but slots and positions of their own."""
    for connection in connections:
        if not session.value(
            "SELECT EXISTS (SELECT FROM pg_stat_activity"
            " WHERE pid = %s AND backend_type = 'walsender')",
            [connection.backend_pid],
            doing="looking for our own sessions",
        ):
            raise BackupFailed(
                f"{where}: the connections lead to different servers",
                hint="let the connection string name one server, without a proxy in between",
            )


def require_supported(settings: Mapping[str, str | None], *, where: str) -> None:
    """FeatureUnsupported on a server that is too old."""
    if int(settings["server_version_num"] or 0) < OLDEST_VERSION:
        raise FeatureUnsupported(
            f"{where} runs PostgreSQL {settings['server_version']}; sqlbak backs up 15 and newer",
            hint="upgrade the server",
        )


def require_identity(
    identities: Sequence[SystemIdentity],
    *,
    session: SqlConnection,
    expected: str | None,
    where: str,
) -> None:
    """All connections of one backup must lead to one server, the one that is expected.

    A connection string with several hosts, a proxy or a name with several addresses may lead
    each connection elsewhere. LogChainBroken if the server is not the one protected so far.
    """
    seen = str(
        session.value(
            "SELECT system_identifier FROM pg_control_system()",
            doing="asking for the system identifier",
        )
    )
    first = identities[0]
    if seen != first.system_identifier or any(
        (other.system_identifier, other.timeline, other.is_standby)
        != (first.system_identifier, first.timeline, first.is_standby)
        for other in identities
    ):
        raise BackupFailed(
            f"{where}: the connections lead to different servers, or the server changed its"
            " timeline or was promoted while the backup ran",
            hint="let the connection string name one server, without a proxy in between; after a"
            " promotion try again",
        )
    if expected is not None and expected != first.system_identifier:
        raise LogChainBroken(
            f"{where} is another cluster (system identifier {first.system_identifier}) than the"
            f" one protected so far ({expected})",
            hint="a new cluster is a new item: take a full backup of it",
        )


@dataclass(frozen=True, slots=True)
class Histories:
    """The current timeline's line of descent, and the server's own history files, byte for byte,
    of each timeline in it that has one (keys are timelines as decimal numbers)."""

    line: TimelineHistory
    files: Mapping[str, bytes]


def read_histories(connection: ReplicationConnection, timeline: int, watch: Watch) -> Histories:
    """Fetch the history of the timeline and of all its ancestors.

    A file that the server lacks is left out; without its own, a timeline has no ancestors (so
    PostgreSQL sees it too: readTimeLineHistory in timeline.c). Standbys are often made without
    the files of elder timelines, and these say nothing that the newest does not.
    """
    line = TimelineHistory(timeline)
    files: dict[str, bytes] = {}
    if timeline > 1 and (content := _history_file(connection, timeline, watch)) is not None:
        files[str(timeline)] = content
        try:
            line = parse_history(timeline, content)
        except HistoryDamaged as problem:
            raise BackupFailed(f"the server's timeline history is damaged: {problem}") from None
    for ancestor, _ in line.ancestors:
        if ancestor > 1 and (content := _history_file(connection, ancestor, watch)) is not None:
            files[str(ancestor)] = content
    return Histories(line, files)


def _history_file(connection: ReplicationConnection, timeline: int, watch: Watch) -> bytes | None:
    try:
        row = connection.rows(
            f"TIMELINE_HISTORY {timeline}",
            watch,
            doing=f"fetching the history of timeline {timeline}",
        )[0]
    except ServerFileMissing:
        return None
    return row[1] or b""


def read_settings(session: SqlConnection) -> dict[str, str | None]:
    """The settings that matter here, as the server's own text in its base unit; None where the
    version has no such setting or the role may not see it."""
    seen = dict(
        session.rows(
            "SELECT name, setting FROM pg_settings WHERE name = ANY(%s)",
            [list(_SETTINGS)],
            doing="reading settings",
        )
    )
    return {name: seen.get(name) for name in _SETTINGS}


def read_facts(
    session: SqlConnection, identity: SystemIdentity, settings: Mapping[str, str | None]
) -> dict[str, Any]:
    """What goes into the manifest of every recovery point."""
    bootstrap_role, backup_role, database, encoding, collation, started_at = session.rows(
        "SELECT (SELECT rolname FROM pg_roles WHERE oid = 10), current_user::text,"
        " current_database()::text, pg_encoding_to_char(encoding), datcollate,"
        " extract(epoch FROM pg_postmaster_start_time())::text"
        " FROM pg_database WHERE datname = current_database()",
        doing="reading names",
    )[0]
    return {
        "system_identifier": identity.system_identifier,
        "timeline": identity.timeline,
        "server_version_num": int(settings["server_version_num"] or 0),
        "server_version": settings["server_version"],
        "wal_segment_size": int(settings["wal_segment_size"] or 0),
        "settings": {name: settings[name] for name in _SETTINGS_FOR_RESTORE},
        "bootstrap_role": bootstrap_role,
        "backup_role": backup_role,
        "database": database,
        "data_directory_files": {
            name: settings[name] for name in ("config_file", "hba_file", "ident_file")
        },
        "encoding": encoding,
        "locale": collation,
        "taken_from": "standby" if identity.is_standby else "primary",
        "server_started_at": started_at,
    }


def _text(value: bytes | None) -> str:
    return (value or b"").decode()
