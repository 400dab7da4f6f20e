"""One streaming write to S3. What fits into one part goes by one PUT; more by multipart upload.

The caller's thread fills parts, three threads send them. In memory are at most 64 MiB: the part
being filled and those being sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

from sqlbak.errors import SqlbakError, StoreFull
from sqlbak.vault.retry import Retry, RetryingStore
from sqlbak.vault.s3_client import S3Bucket
from sqlbak.vault.s3_parts import LARGEST_IN_MEMORY_BYTES, MAX_PARTS, Part, part_size_bytes
from sqlbak.vault.s3_upload import S3Upload, begin_upload
from sqlbak.vault.store import ObjectInfo, ObjectStore

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

__all__ = ["S3Writer"]

_THREADS = 3
_MEMORY_BYTES = 64 << 20


class S3Writer:
    """See ObjectWriter. ``store`` puts what fits into one part; ``retry`` is for each request."""

    def __init__(
        self,
        store: ObjectStore,
        bucket: S3Bucket,
        key: str,
        retry: Retry,
        *,
        part_size: Callable[[int], int] = part_size_bytes,
    ) -> None:
        self._store = store
        self._bucket = bucket
        self._key = key
        self._retry = retry
        self._part_size = part_size
        self._size = 0
        self._part: Part | None = None
        self._upload: S3Upload | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._in_flight: deque[tuple[Part, Future[CompletedPartTypeDef]]] = deque()
        self._sent: list[CompletedPartTypeDef] = []
        self._failure: BaseException | None = None
        self._is_open = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """See ObjectWriter.write. Waits while too much is on its way."""
        self._must_be_usable()
        try:
            with memoryview(data).cast("B") as rest:
                self._take(rest)
        except BaseException as error:
            # A part is missing now, so nothing may be completed any more.
            self._failure = error
            raise

    def commit(self) -> ObjectInfo:
        """See ObjectWriter.commit."""
        self._must_be_usable()
        try:
            info = self._commit_parts(self._upload) if self._upload else self._commit_small()
        except BaseException as error:
            self._abort_after(error)
            raise
        self._upload = None
        self.abort()
        return info

    def abort(self) -> None:
        """See ObjectWriter.abort."""
        if not self._is_open:
            return
        self._is_open = False
        for _, future in self._in_flight:
            future.cancel()
        if self._threads is not None:
            self._threads.shutdown(wait=True)
        for part, _ in self._in_flight:
            part.close()
        self._in_flight.clear()
        if self._part is not None:
            self._part.close()
            self._part = None
        if self._upload is not None:
            self._upload.abort()
            self._upload = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, value: object, traceback: object) -> None:
        if isinstance(value, BaseException):
            self._abort_after(value)
        else:
            self.abort()

    def _abort_after(self, first: BaseException) -> None:
        """What went wrong first is what matters; the sweep removes what cannot be aborted."""
        try:
            self.abort()
        except SqlbakError as error:
            first.add_note(f"besides, the unfinished upload could not be aborted: {error}")

    def _commit_small(self) -> ObjectInfo:
        body = b"" if self._part is None else self._part.content()
        return RetryingStore(self._store, self._retry).put(self._key, body)

    def _commit_parts(self, upload: S3Upload) -> ObjectInfo:
        if self._part is not None:
            self._send(self._part, upload)
        while self._in_flight:
            self._reap_oldest()
        return upload.complete(self._sent, self._size)

    def _must_be_usable(self) -> None:
        if not self._is_open:
            raise ValueError("this writer is finished")
        if self._failure is not None:
            raise self._failure

    def _take(self, data: memoryview) -> None:
        done = 0
        while done < len(data):
            if self._part is None:
                self._part = self._next_part()
            try:
                taken = self._part.take(data[done:])
            except OSError as error:
                raise _no_room_for_part(error) from error
            done += taken
            self._size += taken
            if self._part.is_full:
                if self._upload is None:
                    self._upload = begin_upload(self._bucket, self._key, self._retry)
                self._send(self._part, self._upload)

    def _next_part(self) -> Part:
        number = len(self._sent) + len(self._in_flight) + 1
        if number > MAX_PARTS:
            raise StoreFull(f"{self._key} is larger than S3 allows an object to be")
        capacity = self._part_size(number)
        while self._in_flight and (
            self._in_flight[0][1].done()
            or sum(part.memory_bytes for part, _ in self._in_flight)
            + min(capacity, LARGEST_IN_MEMORY_BYTES)
            > _MEMORY_BYTES
        ):
            self._reap_oldest()
        try:
            return Part(number, capacity)
        except OSError as error:
            raise _no_room_for_part(error) from error

    def _send(self, part: Part, upload: S3Upload) -> None:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="sqlbak-s3-part")
        self._in_flight.append((part, self._threads.submit(upload.send, part)))
        self._part = None

    def _reap_oldest(self) -> None:
        part, future = self._in_flight[0]
        self._sent.append(future.result())
        self._in_flight.popleft()
        part.close()


def _no_room_for_part(error: OSError) -> StoreFull:
    return StoreFull(
        f"a large part cannot wait in the directory for temporary files: {error.strerror}",
        hint="point TMPDIR to a disk with 8 GiB free",
    )
