"""Looks for settings of a restored cluster that would keep it from starting on this machine, or let
it touch what belongs to its source, and says what to write over them on the command line.

The server itself is asked how it reads its files (``postgres -C``), which starts nothing.
"""

from __future__ import annotations

import shlex
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlbak.engines.postgres.programs import Programs
from sqlbak.engines.postgres.server import ServerUser, socket_directory_fits
from sqlbak.errors import ServerProgramMissing

__all__ = ["StartCheck", "check_start"]

_EVERYWHERE = frozenset({"", "*", "localhost", "0.0.0.0", "::", "127.0.0.1", "::1"})  # noqa: S104


@dataclass(frozen=True, slots=True)
class StartCheck:
    """``overrides``: settings for the command line; ``findings``: a sentence about each, and about
    what else keeps the server from starting."""

    overrides: tuple[tuple[str, str], ...] = ()
    findings: tuple[str, ...] = ()

    def options(self) -> str:
        """The overrides as words for ``pg_ctl -o``."""
        words = [word for name, value in self.overrides for word in ("-c", f"{name}={value}")]
        return shlex.join(words)


def check_start(directory: Path, programs: Programs | None, user: ServerUser) -> StartCheck:
    """Ask about the cluster in ``directory``. Without programs, or a configuration of its own,
    nothing can be told."""
    if programs is None or not (directory / "postgresql.conf").exists():
        return StartCheck()
    look = _Look(directory, programs, user)
    try:
        found = [*look.problems()]
    except _Unreadable as problem:
        said = f"Its configuration cannot be read on this machine, mend it first: {problem}"
        return StartCheck(findings=(said,))
    except (OSError, ServerProgramMissing):  # a program that this user may not run says nothing
        return StartCheck()
    return StartCheck(
        tuple((name, value) for name, value, _ in found), tuple(said for _, _, said in found)
    )


class _Unreadable(Exception):
    """The server cannot read its configuration; the message is its own."""


@dataclass(frozen=True, slots=True)
class _Look:
    directory: Path
    programs: Programs
    user: ServerUser

    def problems(self) -> Iterator[tuple[str, str, str]]:
        """Setting, value to write over it, and a sentence."""
        yield from self._own_files()
        yield from self._sockets()
        if self._ask("ssl") == "on":
            files = [self._ask(f"ssl_{kind}_file") for kind in ("cert", "key", "ca")]
            if missing := [name for name in files if name and not self._can("-r", name)]:
                yield self._said("ssl", "off", f"on, with {missing[0]}")
        if self._ask("logging_collector") == "on":
            folder = self._ask("log_directory")
            if folder.startswith("/") and not self._can("-w", folder):
                yield self._said("logging_collector", "off", f"on, with log_directory {folder}")

    def _own_files(self) -> Iterator[tuple[str, str, str]]:
        """A server follows these wherever they lead, to its source's files if they are there."""
        for name, inside in (
            ("data_directory", self.directory),
            ("hba_file", self.directory / "pg_hba.conf"),
            ("ident_file", self.directory / "pg_ident.conf"),
        ):
            value = self._ask(name)
            if value and Path(value).resolve() != inside.resolve() and inside.exists():
                yield self._said(name, str(inside), value)
        if value := self._ask("external_pid_file"):
            yield self._said("external_pid_file", "", value)

    def _sockets(self) -> Iterator[tuple[str, str, str]]:
        value = self._ask("unix_socket_directories")
        folders = [folder.strip().strip('"') for folder in value.split(",") if folder.strip()]
        if any(not f.startswith("@") and not self._can("-w", f) for f in folders):
            instead = self.directory if socket_directory_fits(self.directory) else Path("/tmp")  # noqa: S108
            yield self._said("unix_socket_directories", str(instead), value)
        addresses = [one.strip() for one in self._ask("listen_addresses").split(",")]
        if not any(one in _EVERYWHERE or _is_ours(one) for one in addresses):
            yield self._said("listen_addresses", "localhost", ", ".join(addresses))

    @staticmethod
    def _said(name: str, value: str, was: str) -> tuple[str, str, str]:
        new = value or "nothing"
        return (
            name,
            value,
            f"Its configuration says {name} = {was}, which does not fit here: the command above "
            f"sets {new} instead.",
        )

    def _ask(self, name: str) -> str:
        done = self.user.run(
            [self.programs.path("postgres"), "-C", name, "-D", self.directory], timeout_seconds=60
        )
        if done.returncode != 0:
            raise _Unreadable(done.stderr.strip().partition("\n")[0])
        return done.stdout.strip()

    def _can(self, what: str, path: str) -> bool:
        return self.user.run(["test", what, self.directory / path]).returncode == 0


def _is_ours(address: str) -> bool:
    """Whether this machine has that address."""
    try:
        for family, kind, protocol, _, place in socket.getaddrinfo(
            address, 0, type=socket.SOCK_STREAM
        ):
            with socket.socket(family, kind, protocol) as probe:
                probe.bind(place)
    except OSError:
        return False
    return True
