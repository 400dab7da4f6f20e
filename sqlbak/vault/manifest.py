"""The manifest of a recovery point. It is written last, and it is the recovery point.

A JSON document that people can read, with a digest over everything in it. A reader proves the
digest and the exact form before it believes a word; a later version of the format is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlbak.errors import ObjectDamaged, VaultUnusable
from sqlbak.model import EngineName, Item, Point, PointType
from sqlbak.vault.documents import Fields, canonical, decode, encode, instant_text
from sqlbak.vault.names import format_name
from sqlbak.vault.payload_index import PayloadIndex
from sqlbak.vault.wrapped_key import WrappedKey

if TYPE_CHECKING:
    from sqlbak.vault.data_key import DataKey

__all__ = [
    "FORMAT",
    "Manifest",
    "decode_manifest",
    "encode_manifest",
    "item_document",
    "item_from_fields",
    "require_seal",
]

FORMAT = 2
"""The newest format that is read: with objects that the database server wrote itself. Manifests
without them are written in format 1, which older versions read."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything that the vault knows of one recovery point.

    Attributes:
        point: what the planner needs; also carried by the object's name.
        item: what was backed up, under the name that it had then.
        payload: where every frame lies and what its bytes must be.
        sqlbak_version: which version wrote it.
        slot: the scheduled instant that the run belongs to; None: it was asked for by hand.
        label: what the person who asked for it called it.
        facts: what the engine needs for a restore, as JSON values.
        wrapped_key: of the key that the payload is encrypted with; None: it is not.
    """

    point: Point
    item: Item
    payload: PayloadIndex
    sqlbak_version: str
    slot: datetime | None = None
    label: str | None = None
    facts: Mapping[str, Any] | None = None
    wrapped_key: WrappedKey | None = None

    @property
    def name(self) -> str:
        """The name under which it lies in the vault."""
        return format_name(self.point)


def encode_manifest(manifest: Manifest, data_key: DataKey | None = None) -> bytes:
    """The manifest's bytes, digest included. With ``data_key``, the one that ``wrapped_key``
    wraps, they are sealed."""
    if (data_key is None) != (manifest.wrapped_key is None):
        raise ValueError("a manifest is sealed with the key that it holds")
    document: dict[str, Any] = {
        "format": FORMAT if manifest.payload.objects else 1,
        "kind": "recovery point",
        "sqlbak_version": manifest.sqlbak_version,
        "item": item_document(manifest.item),
        "point": _point_document(manifest.point),
        "slot": instant_text(manifest.slot),
        "label": manifest.label,
        "encryption": None if manifest.wrapped_key is None else manifest.wrapped_key.to_document(),
        "payload": manifest.payload.to_document(),
        "facts": dict(manifest.facts or {}),
    }
    if data_key is not None:
        document["encryption"]["seal"] = data_key.seal(canonical(document))
    return encode(document | {"digest": _digest(document)})


def decode_manifest(key: str, data: bytes) -> Manifest:
    """The manifest that the object ``key`` holds. ObjectDamaged naming the key and what is wrong
    when a single bit differs from what was written; VaultUnusable when a newer version wrote it."""
    fields = decode(key, data)
    rest = {name: value for name, value in fields.document.items() if name != "digest"}
    try:
        # The digest does not see white space or how a character is escaped; the exact form does.
        is_exact = encode(fields.document) == data
        digest = _digest(rest)
    except ValueError as error:
        raise ObjectDamaged(f"{key} is not a JSON document: {error}") from error
    if not is_exact or fields.text("digest") != digest:
        raise ObjectDamaged(
            f"{key} is damaged: its digest does not match its content",
        )
    if fields.integer("format", minimum=1) > FORMAT:
        raise VaultUnusable(
            f"{key} is in format {fields.integer('format')}; this version reads up to {FORMAT}",
            hint="upgrade sqlbak",
        )
    wrapped_key = None
    if not fields.is_null("encryption"):
        wrapped_key = WrappedKey.from_fields(fields.section("encryption"))
    return Manifest(
        point=_point(fields.section("point")),
        item=item_from_fields(fields.section("item")),
        payload=PayloadIndex.from_document(fields, "payload"),
        sqlbak_version=fields.text("sqlbak_version"),
        slot=fields.optional_instant("slot"),
        label=fields.optional_text("label"),
        facts=fields.section("facts").document,
        wrapped_key=wrapped_key,
    )


def require_seal(key: str, data: bytes, data_key: DataKey) -> None:
    """ObjectDamaged when the manifest that the object ``key`` holds, and that ``decode_manifest``
    took, is not as it was sealed: its digest anybody can compute, its seal only who has the key."""
    document = decode(key, data).document
    encryption = dict(document["encryption"])
    seal = encryption.pop("seal", "")
    rest = {name: value for name, value in document.items() if name != "digest"}
    content = canonical(rest | {"encryption": encryption})
    if not isinstance(seal, str) or not data_key.is_seal(seal, content):
        raise ObjectDamaged(f"{key} was changed by somebody who has not the vault's key")


def item_document(item: Item) -> dict[str, Any]:
    """An item as it stands in documents."""
    return {
        "id": item.id,
        "engine": item.engine.value,
        "instance": item.instance,
        "database": item.database,
        "identity": item.identity,
    }


def item_from_fields(fields: Fields) -> Item:
    """The reverse of ``item_document``."""
    try:
        engine = EngineName(fields.text("engine"))
    except ValueError as error:
        raise fields.wrong("engine", "an engine that this version knows") from error
    return Item(
        id=fields.text("id"),
        engine=engine,
        instance=fields.text("instance"),
        database=fields.optional_text("database"),
        identity=fields.text("identity"),
    )


def _digest(document: Mapping[str, Any]) -> str:
    return f"sha256:{hashlib.sha256(canonical(document)).hexdigest()}"


def _point_document(point: Point) -> dict[str, Any]:
    return {
        "id": point.id,
        "type": point.type.value,
        "lineage": point.lineage,
        "first_lineage": point.first_lineage,
        "first_lsn": point.first_lsn,
        "last_lsn": point.last_lsn,
        "started_at": instant_text(point.started_at),
        "finished_at": instant_text(point.finished_at),
        "reachable_from": instant_text(point.reachable_from),
        "covers_until": instant_text(point.covers_until),
        "probable_until": instant_text(point.probable_until),
        "base_id": point.base_id,
        "is_copy_only": point.is_copy_only,
        "has_bulk_logged": point.has_bulk_logged,
        "size_bytes": point.size_bytes,
    }


def _point(fields: Fields) -> Point:
    try:
        kind = PointType(fields.text("type"))
    except ValueError as error:
        raise fields.wrong("type", "a type that this version knows") from error
    return Point(
        id=fields.text("id"),
        type=kind,
        lineage=fields.text("lineage"),
        first_lineage=fields.optional_text("first_lineage"),
        first_lsn=fields.integer("first_lsn"),
        last_lsn=fields.integer("last_lsn"),
        started_at=fields.instant("started_at"),
        finished_at=fields.instant("finished_at"),
        reachable_from=fields.optional_instant("reachable_from"),
        covers_until=fields.optional_instant("covers_until"),
        probable_until=fields.optional_instant("probable_until"),
        base_id=fields.optional_text("base_id"),
        is_copy_only=fields.boolean("is_copy_only"),
        has_bulk_logged=fields.boolean("has_bulk_logged"),
        size_bytes=fields.integer("size_bytes"),
    )
