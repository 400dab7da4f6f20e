"""The file name of a recovery point carries everything of ``model.Point``.

So a restore is planned from a listing alone. The name is the point's id, then fields joined by
``_``, each a letter and its value, then a CRC-32 of all before it. A reader passes over letters
that it does not know, so anything that may be ignored can be added as a new letter; what must
not be ignored needs a new vault feature (vault/vault.py).

    t  type: f full, d differential, l log          s  started_at
    l  lineage                                      f  finished_at
    k  lineage at the beginning of a log            r  reachable_from
    a  first LSN, hexadecimal                       c  covers_until
    z  last LSN, hexadecimal                        p  probable_until
    b  id of the base                               n  size in bytes, base 36
    x  flags: c copy-only, b bulk-logged            h  CRC-32, hexadecimal, last

Times are microseconds since 1970 in base 36. A lineage is ``n`` and a decimal number, ``g`` and
a GUID without its dashes, or ``w`` and any other word.
"""

from __future__ import annotations

import re
import secrets
import zlib
from datetime import UTC, datetime, timedelta

from sqlbak.errors import ObjectDamaged
from sqlbak.model import Point, PointType
from sqlbak.vault.keys import MAX_SEGMENT_BYTES
from sqlbak.vault.layout import POINT_ID

__all__ = [
    "base_36",
    "begins_as_name",
    "format_name",
    "instant_of_word",
    "instant_word",
    "lineage_of_word",
    "lineage_word",
    "name_checksum",
    "new_point_id",
    "parse_name",
    "point_id_instant",
    "point_id_of_name",
]

SUFFIX = ".json"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_BASE_36 = "0123456789abcdefghijklmnopqrstuvwxyz"
_ID_SECOND = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})T([0-9]{2})([0-9]{2})([0-9]{2})Z", re.ASCII)
_ID_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"
_TYPES = {PointType.FULL: "f", PointType.DIFFERENTIAL: "d", PointType.LOG: "l"}
_TYPES_BY_LETTER = {letter: kind for kind, letter in _TYPES.items()}
_FIELD = re.compile(r"([a-z])([A-Za-z0-9-]+)", re.ASCII)
_NUMBER = re.compile(r"0|[1-9][0-9]*", re.ASCII)
_GUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9-]{1,40}", re.ASCII)


def new_point_id(now: datetime) -> str:
    """An id that no other point has: the second of ``now`` (aware) in UTC and fifty random bits."""
    if now.tzinfo is None:
        raise ValueError("a point id needs an instant with a zone")
    letters = "".join(secrets.choice(_ID_LETTERS) for _ in range(10))
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{letters}"


def point_id_instant(point_id: str) -> datetime | None:
    """The second in which the id was made, by its maker's clock; None: the digits are no time."""
    match = _ID_SECOND.match(point_id)
    if match is None:
        return None
    try:
        # By far faster than strptime; listings have thousands of ids.
        year, month, day, hour, minute, second = map(int, match.groups())
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None


def point_id_of_name(name: str) -> str:
    """The id with which a name begins."""
    return name.partition("_")[0]


def begins_as_name(name: str) -> bool:
    """Whether ``name`` begins with a point's id, as nothing does but a manifest or what somebody
    made of one."""
    return POINT_ID.match(name) is not None


def format_name(point: Point) -> str:
    """The file name of ``point``. ValueError when the point breaks a rule of ``model.Point`` or
    holds what no server gives (a name that is too long, a time before 1970)."""
    _check(point)
    flags = ("c" if point.is_copy_only else "") + ("b" if point.has_bulk_logged else "")
    fields = [
        ("t", _TYPES[point.type]),
        ("l", lineage_word(point.lineage)),
        ("k", None if point.first_lineage is None else lineage_word(point.first_lineage)),
        ("a", f"{point.first_lsn:x}"),
        ("z", f"{point.last_lsn:x}"),
        ("s", instant_word(point.started_at)),
        ("f", instant_word(point.finished_at)),
        ("r", instant_word(point.reachable_from)),
        ("c", instant_word(point.covers_until)),
        ("p", instant_word(point.probable_until)),
        ("b", point.base_id),
        ("x", flags or None),
        ("n", base_36(point.size_bytes)),
    ]
    body = "_".join([point.id, *(letter + value for letter, value in fields if value is not None)])
    name = f"{body}_h{name_checksum(body)}{SUFFIX}"
    if len(name) > MAX_SEGMENT_BYTES:
        raise ValueError(f"the name of recovery point {point.id} is too long: {name}")
    return name


def parse_name(key: str) -> Point:
    """The point that a manifest's key (or its last segment) names. Raises ObjectDamaged naming
    the key when it is not exactly what ``format_name`` writes, newer letters aside."""
    name = key.rpartition("/")[2]
    try:
        point, has_unknown = _parse(name)
        if not has_unknown and format_name(point) != name:
            raise ValueError("it is not in the form that sqlbak writes")
    except (ValueError, OverflowError) as error:
        raise ObjectDamaged(
            f"{key} is not the name of a recovery point: {error}",
            hint="if the file is not sqlbak's, move it out of the vault; if it was renamed, "
            "give it back the name that its manifest tells",
        ) from error
    return point


