"""The tokens of one reply, and when its DONEs go out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import tds
from .events import Done, Environment, Errors, Event, Info, ResultSet, Scope

if TYPE_CHECKING:
    from .endpoint import Connection


class Reply:
    """Tokens of one reply. A DONE is held back until it is known whether another follows."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.buffer = bytearray()
        self.held: Done | None = None
        self.inside = 0
        self.sent = False
        self.packet = 1

    def add(self, event: Event) -> None:
        if isinstance(event, Scope):
            if not event.begins:
                self._release(more=True)
                self.inside -= 1
                self.held = Done(224)
                self.kind = "proc"
            else:
                self._release(more=True)
                self.inside += 1
            return
        if isinstance(event, Info):
            self._release(more=True)
            self.buffer += self.connection.token(event.message)
            if event.command is not None:
                self.buffer += tds.done(tds.DONE_MORE, event.command)
        elif isinstance(event, Errors):
            self._release(more=True)
            for message in event.messages:
                self.buffer += self.connection.token(message)
        elif isinstance(event, ResultSet):
            self._release(more=True)
            described = event.rowset.columns
            self.buffer += tds.columns(described)
            for row in event.rowset.rows:
                self.buffer += tds.row(described, row)
        elif isinstance(event, Environment):
            self._release(more=True)
            self.buffer += tds.environment(event.kind, event.new, event.old)
        elif isinstance(event, Done):
            self._release(more=True)
            self.held = event
            self.kind = "in_proc" if self.inside else "done"

    kind = "done"

    def _release(self, *, more: bool) -> None:
        if self.held is None:
            return
        status = tds.DONE_MORE if more else 0
        if self.held.failed:
            status |= tds.DONE_ERROR
        if self.held.rows is not None:
            status |= tds.DONE_COUNT
        self.buffer += tds.done(status, self.held.command, self.held.rows or 0, kind=self.kind)
        self.held = None

    async def flush(self) -> None:
        """Send what is there as packets without the end of the message."""
        if not self.buffer:
            return
        data = bytes(self.buffer)
        self.buffer.clear()
        size = self.connection.size
        await self.connection.send(
            tds.packets(tds.REPLY, data, size, last=False, first_id=self.packet)
        )
        self.packet += -(-len(data) // (size - 8))
        self.sent = True

    async def finish(self) -> None:
        """Send the rest and the end of the message."""
        if self.held is None and not self.buffer:
            self.held = Done(193)
        self._release(more=False)
        data = bytes(self.buffer)
        self.buffer.clear()
        await self.connection.send(
            tds.packets(tds.REPLY, data, self.connection.size, first_id=self.packet)
        )
