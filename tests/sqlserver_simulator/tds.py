"""The TDS 7.4 wire: packets, tokens and values as bytes (MS-TDS v39, sections 2.2.1 to 2.2.7).

Nothing here waits or knows of sockets.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from .sqltypes import NULLABLE, Column, SqlType

SQL_BATCH = 0x01
RPC = 0x03
REPLY = 0x04
ATTENTION = 0x06
TRANSACTION_MANAGER = 0x0E
LOGIN7 = 0x10
PRELOGIN = 0x12

DONE_MORE = 0x01
DONE_ERROR = 0x02
DONE_INTRANSACTION = 0x04
DONE_COUNT = 0x10
DONE_ATTENTION = 0x20
DONE_SERVER_ERROR = 0x100

ENCRYPT_OFF, ENCRYPT_ON, ENCRYPT_NOT_SUPPORTED, ENCRYPT_REQUIRED = 0, 1, 2, 3

COLLATION = struct.pack("<IB", 0x00D00409, 52)  # SQL_Latin1_General_CP1_CI_AS
TDS_VERSION = 0x74000004
_EPOCH_1900 = datetime(1900, 1, 1)  # noqa: DTZ001 (datetime has no zone on the wire)
_DAY_ONE = date(1, 1, 1)


def packets(kind: int, payload: bytes, size: int, *, last: bool = True, first_id: int = 1) -> bytes:
    """Cut a payload into packets of ``size`` bytes; the last one carries EOM if ``last``."""
    room = size - 8
    pieces = [payload[at : at + room] for at in range(0, len(payload), room)] or [b""]
    out = bytearray()
    for number, piece in enumerate(pieces):
        end = last and number == len(pieces) - 1
        out += struct.pack(
            ">BBHHBB", kind, 1 if end else 0, len(piece) + 8, 0, (first_id + number) & 0xFF, 0
        )
        out += piece
    return bytes(out)


def _b_varchar(text: str) -> bytes:
    data = text.encode("utf-16-le")
    return bytes([len(data) // 2]) + data


def _us_varchar(text: str) -> bytes:
    data = text.encode("utf-16-le")
    return struct.pack("<H", len(data) // 2) + data


def prelogin_reply(version: tuple[int, int, int], encryption: int) -> bytes:
    """The server's PRELOGIN: version, encryption, instance, thread, MARS."""
    options = [
        (0, struct.pack(">BBHH", version[0], version[1], version[2], 0)),
        (1, bytes([encryption])),
        (2, b"\0"),
        (3, b""),
        (4, b"\0"),
    ]
    offset = 5 * len(options) + 1
    head, body = bytearray(), bytearray()
    for kind, data in options:
        head += struct.pack(">BHH", kind, offset + len(body), len(data))
        body += data
    return bytes(head) + b"\xff" + bytes(body)


def prelogin_encryption(payload: bytes) -> int:
    """What the client says of encryption in its PRELOGIN."""
    at = 0
    while at < len(payload) and payload[at] != 0xFF:
        kind, offset, length = struct.unpack_from(">BHH", payload, at)
        if kind == 1 and length:
            return payload[offset]
        at += 5
    return ENCRYPT_NOT_SUPPORTED


@dataclass(frozen=True, slots=True)
class Login:
    """What the client says in LOGIN7. The password is only compared, never shown."""

    host: str
    user: str
    password: str
    application: str
    database: str
    packet_size: int
    has_features: bool
    integrated: bool

    def __repr__(self) -> str:
        return f"Login(user={self.user!r}, database={self.database!r})"


def parse_login(payload: bytes) -> Login:
    packet_size = struct.unpack_from("<I", payload, 8)[0] or 4096
    flags2, flags3 = payload[25], payload[27]

    def text(at: int) -> str:
        offset, count = struct.unpack_from("<HH", payload, at)
        return payload[offset : offset + 2 * count].decode("utf-16-le")

    offset, count = struct.unpack_from("<HH", payload, 44)
    secret = bytes(
        ((byte ^ 0xA5) >> 4 | (byte ^ 0xA5) << 4 & 0xF0)
        for byte in payload[offset : offset + 2 * count]
    )
    return Login(
        host=text(36),
        user=text(40),
        password=secret.decode("utf-16-le", "replace"),
        application=text(48),
        database=text(68),
        packet_size=min(max(packet_size, 512), 32767),
        has_features=bool(flags3 & 0x10),
        integrated=bool(flags2 & 0x80),
    )


