"""Views of the server, its sessions and its availability groups ([D]: the page of each)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import permissions
from .availability import PREFERENCES
from .catalogcolumns import REQUESTS, SESSIONS
from .errors import SqlError
from .history import columns_of
from .sqltypes import Rowset

if TYPE_CHECKING:
    from .instance import Instance
    from .session import Session


class ServerViews:
    """Rowsets of one session."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.instance: Instance = session.instance

    def _require_state(self) -> bool:
        """VIEW SERVER STATE, from 2022 VIEW SERVER PERFORMANCE STATE ([D])."""
        wanted = "VIEW SERVER STATE"
        if self.instance.version.major >= 16:
            wanted = "VIEW SERVER PERFORMANCE STATE"
        return permissions.has_server(self.session, wanted)

    def _dm_exec_requests(self) -> Rowset:
        """Without the permission a session sees itself only ([D] sys.dm_exec_requests)."""
        rows = []
        every = self._require_state()
        now = self.instance.clock.local()
        for session in self.instance.sessions.values():
            request = session.request
            if request is None and session is not self.session:
                continue
            if not every and session is not self.session:
                continue
            if request is None:
                rows.append(
                    (
                        session.number, 0, now, "running", "SELECT", session.database.database_id,
                        None, 0.0, 0, 0, session.number.to_bytes(8, "big"),
                    )
                )  # fmt: skip
                continue
            elapsed = int((now - request.started).total_seconds() * 1000)
            left = (
                int(elapsed * (100 - request.percent) / request.percent) if request.percent else 0
            )
            rows.append(
                (
                    session.number, 0, request.started, "suspended", request.command,
                    request.database_id, request.wait_type, request.percent, left, elapsed,
                    session.number.to_bytes(8, "big"),
                )
            )  # fmt: skip
        return Rowset(REQUESTS, rows)

    def _dm_exec_sessions(self) -> Rowset:
        every = self._require_state()
        rows = [
            (
                session.number, session.started, session.host, "client", session.login.name,
                "running" if session.request else "sleeping", session.database.database_id, True,
                session.depth,
            )
            for session in self.instance.sessions.values()
            if every or session is self.session
        ]  # fmt: skip
        return Rowset(SESSIONS, rows)

    def _dm_os_host_info(self) -> Rowset:
        columns = columns_of(
            """
            host_platform nv256
            host_distribution nv256
            host_release nv256
            """
        )
        linux = self.instance.platform == "Linux"
        row = (self.instance.platform, "Ubuntu" if linux else "Windows Server 2022 Standard", "")
        return Rowset(columns, [row])

    def _dm_os_enumerate_fixed_drives(self) -> Rowset:
        columns = columns_of(
            """
            fixed_drive_path nv512
            drive_type int
            drive_type_desc nv512
            free_space_in_bytes bigint
            """
        )
        if not self._require_state():
            raise SqlError(
                300, "VIEW SERVER STATE permission was denied on object 'server', database "
                "'master'.", 14
            )  # fmt: skip
        free = self.instance.faults.free_data_bytes
        free = 500 * 2**30 if free is None else free
        return Rowset(columns, [("C:\\", 3, "DRIVE_FIXED", free)])

    def _configurations(self) -> Rowset:
        columns = columns_of(
            """
            configuration_id int 8
            name nv35 8
            value int
            value_in_use int
            """
        )
        rows = [
            (1500 + number, name, value, value)
            for number, (name, value) in enumerate(self.instance.configuration.items())
        ]
        return Rowset(columns, rows)

    def _credentials(self) -> Rowset:
        columns = columns_of(
            """
            credential_id int 8
            name nv128 8
            credential_identity nv4000
            create_date datetime 8
            modify_date datetime 8
            """
        )
        allowed = permissions.has_server(self.session, "ALTER ANY CREDENTIAL")
        rows = [
            (each.credential_id, each.name, each.identity, each.create_date, each.create_date)
            for each in self.instance.credentials.values()
            if allowed
        ]
        return Rowset(columns, rows)

    def _certificates(self) -> Rowset:
        columns = columns_of("name nv128 8\nthumbprint bin20")
        return Rowset(columns, list(self.instance.certificates.items()))

    def _server_principals(self) -> Rowset:
        columns = columns_of("name nv128 8\nprincipal_id int 8\nsid bin20\ntype char1 8")
        rows = [
            (each.name, number, each.sid.bytes if each.name != "sa" else b"\x01", "S")
            for number, each in enumerate(self.instance.logins.values(), start=1)
        ]
        return Rowset(columns, rows)

    def _sees_groups(self) -> bool:
        """VIEW ANY DEFINITION ([D] sys.availability_groups and sys.availability_replicas): without
        it there are no rows."""
        return permissions.has_server(self.session, "VIEW ANY DEFINITION")

    def _require_hadr_state(self) -> None:
        """VIEW SERVER STATE, from 2022 VIEW SERVER PERFORMANCE STATE ([D] of each view)."""
        if not self._require_state():
            raise SqlError(
                300, "VIEW SERVER STATE permission was denied on object 'server', database "
                "'master'.", 14
            )  # fmt: skip

    def _availability_groups(self) -> Rowset:
        columns = columns_of(
            """
            group_id guid 8
            name nv128
            automated_backup_preference tinyint
            automated_backup_preference_desc nv60
            basic_features bit
            is_distributed bit
            cluster_type_desc nv60
            """
        )
        rows = [
            (
                each.group_id, each.name, PREFERENCES[each.preference], each.preference,
                each.is_basic, False, "WSFC",
            )
            for each in self.instance.groups.values()
            if self._sees_groups()
        ]  # fmt: skip
        return Rowset(columns, rows)

    def _availability_replicas(self) -> Rowset:
        columns = columns_of(
            "replica_id guid\ngroup_id guid\nreplica_server_name nv256\nbackup_priority int"
        )
        rows = [
            (
                group.replica_id(replica), group.group_id, replica.server_name,
                group.priority(replica),
            )
            for group in self.instance.groups.values()
            for replica in group.replicas
            if self._sees_groups()
        ]  # fmt: skip
        return Rowset(columns, rows)

    def _dm_hadr_availability_group_states(self) -> Rowset:
        """[D] sys.dm_hadr_availability_group_states: primary_replica is the server's name."""
        self._require_hadr_state()
        columns = columns_of("group_id guid 8\nprimary_replica nv128")
        rows = [(each.group_id, each.primary.server_name) for each in self.instance.groups.values()]
        return Rowset(columns, rows)

    def _dm_hadr_availability_replica_states(self) -> Rowset:
        columns = columns_of(
            """
            replica_id guid 8
            group_id guid 8
            is_local bit 8
            role tinyint
            role_desc nv60
            connected_state_desc nv60
            synchronization_health_desc nv60
            """
        )
        self._require_hadr_state()
        rows = []
        for group in self.instance.groups.values():
            for replica in group.replicas:
                local = replica is self.instance
                if not local and not group.is_primary(self.instance):
                    continue  # a secondary knows of itself only ([D])
                primary = group.is_primary(replica)
                rows.append(
                    (
                        group.replica_id(replica), group.group_id, local, 1 if primary else 2,
                        "PRIMARY" if primary else "SECONDARY",
                        "CONNECTED" if group.is_synchronizing(replica) else "DISCONNECTED",
                        "HEALTHY",
                    )
                )  # fmt: skip
        return Rowset(columns, rows)

    def _dm_hadr_database_replica_states(self) -> Rowset:
        columns = columns_of(
            """
            database_id int 8
            group_id guid 8
            replica_id guid 8
            group_database_id guid 8
            is_local bit
            is_primary_replica bit
            synchronization_state tinyint
            synchronization_state_desc nv60
            last_hardened_lsn lsn
            recovery_lsn lsn
            """
        )
        self._require_hadr_state()
        rows = []
        for database in self.instance.databases.values():
            group = self.instance.group_of(database)
            if group is None:
                continue
            good = group.is_synchronizing(self.instance)
            rows.append(
                (
                    database.database_id, group.group_id, group.replica_id(self.instance),
                    group.group_database_id(database), True, group.is_primary(self.instance),
                    2 if good else 0, "SYNCHRONIZED" if good else "NOT SYNCHRONIZING",
                    group.log_end(self.instance, database), group.tenures.get(database.name, 0),
                )
            )  # fmt: skip
        return Rowset(columns, rows)
