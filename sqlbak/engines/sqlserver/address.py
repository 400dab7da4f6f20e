"""Where a SQL Server is and how its wire is protected.

The driver never checks a certificate by itself: it does so only for servers for which a FreeTDS
configuration file names the certificates to trust. For ``Wire.VERIFIED`` such a file is written,
with one section a server, before the first connection is made.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import threading
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from sqlbak.errors import UsageError

__all__ = ["ServerAddress", "Wire", "trust"]


class Wire(StrEnum):
    """How the wire is protected. REQUIRED encrypts, but anybody in between could be the server;
    VERIFIED proves the server by its certificate; CLEAR hides nothing."""

    VERIFIED = "verified"
    REQUIRED = "required"
    CLEAR = "clear"


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """One instance and the login. The password is never shown.

    Attributes:
        ca_file: VERIFIED only: the certificates to trust (PEM).
        connect_timeout_seconds: about; the driver takes up to twice as long and five seconds more.
    """

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    wire: Wire = Wire.REQUIRED
    ca_file: Path | None = None
    connect_timeout_seconds: int = 10

    def __post_init__(self) -> None:
        if (self.wire is Wire.VERIFIED) != (self.ca_file is not None):
            raise UsageError(
                f"{self.where}: a verified wire needs the certificates to trust, and only it does",
                hint="write tls: verified and ca_file: PATH together",
            )

    @property
    def where(self) -> str:
        """Host and port, for people."""
        return f"{self.host}:{self.port}"


class _Trust:
    """The process-wide file that tells the driver which certificates to trust for which server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._folder: Path | None = None
        self._sections: dict[str, str] = {}

    def add(self, address: ServerAddress) -> None:
        if any(sign in address.host for sign in "\n\r[]#;"):
            raise UsageError(f"{address.host!r} is no name of a host", hint="mend host:")
        ca_file = address.ca_file
        if ca_file is None:
            raise UsageError(f"{address.where}: no certificates are given to trust")
        if not ca_file.is_file():
            raise UsageError(
                f"{address.where}: there is no file {ca_file} with certificates to trust",
                hint="write ca_file: the path of a PEM file",
            )
        section = (
            f"[{address.where}]\n\thost = {address.host}\n\tport = {address.port}\n"
            f"\tencryption = require\n\tca file = {ca_file.absolute()}\n"
            "\tcheck certificate hostname = yes\n"
        )
        with self._lock:
            if self._sections.get(address.where) == section and self._folder is not None:
                return
            self._sections[address.where] = section
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="sqlbak-tls-"))
                atexit.register(shutil.rmtree, self._folder, ignore_errors=True)
            path = self._folder / "freetds.conf"
            written = path.with_suffix(".new")
            written.write_text("\n".join(self._sections.values()), encoding="utf-8")
            written.replace(path)
            os.environ["FREETDSCONF"] = str(path)


_TRUST = _Trust()


def trust(address: ServerAddress) -> None:
    """Make the driver check this server's certificate from now on. UsageError when its
    certificates are not there."""
    _TRUST.add(address)
