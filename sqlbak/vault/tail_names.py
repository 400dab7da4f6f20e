"""The object names of shipped log carry everything of ``model.ShippedLog``.

So what it adds to a restore is planned from a listing. A piece is called
``<first LSN>-<last LSN>`` (16 hexadecimal digits each), then fields joined by ``_`` as in
vault/names.py, and ``.wal``; a piece that holds no log proves that nothing happened.

    u  run                        g  which facts of the engine hold for it
    b  id of the anchor           o  xxh3_64 of the object, hexadecimal
    c  covers_until               x  xxh3_128 of the log bytes, hexadecimal
    f  finished_at                h  CRC-32, hexadecimal, last
    n  size in bytes, base 36
"""

from __future__ import annotations

import re
import secrets

from sqlbak.model import ShippedLog
from sqlbak.vault.layout import POINT_ID
from sqlbak.vault.names import (
    base_36,
    instant_of_word,
    instant_word,
    lineage_of_word,
    name_checksum,
)

__all__ = ["format_tail_name", "new_run", "parse_tail_name"]

SUFFIX = ".wal"

_RANGE = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})", re.ASCII)
_FIELD = re.compile(r"([a-z])([A-Za-z0-9-]+)", re.ASCII)
_RUN = re.compile(r"[0-9a-f]{12}", re.ASCII)
_HEX = {"g": 8, "o": 16, "x": 32}


def new_run() -> str:
    """A name that no other run has."""
    return secrets.token_hex(6)


def format_tail_name(piece: ShippedLog) -> str:
    """The object name of ``piece``, whose own ``name`` is not looked at. ValueError when it breaks
    a rule of ``model.ShippedLog``."""
    fields = [
        ("u", piece.run),
        ("b", piece.anchor_id),
        ("c", instant_word(piece.covers_until)),
        ("f", instant_word(piece.finished_at)),
        ("n", base_36(piece.size_bytes)),
        ("g", piece.facts_id),
        ("o", piece.object_checksum),
        ("x", piece.raw_checksum),
    ]
    words = [f"{piece.first_lsn:016x}-{piece.last_lsn:016x}"]
    words += [letter + value for letter, value in fields if value is not None]
    body = "_".join(words)
    name = f"{body}_h{name_checksum(body)}{SUFFIX}"
    _parse(name, piece.lineage)
    return name


def parse_tail_name(lineage_folder: str, name: str) -> ShippedLog:
    """The piece that an object below ``tail/<lineage_folder>/`` is. ValueError when it is not
    exactly what ``format_tail_name`` writes, newer letters aside."""
    return _parse(name, lineage_of_word(lineage_folder))


def _parse(name: str, lineage: str) -> ShippedLog:
    body, mark, checksum = name.removesuffix(SUFFIX).rpartition("_h")
    if not mark or not name.endswith(SUFFIX) or name_checksum(body) != checksum:
        raise ValueError("its checksum does not match")
    positions, *parts = body.split("_")
    fields: dict[str, str] = {}
    for part in parts:
        if (match := _FIELD.fullmatch(part)) is None or match[1] in fields:
            raise ValueError(f"the field {part!r} is malformed")
        fields[match[1]] = match[2]
    if missing := [letter for letter in "ubfngox" if letter not in fields]:
        raise ValueError(f"the field {missing[0]} is missing")
    found = _RANGE.fullmatch(positions)
    if found is None or int(found[1], 16) > int(found[2], 16):
        raise ValueError("its log range is malformed")
    for letter, digits in _HEX.items():
        if not re.fullmatch(rf"[0-9a-f]{{{digits}}}", fields[letter], re.ASCII):
            raise ValueError(f"the field {letter} is malformed")
    if not _RUN.fullmatch(fields["u"]) or not POINT_ID.fullmatch(fields["b"]):
        raise ValueError("its run or its anchor is malformed")
    try:
        return ShippedLog(
            name=name,
            lineage=lineage,
            first_lsn=int(found[1], 16),
            last_lsn=int(found[2], 16),
            covers_until=instant_of_word(fields["c"]) if "c" in fields else None,
            finished_at=instant_of_word(fields["f"]),
            run=fields["u"],
            anchor_id=fields["b"],
            facts_id=fields["g"],
            raw_checksum=fields["x"],
            object_checksum=fields["o"],
            size_bytes=int(fields["n"], 36),
        )
    except OverflowError as error:
        raise ValueError(str(error)) from error
