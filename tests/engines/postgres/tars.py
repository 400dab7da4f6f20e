"""Tar archives for tests, as a server sends them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping

__all__ = ["archive_of"]


def archive_of(files: Mapping[str, bytes | None]) -> bytes:
    """A tar of these files, and directories (None), in this order."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            if data is None:
                member.type = tarfile.DIRTYPE
            member.size = len(data or b"")
            tar.addfile(member, io.BytesIO(data or b""))
    return out.getvalue()
