"""Writes a tar stream whose headers are those of another one, changed in name and size only."""

from __future__ import annotations

from sqlbak.engines.port import StreamSink
from sqlbak.errors import BackupFailed

__all__ = ["TarWriter"]

_BLOCK = 512
_NAME = slice(0, 100)
_SIZE = slice(124, 136)
_CHECKSUM = slice(148, 156)
_LARGEST_OCTAL = 8**11


class TarWriter:
    """Entry after entry into one stream; call ``finish`` after the last."""

    def __init__(self, out: StreamSink) -> None:
        self._out = out
        self._padding = 0
        self._missing = 0

    def begin(self, header: bytes, size: int, *, name_prefix: str = "") -> None:
        """The next entry: a header of 512 bytes as it is, or with another size and with
        ``name_prefix`` before the last part of its path; then ``write`` its content."""
        self._end_entry()
        if name_prefix:
            header = _changed(header, size, name_prefix)
        self._out.write(header)
        self._missing = size
        self._padding = -size % _BLOCK

    def write(self, data: bytes | memoryview) -> None:
        """Content of the current entry."""
        self._missing -= len(data)
        self._out.write(data)

    def finish(self) -> None:
        """The end mark."""
        self._end_entry()
        self._out.write(bytes(2 * _BLOCK))

    def _end_entry(self) -> None:
        if self._missing:
            raise AssertionError(f"an entry has {self._missing} bytes less than its header tells")
        if self._padding:
            self._out.write(bytes(self._padding))
            self._padding = 0


def _changed(header: bytes, size: int, name_prefix: str) -> bytes:
    changed = bytearray(header)
    folder, slash, name = header[_NAME].rstrip(b"\0").rpartition(b"/")
    path = folder + slash + name_prefix.encode() + name
    if len(path) >= 100:
        raise BackupFailed(f"the path {path.decode(errors='replace')} is too long for an archive")
    changed[_NAME] = path.ljust(100, b"\0")
    if size < _LARGEST_OCTAL:
        changed[_SIZE] = b"%011o " % size
    else:
        changed[_SIZE] = b"\x80" + size.to_bytes(11, "big")
    changed[_CHECKSUM] = b" " * 8
    changed[_CHECKSUM] = b"%07o " % sum(changed)
    return bytes(changed)