def batch_text(payload: bytes) -> str:
    """The statement text after ALL_HEADERS."""
    return payload[all_headers_length(payload) :].decode("utf-16-le")


def all_headers_length(payload: bytes) -> int:
    total: int = struct.unpack_from("<I", payload, 0)[0] if len(payload) >= 4 else 0
    return total if 4 <= total <= len(payload) else 0


def login_ack(version: tuple[int, int, int]) -> bytes:
    body = bytes([1]) + struct.pack(">I", TDS_VERSION) + _b_varchar("Microsoft SQL Server")
    body += struct.pack(">BBH", *version)
    return b"\xad" + struct.pack("<H", len(body)) + body


def environment(kind: int, new: str | bytes, old: str | bytes) -> bytes:
    """ENVCHANGE; bytes for collation and transaction descriptors, text for the rest."""

    def part(value: str | bytes) -> bytes:
        return bytes([len(value)]) + value if isinstance(value, bytes) else _b_varchar(value)

    body = bytes([kind]) + part(new) + part(old)
    return b"\xe3" + struct.pack("<H", len(body)) + body


def message(
    number: int,
    text: str,
    *,
    severity: int,
    state: int = 1,
    server: str = "",
    procedure: str = "",
    line: int = 1,
) -> bytes:
    """INFO for severity 10 and below (sent as class 0, as captured from SQL Server 2022), else
    ERROR."""
    is_error = severity > 10
    body = struct.pack("<iBB", number, state, severity if is_error else 0)
    body += _us_varchar(text) + _b_varchar(server) + _b_varchar(procedure)
    body += struct.pack("<I", line)
    return (b"\xaa" if is_error else b"\xab") + struct.pack("<H", len(body)) + body


def done(status: int, command: int, rows: int = 0, *, kind: str = "done") -> bytes:
    token = {"done": 0xFD, "proc": 0xFE, "in_proc": 0xFF}[kind]
    return struct.pack("<BHHQ", token, status, command, rows)


def return_status(value: int) -> bytes:
    return struct.pack("<Bi", 0x79, value)


def columns(described: Sequence[Column]) -> bytes:
    out = bytearray(struct.pack("<BH", 0x81, len(described)))
    for column in described:
        out += struct.pack("<IH", 0, column.flags)
        out += _type_info(column.type, nullable=bool(column.flags & NULLABLE))
        out += _b_varchar(column.name)
    return bytes(out)


_FIXED = {"tinyint": 0x30, "bit": 0x32, "smallint": 0x34, "int": 0x38, "bigint": 0x7F}


def _type_info(kind: SqlType, *, nullable: bool) -> bytes:
    name = kind.kind
    if name in _FIXED:
        if not nullable:
            return bytes([_FIXED[name]])
        return bytes([0x68 if name == "bit" else 0x26, kind.length])
    if name == "decimal":
        return bytes([0x6C, 17, kind.precision, kind.scale])
    if name == "uniqueidentifier":
        return bytes([0x24, 16])
    if name == "datetime":
        return bytes([0x6F, 8])
    if name == "date":
        return bytes([0x28])
    if name == "datetime2":
        return bytes([0x2A, kind.scale])
    if name == "datetimeoffset":
        return bytes([0x2B, kind.scale])
    if name in {"real", "float"}:
        return bytes([0x6D, kind.length])
    if name == "sql_variant":
        return struct.pack("<BI", 0x62, 8009)
    length = 0xFFFF if kind.length < 0 else kind.length
    token = {"nvarchar": 0xE7, "nchar": 0xEF, "varchar": 0xA7, "char": 0xAF, "varbinary": 0xA5}
    out = struct.pack("<BH", token[name], length)
    return out if name == "varbinary" else out + COLLATION


def row(described: Sequence[Column], values: Sequence[Any]) -> bytes:
    out = bytearray(b"\xd1")
    for column, value in zip(described, values, strict=True):
        out += _value(column, value)
    return bytes(out)


