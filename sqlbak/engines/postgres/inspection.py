"""Looking at a server without changing it: can it be backed up, and what stands in the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from sqlbak.engines.port import DiscoveredItem, Inspection, Problem, Severity
from sqlbak.engines.postgres.commitclock import open_primary
from sqlbak.engines.postgres.connection import ReplicationConnection, SqlConnection
from sqlbak.engines.postgres.dsn import ConnectionString
from sqlbak.engines.postgres.failures import ConnectionFailure, quote_identifier
from sqlbak.engines.postgres.heartbeat import read_clock
from sqlbak.engines.postgres.identity import (
    OLDEST_VERSION,
    SystemIdentity,
    identify,
    read_settings,
)
from sqlbak.engines.postgres.slot import SlotState, read_slot
from sqlbak.model import EngineName, LogPosition
from sqlbak.stopping import NEVER

__all__ = ["ServerView", "find_problems", "inspect_server"]

_FUNCTIONS = (
    "pg_control_system",
    "pg_create_physical_replication_slot",
    "pg_drop_replication_slot",
    "pg_postmaster_start_time",
    "pg_replication_slot_advance",
)
"""What backups call. All may be executed by everybody unless somebody took that away."""

_PRIMARY_FUNCTIONS = ("pg_current_wal_flush_lsn", "pg_logical_emit_message")
_STANDBY_FUNCTIONS = ("pg_last_wal_replay_lsn", "pg_last_xact_replay_timestamp")

_MANAGED: Mapping[str, str] = {
    "rds.": "Amazon RDS",
    "cloudsql.": "Google Cloud SQL",
    "azure.": "Azure Database for PostgreSQL",
}

_SENDERS_OF_A_FULL = 2


@dataclass(frozen=True, slots=True)
class ServerView:
    """All that was asked, as values. ``settings`` holds None for what the role may not see."""

    role: str
    is_replication_role: bool
    is_in_recovery: bool
    settings: Mapping[str, str | None]
    used_wal_senders: int
    used_replication_slots: int
    forbidden_functions: tuple[str, ...]
    managed_by: str | None
    slot_name: str
    slot: SlotState | None
    replication_failure: Problem | None
    why_no_primary: str = ""


def inspect_server(
    target: ConnectionString, *, slot_name: str, primary: ConnectionString | None = None
) -> Inspection:
    """Ask the server everything. Raises only when not even a normal connection comes about.
    ``primary``: what the configuration calls the primary of a standby."""
    with SqlConnection.open(target) as session:
        settings = read_settings(session)
        role, is_replication_role, is_in_recovery, used_senders, used_slots = session.rows(
            "SELECT current_user::text, rolreplication OR rolsuper, pg_is_in_recovery(),"
            " (SELECT count(*) FROM pg_stat_replication),"
            " (SELECT count(*) FROM pg_replication_slots)"
            " FROM pg_roles WHERE rolname = current_user",
            doing="looking at the role",
        )[0]
        forbidden = session.rows(
            "SELECT oid::regprocedure::text FROM pg_proc"
            " WHERE pronamespace = 'pg_catalog'::regnamespace AND proname = ANY(%s)"
            " AND NOT has_function_privilege(oid, 'EXECUTE') ORDER BY 1",
            [[*_FUNCTIONS, *(_STANDBY_FUNCTIONS if is_in_recovery else _PRIMARY_FUNCTIONS)]],
            doing="looking at grants",
        )
        identity, failure = _try_replication(target)
        view = ServerView(
            role=role,
            is_replication_role=is_replication_role,
            is_in_recovery=is_in_recovery,
            settings=settings,
            used_wal_senders=used_senders,
            used_replication_slots=used_slots,
            forbidden_functions=tuple(name for (name,) in forbidden),
            managed_by=_managed_by(session),
            slot_name=slot_name,
            slot=read_slot(session, slot_name),
            replication_failure=failure,
            why_no_primary=_why_no_primary(primary, identity),
        )
        return Inspection(
            engine=EngineName.POSTGRES,
            version=settings["server_version"] or "",
            server_clock=read_clock(session),
            items=_items(session, view, identity),
            problems=tuple(find_problems(view)),
            facts=_facts(session, view),
        )


def _try_replication(
    target: ConnectionString,
) -> tuple[SystemIdentity | None, Problem | None]:
    """Who the server says it is over a replication connection, or why there is none."""
    connection = ReplicationConnection.attempt(target)
    if isinstance(connection, ConnectionFailure):
        return None, Problem(connection.code, Severity.BLOCKING, connection.what, connection.remedy)
    with connection:
        return identify(connection, NEVER.check), None


def _why_no_primary(primary: ConnectionString | None, identity: SystemIdentity | None) -> str:
    """Why nobody can be asked about the log of a standby; empty where somebody can, or need not."""
    if identity is None or not identity.is_standby:
        return ""
    with open_primary(primary, identity) as asked:
        return asked.why_not


def _managed_by(session: SqlConnection) -> str | None:
    names = session.rows(
        "SELECT DISTINCT split_part(name, '.', 1) || '.' FROM pg_settings WHERE name LIKE '%.%'",
        doing="looking for a managed service",
    )
    return next((_MANAGED[name] for (name,) in names if name in _MANAGED), None)


def _items(
    session: SqlConnection, view: ServerView, identity: SystemIdentity | None
) -> tuple[DiscoveredItem, ...]:
    if identity is not None:
        position = LogPosition(str(identity.timeline), identity.flushed_lsn)
        return (
            DiscoveredItem(
                identity.system_identifier,
                None,
                position,
                may_lag=identity.is_standby,
                why_no_log=_why_no_log(view),
            ),
        )
    if any(name.startswith("pg_control_system") for name in view.forbidden_functions):
        return ()
    system_identifier = session.value(
        "SELECT system_identifier FROM pg_control_system()",
        doing="asking for the system identifier",
    )
    return (DiscoveredItem(str(system_identifier), None, None),)


def _why_no_log(view: ServerView) -> str:
    slot = view.slot
    if slot is None:
        return (
            f"its replication slot {view.slot_name} does not exist (slots do not survive a"
            " failover or a restore)"
        )
    if slot.is_lost or slot.restart_lsn is None:
        return (
            f"its replication slot {slot.name} is lost: the server discarded log that it held"
            " (max_slot_wal_keep_size, idle_replication_slot_timeout)"
        )
    return ""


def _facts(session: SqlConnection, view: ServerView) -> dict[str, Any]:
    tablespaces = session.rows(
        "SELECT oid::bigint, spcname, pg_tablespace_location(oid) FROM pg_tablespace"
        " WHERE pg_tablespace_location(oid) <> '' ORDER BY oid",
        doing="listing tablespaces",
    )
    archive_mode = session.rows(
        "SELECT setting FROM pg_settings WHERE name = 'archive_mode'", doing="reading settings"
    )
    slot = view.slot
    return {
        "role": view.role,
        "is_in_recovery": view.is_in_recovery,
        "managed_by": view.managed_by,
        "settings": dict(view.settings),
        "archive_mode": archive_mode[0][0] if archive_mode else None,
        "tablespaces": [
            {"oid": oid, "name": name, "location": location} for oid, name, location in tablespaces
        ],
        "free_wal_senders": _free(view, "max_wal_senders", view.used_wal_senders),
        "free_replication_slots": _free(view, "max_replication_slots", view.used_replication_slots),
        "slot": {
            "name": view.slot_name,
            "exists": slot is not None,
            "is_active": slot is not None and slot.is_active,
            "restart_lsn": slot.restart_lsn if slot else None,
            "wal_status": slot.wal_status if slot else None,
            "safe_wal_size": slot.safe_wal_size if slot else None,
        },
    }


def _free(view: ServerView, limit: str, used: int) -> int:
    return max(0, int(view.settings[limit] or 0) - used)


def find_problems(view: ServerView) -> Iterator[Problem]:
    """Everything that stops backups, then everything that puts them at risk. Pure."""
    yield from _blocking(view)
    yield from _slot_problems(view)
    yield from _warnings(view)


def _blocking(view: ServerView) -> Iterator[Problem]:
    def problem(code: str, what: str, remedy: str) -> Problem:
        return Problem(code, Severity.BLOCKING, what, remedy)

    settings = view.settings
    if int(settings["server_version_num"] or 0) < OLDEST_VERSION:
        yield problem(
            "unsupported_version",
            f"the server runs PostgreSQL {settings['server_version']}; sqlbak backs up 15 and"
            " newer",
            "upgrade the server",
        )
    if settings["wal_level"] == "minimal":
        yield problem(
            "wal_level_minimal",
            "wal_level is minimal: the log does not hold what a restore needs",
            "ALTER SYSTEM SET wal_level = 'replica';  -- then restart the server",
        )
    if not view.is_replication_role:
        yield problem(
            "role_lacks_replication",
            f"the role {view.role} may not take backups",
            f"ALTER ROLE {quote_identifier(view.role)} WITH REPLICATION;",
        )
    for function in view.forbidden_functions:
        yield problem(
            "function_forbidden",
            f"the role {view.role} may not call {function}",
            f"GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {quote_identifier(view.role)};",
        )
    senders = int(settings["max_wal_senders"] or 0)
    if senders - view.used_wal_senders < _SENDERS_OF_A_FULL:
        yield problem(
            "no_free_wal_sender",
            f"a full backup needs {_SENDERS_OF_A_FULL} WAL senders; {view.used_wal_senders} of"
            f" {senders} are in use",
            f"ALTER SYSTEM SET max_wal_senders = {senders + 10};  -- then restart the server",
        )
    slots = int(settings["max_replication_slots"] or 0)
    needed = 1 if view.slot is not None else 2
    if slots - view.used_replication_slots < needed:
        yield problem(
            "no_free_replication_slot",
            f"a full backup needs {needed} more replication slots; {view.used_replication_slots}"
            f" of {slots} are in use",
            f"ALTER SYSTEM SET max_replication_slots = {slots + 10};  -- then restart the server",
        )
    failure = view.replication_failure
    known = failure is not None and (
        (failure.code == "role_lacks_replication" and not view.is_replication_role)
        or (
            failure.code == "no_free_wal_sender"
            and senders - view.used_wal_senders < _SENDERS_OF_A_FULL
        )
    )
    if failure is not None and not known:
        yield failure
    if failure is not None and view.managed_by is not None:
        yield problem(
            "managed_service",
            f"the server is {view.managed_by}, which offers no physical replication",
            "use the service's own backups; sqlbak cannot reach the files of this server",
        )


def _slot_problems(view: ServerView) -> Iterator[Problem]:
    slot = view.slot
    if slot is None:
        return
    if not slot.is_physical:
        yield Problem(
            "slot_is_logical",
            Severity.BLOCKING,
            f"the replication slot {slot.name} is a logical one, of somebody else",
            "give sqlbak another slot name",
        )
    elif slot.is_lost or slot.restart_lsn is None:
        yield Problem(
            "slot_lost",
            Severity.WARNING,
            f"the replication slot {slot.name} is lost: the server discarded log that it held;"
            " log backups cannot go on",
            "take a full backup; it makes the slot anew and starts a new chain",
        )
    elif slot.wal_status == "unreserved":
        yield Problem(
            "slot_unreserved",
            Severity.WARNING,
            f"the replication slot {slot.name} is about to be lost: it holds more log than"
            " max_slot_wal_keep_size allows",
            "run a log backup now, and raise max_slot_wal_keep_size",
        )


def _warnings(view: ServerView) -> Iterator[Problem]:
    def problem(code: str, what: str, remedy: str) -> Problem:
        return Problem(code, Severity.WARNING, what, remedy)

    settings = view.settings
    if view.why_no_primary:
        yield problem(
            "primary_not_asked",
            "the server is a standby, and its backups cover only instants up to the last"
            f" transaction that it has replayed: {view.why_no_primary}",
            "let primary_dsn in the instance's settings lead to the primary; there the role needs"
            " no more than LOGIN",
        )
    if settings["max_slot_wal_keep_size"] == "-1":
        yield problem(
            "slot_unlimited",
            "max_slot_wal_keep_size is unlimited: if log backups stop, the log that is kept for"
            " them fills the server's disk in the end",
            "ALTER SYSTEM SET max_slot_wal_keep_size = '50GB';  -- what the disk can spare\n"
            "SELECT pg_reload_conf();",
        )
    if settings["idle_replication_slot_timeout"] not in (None, "0"):
        yield problem(
            "idle_slot_timeout",
            "idle_replication_slot_timeout is set: the server drops the log kept for backups when"
            " none runs for that long",
            "ALTER SYSTEM SET idle_replication_slot_timeout = 0;\nSELECT pg_reload_conf();",
        )
    if settings["data_checksums"] == "off":
        yield problem(
            "checksums_off",
            "data checksums are off: a backup copies damaged pages without noticing",
            'pg_checksums --enable --pgdata "$PGDATA"  # while the server is stopped',
        )
    for name, harm in (
        ("fsync", "a crash of the machine can damage the database and its log"),
        ("full_page_writes", "a crash can leave torn pages that the log cannot mend"),
    ):
        if settings[name] == "off":
            yield problem(
                f"{name}_off",
                f"{name} is off: {harm}",
                f"ALTER SYSTEM SET {name} = on;\nSELECT pg_reload_conf();",
            )
    if settings["config_file"] is None:
        yield problem(
            "settings_hidden",
            f"the role {view.role} may not see where the configuration files are, nor"
            " shared_preload_libraries; recovery points will not know them",
            f"GRANT pg_read_all_settings TO {quote_identifier(view.role)};",
        )
    outside = [
        path
        for path in (settings["config_file"], settings["hba_file"], settings["ident_file"])
        if path and settings["data_directory"] and not _is_below(path, settings["data_directory"])
    ]
    if outside:
        yield problem(
            "configuration_outside",
            "configuration files outside the data directory are not in the backup: "
            + ", ".join(outside),
            "keep copies of them, in configuration management for example",
        )


def _is_below(path: str, directory: str) -> bool:
    return PurePosixPath(path).is_relative_to(directory)
