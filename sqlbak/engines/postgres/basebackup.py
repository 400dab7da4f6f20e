"""BASE_BACKUP: the server's own copy of its data directory, routed into streams as it comes."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from psycopg import pq

from sqlbak.engines.port import PayloadSink, StreamSink
from sqlbak.engines.postgres.connection import ReplicationConnection, Watch, rows_of
from sqlbak.engines.postgres.replication import (
    CONTENT,
    ArchiveBegins,
    ManifestBegins,
    MessageDamaged,
    parse_backup_message,
)
from sqlbak.engines.postgres.timelines import parse_lsn
from sqlbak.errors import BackupFailed, UsageError
from sqlbak.progress import Progress

__all__ = [
    "BaseBackupStart",
    "Tablespace",
    "begin_base_backup",
    "receive_base_backup",
    "upload_manifest",
]

_ARCHIVE_NAME = re.compile(r"base\.tar|[1-9][0-9]*\.tar")
_REPORT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Tablespace:
    """One tablespace outside the data directory, and the server's estimate of its size."""

    oid: int
    location: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class BaseBackupStart:
    """What the server says before the first byte. ``lsn``: recovery needs the log from here."""

    lsn: int
    timeline: int
    tablespaces: tuple[Tablespace, ...]
    total_bytes: int


def begin_base_backup(
    connection: ReplicationConnection, label: str, watch: Watch, *, is_incremental: bool = False
) -> BaseBackupStart:
    """Send BASE_BACKUP and wait for its checkpoint. Defaults that would hurt are all overruled:
    a spread checkpoint takes minutes, and no manifest would be made. ``is_incremental``: what
    changed since the manifest that was uploaded in this session (PostgreSQL 17)."""
    if not label.isascii() or not label.isprintable() or len(label) > 200:
        raise UsageError("the label of a backup is at most 200 printable ASCII characters")
    quoted = label.replace("'", "''")
    connection.begin(
        f"BASE_BACKUP (LABEL '{quoted}', PROGRESS true, CHECKPOINT 'fast', WAL false, WAIT false,"
        " TABLESPACE_MAP true, MANIFEST 'yes', MANIFEST_CHECKSUMS 'CRC32C',"
        f" VERIFY_CHECKSUMS true{', INCREMENTAL true' if is_incremental else ''})",
        doing="taking the base backup",
    )
    lsn, timeline = _expect_table(connection, watch)[0][:2]
    sizes = [
        (_text(oid), _text(location), int(_text(kilobytes) or 0) * 1024)
        for oid, location, kilobytes in _expect_table(connection, watch)
    ]
    result = connection.next_result(watch)
    if result is None or result.status != pq.ExecStatus.COPY_OUT:
        raise BackupFailed("the server did not begin to send the base backup")
    return BaseBackupStart(
        lsn=parse_lsn(_text(lsn)),
        timeline=int(_text(timeline)),
        tablespaces=tuple(
            Tablespace(int(oid), location, size_bytes) for oid, location, size_bytes in sizes if oid
        ),
        total_bytes=sum(size_bytes for _, _, size_bytes in sizes),
    )


def upload_manifest(
    connection: ReplicationConnection, manifest: Iterable[bytes], watch: Watch
) -> None:
    """Send the manifest of the backup that the next one shall build on (PostgreSQL 17)."""
    connection.begin("UPLOAD_MANIFEST", doing="uploading the full's manifest")
    result = connection.next_result(watch)
    if result is None or result.status != pq.ExecStatus.COPY_IN:
        raise BackupFailed("the server does not take the full's manifest")
    for piece in manifest:
        watch()
        connection.send_copy(piece)
    connection.end_upload(watch)


def receive_base_backup(
    connection: ReplicationConnection, sink: PayloadSink, progress: Progress, watch: Watch
) -> int:
    """Receive every archive and the manifest; the position up to which recovery needs log.

    Returns only after the server completed the command: a damaged page, for one, is reported
    after the last byte.
    """
    pending = 0
    writer: StreamSink | None = None
    opened: list[str] = []
    try:
        with contextlib.ExitStack() as stream:
            for message in connection.copy_messages(watch):
                if message[0] == CONTENT:
                    if writer is None:
                        raise MessageDamaged("the server sent content before naming its archive")
                    writer.write(message[1:])
                    pending += len(message) - 1
                    if pending >= _REPORT_BYTES:
                        progress.advance(pending)
                        pending = 0
                        watch()  # when data never runs dry, nothing else looks
                    continue
                name = _stream_named_by(message)
                if name is not None:
                    stream.close()
                    writer = stream.enter_context(sink.stream(name))
                    opened.append(name)
            progress.advance(pending)
            # The copy also ends where the server broke off. Its reason is told here, before the
            # last stream is closed, which could only say that its archive is not whole.
            end = _expect_table(connection, watch)
    except MessageDamaged as problem:
        raise BackupFailed(str(problem)) from None
    if opened[-2:] != ["base.tar", "backup_manifest"]:
        raise BackupFailed(f"the server sent {opened} instead of archives and their manifest")
    while connection.next_result(watch) is not None:
        pass
    return parse_lsn(_text(end[0][0]))


def _stream_named_by(message: memoryview) -> str | None:
    """The stream that a message other than content opens, if it opens one."""
    match parse_backup_message(message):
        case ArchiveBegins(name=name):
            if not _ARCHIVE_NAME.fullmatch(name):
                raise MessageDamaged(f"the server sent an archive of an unknown name: {name!r}")
            return name
        case ManifestBegins():
            return "backup_manifest"
        case _:
            return None


def _expect_table(connection: ReplicationConnection, watch: Watch) -> list[list[bytes | None]]:
    result = connection.next_result(watch)
    if result is None or result.status != pq.ExecStatus.TUPLES_OK:
        raise BackupFailed("the server answered BASE_BACKUP with something else")
    return rows_of(result)


def _text(value: bytes | None) -> str:
    return (value or b"").decode(errors="surrogateescape")
