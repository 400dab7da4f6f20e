"""What must be right before SQL Server writes a backup to a URL: its version, its credential, that
the URL is the vault's, and that the backup fits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from sqlbak.engines.port import PayloadSink, PlacedSink, Problem, Severity
from sqlbak.engines.sqlserver.connection import Session, StatementFailed
from sqlbak.engines.sqlserver.databases import PAGE_BYTES, Database
from sqlbak.engines.sqlserver.failures import server_text
from sqlbak.engines.sqlserver.rows import number, text
from sqlbak.engines.sqlserver.server import Server
from sqlbak.engines.sqlserver.statements import identifier, label_statement
from sqlbak.engines.sqlserver.url_delivery import (
    UrlFiles,
    UrlPlace,
    bucket_of,
    credential_for,
    stripes_for,
)
from sqlbak.errors import FeatureUnsupported, ServerNotReady, ServerRefused
from sqlbak.model import PointType
from sqlbak.stopping import StopSignal

__all__ = [
    "S3_IDENTITY",
    "create_credential",
    "problems_of_url",
    "url_files",
]

S3_IDENTITY: Final = "S3 Access Key"
_FIRST_MAJOR: Final = 16
_MAX_CREDENTIAL: Final = 128
_CANNOT_OPEN: Final = 3201
_REFUSALS: Final = frozenset({3225, 3233, 3288, 3289, 3292, 3293, 3298})
"""About credentials and URLs: nothing was read."""
_OS_ERROR: Final = re.compile(r"Operating system error (\d+)")
_ABSENT: Final = frozenset({2, 3})
_NO_BACKUP: Final = frozenset({13, 38})
"""The data is invalid; the end of the file: it was read, and is no backup."""

_DISK: Final = "write delivery: {disk: {server_path: …, local_path: …}}"


def create_credential(name: str) -> str:
    """The statement that makes a credential, with placeholders for the key."""
    return (
        f"CREATE CREDENTIAL {identifier(name)} WITH IDENTITY = '{S3_IDENTITY}', "
        "SECRET = '<AccessKeyID>:<SecretKeyID>'"
    )


def problems_of_url(
    session: Session, server: Server, place: UrlPlace, *, login: str, stop: StopSignal
) -> Iterator[Problem]:
    """What stands in the way of backups to ``place``, as far as can be told without writing."""
    if server.major < _FIRST_MAJOR or not server.can_compress:
        which = f"SQL Server {server.release}" if server.major < _FIRST_MAJOR else server.edition
        yield Problem(
            "url_unsupported",
            Severity.BLOCKING,
            f"{which} writes no backups to {place.url} (SQL Server 2022 and later do, but for "
            "Express and Web)",
            _DISK,
        )
        return
    try:
        granted = session.rows(
            "SELECT HAS_PERMS_BY_NAME(NULL, NULL, 'ALTER ANY CREDENTIAL') AS granted",
            doing="looking at grants",
            stop=stop,
        )
        if number(granted[0], "granted") == 0:
            yield Problem(
                "credential_not_granted",
                Severity.BLOCKING,
                f"{login} may not use credentials, without which nothing is written to a URL",
                f"GRANT ALTER ANY CREDENTIAL TO {identifier(login)}",
            )
            return
        rows = session.rows(
            "SELECT name, credential_identity FROM sys.credentials",
            doing="looking for credentials",
            stop=stop,
        )
    except StatementFailed:
        return  # what is missing is told when the URL is probed
    known = {name: text(row, "credential_identity") for row in rows if (name := text(row, "name"))}
    found = credential_for(list(known), place.url)
    if found is None:
        yield _missing(place)
    elif known[found] != S3_IDENTITY:
        yield Problem(
            "credential_identity",
            Severity.BLOCKING,
            f"the credential {found} is for the identity {known[found]!r}, and S3 needs "
            f"'{S3_IDENTITY}'",
            f"DROP CREDENTIAL {identifier(found)}; {create_credential(found)}",
        )


def _missing(place: UrlPlace) -> Problem:
    name = bucket_of(place.url)
    if len(name) > _MAX_CREDENTIAL:
        return Problem(
            "credential_missing",
            Severity.BLOCKING,
            f"{name} is too long for a credential ({_MAX_CREDENTIAL} characters)",
            "reach the store by a shorter host name",
        )
    return Problem(
        "credential_missing",
        Severity.BLOCKING,
        f"the server has no credential for {place.url}",
        create_credential(name),
    )


def require_this_vault(
    session: Session, place: UrlPlace, witness: str, *, stop: StopSignal
) -> None:
    """Have the server open an object that this job alone has put into the vault. ServerNotReady
    when it finds none there: then its URL is another place, and what it writes would be lost.

    The object is no backup, and that is what the server says when it has read it.
    """
    device = place.device(witness)
    try:
        session.rows(
            label_statement(device),
            doing=f"looking whether {place.url} is the vault",
            stop=stop,
            limit_seconds=None,
        )
    except StatementFailed as failed:
        if failed.number in _REFUSALS or isinstance(failed.explained(), ServerRefused):
            raise failed.explained(ServerNotReady) from None
        if failed.number != _CANNOT_OPEN:
            return
        match = _OS_ERROR.search(" ".join(server_text(one) for one in failed.error.texts))
        reason = None if match is None else int(match[1])
        if reason in _NO_BACKUP:
            return
        if reason in _ABSENT:
            raise ServerNotReady(
                f"{session.where}: {place.url} is not the vault: the server does not find there "
                "what sqlbak has put into it",
                hint="delivery.url must name the vault's endpoint, bucket and prefix as the server "
                "reaches them",
            ) from None
        raise failed.explained(ServerNotReady) from None


def url_files(
    session: Session,
    database: Database,
    place: UrlPlace,
    sink: PayloadSink | None,
    kind: PointType,
    token: str,
    *,
    wanted: int | None,
    where: str,
    stop: StopSignal,
) -> UrlFiles:
    """Where the next backup set of that kind goes: objects of the point that ``sink`` makes. Raises
    what keeps the server from writing it there. ``wanted``: over how many at least."""
    count = url_stripes(session, database, kind, wanted, where=where, stop=stop)
    if not isinstance(sink, PlacedSink):
        raise FeatureUnsupported(
            f"{where}: there is no vault that the server could write into", hint=_DISK
        )
    require_this_vault(session, place, sink.witness, stop=stop)
    return place.files(sink, kind, token, count)


def url_stripes(
    session: Session,
    database: Database,
    kind: PointType,
    wanted: int | None,
    *,
    where: str,
    stop: StopSignal,
) -> int:
    """Over how many URLs the next backup of that kind is striped. FeatureUnsupported when it may
    not fit on as many as there can be.

    A backup is no larger than the files that it is of, which costs nothing to ask; what is
    allocated in them is asked for only where that bound would be too much, as it is slow on large
    databases.
    """
    if kind is PointType.LOG:
        size = _log_bytes(session, database, stop)
        count = stripes_for(size, None)
    else:
        size = database.size_bytes
        count = stripes_for(size, wanted)
        if count is None:
            size = _allocated_bytes(session, database, stop)
            count = stripes_for(size, wanted)
    if count is None:
        raise FeatureUnsupported(
            f"{where}: a backup of up to {size >> 30} GiB does not fit on 64 URLs of 10,000 parts "
            "each",
            hint=_DISK,
        )
    return count


def _log_bytes(session: Session, database: Database, stop: StopSignal) -> int:
    rows = session.rows(
        "SELECT SUM(CONVERT(bigint, size)) AS pages FROM sys.master_files"
        f" WHERE type = 1 AND database_id = {database.database_id:d}",
        doing="asking for the size of the log",
        stop=stop,
    )
    return (number(rows[0], "pages") or 0) * PAGE_BYTES


def _allocated_bytes(session: Session, database: Database, stop: StopSignal) -> int:
    try:
        rows = session.rows(
            "SELECT SUM(CONVERT(bigint, allocated_extent_page_count)) AS pages"
            f" FROM {identifier(database.name)}.sys.dm_db_file_space_usage",
            doing="asking how much of the database is allocated",
            stop=stop,
            limit_seconds=None,
        )
    except StatementFailed:
        return database.size_bytes
    pages = number(rows[0], "pages")
    return database.size_bytes if pages is None else pages * PAGE_BYTES
