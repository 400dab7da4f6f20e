"""Catalog and management views, as rowsets of what the session may see ([D]: the page of each
view; columns that a backup tool reads, and sys.master_files and sys.database_files whole, as
captured from SQL Server 2022)."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from . import permissions
from .availability import PREFERENCES
from .database import MODELS, STATES, Database
from .errors import SqlError, not_modelled
from .history import columns_of
from .sqltypes import Column, Rowset

if TYPE_CHECKING:
    from .session import Session

DATABASES = columns_of(
    """
    name nv128 8
    database_id int 8
    source_database_id int
    owner_sid bin20
    create_date datetime 8
    compatibility_level tinyint 8
    collation_name nv128
    user_access tinyint
    user_access_desc nv60
    is_read_only bit
    is_auto_close_on bit 8
    state tinyint
    state_desc nv60
    is_in_standby bit
    is_cleanly_shutdown bit
    snapshot_isolation_state tinyint
    is_read_committed_snapshot_on bit
    recovery_model tinyint
    recovery_model_desc nv60
    is_published bit 8
    is_broker_enabled bit 8
    log_reuse_wait tinyint
    log_reuse_wait_desc nv60
    is_cdc_enabled bit 8
    is_encrypted bit
    replica_id guid
    group_database_id guid
    containment tinyint
    containment_desc nv60
    physical_database_name nv128
    """
)
_FILE_TEXT = """
    file_id int 8
    file_guid guid
    type tinyint 8
    type_desc nv60
    data_space_id int 8
    name nv128 33
    physical_name nv260 33
    state tinyint 33
    state_desc nv60
    size int 32
    max_size int 8
    growth int 8
    is_media_read_only bit 32
    is_read_only bit 32
    is_sparse bit 32
    is_percent_growth bit 32
    is_name_reserved bit 32
    is_persistent_log_buffer bit 32
    create_lsn lsn 33
    drop_lsn lsn 33
    read_only_lsn lsn 33
    read_write_lsn lsn 33
    differential_base_lsn lsn 33
    differential_base_guid guid
    differential_base_time datetime 33
    redo_start_lsn lsn 33
    redo_start_fork_guid guid
    redo_target_lsn lsn 33
    redo_target_fork_guid guid
    backup_lsn lsn 33
    """
DATABASE_FILES = columns_of(_FILE_TEXT)
_MASTER_FLAGS = {"physical_name": 8, "size": 8}
MASTER_FILES = [
    *columns_of("database_id int 8"),
    *(Column(c.name, c.type, _MASTER_FLAGS.get(c.name, c.flags)) for c in DATABASE_FILES),
    *columns_of("credential_id int"),
]
RECOVERY_STATUS = columns_of(
    """
    database_id int 8
    database_guid guid
    family_guid guid
    last_log_backup_lsn lsn
    recovery_fork_guid guid
    first_recovery_fork_guid guid
    fork_point_lsn lsn
    """
)
REQUESTS = columns_of(
    """
    session_id smallint 8
    request_id int 8
    start_time datetime 8
    status nv30 8
    command nv32 8
    database_id smallint 8
    wait_type nv60
    percent_complete real 8
    estimated_completion_time bigint 8
    total_elapsed_time int 8
    """
)
SESSIONS = columns_of(
    """
    session_id smallint 8
    login_time datetime 8
    host_name nv128
    program_name nv128
    login_name nv128 8
    status nv30 8
    database_id smallint 8
    is_user_process bit 8
    open_transaction_count int 8
    """
)


class Catalog:
    """Named rowsets for one session."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.instance = session.instance

    def table(self, parts: tuple[str, ...]) -> Rowset:
        """A view, a table of msdb, or a table with rows. SqlError 208 where there is none."""
        lowered = [part.lower() for part in parts]
        if len(lowered) >= 2 and lowered[-2] == "sys":
            view = getattr(self, f"_{lowered[-1]}", None)
            if view is None:
                raise not_modelled(f"the view sys.{parts[-1]}")
            if lowered[-1] in {"database_files", "objects", "tables", "database_principals"}:
                rowset: Rowset = view(self._database(parts, 3))
            else:
                rowset = view()
            return rowset
        database = self._database(parts, 3)
        if database.name == "msdb" and lowered[-1] not in {
            key[1] for key in database.tables.data
        }:  # fmt: skip
            history = self.instance.history.rowset(lowered[-1])
            if history is not None:
                permissions.require_msdb(self.session, lowered[-1])
                return history
        return self._rows(database, parts)

    def _database(self, parts: tuple[str, ...], depth: int) -> Database:
        if len(parts) >= depth and parts[-depth]:
            database = self.instance.find(parts[-depth])
            if database is None:
                raise SqlError(208, f"Invalid object name '{'.'.join(parts)}'.")
            permissions.require_open(self.session, database)
            database.require_open()
            return database
        return self.session.database

    def _rows(self, database: Database, parts: tuple[str, ...]) -> Rowset:
        from .statements import table_in

        database.require_open()
        schema = parts[-2] if len(parts) > 1 and parts[-2] else "dbo"
        data = table_in(self.session, database, (schema.lower(), parts[-1].lower()), parts)
        columns = [
            Column(each.name, each.type, 16 if each.identity else 8 + each.nullable)
            for each in data.columns
        ]
        return Rowset(columns, [data.rows[number] for number in sorted(data.rows)])

    def function_table(self, parts: tuple[str, ...], arguments: list[Any]) -> Rowset:
        name = parts[-1].lower()
        if name == "dm_db_log_stats":
            return self._log_stats(arguments[0])
        if name == "dm_os_enumerate_filesystem" or name == "dm_os_file_exists":
            raise not_modelled(f"sys.{name}")
        if name == "dm_exec_sql_text":
            return Rowset(columns_of("text nv4000"), [])
        raise not_modelled(f"the function {'.'.join(parts)}")

    # databases ---------------------------------------------------------------------------------
    def _visible(self) -> list[Database]:
        """VIEW ANY DATABASE shows all (public holds it by default); otherwise master, tempdb, the
        current one and those the login owns ([D] sys.databases, Permissions)."""
        found = sorted(self.instance.databases.values(), key=lambda each: each.database_id)
        if permissions.has_server(self.session, "VIEW ANY DATABASE"):
            return found
        return [
            each
            for each in found
            if each.name in {"master", "tempdb"}
            or each is self.session.database
            or permissions.is_owner(self.session, each)
        ]

    def _databases(self) -> Rowset:
        rows = []
        for d in self._visible():
            group = self.instance.group_of(d)
            access = {"MULTI_USER": 0, "SINGLE_USER": 1, "RESTRICTED_USER": 2}[d.user_access]
            wait = (2, "LOG_BACKUP") if d.is_chain_running else (0, "NOTHING")
            owner = self.instance.logins.get(d.owner.lower())
            # the collation of a database that is not online is NULL ([D] sys.databases)
            readable = d.state == "ONLINE" or d.standby_file is not None
            sid = b"\x01" if d.owner == "sa" else owner.sid.bytes if owner else b"\0" * 16
            rows.append(
                (
                    d.name, d.database_id, d.source_database_id, sid, d.create_date,
                    d.compatibility, d.collation if readable else None, access, d.user_access,
                    d.is_read_only or d.standby_file is not None, False,
                    0 if d.standby_file else STATES[d.state],
                    "ONLINE" if d.standby_file else d.state, d.standby_file is not None, False, 0,
                    False, MODELS[d.recovery_model], d.recovery_model, False, False, *wait, False,
                    d.is_encrypted, group.group_id if group else None,
                    d.database_guid if group else None, 0, "NONE", d.name,
                )
            )  # fmt: skip
        return Rowset(DATABASES, rows)

    def _file_rows(self, database: Database) -> list[tuple[Any, ...]]:
        rows = []
        base, redo = database.differential_base, database.redo
        for file in database.files:
            data = file.kind == "D"
            own = base if data else None
            system = database.is_system
            rows.append(
                (
                    file.file_id, None if database.name == "master" else file.guid,
                    {"D": 0, "L": 1, "S": 2}[file.kind],
                    {"D": "ROWS", "L": "LOG", "S": "FILESTREAM"}[file.kind], 1 if data else 0,
                    file.logical_name, file.physical_name,
                    1 if database.state == "RESTORING" else 0,
                    "RESTORING" if database.state == "RESTORING" else "ONLINE", file.pages,
                    file.max_pages, 10 if system else 8192, False, database.is_read_only, False,
                    system, False, False, file.create_lsn or None, None, None, None,
                    own.lsn if own else None, own.guid if own else None, own.time if own else None,
                    redo.lsn if redo and data else None, redo.fork if redo and data else None,
                    None, None, None,
                )
            )  # fmt: skip
        return rows

    def _master_files(self) -> Rowset:
        """Rows of other databases need CREATE DATABASE, ALTER ANY DATABASE or VIEW ANY DEFINITION
        ([D] sys.master_files, Permissions)."""
        session = self.session
        every = permissions.has_server(session, "VIEW ANY DEFINITION") or permissions.has_server(
            session, "CREATE ANY DATABASE"
        )
        rows = [
            (database.database_id, *row, None)
            for database in sorted(self.instance.databases.values(), key=lambda d: d.database_id)
            if every or permissions.database_roles(session, database) & {"db_owner"}
            for row in self._file_rows(database)
        ]
        return Rowset(MASTER_FILES, rows)

    def _database_files(self, database: Database) -> Rowset:
        return Rowset(DATABASE_FILES, self._file_rows(database))

    def _database_recovery_status(self) -> Rowset:
        """By owner, or with ALTER ANY DATABASE, VIEW ANY DATABASE or CREATE DATABASE ([D])."""
        rows = []
        for d in self._visible():
            hidden = self.instance.unknowns.status_of_restoring_is_null
            if d.state == "OFFLINE" or (d.state == "RESTORING" and hidden):
                rows.append((d.database_id, None, None, None, None, None, None))
                continue
            fork = d.redo.fork if d.redo else d.fork
            crossing = d.log_fork != d.fork
            rows.append(
                (
                    d.database_id, d.database_guid, d.family_guid, d.last_log_backup_lsn, fork,
                    d.log_fork if not d.redo else fork, d.fork_point if crossing else None,
                )
            )  # fmt: skip
        return Rowset(RECOVERY_STATUS, rows)

    def _log_stats(self, number: int | None) -> Rowset:
        columns = columns_of(
            """
            database_id int
            recovery_model nv60
            log_min_lsn nv24
            log_end_lsn nv24
            total_log_size_mb real
            active_log_size_mb real
            log_truncation_holdup_reason nv60
            log_backup_time datetime
            log_backup_lsn nv24
            log_since_last_log_backup_mb real
            """
        )
        database = self.instance.by_id(number) if number is not None else None
        if database is None:
            return Rowset(columns, [])
        since = database.last_log_backup_lsn
        mb = len([r for r in database.log if since is None or r.lsn >= since]) / 4096
        row = (
            number, database.recovery_model, _hex(database.log_from), _hex(database.head.lsn), 8.0,
            mb, "LOG_BACKUP" if database.is_chain_running else "NOTHING", None,
            _hex(since) if since else None, mb if since else None,
        )  # fmt: skip
        return Rowset(columns, [row])

    # the server --------------------------------------------------------------------------------
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
                        None, 0.0, 0, 0,
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

    def _database_principals(self, database: Database) -> Rowset:
        columns = columns_of(
            "name nv128 8\nprincipal_id int 8\ntype char1 8\nsid bin20\n"
            "authentication_type_desc nv60"
        )
        rows: list[tuple[Any, ...]] = [("dbo", 1, "S", b"\x01", "INSTANCE")]
        for number, user in enumerate(database.users.values(), start=5):
            login = self.instance.logins.get(user.login.lower())
            lost = hashlib.sha1(user.login.encode()).digest()[:16]
            rows.append((user.name, number, "S", login.sid.bytes if login else lost, "INSTANCE"))
        return Rowset(columns, rows)

    def _tables(self, database: Database) -> Rowset:
        columns = columns_of("name nv128 8\nobject_id int 8\nschema_id int 8\ntype char1 8")
        rows = [
            (data.name.partition(".")[2] or data.name, number, 1, "U")
            for number, data in enumerate(database.tables.data.values(), start=100)
        ]
        return Rowset(columns, rows)

    _objects = _tables

    # availability groups -----------------------------------------------------------------------
    def _availability_groups(self) -> Rowset:
        columns = columns_of(
            """
            group_id guid 8
            name nv128
            automated_backup_preference tinyint
            automated_backup_preference_desc nv60
            """
        )
        rows = [
            (each.group_id, each.name, PREFERENCES[each.preference], each.preference)
            for each in self.instance.groups.values()
        ]
        return Rowset(columns, rows)

    def _availability_replicas(self) -> Rowset:
        columns = columns_of("replica_id guid\ngroup_id guid\nreplica_server_name nv256")
        rows = [
            (group.replica_id(replica), group.group_id, replica.server_name)
            for group in self.instance.groups.values()
            for replica in group.replicas
        ]
        return Rowset(columns, rows)

    def _dm_hadr_availability_replica_states(self) -> Rowset:
        columns = columns_of(
            """
            replica_id guid 8
            group_id guid 8
            is_local bit 8
            role tinyint
            role_desc nv60
            synchronization_health_desc nv60
            """
        )
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
                        "PRIMARY" if primary else "SECONDARY", "HEALTHY",
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
            """
        )
        rows = []
        for database in self.instance.databases.values():
            group = self.instance.group_of(database)
            if group is None:
                continue
            good = group.is_synchronizing(self.instance)
            rows.append(
                (
                    database.database_id, group.group_id, group.replica_id(self.instance),
                    database.database_guid, True, group.is_primary(self.instance),
                    2 if good else 0, "SYNCHRONIZED" if good else "NOT SYNCHRONIZING",
                )
            )  # fmt: skip
        return Rowset(columns, rows)


def _hex(lsn: int) -> str:
    file, rest = divmod(lsn, 10**15)
    block, slot = divmod(rest, 10**5)
    return f"{file:08x}:{block:08x}:{slot:04x}"
