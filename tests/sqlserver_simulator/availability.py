"""Availability groups: several instances that hold the same database, one of them writing.

The replicas share one Database object: its log is one log, whichever replica backs it up, while
msdb's history belongs to each instance ([D] "Offload supported backups to secondary replicas").
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .instance import Instance

PREFERENCES = {"PRIMARY": 0, "SECONDARY_ONLY": 1, "SECONDARY": 2, "NONE": 3}


@dataclass(slots=True)
class AvailabilityGroup:
    """``preference`` is automated_backup_preference_desc; replicas in order of priority."""

    name: str
    replicas: list[Instance]
    primary: Instance
    preference: str = "SECONDARY"
    group_id: uuid.UUID = field(default_factory=uuid.uuid4)
    not_synchronizing: set[Any] = field(default_factory=set)

    def replica_id(self, instance: Instance) -> uuid.UUID:
        return uuid.uuid5(self.group_id, instance.server_name)

    def is_primary(self, instance: Instance) -> bool:
        return instance is self.primary

    def is_synchronizing(self, instance: Instance) -> bool:
        return instance.server_name not in self.not_synchronizing

    def is_preferred(self, instance: Instance) -> bool:
        """sys.fn_hadr_backup_is_preferred_replica ([D]): PRIMARY only there; SECONDARY_ONLY and
        SECONDARY on the first healthy secondary; NONE anywhere (by priority: the first)."""
        secondaries = [
            each
            for each in self.replicas
            if each is not self.primary and self.is_synchronizing(each)
        ]
        if self.preference == "PRIMARY":
            return instance is self.primary
        if self.preference == "NONE":
            return instance is self.replicas[0]
        if secondaries:
            return instance is secondaries[0]
        return self.preference == "SECONDARY" and instance is self.primary

    def fail_over(self, to: Instance) -> None:
        """Make another replica the primary; sessions using its databases on the old one end."""
        old = self.primary
        self.primary = to
        for database in list(old.databases.values()):
            if database.group == self.name:
                for session in old.users_of(database):
                    session.kill()
