"""The manifest of a cluster that was put together from a full and an incremental backup.

The server's manifest of the incremental one names the incremental files; the result has whole
files in their place, and needs a manifest that says so (pg_combinebackup writes one too).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["ManifestDamaged", "WholeFile", "combined_manifest"]


class ManifestDamaged(ValueError):
    """Bytes that are no manifest of a server, or not that of these files."""


@dataclass(frozen=True, slots=True)
class WholeFile:
    """What a file of the result is: its path in the data directory, its size in bytes, and the
    SHA-256 of its content."""

    path: str
    size: int
    sha256: str


def combined_manifest(incremental: bytes, replaced: Mapping[str, WholeFile]) -> bytes:
    """The manifest of the result: ``incremental``, with the entries named by ``replaced`` (by
    their path there) described anew.

    Raises ManifestDamaged when it does not name one of them, or names one twice.
    """
    document = _checked(incremental)
    remaining = dict(replaced)
    lines = []
    for entry in document["Files"]:
        path = _path(entry)
        whole = remaining.pop(path, None)
        if whole is not None:
            new = {
                "Size": whole.size,
                "Checksum-Algorithm": "SHA256",
                "Checksum": whole.sha256,
            }
            lines.append(json.dumps(_with_path(entry, whole.path) | new))
        else:
            lines.append(json.dumps(entry))
    if remaining:
        raise ManifestDamaged(f"it does not name {min(remaining)} just once")
    head = [
        f'{{ "PostgreSQL-Backup-Manifest-Version": {document[_VERSION]},',
        f'"System-Identifier": {document["System-Identifier"]},',
        '"Files": [',
        ",\n".join(lines),
        "],",
        '"WAL-Ranges": [',
        ",\n".join(json.dumps(entry) for entry in document["WAL-Ranges"]),
        "],",
        "",
    ]
    content = "\n".join(head).encode()
    digest = hashlib.sha256(content).hexdigest()
    return content + f'"Manifest-Checksum": "{digest}"}}\n'.encode()


_VERSION = "PostgreSQL-Backup-Manifest-Version"


def _checked(content: bytes) -> dict[str, Any]:
    """The manifest as a document, its own checksum proven (the last line holds it)."""
    body, _, last = content.rstrip(b"\n").rpartition(b"\n")
    try:
        document: dict[str, Any] = json.loads(content)
        expected = str(document["Manifest-Checksum"])
        missing = {_VERSION, "System-Identifier", "Files", "WAL-Ranges"} - document.keys()
    except (ValueError, KeyError, TypeError) as error:
        raise ManifestDamaged(f"it is no backup manifest: {error}") from error
    if missing:
        raise ManifestDamaged(f"it has no {min(missing)}")
    if b"Manifest-Checksum" not in last or hashlib.sha256(body + b"\n").hexdigest() != expected:
        raise ManifestDamaged("its checksum does not match its content")
    return document


def _path(entry: Mapping[str, Any]) -> str:
    """Names that are no UTF-8 stand in hexadecimal."""
    if "Path" in entry:
        return str(entry["Path"])
    return bytes.fromhex(str(entry["Encoded-Path"])).decode("utf-8", "surrogateescape")


def _with_path(entry: Mapping[str, Any], path: str) -> dict[str, Any]:
    if "Path" in entry:
        return {**entry, "Path": path}
    return {**entry, "Encoded-Path": path.encode("utf-8", "surrogateescape").hex()}
