"""Availability groups: several instances that hold the same database, one of them writing.

The replicas share one Database object: its log is one log, whichever replica backs it up, while
msdb's history belongs to each instance ([D] "Offload supported backups to secondary replicas").
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .store import LogHead, Tables

if TYPE_CHECKING:
    from .database import Database
    from .instance import Instance

PREFERENCES = {"PRIMARY": 0, "SECONDARY_ONLY": 1, "SECONDARY": 2, "NONE": 3}


@dataclass(slots=True)
class AvailabilityGroup:
    """``preference`` is automated_backup_preference_desc; ``priorities`` are backup_priority by
    server name (50 where none is set, 0 excludes); ``received`` says how far a secondary's log is
    that is behind; ``tenures`` where the log of each database ended when its primary became that.
    """

    name: str
    replicas: list[Instance]
    primary: Instance
    preference: str = "SECONDARY"
    group_id: uuid.UUID = field(default_factory=uuid.uuid4)
    not_synchronizing: set[Any] = field(default_factory=set)
    priorities: dict[str, int] = field(default_factory=dict)
    is_basic: bool = False
    received: dict[tuple[str, str], int] = field(default_factory=dict)
    tenures: dict[str, int] = field(default_factory=dict)

    def replica_id(self, instance: Instance) -> uuid.UUID:
        return uuid.uuid5(self.group_id, instance.server_name)

    def group_database_id(self, database: Database) -> uuid.UUID:
        """The same on every replica ([D] sys.dm_hadr_database_replica_states)."""
        return uuid.uuid5(self.group_id, database.name)

    def database_guid(self, instance: Instance, database: Database) -> uuid.UUID:
        """A secondary was made by a restore, which gives a new one ([D]
        sys.database_recovery_status)."""
        if instance is self.replicas[0]:
            return database.database_guid
        return uuid.uuid5(database.database_guid, instance.server_name)

    def databases(self) -> list[Database]:
        """What is in the group."""
        return [each for each in self.primary.databases.values() if each.group == self.name]

    def is_primary(self, instance: Instance) -> bool:
        return instance is self.primary

    def is_synchronizing(self, instance: Instance) -> bool:
        return instance.server_name not in self.not_synchronizing

    def priority(self, instance: Instance) -> int:
        return self.priorities.get(instance.server_name, 50)

    def is_preferred(self, instance: Instance) -> bool:
        """sys.fn_hadr_backup_is_preferred_replica ([D]): PRIMARY only there; SECONDARY_ONLY and
        SECONDARY on the healthy secondary of the highest priority, SECONDARY on the primary where
        there is none; NONE on any, by priority. Priority 0 is never chosen ([D] "Configure backups
        on secondary replicas")."""
        if self.preference == "PRIMARY":
            return instance is self.primary
        fit = [
            each
            for each in sorted(self.replicas, key=self.priority, reverse=True)
            if self.priority(each) > 0
            and (each is self.primary or self.is_synchronizing(each))
            and (each is not self.primary or self.preference == "NONE")
        ]
        if fit:
            return instance is fit[0]
        return self.preference == "SECONDARY" and instance is self.primary

    def hold(self, instance: Instance) -> None:
        """From now on a secondary gets no more log, as one that commits asynchronously and is
        behind; it stays SYNCHRONIZING."""
        for database in self.databases():
            database.head.flush()
            self.received[instance.server_name, database.name] = database.head.lsn

    def catch_up(self, instance: Instance) -> None:
        """A secondary that was behind has all log again."""
        for database in self.databases():
            self.received.pop((instance.server_name, database.name), None)

    def log_end(self, instance: Instance, database: Database) -> int:
        """How far the log of a database reaches on a replica."""
        end = database.head.lsn
        if instance is self.primary:
            return end
        return min(end, self.received.get((instance.server_name, database.name), end))

    def fail_over(self, to: Instance, *, forced: bool = False) -> None:
        """Make another replica the primary. Sessions that use its databases on the old one end, and
        so do backups that run. ``forced``: with the loss of what it had not received: then it goes
        on under a new recovery fork ([D] "Perform a forced manual failover")."""
        old = self.primary
        for database in self.databases():
            for session in old.users_of(database):
                session.kill()
            for instance, number in (database.data_backup_on, database.log_backup_on):
                if instance is not None and number in instance.sessions:
                    instance.sessions[number].kill()
            if forced:
                _lose(database, self.log_end(to, database))
            database.clock = to.clock
            database.head.flush()
            self.tenures[database.name] = database.head.lsn
            self.received.pop((to.server_name, database.name), None)
        self.primary = to


def _lose(database: Database, end: int) -> None:
    """Forget the log from ``end`` on, and all that it did."""
    database.transactions.clear()
    database.commits = [each for each in database.commits if each.lsn < end]
    tables = Tables()
    for commit in database.commits:
        for operation in commit.operations:
            tables.apply(operation, commit.lsn)
    database.tables = tables
    file, rest = divmod(end, 10**15)
    database.head = LogHead(file, *divmod(rest, 10**5))
    database.log = [record for record in database.log if record.lsn < end]
    database.log_from = min(database.log_from, end)
    database.fork_point, database.fork = end, uuid.uuid4()
    if database.last_log_backup_lsn is not None:
        database.last_log_backup_lsn = min(database.last_log_backup_lsn, end)
    base = database.differential_base
    if base is not None and base.lsn > end:
        database.differential_base = None
