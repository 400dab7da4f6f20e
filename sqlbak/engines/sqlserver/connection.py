"""One session with a SQL Server: one statement at a time, watched, with all that the server says.

Rules of the driver that everything here follows (pymssql over FreeTDS): always autocommit, or
BACKUP would run inside a transaction; no database at login, or a missing one would look like a
wrong password; one statement a batch, read to its end, or the rest of it would silently be killed;
no time-outs, as they are process-wide; messages of severity 10 raise nothing and carry no number,
so that their English text is what is known of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

from sqlbak.engines.sqlserver.address import ServerAddress, Wire, trust
from sqlbak.engines.sqlserver.failures import (
    DRIVER_DISCONNECTED,
    explain_connection_failure,
    explain_failure,
    server_text,
)
from sqlbak.engines.sqlserver.rows import Row
from sqlbak.engines.sqlserver.watching import Watch, note_socket
from sqlbak.errors import BackupFailed, EngineError, ServerUnreachable, SqlbakError
from sqlbak.stopping import NEVER, StopSignal

__all__ = ["ConnectionLost", "Hear", "Session", "StatementFailed"]

QUERY_LIMIT_SECONDS: Final = 120.0
"""How long a question may take; backups and restores have no limit."""

Hear = Callable[[str], None]
"""Told each message of the server as it comes. Must neither raise nor use the session."""


@dataclass(frozen=True, slots=True)
class StatementError:
    """What is known of a failed statement: the first error's number, and all texts in order."""

    number: int
    texts: tuple[str, ...]


class StatementFailed(EngineError):
    """The server said no. ``explain`` makes one of our errors of it."""

    def __init__(self, error: StatementError, *, where: str, doing: str) -> None:
        said = "; ".join(error.texts) or f"error {error.number}"
        super().__init__(f"{where}: while {doing}: {said} (error {error.number})")
        self.error = error
        self.where = where
        self.doing = doing

    @property
    def number(self) -> int:
        """The number of the first error of the highest severity."""
        return self.error.number

    def explained(self, failed: type[EngineError] = BackupFailed) -> SqlbakError:
        """The same with its meaning and what mends it."""
        return explain_failure(
            self.error.number, self.error.texts, where=self.where, doing=self.doing, failed=failed
        )


class ConnectionLost(ServerUnreachable):
    """The connection went away while a statement ran: what the server did of it is unknown."""


@dataclass(slots=True)
class _Ear:
    """Collects what the server says while one statement runs."""

    hear: Hear | None = None
    texts: list[str] = field(default_factory=list)
    watch: Watch | None = None

    def __call__(
        self, _state: int, _severity: int, _server: bytes, _procedure: bytes, _line: int, raw: bytes
    ) -> None:
        if self.watch is not None:
            self.watch.heard()
        text = server_text(raw)
        self.texts.append(text)
        if self.hear is not None:
            self.hear(text)


