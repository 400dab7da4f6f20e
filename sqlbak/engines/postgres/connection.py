"""Connections to a PostgreSQL server: one for SQL, one for the replication protocol.

Every wait is bounded or looks at a ``watch`` function a few times a second, which raises when the
work is to end.
"""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, LiteralString, Self

import psycopg
from psycopg import pq
from psycopg.errors import Diagnostic

from sqlbak.engines.postgres.dsn import ConnectionString
from sqlbak.engines.postgres.failures import (
    ConnectionFailure,
    ServerMessage,
    explain_connection_failure,
    explain_server_message,
)
from sqlbak.errors import BackupFailed, EngineError, ServerUnreachable

__all__ = ["END_OF_COPY", "ReplicationConnection", "SqlConnection", "Watch", "rows_of"]

Watch = Callable[[], None]
"""Called between waits; raises when the work is to end."""

_WATCH_SECONDS = 0.2

# A role or database may come with settings of its own that would stand in our way.
_SESSION_SETTINGS: LiteralString = (
    "SET search_path = pg_catalog; SET DateStyle = 'ISO'; SET TimeZone = 'UTC';"
    " SET statement_timeout = '60s'; SET lock_timeout = '15s'; SET idle_session_timeout = 0;"
    " SET idle_in_transaction_session_timeout = '60s'; SET default_transaction_read_only = off"
)


def _open(
    target: ConnectionString, parameters: dict[str, str]
) -> psycopg.Connection[tuple[Any, ...]] | ConnectionFailure:
    try:
        return psycopg.Connection[tuple[Any, ...]].connect(
            **parameters,  # type: ignore[arg-type]
            autocommit=True,
            prepare_threshold=None,
        )
    except psycopg.Error as problem:
        said = _without_secrets(str(problem), parameters)
        return explain_connection_failure(said, where=target.where, user=target.user)


_SECRETS = ("password", "sslpassword", "oauth_client_secret")


def _without_secrets(text: str, parameters: dict[str, str]) -> str:
    """What libpq said: it repeats values that it cannot use, and one of them may be a password in
    the wrong place."""
    for name in _SECRETS:
        if len(secret := parameters.get(name, "")) > 3:
            text = text.replace(secret, "***")
    return text


