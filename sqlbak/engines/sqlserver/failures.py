"""What SQL Server or its driver says when it says no, turned into one of our errors. Pure.

One table (failure_meanings.py) serves backups and restores: error number -> our error, what it
means, what mends it. Every failed BACKUP and RESTORE ends with 3013, which says nothing, and the
driver tells only the number of the first error: that one decides.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sqlbak.engines.sqlserver.failure_meanings import MEANINGS, OS_REASONS, URL_REASONS
from sqlbak.errors import (
    BackupFailed,
    EngineError,
    Refused,
    RestoreFailed,
    ServerRefused,
    ServerUnreachable,
)

__all__ = [
    "DRIVER_DISCONNECTED",
    "KNOWN_NUMBERS",
    "LEFT_RESTORING",
    "as_restore_failure",
    "explain_connection_failure",
    "explain_failure",
    "has_terminated",
    "is_good_all_the_same",
    "is_left_restoring",
    "number_meaning",
    "remark_of",
    "server_text",
]

LEFT_RESTORING = "left in the restoring state"
"""What 4322 and 4329 say. They are of severity 10: the driver raises nothing."""

DRIVER_DISCONNECTED = frozenset({20003, 20004, 20006, 20017, 20047})
"""The driver's own numbers for a connection that is gone; what the server did is unknown then."""

_DRIVER_TAIL = re.compile(r"DB-Lib error message 200\d\d, severity \d+:.*", re.DOTALL)
_OS_ERROR = re.compile(r"Operating system error (?P<number>\d+)\s*\(")
_TAIL_OS_ERROR = re.compile(r"failed: (?P<number>\d+)\s*\(")


_TERMINATING = 3013
# Errors of severity 14 stand behind the closing 3013 of severity 16, whose number alone is told.
_BEHIND_TERMINATING = (
    (262, "permission denied in database"),
    (229, "permission was denied on"),
    (916, "is not able to access the database"),
    (3110, "does not have permission to restore database"),
    (927, "it is in the middle of a restore"),
    (942, "because it is offline"),
    (945, "due to inaccessible files"),
)

KNOWN_NUMBERS = frozenset(MEANINGS)
"""The error numbers that have an explanation."""

# Of severity 10: the statement goes on, and the driver tells their words without a number.
_HISTORY_FAILED = 3009
_REMARKS = (
    (_HISTORY_FAILED, "could not insert a backup or restore history"),
    (4215, "the log was not truncated because"),
)

_WHITE_SPACE = re.compile(r"\s+")


def server_text(raw: str | bytes) -> str:
    """The server's own words, without what the driver appends to them."""
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
    return _WHITE_SPACE.sub(" ", _DRIVER_TAIL.sub("", text)).strip()


def number_meaning(number: int) -> tuple[str, str] | None:
    """What an error number means and what mends it; None: it is not known."""
    meaning = MEANINGS.get(number)
    return None if meaning is None else (meaning.what, meaning.remedy)


def remark_of(said: str) -> str | None:
    """What the server remarks beside a backup that is good, and what mends it; None for what it
    says of every backup."""
    text = server_text(said)
    number = next((number for number, words in _REMARKS if words in text.lower()), None)
    if number is None:
        return None
    meaning = MEANINGS[number]
    return f"{meaning.what} ({text}): {meaning.remedy}"


def is_good_all_the_same(number: int, texts: Sequence[str | bytes]) -> bool:
    """Whether an error of a BACKUP is about its record in msdb alone (3009): all that really fail
    end with 3013, "is terminating abnormally"."""
    return number == _HISTORY_FAILED and not has_terminated(texts)


def has_terminated(texts: Sequence[str | bytes]) -> bool:
    """Whether the server said that nothing came of a BACKUP or RESTORE (3013)."""
    return any("terminating abnormally" in server_text(text).lower() for text in texts)


def is_left_restoring(texts: Sequence[str]) -> bool:
    """Whether the server said that a log ended before where it was told to stop (4322, 4329)."""
    return any(LEFT_RESTORING in text.lower() for text in texts)


def explain_failure(
    number: int,
    texts: Sequence[str | bytes],
    *,
    where: str,
    doing: str,
    failed: type[EngineError] = BackupFailed,
) -> EngineError | Refused:
    """Turn a failed statement into one of our errors.

    ``number`` is the driver's, ``texts`` all that the server said (in order). ``where`` names
    instance and database; ``doing`` continues "while". ``failed``: the class where the number has
    none of its own (BackupFailed, RestoreFailed). A refusal while restoring that is found only
    after files were touched is the caller's to turn into RestoreFailed.
    """
    said = "; ".join(dict.fromkeys(t for text in texts if (t := server_text(text))))
    if number in DRIVER_DISCONNECTED:
        return failed(
            f"{where}: the connection was lost while {doing}" + (f": {said}" if said else ""),
            hint="look whether the server runs; what it did of the statement is unknown",
        )
    if number == _TERMINATING:
        number = next(
            (known for known, text in _BEHIND_TERMINATING if text in said.lower()), number
        )
    meaning = MEANINGS.get(number)
    if meaning is None:
        told = said or f"error {number}"
        return failed(
            f"{where}: while {doing}: {told} (error {number})", hint="the server's log says more"
        )
    what, remedy = meaning.what, meaning.remedy
    if number in (3201, 3202, 3203):
        why = _os_reason(said)
        what = f"{what}: {why[0]}" if why[0] else what
        remedy = why[1]
    error = meaning.error or failed
    return error(f"{where}: while {doing}: {what} (error {number}: {said})", hint=remedy)


def _os_reason(said: str) -> tuple[str, str]:
    match = _OS_ERROR.search(said) or _TAIL_OS_ERROR.search(said)
    known = None
    if match is not None:
        number = int(match["number"])
        known = URL_REASONS.get(number) if "s3://" in said else None
        known = known or OS_REASONS.get(number)
    return known or ("", "look at the path, its disk, and the rights of the service account")


def explain_connection_failure(
    number: int, text: str | bytes, *, where: str, login: str
) -> EngineError:
    """Turn a connection that did not come about into one of ours. ``where`` is host and port.

    The driver's number is not to be trusted here: it may be that of an earlier failure in the same
    process, so the text decides where there is one.
    """
    raw = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    said = server_text(raw)
    if "20009" in raw:
        return ServerUnreachable(
            f"{where}: nothing answers there",
            hint="check host and port, that SQL Server runs with TCP/IP on, and the firewall",
        )
    if "Login failed" in raw or "20018, severity 14" in raw:
        return ServerRefused(
            f"{where}: the login {login} was refused" + (f": {said}" if said else ""),
            hint="check user and password; SQL Server must allow SQL logins (mixed mode)",
        )
    if "20003" in raw:
        return ServerUnreachable(
            f"{where}: no answer in time", hint="the server may be starting, or very busy"
        )
    if "20002" in raw or number == 20002:
        return ServerUnreachable(
            f"{where}: the connection was broken off while it was made",
            hint="check the TLS settings: whether the server demands encryption, and whether its "
            "certificate is signed by the CA that you trust and names this host",
        )
    return ServerUnreachable(
        f"{where}: no connection: {said or f'error {number}'}",
        hint="check host, port and network",
    )


def as_restore_failure(error: EngineError | Refused) -> RestoreFailed:
    """The same for a restore that has touched the target already: it is no refusal any more."""
    if isinstance(error, RestoreFailed):
        return error
    return RestoreFailed(error.message, hint=error.hint)
