"""From a vault's url to its object store."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from sqlbak.errors import VaultUnusable
from sqlbak.stopping import NEVER, StopSignal
from sqlbak.vault.file_store import FileStore
from sqlbak.vault.retry import Retry, RetryingStore, RetryPolicy
from sqlbak.vault.s3_options import S3Options
from sqlbak.vault.store import ObjectStore

__all__ = ["S3Options", "open_store"]

_URL_HINT = "a vault's url looks like s3://bucket/prefix, file:///srv/vault or /srv/vault"


def open_store(
    url: str,
    s3: S3Options | None = None,
    *,
    policy: RetryPolicy | None = None,
    stop: StopSignal = NEVER,
) -> ObjectStore:
    """The store at ``url``, with retries that ``stop`` ends. Nothing is connected to or made yet.

    ``url`` is ``s3://bucket/prefix``, ``file:///absolute/path`` or a path. Raises VaultUnusable
    for anything else.
    """
    retry = Retry(policy or RetryPolicy(), stop)
    scheme = urlsplit(url).scheme
    if scheme == "s3":
        return RetryingStore(_s3_store(url, s3 or S3Options(), retry), retry)
    if scheme == "file":
        return RetryingStore(FileStore(_path_of(url)), retry)
    if "://" in url or not url:
        raise VaultUnusable(f"{url!r} is no place for a vault", hint=_URL_HINT)
    return RetryingStore(FileStore(Path(url)), retry)


def _s3_store(url: str, options: S3Options, retry: Retry) -> ObjectStore:
    # boto3 takes a quarter of the start of a command; vaults in folders do without.
    from sqlbak.vault.s3_client import S3Bucket, make_client
    from sqlbak.vault.s3_store import S3Store

    parts = urlsplit(url)
    # A key and its secret in the url would end up in every message.
    if "@" in parts.netloc or ":" in parts.netloc or parts.query or parts.fragment:
        raise VaultUnusable(
            "an s3:// url holds only the bucket and a prefix",
            hint="endpoint and keys are options of the vault; " + _URL_HINT,
        )
    segments = [segment for segment in parts.path.split("/") if segment]
    if not parts.netloc or any(segment in (".", "..") for segment in segments):
        raise VaultUnusable(f"{url!r} names no bucket and prefix", hint=_URL_HINT)
    prefix = "".join(segment + "/" for segment in segments)
    return S3Store(S3Bucket(make_client(options), parts.netloc, prefix), retry=retry)


def _path_of(url: str) -> Path:
    parts = urlsplit(url)
    path = unquote(parts.path)
    if parts.netloc not in ("", "localhost") or not path.startswith("/") or parts.query:
        raise VaultUnusable(
            f"{url!r} names no absolute path on this machine",
            hint="three slashes: file:///srv/vault",
        )
    return Path(path)
