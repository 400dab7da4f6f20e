"""Log that was shipped ahead of the next log backup: small objects, each written once.

An object is a zstd *skippable* frame with a JSON header, then one ordinary frame of raw log (none
where the piece holds no log). So ``cat`` of a row of pieces through ``zstd -dc`` gives the log.
In an encrypted vault that frame, present or not, is encrypted and bound to the header.
Its name (vault/tail_names.py) carries the checksum of the whole object.

No piece is a recovery point. When a log backup has sealed its range it is deleted; a restore that
planned with it meanwhile then reads the same bytes from that log backup.
"""

from __future__ import annotations

import secrets
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import xxhash

from sqlbak.engines.port import ShippedPiece
from sqlbak.errors import ObjectDamaged, ObjectNotFound
from sqlbak.model import ShippedLog
from sqlbak.vault.documents import Fields, canonical, decode, instant_text, put_once
from sqlbak.vault.frames import FrameUndecodable, checksum_of, decode_frame, encode_frame
from sqlbak.vault.layout import tail_key, tail_prefix
from sqlbak.vault.names import lineage_word
from sqlbak.vault.store import ObjectStore
from sqlbak.vault.tail_names import format_tail_name, parse_tail_name
from sqlbak.vault.vault_keys import NewKey, VaultKeys
from sqlbak.vault.wrapped_key import NONCE_BYTES, WrappedKey, about_shipped_log

__all__ = [
    "STREAM",
    "TAIL_FORMAT",
    "Tail",
    "TailPiece",
    "TailSource",
    "delete_pieces",
    "list_tail",
    "put_piece",
    "read_piece",
]

TAIL_FORMAT = 1

STREAM = "wal"

_SKIPPABLE = struct.Struct("<II")
_SKIPPABLE_MAGIC = 0x184D2A50


@dataclass(frozen=True, slots=True)
class Tail:
    """What a listing shows: all pieces by lineage and position, and the keys of objects that are
    none."""

    pieces: tuple[ShippedLog, ...]
    unknown: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TailPiece:
    """The content of one piece: ``facts`` as a log backup's manifest would have them, ``known_by``
    as in engines.port.ShippedPiece, and the raw log."""

    facts: Mapping[str, Any]
    known_by: Mapping[str, Any]
    data: bytes


def list_tail(store: ObjectStore, item_id: str) -> Tail:
    """All shipped log of the item, from a listing. A name that cannot be read hides nothing else:
    it is told in ``unknown``."""
    prefix = tail_prefix(item_id)
    pieces: list[ShippedLog] = []
    unknown: list[str] = []
    for info in store.list(prefix):
        folder, _, name = info.key.removeprefix(prefix).partition("/")
        try:
            pieces.append(parse_tail_name(folder, name))
        except (ValueError, IndexError):
            unknown.append(info.key)
    pieces.sort(key=lambda piece: (piece.lineage, piece.first_lsn, piece.last_lsn, piece.name))
    return Tail(tuple(pieces), tuple(unknown))


def put_piece(
    store: ObjectStore,
    item_id: str,
    piece: ShippedPiece,
    *,
    lineage: str,
    run: str,
    anchor_id: str,
    facts: Mapping[str, Any],
    key: NewKey | None = None,
) -> ShippedLog:
    """Write one piece, encrypted with ``key`` where there is one; what its name says."""
    if len(piece.data) != piece.last_lsn - piece.first_lsn:
        raise ValueError("a piece holds exactly its range")
    nonce = secrets.token_bytes(NONCE_BYTES)
    header = canonical(
        {
            "kind": "shipped log",
            "format": TAIL_FORMAT,
            "encryption": None
            if key is None
            else key.wrapped.to_document() | {"nonce": nonce.hex()},
            "item": item_id,
            "lineage": lineage,
            "run": run,
            "anchor": anchor_id,
            "first_lsn": piece.first_lsn,
            "last_lsn": piece.last_lsn,
            "covers_until": instant_text(piece.covers_until),
            "finished_at": instant_text(piece.finished_at),
            "facts": facts,
            "known_by": piece.known_by,
        }
    )
    body = encode_frame(piece.data) if piece.data else b""
    if key is not None:
        body = key.data_key.encrypt_piece(body, nonce, header)
    data = _SKIPPABLE.pack(_SKIPPABLE_MAGIC, len(header)) + header + body
    shipped = ShippedLog(
        name="",
        lineage=lineage,
        first_lsn=piece.first_lsn,
        last_lsn=piece.last_lsn,
        covers_until=piece.covers_until,
        finished_at=piece.finished_at,
        run=run,
        anchor_id=anchor_id,
        facts_id=_facts_id(facts),
        raw_checksum=_digest_of_log(piece.data, key),
        object_checksum=xxhash.xxh3_64_hexdigest(data),
        size_bytes=len(data),
    )
    shipped = replace(shipped, name=format_tail_name(shipped))
    put_once(store, _key(item_id, shipped), data)
    return shipped


