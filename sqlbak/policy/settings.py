"""The kinds of text that stand in policy files, as pydantic types with their JSON Schema.

Every validator raises ValueError with what to write instead, and never repeats a value that could
be a secret.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit
from zoneinfo import available_timezones

from pydantic import (
    AfterValidator,
    PlainSerializer,
    PlainValidator,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
)

from sqlbak.policy.cron import CronLine
from sqlbak.policy.duration import Duration
from sqlbak.policy.problem import quoted
from sqlbak.policy.quiet_hours import QuietHours
from sqlbak.policy.rate import Rate
from sqlbak.policy.secret_reference import SecretReference
from sqlbak.policy.server_url import checked_server_url

__all__ = [
    "Cron",
    "Dsn",
    "Endpoint",
    "FolderPath",
    "LiteralDsn",
    "Program",
    "Quiet",
    "Secret",
    "ServerUrl",
    "SlotName",
    "Span",
    "Text",
    "TimezoneName",
    "TransferRate",
    "VaultUrl",
]

_REFERENCE_PATTERN = r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)$"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)
_SECRET_DSN_OPTIONS = ("password", "sslpassword", "oauth_client_secret")
_REFERENCE_HINT = (
    "write password as reference: put the whole DSN into an environment variable or a file and "
    "write dsn: env:NAME or dsn: file:PATH (or leave the password out and use a pgpass file)"
)


@dataclass(frozen=True, slots=True)
class LiteralDsn:
    """A connection string that stands in the file itself and holds no password."""

    text: str

    def __str__(self) -> str:
        return self.text

    def resolve(self) -> str:
        """The connection string; the same method as a SecretReference has."""
        return self.text


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text")  # noqa: TRY004 - pydantic collects ValueErrors only
    return value


def _cron(value: Any) -> CronLine:
    return value if isinstance(value, CronLine) else CronLine.parse(_text(value))


def _span(value: Any) -> Duration:
    return value if isinstance(value, Duration) else Duration.parse(_text(value))


def _quiet(value: Any) -> QuietHours:
    return value if isinstance(value, QuietHours) else QuietHours.parse(_text(value))


def _rate(value: Any) -> Rate:
    return value if isinstance(value, Rate) else Rate.parse(_text(value))


def _program(words: tuple[str, ...]) -> tuple[str, ...]:
    if not words or not words[0].startswith("/"):
        raise ValueError(
            "must begin with a program's absolute path, e.g. [/usr/local/bin/before-backup]; no "
            "shell reads it"
        )
    if any("\0" in word for word in words):
        raise ValueError("holds a NUL character; remove it")
    return words


def _folder(info: ValidationInfo) -> Path | None:
    folder = info.context.get("folder") if isinstance(info.context, dict) else None
    return folder if isinstance(folder, Path) else None


def _secret(value: Any, info: ValidationInfo) -> SecretReference:
    if isinstance(value, SecretReference):
        return value
    return SecretReference.parse(_text(value), _folder(info))


def _dsn(value: Any, info: ValidationInfo) -> SecretReference | LiteralDsn:
    if isinstance(value, SecretReference | LiteralDsn):
        return value
    text = _text(value)
    if text.startswith(("env:", "file:")):
        return SecretReference.parse(text, _folder(info))
    if not text.strip() or not text.isprintable():
        raise ValueError("must be a reference (env:NAME or file:PATH) or a DSN of one line")
    # libpq's own parser decides what a password is: percent escapes, quotes and all. Most files
    # hold references only, and do without it.
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        options = conninfo_to_dict(text)
    except (psycopg.Error, ValueError):
        # The parser's message repeats parts of the text, a password perhaps: it is dropped.
        raise ValueError(
            "is neither a reference (env:NAME or file:PATH) nor a DSN that PostgreSQL understands "
            "('postgresql://user@host/postgres' or 'host=db.example.com user=backup')"
        ) from None
    if any(options.get(name) for name in _SECRET_DSN_OPTIONS):
        raise ValueError(f"holds a password; {_REFERENCE_HINT}")
    return LiteralDsn(text)


def _vault_url(text: str) -> str:
    if not text.isprintable() or text != text.strip() or {"%", "?", "#"} & set(text):
        raise ValueError("must be a plain URL without '%', '?', '#' or space around it")
    if text.startswith("file://"):
        return _file_url(text)
    if text.startswith("s3://"):
        return _s3_url(text)
    raise ValueError(
        "must begin with s3:// or file:///; write s3://bucket/prefix or file:///absolute/path"
    )


def _file_url(text: str) -> str:
    path = text.removeprefix("file://")
    parts = path.strip("/").split("/")
    if not path.startswith("/") or parts == [""] or {"", ".", ".."} & set(parts):
        raise ValueError("must name an absolute folder; write file:///var/lib/sqlbak/vault")
    return "file:///" + "/".join(parts)


def _s3_url(text: str) -> str:
    if "@" in text:
        raise ValueError(
            "holds credentials; write s3://bucket/prefix, and access_key and secret_key under s3:"
        )
    bucket, _, prefix = text.removeprefix("s3://").partition("/")
    if not _BUCKET.fullmatch(bucket) or ".." in bucket:
        raise ValueError(
            "has no proper bucket name (3 to 63 of a-z, 0-9, '.' and '-'); write s3://bucket/prefix"
        )
    parts = prefix.strip("/").split("/") if prefix.strip("/") else []
    if not text.isascii() or {"", ".", ".."} & set(parts):
        raise ValueError("must have a prefix of plain ASCII names; write s3://bucket/prefix")
    return "s3://" + "/".join([bucket, *parts])


def _endpoint(text: str) -> str:
    hint = "write https://storage.example.com or http://localhost:9000"
    try:
        parts = urlsplit(text)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        raise ValueError(f"is not the URL of a server; {hint}") from None
    if "@" in text:
        raise ValueError(f"holds credentials; {hint}, and access_key and secret_key beside it")
    is_server = parts.scheme in ("http", "https") and parts.hostname and port_is_fine
    if not is_server or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(f"is not the URL of a server; {hint}")
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"is not the URL of a server; {hint}")
    return text.rstrip("/")


def _path(value: Any, info: ValidationInfo) -> Path:
    if isinstance(value, Path):
        return value
    text = _text(value)
    if not text.strip() or not text.isprintable():
        raise ValueError("must be a path; write for example /etc/ssl/certs/own-ca.pem")
    folder = _folder(info)
    return Path(text) if folder is None else folder / text


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    # Factory and localtime are placeholders; posix/ and right/ (leap seconds) are not listed.
    return frozenset(available_timezones()) - {"Factory", "localtime"}


def _timezone(text: str) -> str:
    if text in _zones():
        return text
    wanted = text.lower().replace(" ", "_")
    close = [name for name in _zones() if wanted in (name.lower(), name.lower().rpartition("/")[2])]
    close = close or get_close_matches(text, _zones(), n=1)
    suggestion = (
        f"did you mean {' or '.join(sorted(close))}?" if close else "write Europe/Berlin or UTC"
    )
    raise ValueError(f"there is no time zone {quoted(text)} in the IANA list; {suggestion}")


Text = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
Cron = Annotated[
    CronLine,
    PlainValidator(_cron),
    PlainSerializer(str, return_type=str),
    WithJsonSchema(
        {"type": "string", "description": "Cron line of five fields", "examples": ["0 1 * * sun"]}
    ),
]
Span = Annotated[
    Duration,
    PlainValidator(_span),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "pattern": "^[1-9][0-9]{0,4}[dwmy]$"}),
]
Quiet = Annotated[
    QuietHours,
    PlainValidator(_quiet),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["mon-fri 08:00-18:00"]}),
]
TransferRate = Annotated[
    Rate,
    PlainValidator(_rate),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "pattern": "^[1-9][0-9]{0,8}([KMG]i?B)/s$"}),
]
Program = Annotated[tuple[str, ...], AfterValidator(_program)]
Secret = Annotated[
    SecretReference,
    PlainValidator(_secret),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "pattern": _REFERENCE_PATTERN}),
]
Dsn = Annotated[
    SecretReference | LiteralDsn,
    PlainValidator(_dsn),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "minLength": 1}),
]
FolderPath = Annotated[
    Path,
    PlainValidator(_path),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "minLength": 1}),
]
VaultUrl = Annotated[
    str,
    AfterValidator(_vault_url),
    WithJsonSchema({"type": "string", "pattern": "^(s3://|file:///)."}),
]
ServerUrl = Annotated[
    str,
    AfterValidator(checked_server_url),
    WithJsonSchema({"type": "string", "pattern": "^s3://."}),
]
Endpoint = Annotated[
    str, AfterValidator(_endpoint), WithJsonSchema({"type": "string", "pattern": "^https?://."})
]
TimezoneName = Annotated[str, AfterValidator(_timezone)]
SlotName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,63}$")]
