"""Writing the payload of one recovery point: streams, each cut into frames, kept as volumes.

A volume is an object of whole frames, at most VOLUME_BYTES stored; a frame never crosses into the
next. By hand: ``cat base.tar.*.zst | zstd -dc | tar -x``. An empty stream has no volumes.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sqlbak.errors import VaultError
from sqlbak.progress import NO_PROGRESS, Progress
from sqlbak.stopping import NEVER, StopSignal
from sqlbak.vault.frames import FRAME_BYTES, Frame, FramePool, FrameWriter
from sqlbak.vault.layout import STREAM_NAME, data_prefix, object_key, volume_key
from sqlbak.vault.payload_index import (
    PayloadIndex,
    ServerObject,
    StreamIndex,
    Volume,
    pack_lengths,
)
from sqlbak.vault.store import ObjectStore, ObjectWriter

if TYPE_CHECKING:
    from sqlbak.vault.data_key import DataKey

__all__ = ["VOLUME_BYTES", "PayloadWriter", "abort_payload", "delete_payload"]

VOLUME_BYTES = 1 << 30
"""Stored bytes in a volume, at most: small enough for every store, and to be fetched again."""


def delete_payload(store: ObjectStore, item_id: str, point_id: str) -> int:
    """Delete every object of the point's payload; returns how many there were."""
    keys = [info.key for info in store.list(data_prefix(item_id, point_id))]
    store.delete(keys)
    return len(keys)


def abort_payload(store: ObjectStore, item_id: str, point_id: str) -> int:
    """The same, and end every upload that is under way for that point, whoever began it: a
    database server's, too."""
    # No upload of a point that is given up may go on, whatever the store's clock says.
    later = datetime.now(UTC) + timedelta(days=1)
    store.sweep_unfinished(data_prefix(item_id, point_id), older_than=later)
    return delete_payload(store, item_id, point_id)


class PayloadWriter:
    """Implements engines.port.PayloadSink and PlacedSink. Ends with ``seal`` or ``abort``,
    whichever is called first; both wait for every thread of its own.

    ``progress`` is told the stored bytes as they reach the store's writer. ``witness``: the key of
    an object of this job alone, there already. ``data_key``: what every frame is encrypted with;
    it belongs to this writer alone.
    """

    def __init__(
        self,
        store: ObjectStore,
        item_id: str,
        point_id: str,
        *,
        volume_bytes: int = VOLUME_BYTES,
        frame_bytes: int = FRAME_BYTES,
        progress: Progress = NO_PROGRESS,
        stop: StopSignal = NEVER,
        witness: str = "",
        data_key: DataKey | None = None,
    ) -> None:
        self.witness = witness
        self._data_key = data_key
        self.is_kept = False
        self._store = store
        self._item_id = item_id
        self._point_id = point_id
        self._volume_bytes = volume_bytes
        self._progress = progress
        self._pool = FramePool(frame_bytes=frame_bytes, stop=stop)
        self._lock = threading.Lock()
        self._order: list[str] = []
        self._sealed: dict[str, StreamIndex] = {}
        self._open: dict[str, _OpenStream] = {}
        self._placed: set[str] = set()
        self._written: dict[str, ServerObject] = {}
        self._failed: str | None = None
        self._is_ended = False

    @contextmanager
    def stream(self, name: str) -> Iterator[FrameWriter]:
        """Open a new stream. Leaving the block by an exception discards the stream; the point can
        then no longer be sealed."""
        if not STREAM_NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot be the name of a stream")
        with self._lock:
            if self._is_ended:
                raise ValueError("the payload is sealed or aborted")
            if name in self._order:
                raise ValueError(f"there is a stream {name} already")
            self._order.append(name)
            opened = self._open[name] = self._opened(name)
        try:
            yield opened.frames
            opened.frames.close()
            index = opened.volumes.seal(self._pool.frame_bytes)
        except BaseException:
            with self._lock:
                self._failed = self._failed or name
            opened.abort()
            raise
        finally:
            with self._lock:
                self._open.pop(name, None)
        with self._lock:
            self._sealed[name] = index

    def _opened(self, name: str) -> _OpenStream:
        key = self._data_key
        volumes = _Volumes(
            self._store,
            lambda number: volume_key(
                self._item_id, self._point_id, name, number, is_encrypted=key is not None
            ),
            name,
            self._volume_bytes,
            self._progress,
        )
        cipher = None if key is None else key.stream_cipher(self._point_id, name)
        return _OpenStream(
            FrameWriter(self._pool, volumes.append, name=name, cipher=cipher), volumes
        )

    def place(self, name: str) -> str:
        """See PlacedSink.place."""
        if not STREAM_NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot be the name of an object")
        with self._lock:
            if self._is_ended:
                raise ValueError("the payload is sealed or aborted")
            if name in self._order or name in self._placed:
                raise ValueError(f"there is a stream {name} already")
            self._placed.add(name)
        return object_key(self._item_id, self._point_id, name)

    def note(self, name: str) -> int:
        """See PlacedSink.note."""
        found = self._store.head(object_key(self._item_id, self._point_id, name))
        with self._lock:
            if self._is_ended or name not in self._placed:
                raise ValueError(f"no place was given for {name}")
            self._written[name] = ServerObject(name, found.size, found.etag, found.modified_at)
        return found.size

    def take_over(self, point_id: str, name: str) -> str:
        """See PlacedSink.take_over."""
        key = self.place(name)
        self._store.copy(object_key(self._item_id, point_id, name), key)
        return key

    def keep(self, is_kept: bool) -> None:
        """See PlacedSink.keep."""
        self.is_kept = is_kept

    def discard(self) -> None:
        """See PlacedSink.discard."""
        abort_payload(self._store, self._item_id, self._point_id)
        with self._lock:
            self._placed.clear()
            self._written.clear()
        self.is_kept = False

    def seal(self) -> PayloadIndex:
        """The index of all streams; every volume is durable. ValueError when a stream is still
        open or was discarded, or the server's object was not noted: such a point must not be
        committed."""
        with self._lock:
            if self._is_ended:
                raise ValueError("the payload is sealed or aborted")
            if self._open:
                raise ValueError(f"the stream {next(iter(self._open))} is still open")
            if self._failed is not None:
                raise ValueError(f"the stream {self._failed} was discarded")
            if missing := self._placed - set(self._written):
                raise ValueError(f"the object {min(missing)} was not noted")
            self._is_ended = True
        self._pool.close()
        return PayloadIndex(
            tuple(self._sealed[name] for name in self._order), tuple(self._written.values())
        )

    def close(self) -> None:
        """End all threads and open uploads, and leave what is in the vault to the sweep."""
        with self._lock:
            was_ended, self._is_ended = self._is_ended, True
            opened = list(self._open.values())
        if not was_ended:
            for stream in opened:
                stream.abort()
            self._pool.close()

    def abort(self) -> None:
        """Remove everything that was written, sealed or not. Not for a point that was committed."""
        self.close()
        # By listing: a commit whose answer was lost may have made an object all the same.
        if self._placed:
            abort_payload(self._store, self._item_id, self._point_id)
        else:
            delete_payload(self._store, self._item_id, self._point_id)


