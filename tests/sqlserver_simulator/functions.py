"""Scalar functions and @@variables ([D]: the page of each)."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from . import permissions
from . import sqltypes as t
from .datefunctions import dateadd, datediff, datepart
from .errors import Message, SqlError, not_modelled
from .sqltypes import SqlType
from .values import to_text

if TYPE_CHECKING:
    from .session import Session

_TEXT = t.nvarchar(4000)
_TYPES: dict[str, SqlType] = {
    "serverproperty": t.SQL_VARIANT, "databasepropertyex": t.SQL_VARIANT, "db_id": t.SMALLINT,
    "db_name": t.SYSNAME, "suser_sname": t.SYSNAME, "suser_name": t.SYSNAME,
    "original_login": t.SYSNAME, "system_user": t.SYSNAME, "user_name": t.SYSNAME,
    "current_user": t.SYSNAME, "user": t.SYSNAME, "host_name": t.SYSNAME, "app_name": t.SYSNAME,
    "is_srvrolemember": t.INT, "is_rolemember": t.INT, "is_member": t.INT,
    "has_perms_by_name": t.INT, "has_dbaccess": t.INT, "getdate": t.DATETIME,
    "getutcdate": t.DATETIME, "current_timestamp": t.DATETIME, "sysdatetime": t.DATETIME2,
    "sysutcdatetime": t.DATETIME2, "sysdatetimeoffset": t.DATETIMEOFFSET,
    "current_timezone": _TEXT, "current_timezone_id": t.nvarchar(128), "newid": t.GUID,
    "datediff": t.INT, "datediff_big": t.BIGINT, "datepart": t.INT, "len": t.INT,
    "datalength": t.INT, "charindex": t.INT, "abs": t.BIGINT, "object_id": t.INT,
    "sys.fn_hadr_backup_is_preferred_replica": t.BIT, "todatetimeoffset": t.DATETIMEOFFSET,
    "sys.fn_hadr_is_primary_replica": t.BIT, "error_number": t.INT, "error_message": _TEXT,
    "scope_identity": t.decimal(38), "connectionproperty": t.SQL_VARIANT, "db_version": t.INT,
    "filepropertyex": t.SQL_VARIANT, "switchoffset": t.DATETIMEOFFSET, "suser_id": t.INT,
    "checksum": t.INT, "trancount": t.INT,
}  # fmt: skip
_SAME_AS_FIRST = frozenset(
    [
        "upper",
        "lower",
        "ltrim",
        "rtrim",
        "trim",
        "replace",
        "substring",
        "left",
        "right",
        "reverse",
        "stuff",
    ]
)


class ScalarFunctions:
    """Functions of one session."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.instance = session.instance
        self.caught: Message | None = None

    def type_of(self, name: str, arguments: list[SqlType]) -> SqlType:
        key = name.lower().removeprefix("master.").removeprefix("dbo.")
        if key in _TYPES:
            return _TYPES[key]
        if key in _SAME_AS_FIRST:
            return arguments[0] if arguments[0].length != 0 else _TEXT
        if key in {"concat", "quotename", "format", "datename", "char", "nchar", "str", "convert",
                   "concat_ws", "string_escape"}:  # fmt: skip
            return _TEXT
        if key == "dateadd":
            return arguments[-1] if not arguments[-1].is_text else t.DATETIME
        if key in {"ceiling", "floor", "round"}:
            return arguments[0]
        raise SqlError(195, f"'{name}' is not a recognized built-in function name.", 15, 10)

    def call(self, name: str, arguments: list[Any]) -> Any:
        key = name.lower().removeprefix("master.").removeprefix("dbo.")
        key = key.replace("sys.fn_", "fn_")
        handler = getattr(self, f"_{key}", None)
        if handler is not None:
            return handler(*arguments)
        simple = _SIMPLE.get(key)
        if simple is None:
            raise not_modelled(f"the function {name}")
        if key not in {"concat", "concat_ws"} and any(each is None for each in arguments):
            return None
        return simple(*arguments)

    # the server --------------------------------------------------------------------------------
    def _serverproperty(self, name: str) -> Any:
        instance = self.instance
        major, _, build = instance.version.numbers
        engine = {"Standard": 2, "Web": 2, "Express": 4}.get(instance.edition.split()[0], 3)
        _, _, named = instance.server_name.partition("\\")
        found: dict[str, Any] = {
            "productversion": instance.version.product,
            "productmajorversion": str(major),
            "productminorversion": "0",
            "productbuild": str(build),
            "productlevel": "RTM",
            "productupdatelevel": None,
            "edition": instance.edition,
            "engineedition": engine,
            "servername": instance.server_name,
            "machinename": instance.machine_name,
            "computernamephysicalnetbios": instance.machine_name,
            "instancename": named or None,
            "ishadrenabled": 1 if instance.groups else 0,
            "isclustered": 0,
            "issingleuser": 0,
            "isintegratedsecurityonly": 0,
            "collation": instance.collation,
            "instancedefaultdatapath": instance.data_path,
            "instancedefaultlogpath": instance.data_path,
            "instancedefaultbackuppath": instance.backup_path,
            "resourceversion": instance.version.product,
            "filestreameffectivelevel": 0,
            "isxtpsupported": 1,
            "processid": 4242,
        }
        if major < 15:
            found.pop("instancedefaultbackuppath")
        return found.get(str(name).lower())

    def global_variable(self, name: str) -> tuple[SqlType, Callable[[], Any]]:
        session, instance = self.session, self.instance
        version = (
            f"Microsoft SQL Server {instance.version.year} (RTM) - {instance.version.product} "
            f"(X64) \n\tCopyright (C) {instance.version.year} Microsoft Corporation\n\t"
            f"{instance.edition} on {instance.platform} <X64>"
        )
        found: dict[str, tuple[SqlType, Callable[[], Any]]] = {
            "@@version": (t.nvarchar(300), lambda: version),
            "@@servername": (t.SYSNAME, lambda: instance.server_name),
            "@@servicename": (t.SYSNAME, lambda: "MSSQLSERVER"),
            "@@spid": (t.SMALLINT, lambda: session.number),
            "@@trancount": (t.INT, lambda: session.depth),
            "@@rowcount": (t.INT, lambda: session.row_count),
            "@@error": (t.INT, lambda: session.last_error),
            "@@language": (t.SYSNAME, lambda: session.language),
            "@@lock_timeout": (
                t.INT,
                lambda: -1 if session.lock_timeout is None else int(session.lock_timeout * 1000),
            ),
            "@@microsoftversion": (
                t.INT,
                lambda: instance.version.major << 24 | instance.version.numbers[2],
            ),
            "@@max_connections": (t.INT, lambda: 32767),
            "@@options": (t.INT, lambda: 5496),
            "@@datefirst": (t.TINYINT, lambda: 7),
        }
        if name.lower() not in found:
            raise SqlError(137, f'Must declare the scalar variable "{name}".', 15, 2)
        return found[name.lower()]

    # databases ---------------------------------------------------------------------------------
    def _db_id(self, name: str | None = "") -> int | None:
        if name == "":
            return self.session.database.database_id
        database = self.instance.find(str(name)) if name is not None else None
        return database.database_id if database else None

    def _db_name(self, number: int | None = -1) -> str | None:
        if number == -1:
            return self.session.database.name
        database = self.instance.by_id(number) if number is not None else None
        return database.name if database else None

    def _databasepropertyex(self, name: str, option: str) -> Any:
        database = self.instance.find(name)
        if database is None:
            return None
        found: dict[str, Any] = {
            "status": database.state,
            "recovery": database.recovery_model,
            "updateability": "READ_ONLY" if database.is_read_only else "READ_WRITE",
            "useraccess": database.user_access,
            "collation": database.collation,
            "version": self.instance.version.database_version,
            "isinstandby": int(database.standby_file is not None),
        }
        return found.get(option.lower())

    def _has_dbaccess(self, name: str) -> int | None:
        database = self.instance.find(name)
        if database is None:
            return None
        readable = database.state == "ONLINE" or database.standby_file is not None
        return int(readable and permissions.can_open(self.session, database))

    def _object_id(self, name: str, kind: str | None = None) -> int | None:
        parts = [part.strip("[]") for part in name.split(".")]
        database = self.session.database
        if len(parts) > 2:
            found = self.instance.find(parts[-3])
            if found is None:
                return None
            database = found
        schema = parts[-2] if len(parts) > 1 and parts[-2] else "dbo"
        table = (schema.lower(), parts[-1].lower())
        if table in database.tables.data:
            return sum(map(ord, parts[-1])) + 100_000
        if database.name == "msdb" and self.instance.history.rowset(parts[-1].lower()):
            return 1_000_000
        return None

    def _fn_hadr_backup_is_preferred_replica(self, name: str) -> bool:
        """1 too for a database in no group."""
        database = self.instance.find(name)
        group = self.instance.group_of(database) if database else None
        return group is None or group.is_preferred(self.instance)

    def _fn_hadr_is_primary_replica(self, name: str) -> bool | None:
        database = self.instance.find(name)
        group = self.instance.group_of(database) if database else None
        return group.is_primary(self.instance) if group else None

    # who ---------------------------------------------------------------------------------------
    def _login_name(self, *_: Any) -> str:
        return self.session.login.name

    _original_login = _system_user = _login_name

    def _suser_sname(self, sid: bytes | None = b"") -> str | None:
        """The login of a security identifier; without one, the caller's."""
        if sid == b"":
            return self.session.login.name
        for login in self.instance.logins.values():
            if sid == (b"\x01" if login.name == "sa" else login.sid.bytes):
                return login.name
        return None

    _suser_name = _login_name

    def _user_name(self, *_: Any) -> str:
        roles = permissions.database_roles(self.session, self.session.database)
        return "dbo" if "db_owner" in roles else self.session.login.name

    _current_user = _user = _user_name

    def _suser_id(self, *_: Any) -> int:
        return 1 if self.session.login.name == "sa" else 256

    def _host_name(self) -> str:
        return self.session.host

    def _app_name(self) -> str:
        return "simulator"

    def _is_srvrolemember(self, role: str, login: str | None = None) -> int | None:
        known = {
            "sysadmin", "dbcreator", "serveradmin", "securityadmin", "processadmin", "setupadmin",
            "bulkadmin", "diskadmin", "public",
        }  # fmt: skip
        if role.lower() not in known:
            return None
        who = self.instance.logins.get(login.lower()) if login else self.session.login
        if who is None:
            return None
        return int(role.lower() in who.roles or "sysadmin" in who.roles or role.lower() == "public")

    def _is_rolemember(self, role: str, user: str | None = None) -> int:
        roles = permissions.database_roles(self.session, self.session.database)
        return int(role.lower() in roles or ("db_owner" in roles and role.lower() != "public"))

    _is_member = _is_rolemember

    def _has_perms_by_name(self, securable: str | None, kind: str | None, permission: str) -> Any:
        session = self.session
        wanted = permission.upper()
        if kind is None or kind.upper() == "SERVER":
            if wanted == "CREATE DATABASE":
                wanted = "CREATE ANY DATABASE"
            return int(permissions.has_server(session, wanted))
        if kind.upper() == "DATABASE":
            name = securable or session.database.name
            if name.startswith("["):
                name = name[1:-1].replace("]]", "]")
            database = self.instance.find(name)
            if database is None:
                return None
            if wanted == "CREATE DATABASE":
                return int(permissions.has_server(session, "CREATE ANY DATABASE"))
            roles = permissions.database_roles(session, database)
            if wanted in {"BACKUP DATABASE", "BACKUP LOG"}:
                user = database.user_of(session.login)
                granted = user is not None and wanted in user.permissions
                return int(bool(roles & {"db_owner", "db_backupoperator"}) or granted)
            if wanted == "ALTER":
                return int(permissions.can_alter_database(session, database))
            if wanted == "CONNECT":
                return int(permissions.can_open(session, database))
            return int("db_owner" in roles)
        if kind.upper() == "OBJECT" and securable is not None:
            table = securable.split(".")[-1].strip("[]").lower()
            try:
                permissions.require_msdb(session, table)
            except SqlError:
                return 0
            return 1
        raise not_modelled(f"HAS_PERMS_BY_NAME on {kind}")

    # time --------------------------------------------------------------------------------------
    def _getdate(self) -> datetime:
        return self.instance.clock.local()

    _current_timestamp = _sysdatetime = _getdate

    def _getutcdate(self) -> datetime:
        return self.instance.clock.utc().replace(tzinfo=None)

    _sysutcdatetime = _getutcdate

    def _sysdatetimeoffset(self) -> datetime:
        return self.instance.clock.utc().astimezone(self.instance.clock.zone)

    def _current_timezone_id(self) -> str:
        if not self.instance.version.has_s3:
            raise SqlError(
                195, "'CURRENT_TIMEZONE_ID' is not a recognized built-in function name.", 15, 10
            )
        return self.instance.clock.windows_name

    def _current_timezone(self) -> str:
        return f"(UTC) {self.instance.clock.windows_name}"

    def _newid(self) -> uuid.UUID:
        return uuid.uuid4()

    def _error_number(self) -> int | None:
        return self.caught.number if self.caught else None

    def _error_message(self) -> str | None:
        return self.caught.text if self.caught else None

    def _scope_identity(self) -> None:
        return None

    def _connectionproperty(self, name: str) -> Any:
        return {"net_transport": "TCP", "protocol_type": "TSQL", "auth_scheme": "SQL"}.get(
            name.lower()
        )


