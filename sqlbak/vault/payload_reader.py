"""Reading payload back: one frame at a time, from any thread, every byte proven first."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING

from sqlbak.engines.port import PayloadSource
from sqlbak.errors import ObjectDamaged, ObjectNotFound
from sqlbak.progress import NO_PROGRESS, Progress
from sqlbak.stopping import NEVER, StopSignal
from sqlbak.vault.frames import FrameCipher, checksum_of, decode_frame
from sqlbak.vault.layout import data_prefix, object_key, volume_key
from sqlbak.vault.payload_index import (
    PayloadIndex,
    ServerObject,
    StreamIndex,
    unpack_lengths,
)
from sqlbak.vault.store import ObjectStore

if TYPE_CHECKING:
    from sqlbak.vault.data_key import DataKey

__all__ = ["PayloadReader", "Verification", "verify"]

_DAMAGES_TOLD = 100

_PIECE_BYTES = 4 << 20
"""What is read at once of an object that the server wrote; it has no frames of its own."""


class PayloadReader:
    """Implements engines.port.PayloadSource for the point's objects in ``store``.

    Objects that the database server wrote are streams, too. Of them only the size is proven when
    they are read; their bytes carry the server's own checksums, which it proves when it restores.
    ``data_key``: what the frames were encrypted with.
    """

    def __init__(
        self,
        store: ObjectStore,
        item_id: str,
        point_id: str,
        index: PayloadIndex,
        data_key: DataKey | None = None,
    ) -> None:
        self.index = index
        self._store = store
        self._item_id = item_id
        self._point_id = point_id
        self._places = {stream.name: _Places(stream) for stream in index.streams}
        self._objects = {one.name: one for one in index.objects}
        self._ciphers: dict[str, FrameCipher] = {}
        if data_key is not None:
            self._ciphers = {name: data_key.stream_cipher(point_id, name) for name in self._places}

    def streams(self) -> Sequence[str]:
        """Names of the streams, in the order in which they were opened."""
        return [part.name for part in self.index.parts]

    def size(self, stream: str) -> int:
        """Raw size of one stream in bytes. KeyError when the point has no such stream."""
        if stream in self._objects:
            return self._objects[stream].stored_bytes
        return self._places[stream].index.raw_bytes

    def frame_starts(self, stream: str) -> Sequence[int]:
        """Raw offset at which each frame begins."""
        if stream in self._objects:
            return range(0, self._objects[stream].stored_bytes, _PIECE_BYTES)
        index = self._places[stream].index
        return range(0, index.frames * index.frame_bytes, index.frame_bytes)

    def read_frame(self, stream: str, index: int) -> bytes:
        """Fetch exactly one frame, prove its checksum, then decode it. ObjectDamaged when it is
        not what was written, ObjectNotFound when its volume is gone."""
        if stream in self._objects:
            return self._piece(self._objects[stream], index)
        places = self._places[stream]
        if not 0 <= index < places.index.frames:
            raise IndexError(f"the stream {stream} has no frame {index}")
        volume, start, length = places.place(index)
        key = self._volume_key(stream, volume)
        try:
            stored = self._store.read(key, start, length)
        except ObjectNotFound as error:
            raise ObjectNotFound(key, hint=ObjectDamaged("").hint) from error
        if len(stored) != length:
            raise ObjectDamaged(
                f"{key} ends within frame {index}: {len(stored)} of {length} bytes are left"
            )
        expected, found = places.index.checksum(index), checksum_of(stored)
        if found != expected:
            raise ObjectDamaged(
                f"frame {index} of {key} (bytes {start} to {start + length}) is damaged: its "
                f"checksum is {found.hex()} instead of {expected.hex()}"
            )
        try:
            if stream in self._ciphers:
                stored = self._ciphers[stream].decrypt(index, stored)
            return decode_frame(stored, places.index.raw_size(index))
        except ValueError as error:
            raise ObjectDamaged(f"frame {index} of {key} does not decode: {error}") from error

    def _volume_key(self, stream: str, number: int) -> str:
        is_encrypted = stream in self._ciphers
        return volume_key(self._item_id, self._point_id, stream, number, is_encrypted=is_encrypted)

    def _piece(self, written: ServerObject, index: int) -> bytes:
        """Part of an object that the server wrote."""
        start = index * _PIECE_BYTES
        if not 0 <= start < written.stored_bytes:
            raise IndexError(f"the stream {written.name} has no frame {index}")
        key = object_key(self._item_id, self._point_id, written.name)
        length = min(_PIECE_BYTES, written.stored_bytes - start)
        try:
            # At its end one byte more than there may be: another object is not taken for this one.
            is_last = start + length == written.stored_bytes
            piece = self._store.read(key, start, length + is_last)
        except ObjectNotFound as error:
            raise ObjectNotFound(key, hint=ObjectDamaged("").hint) from error
        if len(piece) != length:
            raise ObjectDamaged(f"{key} has not the {written.stored_bytes} bytes that were written")
        return piece

    def objects(self) -> Iterator[tuple[str, int]]:
        """Key and size in bytes of every object that the payload consists of."""
        for written in self.index.objects:
            key = object_key(self._item_id, self._point_id, written.name)
            yield key, written.stored_bytes
        for stream in self.index.streams:
            for number, volume in enumerate(stream.volumes):
                yield self._volume_key(stream.name, number), volume.stored_bytes

    def check_objects(self) -> list[str]:
        """Compare a listing with the index, without reading: one sentence for each object that is
        missing or has another size. Finds no flipped bits; ``verify`` does."""
        found = {
            info.key: info.size
            for info in self._store.list(data_prefix(self._item_id, self._point_id))
        }
        problems = []
        for key, size in self.objects():
            if key not in found:
                problems.append(f"{key} is missing")
            elif found[key] != size:
                problems.append(f"{key} has {found[key]} bytes instead of {size}")
        return problems


class _Places:
    """Where the frames of one stream lie; computed when first asked for."""

    def __init__(self, index: StreamIndex) -> None:
        self.index = index

    def place(self, frame: int) -> tuple[int, int, int]:
        """Number of the volume, offset in it, and length in bytes."""
        volume = bisect_right(self._first_frames, frame) - 1
        starts = self._starts
        start = starts[frame] - starts[self._first_frames[volume]]
        return volume, start, starts[frame + 1] - starts[frame]

    @cached_property
    def _starts(self) -> list[int]:
        # Counted over all volumes; two threads may compute it at once, to the same end.
        return list(accumulate(unpack_lengths(self.index.lengths), initial=0))

    @cached_property
    def _first_frames(self) -> list[int]:
        return list(accumulate((one.frames for one in self.index.volumes[:-1]), initial=0))


@dataclass(frozen=True, slots=True)
class Verification:
    """What reading everything showed. ``damages``: one sentence for each frame that is not what
    was written, the first hundred of ``damaged_frames``; empty when the payload is whole.
    ``unproven_bytes``: how many of ``raw_bytes`` are in objects that the database server wrote:
    they are all there, but only a server tells whether they are what it wrote (RESTORE
    VERIFYONLY)."""

    frames: int
    raw_bytes: int
    damaged_frames: int
    damages: tuple[str, ...]
    unproven_bytes: int = 0


def verify(
    source: PayloadSource, *, progress: Progress = NO_PROGRESS, stop: StopSignal = NEVER
) -> Verification:
    """Read, prove and decode every frame, several at a time; what a database server wrote is read
    to its end, which proves its size. Damage is collected; a store that
    cannot be asked (StoreUnreachable, AccessDenied) is raised: it proves nothing."""
    frames = raw_bytes = damaged = 0
    damages: list[str] = []
    pending: deque[Future[int]] = deque()

    def take_oldest() -> None:
        nonlocal raw_bytes, damaged
        try:
            size = pending.popleft().result()
        except (ObjectDamaged, ObjectNotFound) as error:
            damaged += 1
            if len(damages) < _DAMAGES_TOLD:
                damages.append(error.message)
        else:
            raw_bytes += size
            progress.advance(size)

    workers = min(4, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers, thread_name_prefix="sqlbak-verify") as executor:
        try:
            for stream in source.streams():
                for index in range(len(source.frame_starts(stream))):
                    stop.check()
                    pending.append(executor.submit(_frame_size, source, stream, index))
                    frames += 1
                    if len(pending) > workers + 2:
                        take_oldest()
            while pending:
                take_oldest()
        finally:
            executor.shutdown(wait=True, cancel_futures=True)
    unproven = source.index.objects if isinstance(source, PayloadReader) else ()
    unproven_bytes = sum(one.stored_bytes for one in unproven)
    return Verification(frames, raw_bytes, damaged, tuple(damages), unproven_bytes)


def _frame_size(source: PayloadSource, stream: str, index: int) -> int:
    return len(source.read_frame(stream, index))
