"""The manifest of what was put together from a full and an incremental backup."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from sqlbak.engines.postgres.combinedmanifest import (
    ManifestDamaged,
    WholeFile,
    combined_manifest,
)


def _manifest(files: list[dict[str, Any]]) -> bytes:
    """As a server writes it: one file a line, the checksum over all lines but the last."""
    lines = ",\n".join(json.dumps(entry) for entry in files)
    body = (
        '{ "PostgreSQL-Backup-Manifest-Version": 2,\n"System-Identifier": 7658912345678901234,\n'
        f'"Files": [\n{lines}\n],\n"WAL-Ranges": [\n'
        '{ "Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/2000100" }\n],\n'
    ).encode()
    return body + f'"Manifest-Checksum": "{hashlib.sha256(body).hexdigest()}"}}\n'.encode()


_PLAIN = {"Path": "PG_VERSION", "Size": 3, "Checksum-Algorithm": "CRC32C", "Checksum": "64440205"}
_PARTIAL = {"Path": "base/5/INCREMENTAL.7", "Size": 12, "Last-Modified": "2026-01-01 00:00:00 GMT"}


def test_incremental_files_are_described_as_the_whole_files_they_became() -> None:
    encoded = {"Encoded-Path": b"base/5/INCREMENTAL.\xff".hex(), "Size": 12}
    path = "base/5/INCREMENTAL.\udcff"
    made = combined_manifest(
        _manifest([_PLAIN, _PARTIAL, encoded]),
        {
            "base/5/INCREMENTAL.7": WholeFile("base/5/7", 8192, "aa"),
            path: WholeFile("base/5/\udcff", 0, "bb"),
        },
    )
    document = json.loads(made)
    new = {"Checksum-Algorithm": "SHA256"}
    assert document["Files"] == [
        _PLAIN,
        {**_PARTIAL, **new, "Path": "base/5/7", "Size": 8192, "Checksum": "aa"},
        {**new, "Encoded-Path": b"base/5/\xff".hex(), "Size": 0, "Checksum": "bb"},
    ]
    assert document["System-Identifier"] == 7658912345678901234
    assert document["WAL-Ranges"] == [
        {"Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/2000100"}
    ]
    body = made.rpartition(b'"Manifest-Checksum"')[0]
    assert document["Manifest-Checksum"] == hashlib.sha256(body).hexdigest()


def test_without_changes_the_server_s_own_bytes_come_out() -> None:
    content = _manifest([_PLAIN, _PARTIAL])
    assert json.loads(combined_manifest(content, {})) | {"Manifest-Checksum": ""} == json.loads(
        content
    ) | {"Manifest-Checksum": ""}


def test_a_flipped_bit_is_found() -> None:
    content = bytearray(_manifest([_PLAIN]))
    content[content.index(b"PG_VERSION")] ^= 1
    with pytest.raises(ManifestDamaged, match="checksum"):
        combined_manifest(bytes(content), {})


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"Manifest-Checksum": "x"}', b"\xff"])
def test_what_is_no_manifest_is_refused(content: bytes) -> None:
    with pytest.raises(ManifestDamaged):
        combined_manifest(content, {})


def test_a_file_that_the_manifest_does_not_name_is_refused() -> None:
    with pytest.raises(ManifestDamaged, match=r"does not name base/5/INCREMENTAL\.8"):
        combined_manifest(
            _manifest([_PARTIAL]), {"base/5/INCREMENTAL.8": WholeFile("base/5/8", 0, "")}
        )
