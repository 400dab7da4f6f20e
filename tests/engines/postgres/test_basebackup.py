"""Receiving a base backup: what the server says counts, whatever it sent before."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sqlbak.engines.postgres.basebackup import receive_base_backup
from sqlbak.engines.postgres.changedpages import ChangedPagesSink
from sqlbak.engines.postgres.pagehash import PageHash
from sqlbak.engines.postgres.pagemap import PageMap
from sqlbak.errors import BackupFailed, ServerUnreachable
from sqlbak.progress import NO_PROGRESS
from tests.engines.postgres.backups import MemorySink
from tests.engines.postgres.restores import MemorySource


class BrokenOff:
    """A session in which the server ends the copy early, and then says why, if it does."""

    def __init__(self, reason: Exception | None) -> None:
        self._reason = reason

    def copy_messages(self, watch: Callable[[], None]) -> Iterator[memoryview]:
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            tar.addfile(tarfile.TarInfo("PG_VERSION"))
        yield memoryview(b"nbase.tar\0\0")
        yield memoryview(b"d" + archive.getvalue()[:512])

    def next_result(self, watch: Callable[[], None]) -> Any:
        if self._reason is not None:
            raise self._reason


@contextmanager
def comparing(sink: MemorySink) -> Iterator[ChangedPagesSink]:
    source = MemorySource({"pages": b"", "pages.index": b""})
    yield ChangedPagesSink(sink, PageHash.new(8192), PageMap.read(source))


def test_a_server_that_breaks_off_is_told_by_its_own_words() -> None:
    sink = MemorySink()
    reason = ServerUnreachable("terminating connection due to administrator command", hint="wait")
    with comparing(sink) as receiver, pytest.raises(ServerUnreachable, match="administrator"):
        receive_base_backup(BrokenOff(reason), receiver, NO_PROGRESS, lambda: None)  # type: ignore[arg-type]
    assert sink.streams == {}


def test_an_archive_that_ends_too_soon_without_a_word_is_no_backup() -> None:
    sink = MemorySink()
    with comparing(sink) as receiver, pytest.raises(BackupFailed):
        receive_base_backup(BrokenOff(None), receiver, NO_PROGRESS, lambda: None)  # type: ignore[arg-type]
    assert sink.streams == {}
