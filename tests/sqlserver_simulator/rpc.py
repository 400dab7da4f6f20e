"""Remote procedure calls: the ones by which drivers send statements with parameters
(MS-TDS 2.2.6.6)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from . import tds
from .errors import not_modelled
from .events import Done, Errors, Events, Scope
from .sqltypes import NVARCHAR_MAX, SqlType

if TYPE_CHECKING:
    from .session import Session

_NUMBERS = {10: "sp_executesql", 11: "sp_prepare", 12: "sp_execute", 13: "sp_prepexec"}


class _Reader:
    """Parameters off the wire: integers, text and bit; the rest is refused."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data = data
        self.at = at

    def take(self, form: str) -> Any:
        (value,) = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return value

    def text(self, characters: int) -> str:
        found = self.data[self.at : self.at + 2 * characters].decode("utf-16-le")
        self.at += 2 * characters
        return found

    def parameter(self) -> tuple[str, Any, SqlType]:
        name = self.text(self.take("B"))
        self.take("B")
        kind = self.take("B")
        if kind == 0x26 or kind == 0x68:
            size = self.take("B")
            length = self.take("B")
            raw = self.data[self.at : self.at + length]
            self.at += length
            value = int.from_bytes(raw, "little", signed=True) if length else None
            names = {1: "tinyint", 2: "smallint", 4: "int", 8: "bigint"}
            return name, value, SqlType(names[size], size)
        if kind in {0xE7, 0xEF}:
            size = self.take("H")
            self.at += 5
            if size == 0xFFFF:
                return name, self._plp(), NVARCHAR_MAX
            length = self.take("H")
            if length == 0xFFFF:
                return name, None, NVARCHAR_MAX
            return name, self.text(length // 2), NVARCHAR_MAX
        raise not_modelled(f"an RPC parameter of type 0x{kind:02X}")

    def _plp(self) -> str | None:
        total = self.take("Q")
        if total == 0xFFFFFFFFFFFFFFFF:
            return None
        out = bytearray()
        while chunk := self.take("I"):
            out += self.data[self.at : self.at + chunk]
            self.at += chunk
        return out.decode("utf-16-le")


def events_of(session: Session, payload: bytes) -> Events:
    """Run sp_executesql; other calls are refused loudly."""
    from .errors import SqlError

    reader = _Reader(payload, tds.all_headers_length(payload))
    try:
        length = reader.take("H")
        name = _NUMBERS.get(reader.take("H"), "?") if length == 0xFFFF else reader.text(length)
        reader.take("H")
        if name.lower() != "sp_executesql":
            raise not_modelled(f"the remote procedure call {name}")
        _, text, _ = reader.parameter()
        variables: dict[str, tuple[SqlType, Any]] = {}
        if reader.at < len(payload):
            reader.parameter()
            while reader.at < len(payload):
                key, value, kind = reader.parameter()
                variables[key.lower()] = (kind, value)
    except SqlError as error:
        yield Errors(error.messages)
        yield Done(224, failed=True)
        return
    yield Scope(begins=True)
    yield from session.run(str(text), variables)
    yield Scope(begins=False)
