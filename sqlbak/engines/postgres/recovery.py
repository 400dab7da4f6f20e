"""The settings under which a restored cluster recovers, and those that it keeps afterwards.

PostgreSQL refuses two recovery targets at once and takes the last line of a file for a setting, so
every target is named here, the empty ones first (check_recovery_target in xlogrecovery.c).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlbak.engines.postgres.timelines import format_lsn

__all__ = [
    "MINIMAL_CONFIGURATION",
    "MINIMAL_HBA",
    "StopPoint",
    "absence_command",
    "configuration_block",
    "kept_settings",
    "minimums",
    "recovery_overrides",
    "without_block",
]

# A cluster whose own files are elsewhere: nothing but what its log demands (see minimums).
MINIMAL_CONFIGURATION = "# Written by sqlbak restore: the backup holds no postgresql.conf.\n"
MINIMAL_HBA = """\
# Written by sqlbak restore: the backup holds no pg_hba.conf (packages keep it elsewhere).
# The socket directory is private; over TCP everybody needs a password.
local all all trust
host all all localhost scram-sha-256
"""
_BEGIN = "# sqlbak restore: begin (PostgreSQL takes the last line for a setting)"
_END = "# sqlbak restore: end"
_TARGETS = ("", "_name", "_xid", "_lsn", "_time")
_MINIMUMS = (  # a hot standby needs at least what the source had (docs, Hot Standby)
    ("max_connections", 100),
    ("max_worker_processes", 8),
    ("max_wal_senders", 10),
    ("max_prepared_transactions", 0),
    ("max_locks_per_transaction", 64),
)


@dataclass(frozen=True, slots=True)
class StopPoint:
    """Where recovery stops: before the first commit after ``time``, or after the record that
    begins at ``lsn``. Exactly one is set. ``no_later_than``: no transaction that is kept may have
    ended later (None: any may be kept)."""

    timeline: int
    time: datetime | None = None
    lsn: int | None = None
    no_later_than: datetime | None = None

    def settings(self) -> dict[str, str]:
        """The recovery target, complete: others that the cluster may have are cleared."""
        if self.time is not None:
            stamp = self.time.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f+00:00")
            name, value = "recovery_target_time", stamp
        else:
            assert self.lsn is not None  # noqa: S101 - one of the two is set
            name, value = "recovery_target_lsn", format_lsn(self.lsn)
        cleared = {f"recovery_target{suffix}": "" for suffix in _TARGETS}
        cleared.pop(name)
        return {
            **cleared,
            name: value,
            "recovery_target_timeline": str(self.timeline),
            "recovery_target_inclusive": "on",
            "recovery_target_action": "pause",
            "recovery_min_apply_delay": "0",
            "recovery_end_command": "",
            "archive_cleanup_command": "",
        }


def kept_settings() -> dict[str, str]:
    """What a restored cluster keeps, so that it does no harm beside its source: it must not
    archive under the source's name, take over its subscriptions, or wait for its standbys."""
    return {
        "archive_mode": "off",
        "primary_conninfo": "",
        "primary_slot_name": "",
        "synchronous_standby_names": "",
        "max_logical_replication_workers": "0",
    }


def minimums(source_settings: Iterable[Mapping[str, Any]], segment_size: int) -> dict[str, str]:
    """The settings that must be at least what the source had while it wrote the log, from those
    recorded with every recovery point of the chain; and room for two segments of its size."""
    known = list(source_settings)
    megabytes = segment_size >> 20
    room = {
        "min_wal_size": f"{max(80, 2 * megabytes)}MB",
        "max_wal_size": f"{max(1024, 4 * megabytes)}MB",
    }
    return room | {
        name: str(max([least, *(int(s[name]) for s in known if s.get(name) is not None)]))
        for name, least in _MINIMUMS
    }


def configuration_block(settings: Mapping[str, str]) -> bytes:
    """Lines for the end of postgresql.auto.conf, marked as ours."""
    lines = [f"{name} = '{_escaped(value)}'" for name, value in settings.items()]
    return ("\n".join(["", _BEGIN, *lines, _END, ""])).encode()


def without_block(content: bytes) -> bytes:
    """postgresql.auto.conf without the lines of an earlier restore."""
    kept: list[bytes] = []
    inside = False
    for line in content.splitlines(keepends=True):
        text = line.strip()
        if text == _BEGIN.encode():
            inside = True
        if not inside:
            kept.append(line)
        if text == _END.encode():
            inside = False
    return b"".join(kept).rstrip(b"\n") + b"\n" if kept else b""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "''")


def absence_command(last_segment: str) -> str:
    """A restore_command for a cluster whose whole log lies in pg_wal: it has nothing to give, and
    says "absent" (1) only for what is there already, for histories, and for what lies beyond
    ``last_segment``. Anything else is a loss, and must end recovery (255), not the log."""
    return (
        f'n=%f; [ -e "pg_wal/$n" ] && exit 1; case "$n" in *.history) exit 1;; esac; '
        f'LC_ALL=C expr "x${{n#????????}}" \\> "x{last_segment[8:]}" >/dev/null && exit 1; exit 255'
    )


def recovery_overrides(
    stop_point: StopPoint,
    *,
    directory: Path,
    home: Path,
    socket_directory: Path,
    port: int,
    restore_command: str,
    source_settings: Iterable[Mapping[str, Any]],
    segment_size: int,
) -> dict[str, str]:
    """Settings for the command line of the recovering server, over everything the cluster's own
    files say. ``home`` holds our own postgresql.conf, pg_hba.conf and pg_ident.conf: the
    cluster's may name files, libraries or memory that this machine lacks. ``source_settings`` are
    those of every recovery point of the chain."""
    return {
        "config_file": str(home / "postgresql.conf"),
        "hba_file": str(home / "pg_hba.conf"),
        "ident_file": str(home / "pg_ident.conf"),
        "data_directory": str(directory),
        "external_pid_file": "",
        "listen_addresses": "",
        "unix_socket_directories": str(socket_directory),
        "unix_socket_permissions": "0700",
        "unix_socket_group": "",
        "port": str(port),
        "ssl": "off",
        "shared_preload_libraries": "",
        "session_preload_libraries": "",
        "local_preload_libraries": "",
        "shared_buffers": "256MB",
        "huge_pages": "off",
        "hot_standby": "on",
        "wal_level": "replica",
        # Off would throw away the commit times that the cluster has kept (CompleteCommitTs…).
        "track_commit_timestamp": "on",
        "autovacuum": "off",
        "fsync": "on",
        "logging_collector": "off",
        "log_destination": "stderr",
        "log_min_messages": "warning",
        "log_line_prefix": "%m [%p] ",
        "lc_messages": "C",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "datestyle": "ISO, YMD",
        **kept_settings(),
        **minimums(source_settings, segment_size),
        "restore_command": restore_command,
        **stop_point.settings(),
    }
