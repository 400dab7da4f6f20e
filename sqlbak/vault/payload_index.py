"""Where each frame of a recovery point's payload lies, and what its bytes must be.

Kept in the manifest. Frame sizes and checksums are held packed, so that the index of a terabyte
takes some five megabytes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import sys
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlbak.vault.documents import Fields, instant_text
from sqlbak.vault.frames import CHECKSUM_BYTES
from sqlbak.vault.layout import STREAM_NAME

__all__ = [
    "PayloadIndex",
    "ServerObject",
    "StreamIndex",
    "Volume",
    "pack_lengths",
    "unpack_lengths",
]

LENGTH_BYTES = 4


@dataclass(frozen=True, slots=True)
class Volume:
    """One object of a stream: how many frames it holds and its size in bytes."""

    frames: int
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class StreamIndex:
    """One stream.

    Attributes:
        name: unique in the point.
        raw_bytes: its size when decoded.
        frame_bytes: raw size of every frame but the last.
        volumes: its objects, in order; none when the stream is empty.
        lengths: stored size of each frame, packed as 4 bytes little-endian.
        checksums: xxh3_128 of each frame's stored bytes, 16 bytes each.
    """

    name: str
    raw_bytes: int
    frame_bytes: int
    volumes: tuple[Volume, ...]
    lengths: bytes
    checksums: bytes

    @property
    def frames(self) -> int:
        """How many frames there are."""
        return len(self.lengths) // LENGTH_BYTES

    @property
    def stored_bytes(self) -> int:
        """Size of all its objects."""
        return sum(volume.stored_bytes for volume in self.volumes)

    @property
    def digest(self) -> str:
        """What the whole stream must be: sha256 over its frames' checksums, in order."""
        return f"sha256:{hashlib.sha256(self.checksums).hexdigest()}"

    def checksum(self, index: int) -> bytes:
        """The checksum of one frame."""
        return self.checksums[index * CHECKSUM_BYTES : (index + 1) * CHECKSUM_BYTES]

    def raw_size(self, index: int) -> int:
        """Raw size of one frame."""
        return min(self.frame_bytes, self.raw_bytes - index * self.frame_bytes)

    def to_document(self) -> dict[str, Any]:
        """As it stands in the manifest."""
        return {
            "name": self.name,
            "raw_bytes": self.raw_bytes,
            "stored_bytes": self.stored_bytes,
            "frame_bytes": self.frame_bytes,
            "frames": self.frames,
            "digest": self.digest,
            "volumes": [
                {"frames": volume.frames, "stored_bytes": volume.stored_bytes}
                for volume in self.volumes
            ],
            "frame_lengths": base64.b64encode(self.lengths).decode("ascii"),
            "frame_checksums": base64.b64encode(self.checksums).decode("ascii"),
        }

    @classmethod
    def from_document(cls, fields: Fields) -> StreamIndex:
        """The reverse. ObjectDamaged when the parts contradict each other."""
        stream = cls(
            name=fields.text("name"),
            raw_bytes=fields.integer("raw_bytes"),
            frame_bytes=fields.integer("frame_bytes", minimum=1),
            volumes=tuple(
                Volume(one.integer("frames", minimum=1), one.integer("stored_bytes", minimum=1))
                for one in fields.sections("volumes")
            ),
            lengths=_packed(fields, "frame_lengths"),
            checksums=_packed(fields, "frame_checksums"),
        )
        if not STREAM_NAME.fullmatch(stream.name):
            raise fields.wrong("name", "the name of a stream")
        if fields.text("digest") != stream.digest:
            raise fields.wrong("digest", "the digest of the frame checksums")
        frames = -(-stream.raw_bytes // stream.frame_bytes)
        if len(stream.lengths) != frames * LENGTH_BYTES:
            raise fields.wrong("frame_lengths", f"one length for each of {frames} frames")
        if len(stream.checksums) != frames * CHECKSUM_BYTES:
            raise fields.wrong("frame_checksums", f"one checksum for each of {frames} frames")
        lengths = unpack_lengths(stream.lengths)
        first = 0
        for volume in stream.volumes:
            if sum(lengths[first : first + volume.frames]) != volume.stored_bytes:
                raise fields.wrong("volumes", "the sum of the frames")
            first += volume.frames
        if first != frames:
            raise fields.wrong("volumes", f"a division of {frames} frames")
        return stream


@dataclass(frozen=True, slots=True)
class ServerObject:
    """An object that the database server itself wrote into the vault, its bytes as they are.

    sqlbak never saw them, so nothing of it proves them but what the store told: the server's own
    checksums do, when it restores.

    Attributes:
        name: of the stream that it is, and the last part of its key; unique in the point.
        stored_bytes: its size.
        etag: the store's tag of what was written; it changes when the object is written again, and
            may change when it is copied.
        modified_at: when it was written, on the store's clock (UTC).
    """

    name: str
    stored_bytes: int
    etag: str
    modified_at: datetime

    def to_document(self) -> dict[str, Any]:
        """As it stands in the manifest."""
        return {
            "name": self.name,
            "written_by": "server",
            "stored_bytes": self.stored_bytes,
            "etag": self.etag,
            "modified_at": instant_text(self.modified_at),
        }

    @classmethod
    def from_document(cls, fields: Fields) -> ServerObject:
        """The reverse. ObjectDamaged when it cannot be what was written."""
        if fields.text("written_by") != "server":
            raise fields.wrong("written_by", "a writer that this version knows")
        found = cls(
            fields.text("name"),
            fields.integer("stored_bytes", minimum=1),
            fields.text("etag"),
            fields.instant("modified_at"),
        )
        if not STREAM_NAME.fullmatch(found.name):
            raise fields.wrong("name", "the name of a stream")
        return found


@dataclass(frozen=True, slots=True)
class PayloadIndex:
    """The streams of one recovery point, in the order in which they were opened, and the objects
    that the server wrote, in the order of its devices."""

    streams: tuple[StreamIndex, ...]
    objects: tuple[ServerObject, ...] = ()

    @property
    def parts(self) -> tuple[StreamIndex | ServerObject, ...]:
        """All of them."""
        return (*self.streams, *self.objects)

    @property
    def stored_bytes(self) -> int:
        """What a restore has to fetch."""
        return sum(part.stored_bytes for part in self.parts)

    @property
    def raw_bytes(self) -> int:
        """What a restore decodes; what the server wrote is read as it is."""
        return sum(stream.raw_bytes for stream in self.streams) + sum(
            one.stored_bytes for one in self.objects
        )

    def stream(self, name: str) -> StreamIndex:
        """The stream of that name; KeyError when the point has none."""
        for stream in self.streams:
            if stream.name == name:
                return stream
        raise KeyError(name)

    def to_document(self) -> list[dict[str, Any]]:
        """As it stands in the manifest."""
        return [part.to_document() for part in self.parts]

    @classmethod
    def from_document(cls, parent: Fields, name: str) -> PayloadIndex:
        """The reverse, read from the field ``name`` of ``parent``."""
        entries = parent.sections(name)
        streams = [one for one in entries if one.is_null("written_by")]
        index = cls(
            tuple(StreamIndex.from_document(one) for one in streams),
            tuple(
                ServerObject.from_document(one) for one in entries if not one.is_null("written_by")
            ),
        )
        if len({part.name for part in index.parts}) != len(entries):
            raise parent.wrong(name, "a list of streams with different names")
        return index


def pack_lengths(lengths: Iterable[int]) -> bytes:
    """Frame lengths as StreamIndex holds them."""
    packed = array("I", lengths)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def unpack_lengths(packed: bytes) -> array[int]:
    """The reverse of ``pack_lengths``."""
    lengths = array("I")
    lengths.frombytes(packed)
    if sys.byteorder == "big":
        lengths.byteswap()
    return lengths


def _packed(fields: Fields, name: str) -> bytes:
    try:
        return base64.b64decode(fields.text(name), validate=True)
    except binascii.Error as error:
        raise fields.wrong(name, "base64") from error
