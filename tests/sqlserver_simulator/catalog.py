"""Catalog and management views, as rowsets of what the session may see ([D]: the page of each
view; columns that a backup tool reads, and sys.master_files and sys.database_files whole, as
captured from SQL Server 2022)."""

from __future__ import annotations

from typing import Any
from uuid import NAMESPACE_OID, uuid5

from . import permissions
from .catalogcolumns import DATABASE_FILES, DATABASES, MASTER_FILES, RECOVERY_STATUS
from .database import MODELS, STATES, Database
from .errors import SqlError, not_modelled
from .history import columns_of
from .serverviews import ServerViews
from .sqltypes import Column, Rowset


class Catalog(ServerViews):
    """Named rowsets for one session."""

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
            # A handle stands for the batch that a session runs, of whoever may see that.
            number = int.from_bytes(arguments[0] or b"", "big")
            found = self.instance.sessions.get(number)
            texts = [] if found is None else [(found.batch,)]
            return Rowset(columns_of("text nv4000"), texts)
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
                    group.group_database_id(d) if group else None, 0, "NONE", d.name,
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
            last = d.last_log_backup_lsn
            group = self.instance.group_of(d)
            if group is not None and not group.is_primary(self.instance):
                known = self.instance.unknowns.status_of_secondary
                if known == "null":
                    rows.append((d.database_id, None, None, None, None, None, None))
                    continue
                if known == "old":
                    last = self.instance.history.last_log_end(d) or d.log_from
            rows.append(
                (
                    d.database_id, self.instance.database_guid(d), d.family_guid, last, fork,
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
        last = database.log[-1].lsn if database.log else database.log_from
        row = (
            number, database.recovery_model, _hex(database.log_from), _hex(last), 8.0,
            mb, "LOG_BACKUP" if database.is_chain_running else "NOTHING", None,
            _hex(since) if since else None, mb if since else None,
        )  # fmt: skip
        return Rowset(columns, [row])

    def _database_principals(self, database: Database) -> Rowset:
        columns = columns_of(
            "name nv128 8\nprincipal_id int 8\ntype char1 8\nsid bin20\n"
            "authentication_type_desc nv60"
        )
        rows: list[tuple[Any, ...]] = [("dbo", 1, "S", b"\x01", "INSTANCE")]
        for number, user in enumerate(database.users.values(), start=5):
            login = self.instance.logins.get(user.login.lower())
            sid = user.sid or (login.sid if login else uuid5(NAMESPACE_OID, user.login))
            rows.append((user.name, number, "S", sid.bytes, "INSTANCE"))
        return Rowset(columns, rows)

    def _tables(self, database: Database) -> Rowset:
        columns = columns_of("name nv128 8\nobject_id int 8\nschema_id int 8\ntype char1 8")
        rows = [
            (data.name.partition(".")[2] or data.name, number, 1, "U")
            for number, data in enumerate(database.tables.data.values(), start=100)
        ]
        return Rowset(columns, rows)

    _objects = _tables


def _hex(lsn: int) -> str:
    file, rest = divmod(lsn, 10**15)
    block, slot = divmod(rest, 10**5)
    return f"{file:08x}:{block:08x}:{slot:04x}"