class _OpenStream:
    """A stream while it is written."""

    def __init__(self, frames: FrameWriter, volumes: _Volumes) -> None:
        self.frames = frames
        self.volumes = volumes

    def abort(self) -> None:
        self.frames.abort()
        self.volumes.abort()


class _Volumes:
    """Puts the frames of one stream into objects and notes where they are."""

    def __init__(
        self,
        store: ObjectStore,
        key_of: Callable[[int], str],
        name: str,
        volume_bytes: int,
        progress: Progress,
    ) -> None:
        self._store = store
        self._key_of = key_of
        self._name = name
        self._volume_bytes = volume_bytes
        self._progress = progress
        self._writer: ObjectWriter | None = None
        self._frames = 0
        self._stored = 0
        self._volumes: list[Volume] = []
        self._lengths = array("I")
        self._checksums = bytearray()
        self._raw_bytes = 0

    def append(self, frame: Frame) -> None:
        """Store one frame."""
        size = len(frame.stored)
        if self._writer is not None and self._stored + size > self._volume_bytes:
            self._finish(self._writer)
        if self._writer is None:
            self._writer = self._store.writer(self._key_of(len(self._volumes)))
        self._writer.write(frame.stored)
        self._frames += 1
        self._stored += size
        self._lengths.append(size)
        self._checksums += frame.checksum
        self._raw_bytes += frame.raw_bytes
        self._progress.advance(size)

    def seal(self, frame_bytes: int) -> StreamIndex:
        """Make the last volume durable and return where everything is."""
        if self._writer is not None:
            self._finish(self._writer)
        return StreamIndex(
            name=self._name,
            raw_bytes=self._raw_bytes,
            frame_bytes=frame_bytes,
            volumes=tuple(self._volumes),
            lengths=pack_lengths(self._lengths),
            checksums=bytes(self._checksums),
        )

    def abort(self) -> None:
        """Forget the volume that is open."""
        if self._writer is not None:
            self._writer.abort()
            self._writer = None

    def _finish(self, writer: ObjectWriter) -> None:
        info = writer.commit()
        if info.size != self._stored:
            raise VaultError(
                f"{info.key} holds {info.size} bytes after {self._stored} were written"
            )
        self._volumes.append(Volume(self._frames, self._stored))
        self._writer, self._frames, self._stored = None, 0, 0
