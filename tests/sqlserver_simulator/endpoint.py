"""The TDS endpoint: connections, login, TLS inside PRELOGIN, batches, attention, KILL.

One asyncio loop serves all connections. Statements are generators; each step runs under the
instance's lock, and between steps an attention, a KILL or a vanished client is noticed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
from typing import TYPE_CHECKING

from . import tds
from .errors import Message, SqlError
from .events import Cut, Events, Info, Pause
from .innertls import InnerTls
from .reply import Reply
from .session import Session

if TYPE_CHECKING:
    from .instance import Instance

_TLS_MODES = {"off": tds.ENCRYPT_NOT_SUPPORTED, "login": tds.ENCRYPT_OFF, "on": tds.ENCRYPT_ON}


class Closed(Exception):
    """The connection is over."""


class Endpoint:
    """Listens for one instance. ``tls``: off, login (only the login is encrypted) or on."""

    def __init__(
        self, instance: Instance, *, tls: str = "off", context: ssl.SSLContext | None = None
    ) -> None:
        self.instance = instance
        self.tls = tls
        self.context = context
        self.refuses_logins: Message | None = None
        self.connections: set[Connection] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(self, reader, writer)
        self.connections.add(connection)
        try:
            await connection.run()
        except (Closed, ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass
        except asyncio.CancelledError:
            pass  # the simulator stops; the task has nothing else to do
        finally:
            self.connections.discard(connection)
            connection.forget()


class Connection:
    """One client."""

    def __init__(
        self, endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.endpoint = endpoint
        self.instance = endpoint.instance
        self.reader = reader
        self.writer = writer
        self.size = 4096
        self.session: Session | None = None
        self.loop = asyncio.get_running_loop()
        self.messages: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()
        self.attention = asyncio.Event()
        self.gone = asyncio.Event()
        self.wakened = asyncio.Event()
        self.busy = False
        self.tls: InnerTls | None = None

    # packets -----------------------------------------------------------------------------------
    async def _read_exactly(self, count: int) -> bytes:
        if self.tls is not None:
            return await self.tls.read_exactly(count)
        return await self.reader.readexactly(count)

    async def _message(self) -> tuple[int, bytes]:
        payload = bytearray()
        while True:
            head = await self._read_exactly(8)
            kind, status, length = struct.unpack(">BBH", head[:4])
            payload += await self._read_exactly(length - 8)
            if status & 1:
                return kind, bytes(payload)

    async def raw_message(self) -> tuple[int, bytes]:
        payload = bytearray()
        while True:
            head = await self.reader.readexactly(8)
            kind, status, length = struct.unpack(">BBH", head[:4])
            payload += await self.reader.readexactly(length - 8)
            if status & 1:
                return kind, bytes(payload)

    async def send(self, data: bytes) -> None:
        """Write packets; Closed once the client is gone."""
        if self.gone.is_set():
            raise Closed
        try:
            if self.tls is not None:
                await self.tls.write(data)
            else:
                self.writer.write(data)
                await self.writer.drain()
        except (ConnectionError, RuntimeError) as error:
            raise Closed from error

    async def _reply(self, payload: bytes) -> None:
        await self.send(tds.packets(tds.REPLY, payload, self.size))

    # life --------------------------------------------------------------------------------------
    async def run(self) -> None:
        await self._handshake()
        pump = asyncio.create_task(self._pump())
        try:
            while True:
                message = await self._next()
                if message is None:
                    return
                await self._handle(*message)
        finally:
            pump.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await pump

    async def _next(self) -> tuple[int, bytes] | None:
        """The next message; None once the client is gone or the session was killed."""
        getter = asyncio.ensure_future(self.messages.get())
        killed = asyncio.ensure_future(self.wakened.wait())
        try:
            await asyncio.wait({getter, killed}, return_when=asyncio.FIRST_COMPLETED)
            return getter.result() if getter.done() else None
        finally:
            getter.cancel()
            killed.cancel()

    async def _pump(self) -> None:
        """Read all the time: an attention arrives while a statement runs."""
        try:
            while True:
                kind, payload = await self._message()
                if kind == tds.ATTENTION:
                    if self.busy:
                        self.attention.set()
                    else:
                        done = tds.done(tds.DONE_ATTENTION, 0)
                        await self._reply(done)
                else:
                    self.busy = True
                    await self.messages.put((kind, payload))
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError, Closed, OSError):
            self.gone.set()
            await self.messages.put(None)

    def forget(self) -> None:
        """Close the socket and the session."""
        if self.session is not None:
            with self.instance.lock:
                self.session.close()
            self.session = None
        with contextlib.suppress(Exception):
            self.writer.close()

    # login -------------------------------------------------------------------------------------
    async def _handshake(self) -> None:
        kind, payload = await self.raw_message()
        wanted = tds.ENCRYPT_NOT_SUPPORTED
        if kind == tds.PRELOGIN:
            offered = _TLS_MODES[self.endpoint.tls]
            wanted = tds.prelogin_encryption(payload)
            answer = offered
            if offered == tds.ENCRYPT_OFF and wanted in {tds.ENCRYPT_ON, tds.ENCRYPT_REQUIRED}:
                answer = tds.ENCRYPT_ON
            if offered == tds.ENCRYPT_OFF and wanted == tds.ENCRYPT_NOT_SUPPORTED:
                answer = tds.ENCRYPT_NOT_SUPPORTED
            if offered == tds.ENCRYPT_ON and wanted == tds.ENCRYPT_NOT_SUPPORTED:
                answer = tds.ENCRYPT_REQUIRED
            version = self.instance.version.numbers
            await self._reply(tds.prelogin_reply(version, answer))
            if answer == tds.ENCRYPT_REQUIRED:
                raise Closed
            if answer in {tds.ENCRYPT_OFF, tds.ENCRYPT_ON}:
                assert self.endpoint.context is not None
                self.tls = InnerTls(self, self.endpoint.context)
                await self.tls.handshake()
            kind, payload = await self._message()
            if answer == tds.ENCRYPT_OFF:
                self.tls = None
        if kind != tds.LOGIN7:
            raise Closed
        await self._login(tds.parse_login(payload))

    async def _login(self, login: tds.Login) -> None:
        instance = self.instance
        out = bytearray()
        refused = self.endpoint.refuses_logins
        with instance.lock:
            found = instance.logins.get(login.user.lower())
            problems: list[Message] = [refused] if refused else []
            if not problems and (
                found is None or found.password != login.password or found.is_disabled
            ):
                problems.append(Message(18456, f"Login failed for user '{login.user}'.", 14))
            session = None
            if not problems and found is not None:
                session = Session(instance, found, instance.next_session, login.host)
                instance.next_session += 1
                try:
                    if login.database:
                        session.enter(login.database)
                except SqlError:
                    problems = [
                        Message(
                            4060,
                            f'Cannot open database "{login.database}" requested by the login. The '
                            "login failed.",
                            11,
                        ),
                        Message(18456, f"Login failed for user '{login.user}'.", 14),
                    ]
            if problems or session is None:
                for each in problems:
                    out += self.token(each)
                out += tds.done(tds.DONE_ERROR, 0)
            else:
                session.on_kill = self._killed
                instance.sessions[session.number] = session
                self.session = session
                out += self._welcome(login, session)
        await self._reply(bytes(out))
        if problems:
            raise Closed
        self.size = login.packet_size

    def _welcome(self, login: tds.Login, session: Session) -> bytes:
        name = session.database.name
        out = bytearray()
        out += tds.environment(1, name, "master")
        context = f"Changed database context to '{name}'."
        out += self.token(Message(5701, context, 10, 2))
        out += tds.environment(7, tds.COLLATION, b"")
        out += tds.environment(2, "us_english", "")
        out += self.token(Message(5703, "Changed language setting to us_english.", 10))
        out += tds.login_ack(self.instance.version.numbers)
        out += tds.environment(4, str(login.packet_size), "4096")
        if login.has_features:
            out += b"\xae\xff"
        return bytes(out) + tds.done(0, 0)

    def _killed(self) -> None:
        """KILL, from any thread: wake an idle connection; a busy one notices between steps."""

        def wake() -> None:
            if not self.busy:
                self.wakened.set()

        self.loop.call_soon_threadsafe(wake)

    # statements --------------------------------------------------------------------------------
    async def _handle(self, kind: int, payload: bytes) -> None:
        assert self.session is not None
        if kind == tds.SQL_BATCH:
            await self._run(self.session.run(tds.batch_text(payload)))
        elif kind == tds.TRANSACTION_MANAGER:
            await self._transaction(payload)
        elif kind == tds.RPC:
            from .rpc import events_of

            await self._run(events_of(self.session, payload))
        else:
            raise Closed
        self.busy = False
        if self.session is not None and self.session.is_killed:
            raise Closed

    async def _transaction(self, payload: bytes) -> None:
        """Transaction manager requests of ODBC and python-tds (MS-TDS 2.2.6.9)."""
        assert self.session is not None
        at = tds.all_headers_length(payload)
        request = struct.unpack_from("<H", payload, at)[0]
        out = b""
        with self.instance.lock:
            session = self.session
            descriptor = session.number.to_bytes(8, "little")
            if request == 5:
                session.begin()
                out = tds.environment(8, descriptor, b"")
                command = 212
            elif request in {7, 8}:
                if session.in_transaction:
                    if request == 7:
                        session.commit()
                    else:
                        session.roll_back()
                out = tds.environment(9 if request == 7 else 10, b"", descriptor)
                command = 213 if request == 7 else 210
                if payload[at + 2 + (1 + payload[at + 2]) :][:1] == b"\x01":
                    session.begin()
                    out += tds.environment(8, descriptor, b"")
            else:
                raise Closed
        await self._reply(out + tds.done(0, command))

    async def _run(self, events: Events) -> None:
        """Drive a statement's events, sending what they make as packets fill or time passes."""
        self.attention.clear()
        reply = Reply(self)
        try:
            while True:
                if self.gone.is_set():
                    raise Closed
                if self.attention.is_set() and self.instance.faults.answers_attention:
                    self._close(events)
                    await self._acknowledge(reply)
                    return
                with self.instance.lock:
                    event = next(events, None)
                if event is None:
                    break
                if isinstance(event, Pause):
                    await reply.flush()
                    await self._sleep(event.seconds)
                elif isinstance(event, Cut):
                    if self.session is not None and self.session.is_killed:
                        await reply.finish()
                    raise Closed
                else:
                    reply.add(event)
                    if len(reply.buffer) >= self.size or isinstance(event, Info):
                        await reply.flush()
                        await asyncio.sleep(0)
            self.busy = False
            await reply.finish()
        finally:
            self._close(events)

    def _close(self, events: Events) -> None:
        """End a statement that is under way: it cleans up behind itself."""
        with self.instance.lock:
            events.close()

    async def _sleep(self, seconds: float) -> None:
        waits = [
            asyncio.ensure_future(self.attention.wait()),
            asyncio.ensure_future(self.gone.wait()),
        ]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _acknowledge(self, reply: Reply) -> None:
        """End the reply begun, then DONE_ATTN as a message of its own (tedious wants it so)."""
        if reply.sent or reply.buffer:
            await reply.finish()
        self.attention.clear()
        self.busy = False
        await self._reply(tds.done(tds.DONE_ATTENTION, 0))

    def token(self, message: Message) -> bytes:
        """A message as this server says it."""
        return tds.message(
            message.number,
            message.text,
            severity=message.severity,
            state=message.state,
            server=self.instance.server_name,
        )
