"""The databases of an instance: what each is, where its log stands, and what may be taken of it.

One question tells all of all databases, so that an instance with hundreds of them costs no more
connections than one with a single database.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlbak.engines.sqlserver.connection import Session, StatementFailed
from sqlbak.engines.sqlserver.rows import Row, cell, guid, lsn, number, text
from sqlbak.engines.sqlserver.statements import literal
from sqlbak.errors import ServerRefused
from sqlbak.model import PointType
from sqlbak.stopping import NEVER, StopSignal

__all__ = ["Database", "Replica", "read_databases", "selected"]

_QUESTION: Final = (
    "SELECT d.name, d.database_id, d.state_desc, d.is_read_only, d.is_in_standby,"
    " d.recovery_model_desc, d.source_database_id, d.replica_id, d.is_encrypted,"
    " SUSER_SNAME(d.owner_sid) AS owner_name,"
    " r.database_guid, r.family_guid, r.last_log_backup_lsn, r.recovery_fork_guid,"
    " f.differential_base_lsn, f.differential_base_guid"
    " FROM sys.databases AS d"
    " LEFT JOIN sys.database_recovery_status AS r ON r.database_id = d.database_id"
    " LEFT JOIN sys.master_files AS f ON f.database_id = d.database_id AND f.file_id = 1"
)
_SIZES: Final = (
    "SELECT database_id, SUM(CONVERT(bigint, size)) AS pages FROM sys.master_files"
    " WHERE type <> 1 GROUP BY database_id"
)
_REPLICAS: Final = (
    "SELECT s.database_id, s.group_id, s.group_database_id, s.is_primary_replica,"
    " s.synchronization_state_desc, sys.fn_hadr_backup_is_preferred_replica(d.name) AS is_preferred"
    " FROM sys.dm_hadr_database_replica_states AS s"
    " JOIN sys.databases AS d ON d.database_id = s.database_id WHERE s.is_local = 1"
)
PAGE_BYTES: Final = 8192

_DATA: Final = (PointType.FULL, PointType.DIFFERENTIAL)
_ALL: Final = (*_DATA, PointType.LOG)


@dataclass(frozen=True, slots=True)
class Replica:
    """What a database is in its availability group, on the server that was asked.

    Attributes:
        is_preferred: the server's own answer whether backups are to be taken here.
        database_id: what the group calls the database, the same on every replica.
        groups: the groups that it is in: one, and with a distributed group that one too.
        state: of the synchronization, such as SYNCHRONIZED.
    """

    is_primary: bool
    is_preferred: bool
    database_id: str = ""
    groups: frozenset[str] = frozenset()
    state: str = "SYNCHRONIZED"

    @property
    def is_synchronizing(self) -> bool:
        """Whether log can be backed up here (SQL Server docs, "Offload supported backups to
        secondary replicas")."""
        return self.state in ("SYNCHRONIZED", "SYNCHRONIZING")


@dataclass(frozen=True, slots=True)
class Database:
    """One database. GUIDs are lower case, and None where the server does not tell them (a
    database that is not online, or a missing grant).

    Attributes:
        last_log_backup_lsn: where the next log backup begins; None: SIMPLE, or no full since it
            was made or left SIMPLE.
        base_guid, base_lsn: the full that a differential would be of now.
        size_bytes: of its data files; a full is at most about as large.
    """

    name: str
    database_id: int
    state: str
    recovery_model: str
    family: str | None = None
    binding: str | None = None
    fork: str | None = None
    last_log_backup_lsn: int | None = None
    base_guid: str | None = None
    base_lsn: int | None = None
    owner: str | None = None
    is_read_only: bool = False
    is_in_standby: bool = False
    is_snapshot: bool = False
    is_encrypted: bool = False
    replica: Replica | None = None
    size_bytes: int = 0

    @property
    def is_protectable(self) -> bool:
        """False for what never can be backed up: tempdb and database snapshots."""
        return self.name.lower() != "tempdb" and not self.is_snapshot

    def paused(self) -> dict[PointType, str]:
        """What cannot be taken now as the database is, and why; that is its owner's choice and no
        failure."""
        name = self.name
        if self.state in ("OFFLINE", "OFFLINE_SECONDARY"):
            return dict.fromkeys(_ALL, f"{name} is offline")
        if self.state == "RESTORING":
            return dict.fromkeys(_ALL, f"{name} is being restored, or was left RESTORING")
        if self.is_in_standby:
            return dict.fromkeys(_ALL, f"{name} is a standby copy (RESTORE WITH STANDBY)")
        found: dict[PointType, str] = {}
        if name.lower() == "master":
            why = "of master SQL Server takes full backups only"
            found = dict.fromkeys((PointType.DIFFERENTIAL, PointType.LOG), why)
        elif self.recovery_model == "SIMPLE":
            found[PointType.LOG] = (
                f"{name} is in the SIMPLE recovery model: it has no log to back up, and a restore "
                "reaches only the ends of fulls and differentials"
            )
        if self.replica is not None:
            servers = "(name the group's servers under replicas:)"
            if not self.replica.is_primary:
                # Without the primary nothing tells which instants a log of a secondary proves.
                why = f"{name} is on a secondary replica here, and nothing leads to its primary one"
                found = dict.fromkeys(_ALL, f"{why} {servers}") | found
            elif not self.replica.is_preferred:
                found.setdefault(
                    PointType.LOG,
                    f"the availability group prefers another replica for the backups of {name} "
                    f"{servers}",
                )
        return found


def read_databases(
    session: Session,
    *,
    name: str | None = None,
    with_replicas: bool = False,
    stop: StopSignal = NEVER,
) -> list[Database]:
    """Every database of the instance, or the one called ``name``, by name. Asks one question, and
    one more for sizes and for availability groups each. ServerRefused naming a missing grant."""
    try:
        return _read(session, name, with_replicas, stop)
    except StatementFailed as failed:
        raise failed.explained(ServerRefused) from None


def _read(
    session: Session, name: str | None, with_replicas: bool, stop: StopSignal
) -> list[Database]:
    where = "" if name is None else f" WHERE d.name = {literal(name)}"
    rows = session.rows(_QUESTION + where, doing="looking at the databases", stop=stop)
    sizes = {
        number(row, "database_id"): (number(row, "pages") or 0) * PAGE_BYTES
        for row in session.rows(_SIZES, doing="looking at sizes", stop=stop)
    }
    replicas: dict[int | None, Replica] = {}
    if with_replicas:
        found_in = session.rows(_REPLICAS, doing="looking at availability groups", stop=stop)
        replicas = {
            number(row, "database_id"): _replica(
                [one for one in found_in if one["database_id"] == row["database_id"]]
            )
            for row in found_in
        }
    found = [
        _database(
            row, sizes.get(number(row, "database_id"), 0), replicas.get(cell(row, "database_id"))
        )
        for row in rows
    ]
    # A comparison in SQL goes by the collation and passes over blanks at the end.
    return sorted(
        (one for one in found if name is None or one.name == name), key=lambda one: one.name
    )


def _replica(rows: Sequence[Row]) -> Replica:
    """``rows``: of one database; two where its group is part of a distributed one, in which the
    primary of the second group is a secondary."""
    return Replica(
        is_primary=all(bool(cell(row, "is_primary_replica")) for row in rows),
        is_preferred=bool(cell(rows[0], "is_preferred")),
        database_id=guid(rows[0], "group_database_id") or "",
        groups=frozenset(guid(row, "group_id") or "" for row in rows),
        state=(text(rows[0], "synchronization_state_desc") or "").upper(),
    )


def _database(row: Row, size_bytes: int, replica: Replica | None) -> Database:
    return Database(
        name=text(row, "name") or "",
        database_id=number(row, "database_id") or 0,
        state=(text(row, "state_desc") or "").upper(),
        recovery_model=(text(row, "recovery_model_desc") or "").upper(),
        family=guid(row, "family_guid"),
        binding=guid(row, "database_guid"),
        fork=guid(row, "recovery_fork_guid"),
        last_log_backup_lsn=lsn(row, "last_log_backup_lsn"),
        base_guid=guid(row, "differential_base_guid"),
        base_lsn=lsn(row, "differential_base_lsn"),
        owner=text(row, "owner_name"),
        is_read_only=bool(cell(row, "is_read_only")),
        is_in_standby=bool(cell(row, "is_in_standby")),
        is_snapshot=cell(row, "source_database_id") is not None,
        is_encrypted=bool(cell(row, "is_encrypted")),
        replica=replica,
        size_bytes=size_bytes,
    )


def selected(
    databases: Iterable[Database],
    *,
    include: Sequence[str],
    exclude: Sequence[str],
    is_case_sensitive: bool,
) -> list[Database]:
    """Those that are meant: a name that fits one of ``include`` and none of ``exclude``. The only
    wildcard is ``*``. What never can be backed up is left out whatever the names say. Pure."""
    flags = re.DOTALL if is_case_sensitive else re.DOTALL | re.IGNORECASE
    wanted, unwanted = _patterns(include, flags), _patterns(exclude, flags)
    return [
        one
        for one in databases
        if one.is_protectable
        and any(pattern.fullmatch(one.name) for pattern in wanted)
        and not any(pattern.fullmatch(one.name) for pattern in unwanted)
    ]


def _patterns(globs: Sequence[str], flags: int) -> list[re.Pattern[str]]:
    return [re.compile(".*".join(map(re.escape, glob.split("*"))), flags) for glob in globs]
