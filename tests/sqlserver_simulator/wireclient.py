"""A bare TDS client for tests: it logs in, sends batches and shows every token as it came."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID


@dataclass(slots=True)
class Answer:
    """``columns`` as "name:type:flags", ``done`` as "kind/status/command/rows", messages as
    (number, state, class, text)."""

    columns: list[list[str]] = field(default_factory=list)
    rows: list[list[Any]] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    info: list[tuple[int, int, int, str]] = field(default_factory=list)
    errors: list[tuple[int, int, int, str]] = field(default_factory=list)
    order: list[str] = field(default_factory=list)


class WireClient:
    """One connection, in clear text."""

    def __init__(self, host: str, port: int, user: str, password: str) -> None:
        self.socket = socket.create_connection((host, port), timeout=20)
        self.send(0x12, b"\x00\x00\x06\x00\x06\x01\x00\x0c\x00\x01\xff" + b"\0" * 6 + b"\x02")
        self.receive()
        self.send(0x10, _login(user, password))
        self.login = self.parse(self.receive())

    def close(self) -> None:
        self.socket.close()

    def send(self, kind: int, payload: bytes) -> None:
        self.socket.sendall(struct.pack(">BBHHBB", kind, 1, len(payload) + 8, 0, 1, 0) + payload)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise ConnectionError("the server closed the connection")
            data += more
        return data

    def receive(self) -> bytes:
        """One message, all its packets."""
        payload = b""
        while True:
            _, status, length = struct.unpack(">BBH", self._exactly(8)[:4])
            payload += self._exactly(length - 8)
            if status & 1:
                return payload

    def batch(self, sql: str) -> Answer:
        self.start(sql)
        return self.parse(self.receive())

    def start(self, sql: str) -> None:
        self.send(0x01, struct.pack("<IIHQI", 22, 18, 2, 0, 1) + sql.encode("utf-16-le"))

    def attention(self) -> None:
        self.send(0x06, b"")

    def parse(self, data: bytes) -> Answer:
        return _Tokens(data).answer()


def _login(user: str, password: str) -> bytes:
    fixed = struct.pack("<IIIIIIBBBBiI", 0, 0x74000004, 4096, 7, 1, 0, 0xE0, 0x03, 0, 0, 0, 0x0409)
    secret = bytes(
        (((byte << 4) | (byte >> 4)) & 0xFF) ^ 0xA5 for byte in password.encode("utf-16-le")
    )
    texts = ["host", user, None, "wireclient", "server", "", "library", "", ""]
    offset = 36 + 58
    table, body = b"", b""
    for index, text in enumerate(texts):
        piece = secret if index == 2 else (text or "").encode("utf-16-le")
        table += struct.pack("<HH", offset + len(body), len(piece) // 2)
        body += piece
    table += b"\0" * 6 + struct.pack("<HHHHHHI", offset, 0, offset, 0, offset, 0, 0)
    whole = fixed + table + body
    return struct.pack("<I", len(whole)) + whole[4:]


class _Tokens:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.kinds: list[tuple[str, int]] = []

    def take(self, form: str) -> Any:
        (value,) = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return value

    def raw(self, count: int) -> bytes:
        found = self.data[self.at : self.at + count]
        assert len(found) == count
        self.at += count
        return found

    def text(self, characters: int) -> str:
        return self.raw(2 * characters).decode("utf-16-le")

    def answer(self) -> Answer:
        out = Answer()
        while self.at < len(self.data):
            token = self.take("B")
            if token in {0xAA, 0xAB}:
                self.take("H")
                head = (self.take("i"), self.take("B"), self.take("B"))
                text = self.text(self.take("H"))
                self.text(self.take("B"))
                self.text(self.take("B"))
                self.take("I")
                (out.errors if token == 0xAA else out.info).append((*head, text))
                out.order.append(f"{'error' if token == 0xAA else 'info'} {head[0]}")
            elif token in {0xFD, 0xFE, 0xFF}:
                kind = {0xFD: "done", 0xFE: "proc", 0xFF: "in_proc"}[token]
                shown = f"{kind}/{self.take('H')}/{self.take('H')}/{self.take('Q')}"
                out.done.append(shown)
                out.order.append(shown)
            elif token == 0x81:
                out.columns.append(self._columns())
            elif token == 0xD1:
                out.rows.append([self._value(*kind) for kind in self.kinds])
            elif token in {0xE3, 0xAD}:
                self.raw(self.take("H"))
            elif token == 0xAE:
                assert self.take("B") == 0xFF
            elif token == 0x79:
                self.take("i")
            else:
                raise AssertionError(f"unknown token 0x{token:02X} at {self.at}")
        return out

    def _columns(self) -> list[str]:
        self.kinds, shown = [], []
        for _ in range(self.take("H")):
            self.take("I")
            flags = self.take("H")
            code = self.take("B")
            name = {
                0x30: "TinyInt", 0x32: "Bit", 0x34: "SmallInt", 0x38: "Int", 0x7F: "BigInt",
                0x26: "IntN", 0x68: "BitN", 0x6C: "NumericN", 0x24: "Guid", 0x6F: "DateTimeN",
                0xE7: "NVarChar", 0xEF: "NChar", 0xAF: "Char", 0xA7: "VarChar", 0xA5: "VarBinary",
                0x2A: "DateTime2N", 0x2B: "DateTimeOffsetN", 0x6D: "FloatN",
            }[code]  # fmt: skip
            size = 0
            if name == "IntN":
                size = self.take("B")
                name += str(size)
            elif name in {"BitN", "Guid", "DateTimeN", "FloatN", "DateTime2N", "DateTimeOffsetN"}:
                size = self.take("B")
            elif name == "NumericN":
                assert self.take("B") == 17
                size, scale = self.take("B"), self.take("B")
                assert scale == 0
                name += str(size)
            elif code in {0xE7, 0xEF, 0xAF, 0xA7, 0xA5}:
                size = self.take("H")
                if code != 0xA5:
                    self.raw(5)
                name += str(size // 2 if code in {0xE7, 0xEF} else size)
            self.kinds.append((name.rstrip("0123456789"), size))
            shown.append(f"{self.text(self.take('B'))}:{name}:{flags}")
        return shown

    def _value(self, name: str, size: int) -> Any:
        widths = {"TinyInt": 1, "SmallInt": 2, "Int": 4, "BigInt": 8, "Bit": 1}
        if name in widths:
            raw = self.raw(widths[name])
            number = int.from_bytes(raw, "little", signed=name != "TinyInt")
            return bool(number) if name == "Bit" else number
        if name in {"NVarChar", "NChar", "Char", "VarChar", "VarBinary"}:
            length = self.take("H")
            if length == 0xFFFF:
                return None
            raw = self.raw(length)
            if name == "VarBinary":
                return raw
            return raw.decode("utf-16-le" if name[0] == "N" else "cp1252")
        length = self.take("B")
        if length == 0:
            return None
        raw = self.raw(length)
        if name == "Guid":
            return UUID(bytes_le=raw)
        if name == "BitN":
            return bool(raw[0])
        if name == "NumericN":
            return int.from_bytes(raw[1:], "little") * (1 if raw[0] else -1)
        if name == "DateTimeN":
            days, ticks = struct.unpack("<iI", raw)
            return datetime(1900, 1, 1) + timedelta(days=days, seconds=ticks / 300)  # noqa: DTZ001
        return int.from_bytes(raw, "little", signed=size > 1)
