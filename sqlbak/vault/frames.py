"""Raw bytes cut into independent zstd frames, compressed (and encrypted, where the vault is) in
threads, handed out in order.

Every frame but a stream's last holds FRAME_BYTES raw bytes. Each decodes by itself, so a reader
can fetch and decode many at once; set one after another they are an ordinary ``.zst`` file. The
frame header tells the raw size, zstd's own content checksum lets ``zstd -dc`` prove what it
decodes, and we keep the xxh3_128 of the stored bytes in the manifest.

Memory is bounded for a whole recovery point, however many streams write into it: FramePool lets
a fixed number of frames be under way, and writers wait for a place.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import xxhash

from sqlbak.stopping import NEVER, StopSignal

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = [
    "CHECKSUM_BYTES",
    "COMPRESSION_LEVEL",
    "FRAME_BYTES",
    "Frame",
    "FrameCipher",
    "FramePool",
    "FrameUndecodable",
    "FrameWriter",
    "checksum_of",
    "decode_frame",
    "encode_frame",
]

FRAME_BYTES = 4 << 20
"""Raw bytes in a frame. Larger frames compress no better; smaller ones cost more requests."""

COMPRESSION_LEVEL = 1
"""On database pages levels 2 to 5 cost more time and store more bytes than level 1."""

CHECKSUM_BYTES = 16

_STOP_CHECK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame, compressed and where asked for encrypted: its stored bytes, their xxh3_128, and
    its size when decoded."""

    stored: bytes
    checksum: bytes
    raw_bytes: int


class FrameCipher(Protocol):
    """Encrypts and decrypts the frames of one stream by their numbers (vault/data_key.py)."""

    def encrypt(self, number: int, frame: bytes) -> bytes:
        """What is stored of frame ``number``."""
        ...

    def decrypt(self, number: int, stored: bytes) -> bytes:
        """The reverse. ValueError when it is not what was stored of that very frame."""
        ...


class FrameUndecodable(ValueError):
    """Stored bytes are no frame of the size that was asked for."""


def checksum_of(stored: bytes) -> bytes:
    """The checksum of a frame's stored bytes: xxh3_128, 16 bytes, big-endian."""
    return xxhash.xxh3_128_digest(stored)


def decode_frame(stored: bytes, raw_bytes: int) -> bytes:
    """Decode one frame that must hold exactly ``raw_bytes``. FrameUndecodable otherwise; the size
    in its header is looked at first, so that no damaged frame makes us allocate without bound."""
    try:
        announced = zstd.get_frame_info(stored).decompressed_size
        if announced != raw_bytes:
            raise FrameUndecodable(f"it announces {announced} raw bytes instead of {raw_bytes}")
        decoded = zstd.decompress(stored)
    except zstd.ZstdError as error:
        raise FrameUndecodable(str(error)) from error
    if len(decoded) != raw_bytes:
        raise FrameUndecodable(f"it decodes to {len(decoded)} bytes instead of {raw_bytes}")
    return decoded


def encode_frame(raw: bytes) -> bytes:
    """One frame of ``raw``, made at once: for objects that are a single frame."""
    frame: bytes = _new_compressor().compress(raw, mode=zstd.ZstdCompressor.FLUSH_FRAME)
    return frame


def _new_compressor() -> Any:
    options: dict[int, int] = {
        zstd.CompressionParameter.compression_level: COMPRESSION_LEVEL,
        zstd.CompressionParameter.content_size_flag: 1,
        zstd.CompressionParameter.checksum_flag: 1,
    }
    return zstd.ZstdCompressor(options=options)


