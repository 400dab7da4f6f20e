"""Lays a differential over its full by hand: with tar and the documented file layout, so that no
code of sqlbak's restore vouches for its backups."""

from __future__ import annotations

import io
import struct
import tarfile
from dataclasses import replace

from tests.engines.postgres.backups import Taken

__all__ = ["files_of", "overlaid", "overlaid_file"]

PREFIX = "INCREMENTAL."


def files_of(archive: bytes) -> dict[str, bytes]:
    """Every file of an archive, by path."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {
            member.name: tar.extractfile(member).read()  # type: ignore[union-attr]
            for member in tar
            if member.isfile()
        }


def overlaid_file(base: bytes, incremental: bytes, block_size: int = 8192) -> bytes:
    """The whole file: blocks of the incremental one over those of the base."""
    magic, count, length = struct.unpack_from("<III", incremental)
    assert magic == 0xD3AE1F0D
    numbers = struct.unpack_from(f"<{count}I", incremental, 12)
    assert list(numbers) == sorted(set(numbers))
    at = 12 + 4 * count
    if count:
        at += -at % block_size
    assert len(incremental) == at + count * block_size
    whole = bytearray(base[: length * block_size].ljust(length * block_size, b"\0"))
    for index, number in enumerate(numbers):
        assert number < length
        begin = at + index * block_size
        whole[number * block_size : (number + 1) * block_size] = incremental[
            begin : begin + block_size
        ]
    return bytes(whole)


def overlaid(full: Taken, differential: Taken) -> Taken:
    """The full backup that the two make together."""
    streams = dict(differential.streams)
    for name in streams:
        if name.endswith(".tar"):
            base = files_of(full.streams[name]) if name in full.streams else {}
            streams[name] = _overlaid_archive(base, streams[name])
    return replace(differential, streams=streams)


def _overlaid_archive(base: dict[str, bytes], archive: bytes) -> bytes:
    out = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(archive)) as source,
        tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as target,
    ):
        for member in source:
            data = source.extractfile(member).read() if member.isfile() else b""  # type: ignore[union-attr]
            folder, slash, name = member.name.rpartition("/")
            if name.startswith(PREFIX):
                member.name = folder + slash + name.removeprefix(PREFIX)
                data = overlaid_file(base[member.name], data)
            member.size = len(data)
            target.addfile(member, io.BytesIO(data))
    return out.getvalue()