def read_piece(store: ObjectStore, item_id: str, piece: ShippedLog, keys: VaultKeys) -> TailPiece:
    """Fetch one piece, prove it, decode it. ObjectDamaged when it is not what was written,
    ObjectNotFound when it is gone, VaultKeyMissing, NotEncrypted."""
    key = _key(item_id, piece)
    data = store.get(key)
    found = xxhash.xxh3_64_hexdigest(data)
    if found != piece.object_checksum or len(data) != piece.size_bytes:
        raise ObjectDamaged(
            f"{key} is damaged: its checksum is {found} instead of {piece.object_checksum}"
        )
    header, raw_header, body = _opened(key, data)
    if header.integer("format", minimum=1) > TAIL_FORMAT:
        raise ObjectDamaged(f"{key} is of a newer version of sqlbak", hint="upgrade sqlbak")
    if header.text("item") != item_id:
        raise header.wrong("item", "the item in whose folder it lies")
    is_encrypted = not header.is_null("encryption")
    if is_encrypted:
        body = _decrypted(item_id, header, raw_header, body, keys)
    else:
        keys.check_plain(key)
    _require_name(piece, header, is_complete=is_encrypted)
    try:
        raw = decode_frame(body, piece.last_lsn - piece.first_lsn) if body else b""
    except FrameUndecodable as error:
        raise ObjectDamaged(f"{key} does not decode: {error}") from error
    if not _is_log_of(piece, raw, keys):
        raise ObjectDamaged(f"{key} does not hold the log that its name tells")
    return TailPiece(header.section("facts").document, header.section("known_by").document, raw)


def delete_pieces(store: ObjectStore, item_id: str, pieces: Sequence[ShippedLog]) -> None:
    """Delete pieces that a committed log backup has sealed. Whichever of them a crash leaves, that
    log backup leads on over all of them."""
    store.delete([_key(item_id, piece) for piece in pieces])


def _key(item_id: str, piece: ShippedLog) -> str:
    return tail_key(item_id, lineage_word(piece.lineage), piece.name)


def _opened(key: str, data: bytes) -> tuple[Fields, bytes, bytes]:
    """The header, its bytes, and what follows it."""
    if len(data) < _SKIPPABLE.size:
        raise ObjectDamaged(f"{key} has no header")
    magic, length = _SKIPPABLE.unpack_from(data)
    end = _SKIPPABLE.size + length
    if magic != _SKIPPABLE_MAGIC or end > len(data):
        raise ObjectDamaged(f"{key} has no header")
    header = data[_SKIPPABLE.size : end]
    return decode(key, header), header, data[end:]


def _decrypted(
    item_id: str, header: Fields, raw_header: bytes, body: bytes, keys: VaultKeys
) -> bytes:
    section = header.section("encryption")
    wrapped = WrappedKey.from_fields(section)
    data_key = keys.open(wrapped, about_shipped_log(item_id), where=header.key)
    try:
        return data_key.decrypt_piece(body, bytes.fromhex(section.text("nonce")), raw_header)
    except ValueError as error:
        raise ObjectDamaged(f"{header.key} does not decode: {error}") from None