class SqlConnection:
    """A normal session, in autocommit."""

    def __init__(
        self, target: ConnectionString, connection: psycopg.Connection[tuple[Any, ...]]
    ) -> None:
        self._target = target
        self._connection = connection

    @classmethod
    def open(cls, target: ConnectionString) -> Self:
        """Log in. ServerUnreachable, ServerRefused or ServerNotReady if that fails."""
        opened = _open(target, target.for_sql())
        if isinstance(opened, ConnectionFailure):
            raise opened.as_error()
        session = cls(target, opened)
        try:
            session.execute(_SESSION_SETTINGS, doing="setting up the session")
        except BaseException:
            session.close()
            raise
        return session

    def rows(
        self, sql: LiteralString, parameters: Sequence[Any] = (), *, doing: str
    ) -> list[tuple[Any, ...]]:
        """Run one query; its rows. ``doing`` continues "while" in an error's message."""
        with self._explained(doing):
            return self._connection.execute(sql, parameters or None).fetchall()

    def value(self, sql: LiteralString, parameters: Sequence[Any] = (), *, doing: str) -> Any:
        """The only value of the only row."""
        return self.rows(sql, parameters, doing=doing)[0][0]

    def execute(self, sql: LiteralString, parameters: Sequence[Any] = (), *, doing: str) -> None:
        """Run a statement that returns nothing of interest."""
        with self._explained(doing):
            self._connection.execute(sql, parameters or None)

    @contextlib.contextmanager
    def transaction(self, *, doing: str) -> Iterator[None]:
        """Statements in the block are committed together at its end."""
        with self._explained(doing), self._connection.transaction():
            yield

    @contextlib.contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as problem:
            raise _explain(problem, self._target, doing) from None

    def close(self) -> None:
        """Log out."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _explain(problem: psycopg.Error, target: ConnectionString, doing: str) -> EngineError:
    if problem.sqlstate is None:
        return ServerUnreachable(
            f"{target.where}: the connection was lost while {doing}: {problem}",
            hint="check the server and the network; the next run tries again",
        )
    diagnostic = problem.diag
    message = ServerMessage(
        problem.sqlstate,
        diagnostic.message_primary or str(problem),
        diagnostic.message_detail or "",
    )
    return explain_server_message(message, where=target.where, doing=doing, user=target.user)


END_OF_COPY = object()
"""What ``ReplicationConnection.poll_copy`` returns when the server ended the copy."""


class ReplicationConnection:
    """A session that speaks the physical replication protocol. Used by one thread at a time."""

    def __init__(
        self, target: ConnectionString, connection: psycopg.Connection[tuple[Any, ...]]
    ) -> None:
        self._target = target
        self._connection = connection
        self._pgconn = connection.pgconn
        self._readable = select.poll()
        self._readable.register(self._pgconn.socket, select.POLLIN)
        self._doing = "connecting"
        self.notices: list[str] = []
        connection.add_notice_handler(self._note)

    @classmethod
    def open(cls, target: ConnectionString) -> Self:
        """Log in. ServerUnreachable, ServerRefused or ServerNotReady if that fails."""
        connection = cls.attempt(target)
        if isinstance(connection, ConnectionFailure):
            raise connection.as_error()
        return connection

    @classmethod
    def attempt(cls, target: ConnectionString) -> Self | ConnectionFailure:
        """Log in, or say why not."""
        opened = _open(target, target.for_replication())
        return opened if isinstance(opened, ConnectionFailure) else cls(target, opened)

    @property
    def backend_pid(self) -> int:
        """The process on the server that serves this session."""
        return self._pgconn.backend_pid

    def _note(self, notice: Diagnostic) -> None:
        # Warnings of a damaged disk come in thousands; the first ones say it.
        if len(self.notices) < 10 and notice.message_primary:
            self.notices.append(notice.message_primary)

    def begin(self, command: str, *, doing: str) -> None:
        """Send a command; ``next_result`` and ``poll_copy`` give what comes of it."""
        self._doing = doing
        with self._explained():
            self._pgconn.send_query(command.encode())
            self._flush()

    def next_result(self, watch: Watch) -> pq.abc.PGresult | None:
        """The next result of the command, None after the last. Raises what the server says."""
        with self._explained():
            while self._pgconn.is_busy():
                self.wait_readable(_WATCH_SECONDS)
                watch()
                self._pgconn.consume_input()
            result = self._pgconn.get_result()
        if result is not None and result.status == pq.ExecStatus.FATAL_ERROR:
            raise explain_server_message(
                self._message_of(result),
                where=self._target.where,
                doing=self._doing,
                user=self._target.user,
            )
        return result

    def _message_of(self, result: pq.abc.PGresult) -> ServerMessage:
        def field(which: pq.DiagnosticField) -> str:
            return (result.error_field(which) or b"").decode(errors="replace")

        primary = field(pq.DiagnosticField.MESSAGE_PRIMARY)
        if self.notices:
            primary += f"; before that: {'; '.join(self.notices[:3])}"
        return ServerMessage(
            field(pq.DiagnosticField.SQLSTATE),
            primary or result.error_message.decode(errors="replace").strip(),
            field(pq.DiagnosticField.MESSAGE_DETAIL),
        )

    def rows(self, command: str, watch: Watch, *, doing: str) -> list[list[bytes | None]]:
        """Run a command that answers with one table; its rows, in text form."""
        self.begin(command, doing=doing)
        table: list[list[bytes | None]] = []
        while (result := self.next_result(watch)) is not None:
            table += rows_of(result)
        return table

    def poll_copy(self) -> memoryview | object | None:
        """The next CopyData message if one is there already; None if not; END_OF_COPY."""
        with self._explained():
            size, data = self._pgconn.get_copy_data(1)
            if size == 0:
                self._pgconn.consume_input()
                size, data = self._pgconn.get_copy_data(1)
        if size > 0:
            return data
        return None if size == 0 else END_OF_COPY

    def copy_messages(self, watch: Watch) -> Iterator[memoryview]:
        """All CopyData messages until the server ends the copy."""
        # The hottest loop of a full backup: one call into libpq a message, no context manager.
        get_copy_data = self._pgconn.get_copy_data
        consume_input = self._pgconn.consume_input
        try:
            while True:
                size, data = get_copy_data(1)
                if size > 0:
                    yield data
                elif size == 0:
                    self.wait_readable(_WATCH_SECONDS)
                    watch()
                    consume_input()
                else:
                    return
        except psycopg.Error as problem:
            raise _explain(problem, self._target, self._doing) from None

    def send_copy(self, message: bytes) -> None:
        """Send one CopyData message."""
        with self._explained():
            self._pgconn.put_copy_data(message)
            self._flush()

    def end_copy(self, watch: Watch, *, within_seconds: float) -> None:
        """Tell the server that we have enough, and read on to the end of the command.

        What the server had sent already is thrown away. BackupFailed if that takes too long.
        """
        deadline = time.monotonic() + within_seconds
        with self._explained():
            self._pgconn.put_copy_end()
            self._flush()

        def watch_deadline() -> None:
            watch()
            if time.monotonic() > deadline:
                raise BackupFailed(f"{self._target.where}: the server does not end the copy")

        for _ in self.copy_messages(watch_deadline):
            watch_deadline()
        while self.next_result(watch_deadline) is not None:
            pass

    def end_upload(self, watch: Watch) -> None:
        """Everything was sent: wait for the server's verdict. Raises what the server says."""
        with self._explained():
            self._pgconn.put_copy_end()
            self._flush()
        while self.next_result(watch) is not None:
            pass

    def wait_readable(self, timeout_seconds: float) -> bool:
        """Wait until the server has something to say; False when it has not in that time."""
        return bool(self._readable.poll(timeout_seconds * 1000))

    def _flush(self) -> None:
        # Our messages are tiny; the loop only turns when the network stands still.
        deadline = time.monotonic() + 60
        writable = select.poll()
        writable.register(self._pgconn.socket, select.POLLOUT)
        while self._pgconn.flush():
            if time.monotonic() > deadline:
                raise ServerUnreachable(f"{self._target.where}: the server does not read")
            writable.poll(_WATCH_SECONDS * 1000)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as problem:
            raise _explain(problem, self._target, self._doing) from None

    def cancel(self) -> None:
        """Ask the server to give up the running command, so that it does not first write on to a
        closed socket or wait for a checkpoint to end."""
        with contextlib.suppress(psycopg.Error):  # the session ends by ``close`` in any case
            self._connection.cancel_safe(timeout=3)

    def close(self) -> None:
        """Log out; a temporary slot of this session vanishes."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._pgconn.transaction_status == pq.TransactionStatus.ACTIVE:
            self.cancel()
        self.close()


def rows_of(result: pq.abc.PGresult) -> list[list[bytes | None]]:
    """A result's rows in text form; none unless it is a table."""
    return [
        [result.get_value(row, column) for column in range(result.nfields)]
        for row in range(result.ntuples)
    ]
