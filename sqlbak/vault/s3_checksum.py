"""The checksum that goes with every upload, in a header.

In the header, because some stores know no trailing checksums and Amazon wants it there for
buckets with object lock. CRC64NVME where awscrt is installed (a tenth of the cost), else CRC32.
It guards the way to the store only: what is stored is guarded by the vault's own hashes.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable
from importlib import import_module
from typing import Literal

__all__ = ["ALGORITHM", "HEADER", "checksum", "checksum_text"]

ALGORITHM: Literal["CRC32", "CRC64NVME"]
_running: Callable[[bytes | bytearray | memoryview, int], int]

try:
    _running = import_module("awscrt.checksums").crc64nvme
    ALGORITHM = "CRC64NVME"
except ImportError:
    _running = zlib.crc32
    ALGORITHM = "CRC32"

HEADER = f"Checksum{ALGORITHM}"
"""The parameter of boto3's put_object and upload_part, and the field of their answers."""


def checksum(data: bytes | bytearray | memoryview, before: int = 0) -> int:
    """The checksum of ``data`` continued from ``before``."""
    return _running(data, before)


def checksum_text(value: int) -> str:
    """The form that S3 wants: big-endian bytes in Base64."""
    return base64.b64encode(value.to_bytes(8 if ALGORITHM == "CRC64NVME" else 4)).decode()