def _time_part(moment: datetime) -> bytes:
    since = timedelta(
        hours=moment.hour,
        minutes=moment.minute,
        seconds=moment.second,
        microseconds=moment.microsecond,
    )
    return (since // timedelta(microseconds=1) * 10).to_bytes(5, "little")


def datetime_ticks(moment: datetime) -> tuple[int, int]:
    """Days since 1900 and 1/300ths of a second since midnight, the nearest ones."""
    since = moment - _EPOCH_1900
    ticks = (since - timedelta(days=since.days)) // timedelta(microseconds=1)
    units = (ticks * 3 + 5000) // 10000
    return (since.days + 1, 0) if units >= 25_920_000 else (since.days, units)


def _value(column: Column, value: Any) -> bytes:
    kind = column.type
    name = kind.kind
    if name in _FIXED:
        nullable = bool(column.flags & NULLABLE)
        if value is None:
            return b"\0"
        data = (
            bytes([1 if value else 0])
            if name == "bit"
            else int(value).to_bytes(kind.length, "little", signed=name != "tinyint")
        )
        return bytes([len(data)]) + data if nullable else data
    if name in {"nvarchar", "nchar", "varchar", "char", "varbinary"}:
        return _string(kind, value)
    if name == "sql_variant":
        return _variant(value)
    if value is None:
        return b"\0"
    data = _bare(kind, value)
    return bytes([len(data)]) + data


def _bare(kind: SqlType, value: Any) -> bytes:
    name = kind.kind
    if name == "decimal":
        digits = kind.precision
        width = 4 if digits <= 9 else 8 if digits <= 19 else 12 if digits <= 28 else 16
        number = int((Decimal(value) * (Decimal(10) ** kind.scale)).to_integral_value())
        return bytes([0 if number < 0 else 1]) + abs(number).to_bytes(width, "little")
    if name == "uniqueidentifier":
        return (value if isinstance(value, UUID) else UUID(str(value))).bytes_le
    if name == "datetime":
        return struct.pack("<iI", *datetime_ticks(value))
    if name == "date":
        return (value - _DAY_ONE).days.to_bytes(3, "little")
    if name == "datetime2":
        return _time_part(value) + (value.date() - _DAY_ONE).days.to_bytes(3, "little")
    if name == "datetimeoffset":
        offset = value.utcoffset() or timedelta()
        utc = value.astimezone(UTC)
        days = (utc.date() - _DAY_ONE).days
        minutes = int(offset / timedelta(minutes=1))
        return _time_part(utc) + days.to_bytes(3, "little") + struct.pack("<h", minutes)
    if name == "real":
        return struct.pack("<f", value)
    if name == "float":
        return struct.pack("<d", value)
    raise TypeError(f"no wire form for {name}")


def _string(kind: SqlType, value: Any) -> bytes:
    wide = kind.kind in {"nvarchar", "nchar"}
    if kind.length < 0:
        if value is None:
            return b"\xff" * 8
        data = _characters(value, wide=wide)
        chunk = struct.pack("<I", len(data)) + data if data else b""
        return struct.pack("<Q", len(data)) + chunk + b"\0\0\0\0"
    if value is None:
        return b"\xff\xff"
    data = _characters(value, wide=wide)[: kind.length]
    if kind.kind in {"nchar", "char"}:
        filler = " ".encode("utf-16-le") if wide else b" "
        data += filler * ((kind.length - len(data)) // len(filler))
    return struct.pack("<H", len(data)) + data


def _characters(value: Any, *, wide: bool) -> bytes:
    if isinstance(value, bytes):
        return value
    return str(value).encode("utf-16-le" if wide else "cp1252", "replace")


def _variant(value: Any) -> bytes:
    """SQL_VARIANT: total length, base type, property bytes, value (MS-TDS 2.2.5.5.4)."""
    if value is None:
        return struct.pack("<I", 0)
    if isinstance(value, bool):
        body = bytes([0x32, 0, 1 if value else 0])
    elif isinstance(value, int):
        body = bytes([0x38, 0]) + struct.pack("<i", value)
    elif isinstance(value, datetime):
        body = bytes([0x3D, 0]) + struct.pack("<iI", *datetime_ticks(value))
    else:
        data = str(value).encode("utf-16-le")
        body = bytes([0xE7, 7]) + COLLATION + struct.pack("<H", 8000) + data
    return struct.pack("<I", len(body)) + body