class FramePool:
    """The threads and the memory that all streams of one recovery point share.

    At most ``workers + 2`` frames are under way (waiting, being compressed, or waiting for the
    store) at a time; each costs at most its raw and its compressed size.
    """

    def __init__(
        self,
        *,
        frame_bytes: int = FRAME_BYTES,
        workers: int | None = None,
        stop: StopSignal = NEVER,
    ) -> None:
        if frame_bytes < 1:
            raise ValueError("a frame holds at least one byte")
        count = workers or min(4, os.cpu_count() or 1)
        self.frame_bytes = frame_bytes
        self._stop = stop
        self._places = threading.Semaphore(count + 2)
        self._free: queue.SimpleQueue[bytearray] = queue.SimpleQueue()
        self._executor = ThreadPoolExecutor(count, thread_name_prefix="sqlbak-compress")
        self._compressors = threading.local()

    def close(self) -> None:
        """End the threads. Every FrameWriter must be closed or aborted before."""
        self._executor.shutdown(wait=True)

    def take_buffer(self) -> bytearray:
        """A buffer for one raw frame, used before if possible."""
        try:
            return self._free.get_nowait()
        except queue.Empty:
            return bytearray(self.frame_bytes)

    def submit(
        self,
        buffer: bytearray,
        size: int,
        encrypt: Callable[[bytes], bytes] | None,
        has_failed: Callable[[], bool],
    ) -> Future[Frame]:
        """Compress the first ``size`` bytes of ``buffer``, which then belongs to the pool, and
        ``encrypt`` what comes out. Waits for a place, until ``has_failed`` or a stop. The caller
        gives the place back with ``release`` when it is done with the frame."""
        while not self._places.acquire(timeout=_STOP_CHECK_SECONDS):
            self._stop.check()
            if has_failed():
                break
        else:
            return self._executor.submit(self._make, buffer, size, encrypt)
        raise _OutputFailed

    def release(self) -> None:
        """Give back the place of one frame."""
        self._places.release()

    def check_stop(self) -> None:
        """Raise Interrupted if the job was asked to stop."""
        self._stop.check()

    def _make(
        self, buffer: bytearray, size: int, encrypt: Callable[[bytes], bytes] | None
    ) -> Frame:
        compressor = self._compressor()
        with memoryview(buffer) as whole, whole[:size] as raw:
            # All input in one call: libzstd then writes the raw size into the frame header.
            stored = compressor.compress(raw, mode=zstd.ZstdCompressor.FLUSH_FRAME)
        self._free.put(buffer)
        if encrypt is not None:
            stored = encrypt(stored)
        return Frame(stored, checksum_of(stored), size)

    def _compressor(self) -> Any:
        # One for each thread, used again: making one clears and allocates its tables.
        try:
            return self._compressors.zstd
        except AttributeError:
            self._compressors.zstd = _new_compressor()
            return self._compressors.zstd


class _OutputFailed(Exception):
    """The output of this stream has failed already; its own error is told instead."""


class FrameWriter:
    """Cuts one stream into frames and hands them, compressed, encrypted by ``cipher`` where there
    is one, and in order, to ``output``.

    ``output`` runs in a thread of this writer's own, so that a slow store delays neither the
    compression nor, until all places are taken, the producer. ``write`` and ``close`` raise what
    ``output`` raised. Used from one thread at a time.
    """

    def __init__(
        self,
        pool: FramePool,
        output: Callable[[Frame], None],
        *,
        name: str,
        cipher: FrameCipher | None = None,
    ) -> None:
        self._pool = pool
        self._cipher = cipher
        self._number = 0
        self._output = output
        self._buffer: bytearray | None = None
        self._filled = 0
        self._failure: BaseException | None = None
        self._is_closed = False
        # Bounded by the pool's places.
        self._futures: queue.SimpleQueue[Future[Frame] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._drain, name=f"sqlbak-store-{name}")
        self._thread.start()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append raw bytes. The caller may reuse ``data`` as soon as this returns."""
        if self._is_closed:
            raise ValueError("this stream is closed")
        self._pool.check_stop()
        self._raise_failure()
        frame_bytes = self._pool.frame_bytes
        with memoryview(data) as given, given.cast("B") as view:
            taken, size = 0, len(view)
            while taken < size:
                if self._buffer is None:
                    self._buffer = self._pool.take_buffer()
                count = min(size - taken, frame_bytes - self._filled)
                self._buffer[self._filled : self._filled + count] = view[taken : taken + count]
                self._filled += count
                taken += count
                if self._filled == frame_bytes:
                    self._submit()

    def close(self) -> None:
        """Hand out what is left, wait for the last frame, and end the thread."""
        if self._is_closed:
            return
        try:
            if self._filled:
                self._submit()
        finally:
            self._end()
        self._raise_failure()

    def abort(self) -> None:
        """Drop what is left and end the thread; frames under way still reach ``output``."""
        if not self._is_closed:
            self._end()

    def _end(self) -> None:
        self._is_closed = True
        self._buffer = None
        self._futures.put(None)
        self._thread.join()

    def _submit(self) -> None:
        buffer, size = self._buffer, self._filled
        if buffer is None:
            return
        self._buffer, self._filled = None, 0
        encrypt = None
        if self._cipher is not None:
            encrypt = partial(self._cipher.encrypt, self._number)
        self._number += 1
        try:
            self._futures.put(
                self._pool.submit(buffer, size, encrypt, lambda: self._failure is not None)
            )
        except _OutputFailed:
            self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _drain(self) -> None:
        while (future := self._futures.get()) is not None:
            try:
                # After a failure the frames under way are waited for and dropped.
                frame = future.result()
                if self._failure is None:
                    self._output(frame)
            except BaseException as error:  # noqa: BLE001 - told by write() and close()
                self._failure = self._failure or error
            finally:
                self._pool.release()
