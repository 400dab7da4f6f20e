"""TLS as TDS 7.4 does it."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

from . import tds

if TYPE_CHECKING:
    from .endpoint import Connection


class InnerTls:
    """TLS whose handshake travels in PRELOGIN packets and whose records then travel bare."""

    def __init__(self, connection: Connection, context: ssl.SSLContext) -> None:
        self.connection = connection
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.plain = bytearray()

    async def handshake(self) -> None:
        connection = self.connection
        while True:
            try:
                self.object.do_handshake()
            except ssl.SSLWantReadError:
                await self._wrapped()
                _, payload = await connection.raw_message()
                self.incoming.write(payload)
                continue
            await self._wrapped()
            return

    async def _wrapped(self) -> None:
        data = self.outgoing.read()
        if data:
            self.connection.writer.write(tds.packets(tds.PRELOGIN, data, 4096))
            await self.connection.writer.drain()

    async def read_exactly(self, count: int) -> bytes:
        while len(self.plain) < count:
            try:
                self.plain += self.object.read(65536)
            except ssl.SSLWantReadError:
                data = await self.connection.reader.read(65536)
                if not data:
                    raise asyncio.IncompleteReadError(bytes(self.plain), count) from None
                self.incoming.write(data)
            except ssl.SSLZeroReturnError:
                raise asyncio.IncompleteReadError(bytes(self.plain), count) from None
        found = bytes(self.plain[:count])
        del self.plain[:count]
        return found

    async def write(self, data: bytes) -> None:
        self.object.write(data)
        self.connection.writer.write(self.outgoing.read())
        await self.connection.writer.drain()