def _require_name(piece: ShippedLog, header: Fields, *, is_complete: bool) -> None:
    """ObjectDamaged when the header does not say what the name says. Plans are made from names,
    and of an encrypted piece only the header is proven: its range, until when nothing else
    happened, and what it continues."""
    found = {
        "lineage": header.text("lineage"),
        "first_lsn": header.integer("first_lsn"),
        "last_lsn": header.integer("last_lsn"),
        "covers_until": header.optional_instant("covers_until"),
        "finished_at": header.instant("finished_at"),
        "facts_id": _facts_id(header.section("facts").document),
    }
    if is_complete or not header.is_null("run"):  # older versions did not write it
        found |= {"run": header.text("run"), "anchor_id": header.text("anchor")}
    for field, value in found.items():
        if getattr(piece, field) != value:
            raise ObjectDamaged(
                f"{header.key} was written under another name: its header says {field} {value}"
            )


def _facts_id(facts: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(canonical(facts)):08x}"


def _digest_of_log(raw: bytes, key: NewKey | None) -> str:
    return checksum_of(raw).hex() if key is None else key.vault_key.digest_of_log(raw)


def _is_log_of(piece: ShippedLog, raw: bytes, keys: VaultKeys) -> bool:
    # A piece that is gone does not tell any more with which key it was written, if with any.
    digest = piece.raw_checksum
    return digest == checksum_of(raw).hex() or keys.is_digest_of_log(digest, raw)


class TailSource:
    """Implements engines.port.PayloadSource for a row of pieces that join, of one lineage and one
    set of facts: one stream, a frame for each piece. What of a piece lies before ``first_lsn`` or
    before the end of the piece before it is left out.

    ``sealed(lineage, first, last)`` gives log from recovery points, for a piece that was deleted
    meanwhile because a log backup has sealed it; its bytes are proven as the piece's own.
    """

    def __init__(
        self,
        store: ObjectStore,
        item_id: str,
        pieces: Sequence[ShippedLog],
        keys: VaultKeys,
        *,
        first_lsn: int,
        sealed: Callable[[str, int, int], bytes],
    ) -> None:
        self._store = store
        self._keys = keys
        self._item_id = item_id
        self._sealed = sealed
        self._first_lsn = first_lsn
        self._frames: list[tuple[ShippedLog, int]] = []
        self._starts: list[int] = []
        position = first_lsn
        for piece in pieces:
            if piece.first_lsn > position:
                raise ValueError("the pieces do not join")
            if piece.last_lsn > position:
                self._frames.append((piece, position - piece.first_lsn))
                self._starts.append(position - first_lsn)
                position = piece.last_lsn
        self._last_lsn = position

    @property
    def last_lsn(self) -> int:
        """Where the row ends."""
        return self._last_lsn

    def streams(self) -> Sequence[str]:
        """The one stream."""
        return [STREAM]

    def size(self, stream: str) -> int:
        """Raw size in bytes. KeyError for another stream."""
        self._require(stream)
        return self._last_lsn - self._first_lsn

    def frame_starts(self, stream: str) -> Sequence[int]:
        """Raw offset at which each piece begins."""
        self._require(stream)
        return self._starts

    def read_frame(self, stream: str, index: int) -> bytes:
        """One piece, proven. ObjectDamaged when it is not what was written, ObjectNotFound when it
        is gone and no recovery point holds its log."""
        self._require(stream)
        piece, skipped = self._frames[index]
        try:
            raw = read_piece(self._store, self._item_id, piece, self._keys).data
        except ObjectNotFound:
            raw = self._sealed(piece.lineage, piece.first_lsn, piece.last_lsn)
            if not _is_log_of(piece, raw, self._keys):
                raise ObjectDamaged(
                    f"the log {piece.first_lsn}..{piece.last_lsn} was shipped and sealed meanwhile,"
                    " and the recovery point does not hold the same bytes",
                    hint="plan again",
                ) from None
        return raw[skipped:]

    def _require(self, stream: str) -> None:
        if stream != STREAM:
            raise KeyError(stream)