def _parse(name: str) -> tuple[Point, bool]:
    body, mark, checksum = name.removesuffix(SUFFIX).rpartition("_h")
    if not mark or not name.endswith(SUFFIX):
        raise ValueError("it has no checksum")
    if name_checksum(body) != checksum:
        raise ValueError("its checksum does not match")
    point_id, *parts = body.split("_")
    fields: dict[str, str] = {}
    for part in parts:
        if (match := _FIELD.fullmatch(part)) is None or match[1] in fields:
            raise ValueError(f"the field {part!r} is malformed")
        fields[match[1]] = match[2]
    if missing := [letter for letter in "tlazsfn" if letter not in fields]:
        raise ValueError(f"the field {missing[0]} is missing")
    flags = fields.get("x", "")
    if flags not in ("", "c", "b", "cb"):
        raise ValueError(f"the flags {flags!r} are unknown")
    if fields["t"] not in _TYPES_BY_LETTER:
        raise ValueError(f"the type {fields['t']!r} is unknown")
    point = Point(
        id=point_id,
        type=_TYPES_BY_LETTER[fields["t"]],
        lineage=lineage_of_word(fields["l"]),
        first_lineage=lineage_of_word(fields["k"]) if "k" in fields else None,
        first_lsn=int(fields["a"], 16),
        last_lsn=int(fields["z"], 16),
        started_at=instant_of_word(fields["s"]),
        finished_at=instant_of_word(fields["f"]),
        reachable_from=instant_of_word(fields["r"]) if "r" in fields else None,
        covers_until=instant_of_word(fields["c"]) if "c" in fields else None,
        probable_until=instant_of_word(fields["p"]) if "p" in fields else None,
        base_id=fields.get("b"),
        is_copy_only="c" in flags,
        has_bulk_logged="b" in flags,
        size_bytes=int(fields["n"], 36),
    )
    _check(point)
    return point, bool(fields.keys() - set("tlkazsfrcpbxn"))


def _check(point: Point) -> None:
    if not POINT_ID.fullmatch(point.id):
        raise ValueError(f"{point.id!r} is no point id")
    if point.base_id is not None and not POINT_ID.fullmatch(point.base_id):
        raise ValueError(f"{point.base_id!r} is no point id")
    if point.base_id is not None and point.type is not PointType.DIFFERENTIAL:
        raise ValueError("only a differential has a base")
    if point.first_lineage is not None and point.type is not PointType.LOG:
        raise ValueError("only a log begins on another lineage")
    if point.reachable_from is not None and point.type is PointType.LOG:
        raise ValueError("a log has no first instant of its own")
    if not 0 <= point.first_lsn <= point.last_lsn:
        raise ValueError("its log range is backwards")
    if point.size_bytes < 0:
        raise ValueError("its size is negative")


def name_checksum(body: str) -> str:
    """The CRC-32 with which a name ends, over all before it."""
    # A CRC finds every burst of up to 32 flipped bits, which a cut-off hash only makes unlikely.
    return f"{zlib.crc32(body.encode('utf-8', 'surrogateescape')):08x}"


def lineage_word(lineage: str) -> str:
    """A lineage as names write it. ValueError when it cannot be written."""
    if _NUMBER.fullmatch(lineage) and len(lineage) <= 20:
        return f"n{lineage}"
    if _GUID.fullmatch(lineage):
        return f"g{lineage.replace('-', '')}"
    if _WORD.fullmatch(lineage):
        return f"w{lineage}"
    raise ValueError(f"the lineage {lineage!r} cannot be written in a name")


def lineage_of_word(text: str) -> str:
    """The reverse of ``lineage_word``. ValueError."""
    kind, value = text[0], text[1:]
    if kind == "g" and len(value) == 32:
        return "-".join((value[:8], value[8:12], value[12:16], value[16:20], value[20:]))
    if kind in ("n", "w"):
        return value
    raise ValueError(f"the lineage {text!r} is malformed")


def instant_word(instant: datetime | None) -> str | None:
    """Microseconds since 1970 in base 36; None for None."""
    if instant is None:
        return None
    if instant.tzinfo is None:
        raise ValueError("an instant without a zone cannot be written in a name")
    return base_36((instant - _EPOCH) // _MICROSECOND)


def instant_of_word(text: str) -> datetime:
    """The reverse of ``instant_word``. ValueError, OverflowError."""
    return _EPOCH + timedelta(microseconds=int(text, 36))


def base_36(number: int) -> str:
    """A number from 0 as names write it."""
    if number < 0:
        raise ValueError("a negative number cannot be written in a name")
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = _BASE_36[digit] + digits
    return digits or "0"
