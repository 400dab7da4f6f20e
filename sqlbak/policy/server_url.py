"""The vault as a SQL Server addresses it: ``s3://host[:port]/bucket/prefix``, or with the bucket in
the host's name, ``s3://bucket.host/prefix``. Pure.

sqlbak's own url of a vault has no host, as it reaches the store by an endpoint of its own; the
server knows no endpoints, and always speaks https. Source: Microsoft, "SQL Server backup to URL for
S3-compatible object storage".
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

__all__ = ["MAX_SERVER_URL", "checked_server_url", "names_vault", "server_url_of"]

MAX_SERVER_URL = 137
"""Characters. A device's name may have 259, of which 254 are of use; what follows in a vault takes
up to 117."""

_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?(?::[1-9][0-9]{0,4})?")
_PART = re.compile(r"[A-Za-z0-9_.~-]+")
"""What is written into a URL as it is."""


def checked_server_url(text: str) -> str:
    """The url without a slash at its end. ValueError saying what is wrong with it."""
    hint = "write s3://host/bucket/prefix, or s3://bucket.host/prefix, as SQL Server reaches it"
    if not text.startswith("s3://"):
        raise ValueError(f"must begin with s3://; {hint}")
    host, _, path = text.removeprefix("s3://").partition("/")
    if "@" in host:
        raise ValueError(f"holds credentials, which SQL Server keeps itself; {hint}")
    if not _HOST.fullmatch(host):
        raise ValueError(f"names no host; {hint}")
    parts = path.strip("/").split("/") if path.strip("/") else []
    if any(part in (".", "..") or not _PART.fullmatch(part) for part in parts):
        raise ValueError(f"must have a path of A-Z, a-z, 0-9, '_', '.', '~' and '-'; {hint}")
    url = "/".join([f"s3://{host}", *parts])
    if len(url) > MAX_SERVER_URL:
        raise ValueError(
            f"has {len(url)} characters, and SQL Server takes 259 for a whole backup's name; "
            f"choose a shorter prefix ({MAX_SERVER_URL} at most)"
        )
    return url


def names_vault(url: str, vault_url: str) -> bool:
    """Whether the server's ``url`` names the bucket and prefix of a vault's ``s3://bucket/prefix``.
    Whether its host is the vault's only the server can tell."""
    if not vault_url.startswith("s3://"):
        return False
    bucket, *prefix = vault_url.removeprefix("s3://").split("/")
    host, *path = url.removeprefix("s3://").split("/")
    return path == [bucket, *prefix] or (host.lower().startswith(f"{bucket}.") and path == prefix)


def server_url_of(vault_url: str, endpoint: str | None, region: str | None) -> str:
    """What the server's url of that vault would probably be, for people."""
    place = vault_url.removeprefix("s3://")
    if endpoint is not None:
        return f"s3://{urlsplit(endpoint).netloc}/{place}"
    return f"s3://s3.{region or 'REGION'}.amazonaws.com/{place}"