class Session:
    """An open connection; use it in a ``with`` block and from one thread at a time."""

    def __init__(self, connection: Any, address: ServerAddress) -> None:
        self._connection = connection
        self._address = address
        self._ear = _Ear()
        self.session_id = 0

    @classmethod
    def open(cls, address: ServerAddress, *, stop: StopSignal = NEVER) -> Self:
        """Connect and log in. ServerUnreachable, ServerRefused."""
        session = cls(_connect(address), address)
        try:
            session.run("USE [master]", doing="choosing the database master", stop=stop)
            # Messages are known by their English text.
            session.run("SET LANGUAGE us_english", doing="choosing the language", stop=stop)
            rows = session.rows(
                "SELECT @@SPID AS session_id", doing="asking for the session", stop=stop
            )
            session.session_id = int(rows[0]["session_id"])
        except BaseException:
            session.close()
            raise
        return session

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the session. Never while a statement runs in another thread."""
        import pymssql

        with suppress(pymssql.Error):
            self._connection.close()

    @property
    def where(self) -> str:
        """Host and port, for people."""
        return self._address.where

    def rows(
        self,
        statement: str,
        *,
        doing: str,
        stop: StopSignal = NEVER,
        limit_seconds: float | None = QUERY_LIMIT_SECONDS,
    ) -> list[Row]:
        """All rows of one statement, by column name. StatementFailed, ConnectionLost."""
        with self._running(statement, doing, stop, None, limit_seconds) as cursor:
            names = [column[0] for column in cursor.description or ()]
            found: list[Row] = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
            while cursor.nextset():
                pass
        return found

    def run(
        self,
        statement: str,
        *,
        doing: str,
        stop: StopSignal = NEVER,
        hear: Hear | None = None,
        limit_seconds: float | None = None,
    ) -> tuple[str, ...]:
        """Run one statement that has no rows, to its very end; what the server said, in order.
        StatementFailed, ConnectionLost; Interrupted when ``stop`` was requested."""
        with self._running(statement, doing, stop, hear, limit_seconds) as cursor:
            while cursor.nextset():
                pass
            ear = self._ear
        return tuple(ear.texts)

    @contextmanager
    def _running(
        self,
        statement: str,
        doing: str,
        stop: StopSignal,
        hear: Hear | None,
        limit_seconds: float | None,
    ) -> Iterator[Any]:
        import pymssql

        stop.check()
        ear = self._ear = _Ear(hear)
        low_level = self._connection._conn  # messages and cancelling are there only
        watch = ear.watch = Watch(low_level.cancel, stop, limit_seconds=limit_seconds)
        cursor = None
        try:
            low_level.set_msghandler(ear)
            with watch:
                cursor = self._connection.cursor()
                cursor.execute(statement)
                watch.heard()
                yield cursor
        except pymssql.Error as error:
            raise self._explained(error, ear, watch, doing, stop) from None
        finally:
            if cursor is not None:
                with suppress(pymssql.Error):
                    cursor.close()

    def _explained(
        self, error: Exception, ear: _Ear, watch: Watch, doing: str, stop: StopSignal
    ) -> SqlbakError:
        number, raw = _number_and_text(error)
        if watch.was_cancelled:
            try:
                stop.check()
            except SqlbakError as interrupted:
                return interrupted
            return ConnectionLost(
                f"{self.where}: no answer in time while {doing}",
                hint="look whether the server is overloaded, or blocked by another session",
            )
        texts = tuple(dict.fromkeys(text for text in (*ear.texts, server_text(raw)) if text))
        is_gone = number in DRIVER_DISCONNECTED or "Not connected" in raw
        if is_gone or not self._connection._conn.connected:
            return ConnectionLost(
                f"{self.where}: the connection was lost while {doing}",
                hint="look whether the server runs and was restarted",
            )
        return StatementFailed(StatementError(number, texts), where=self.where, doing=doing)


_callback_lock = threading.Lock()


def _connect(address: ServerAddress) -> Any:
    import pymssql

    if address.wire is Wire.VERIFIED:
        trust(address)
    with _callback_lock:
        pymssql.set_wait_callback(note_socket)
    try:
        return pymssql.connect(
            server=address.host,
            port=str(address.port),
            user=address.user,
            password=address.password,
            # Without a fixed version the driver falls back to one that logs in without TLS.
            tds_version="7.4",
            encryption="off" if address.wire is Wire.CLEAR else "require",
            timeout=0,
            login_timeout=address.connect_timeout_seconds,
            autocommit=True,
            appname="sqlbak",
            charset="UTF-8",
            conn_properties="",
        )
    except pymssql.Error as error:
        number, raw = _number_and_text(error)
        raise explain_connection_failure(
            number, raw, where=address.where, login=address.user
        ) from None


def _number_and_text(error: Exception) -> tuple[int, str]:
    """The driver's number and text: ``(number, text)``, or at login one tuple around both."""
    arguments: Any = error.args
    if len(arguments) == 1 and isinstance(arguments[0], tuple):
        arguments = arguments[0]
    if len(arguments) == 2 and isinstance(arguments[0], int):
        raw = arguments[1]
        return arguments[0], raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)
    return 0, str(error)