def _quotename(text: str, quote: str = "[") -> str:
    if quote in {"'", '"'}:
        return quote + text.replace(quote, quote * 2) + quote
    return "[" + text.replace("]", "]]") + "]"


_SIMPLE: dict[str, Callable[..., Any]] = {
    "upper": lambda s: to_text(s).upper(),
    "lower": lambda s: to_text(s).lower(),
    "ltrim": lambda s: to_text(s).lstrip(" "),
    "rtrim": lambda s: to_text(s).rstrip(" "),
    "trim": lambda s: to_text(s).strip(" "),
    "replace": lambda s, a, b: to_text(s).replace(a, b),
    "substring": lambda s, at, n: to_text(s)[max(int(at) - 1, 0) : max(int(at) - 1 + int(n), 0)],
    "left": lambda s, n: to_text(s)[: int(n)],
    "right": lambda s, n: to_text(s)[-int(n) :] if n else "",
    "reverse": lambda s: to_text(s)[::-1],
    "len": lambda s: len(to_text(s).rstrip(" ")),
    "datalength": lambda s: len(s) if isinstance(s, bytes) else len(to_text(s)) * 2,
    "charindex": lambda a, s, at=1: to_text(s).lower().find(to_text(a).lower(), int(at) - 1) + 1,
    "quotename": _quotename,
    "concat": lambda *p: "".join(to_text(each) for each in p if each is not None),
    "concat_ws": lambda sep, *p: sep.join(to_text(each) for each in p if each is not None),
    "char": lambda n: chr(int(n)),
    "nchar": lambda n: chr(int(n)),
    "abs": abs,
    "floor": lambda n: n // 1,
    "ceiling": lambda n: -(-n // 1),
    "round": lambda n, d=0: round(n, int(d)),
    "dateadd": dateadd,
    "datediff": datediff,
    "datediff_big": datediff,
    "datepart": datepart,
    "todatetimeoffset": lambda v, minutes: v,
}
