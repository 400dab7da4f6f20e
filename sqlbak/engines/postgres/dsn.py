"""Connection strings. Nothing of one is ever shown but host, port and role.

libpq quotes pieces of a string that it cannot read, and reads the rest of an unescaped password
as a host name, which it then shows; so both are caught here first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo

from sqlbak.errors import UsageError

__all__ = ["APPLICATION_NAME", "ConnectionString"]

APPLICATION_NAME = "sqlbak"

_PORTS = re.compile(r"\d*(,\d*)*")

_NETWORK_DEFAULTS: Mapping[str, str] = {
    # A server or a network that vanishes without a word is noticed in about a minute.
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}


@dataclass(frozen=True, slots=True)
class ConnectionString:
    """How to reach one server: libpq's parameters, and how to name it in messages."""

    where: str
    user: str
    parameters: Mapping[str, str] = field(repr=False)

    @classmethod
    def parse(cls, dsn: str, *, connect_timeout_seconds: int) -> ConnectionString:
        """Read any form that libpq knows: keywords, URI, service. UsageError if it is none."""
        try:
            given = {
                name: str(value)
                for name, value in conninfo_to_dict(dsn).items()
                if value is not None
            }
        except psycopg.Error:
            # libpq's message quotes what it could not read: perhaps a piece of a password.
            raise _unreadable() from None
        host = given.get("host", "")
        is_uri = dsn.startswith(("postgresql://", "postgres://"))
        if (
            not _PORTS.fullmatch(given.get("port", ""))
            or (is_uri and "@" in host.lstrip("@"))
            or (is_uri and "@" in dsn and "user" not in given)
        ):
            raise _unreadable()
        parameters = {
            **_NETWORK_DEFAULTS,
            "connect_timeout": str(connect_timeout_seconds),
            "application_name": APPLICATION_NAME,
            **({"target_session_attrs": "primary"} if "," in host else {}),
            **given,
        }
        shown = host or given.get("hostaddr") or _default("host") or "the default socket"
        if not shown.startswith("/") and "port" in given:
            shown = f"{shown}:{given['port']}"
        return cls(f"PostgreSQL at {shown}", given.get("user") or _default("user"), parameters)

    def for_sql(self) -> dict[str, str]:
        """Parameters of a normal connection."""
        return {**self.parameters, "client_encoding": "utf8"}

    def for_replication(self) -> dict[str, str]:
        """Parameters of a connection that speaks the physical replication protocol."""
        return {**self.parameters, "replication": "true"}


def _default(keyword: str) -> str:
    """What libpq takes where the string says nothing: environment, then the system user."""
    for option in Conninfo.get_defaults():
        if option.keyword == keyword.encode() and option.val is not None:
            return option.val.decode()
    return ""


def _unreadable() -> UsageError:
    return UsageError(
        "the PostgreSQL connection string cannot be read",
        hint="write host=… port=… user=… dbname=…, or postgresql://user@host:port/database with "
        "every @ : / ? # % of a password percent-encoded",
    )
