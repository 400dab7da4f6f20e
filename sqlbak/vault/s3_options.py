"""How to reach and to enter an S3 server."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

__all__ = ["S3Options"]


@dataclass(frozen=True, slots=True)
class S3Options:
    """How to reach and to enter an S3 server. Without an access key boto3's default chain is
    used (environment, shared files, instance role); without an endpoint, Amazon."""

    endpoint: str | None = None
    region: str | None = None
    addressing: Literal["auto", "path", "virtual"] = "auto"
    ca_bundle: Path | None = None
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    connect_timeout_seconds: float = 10.0
    read_timeout_seconds: float = 60.0
