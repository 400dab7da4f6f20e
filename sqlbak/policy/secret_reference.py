"""Secrets by reference: ``env:NAME`` or ``file:PATH``. Read late, never shown."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from sqlbak.errors import SecretUnavailable

__all__ = ["SecretReference"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_LONGEST_BYTES = 64 * 1024
_WRITE = "write env:NAME (an environment variable) or file:PATH (a file that holds only the secret)"


@dataclass(frozen=True, slots=True)
class SecretReference:
    """Where a secret is. ``kind`` is ``env`` or ``file``, ``name`` the variable or the path as it
    was written, ``folder`` what a relative path starts from (None: the working directory)."""

    kind: str
    name: str
    folder: Path | None = None

    @classmethod
    def parse(cls, text: str, folder: Path | None = None) -> SecretReference:
        """Read ``env:NAME`` or ``file:PATH``. ValueError never repeats the text, which may be the
        secret itself."""
        kind, _, name = text.partition(":")
        if kind not in ("env", "file"):
            raise ValueError(f"a secret never stands in the file; {_WRITE}")
        if kind == "env" and not _NAME.fullmatch(name):
            raise ValueError("env: needs the name of an environment variable, e.g. env:ORDERS_DSN")
        if kind == "file" and (not name.strip() or not name.isprintable()):
            raise ValueError("file: needs a path, e.g. file:/run/secrets/orders-dsn")
        return cls(kind, name, folder if kind == "file" else None)

    def absolute(self) -> SecretReference:
        """The same reference, for use from anywhere."""
        if self.kind == "env":
            return self
        path = Path(self.name) if self.folder is None else self.folder / self.name
        return SecretReference(self.kind, str(path.absolute()))

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"

    def __repr__(self) -> str:
        return f"SecretReference({str(self)!r})"

    def resolve(self) -> str:
        """The secret itself, read now. Newlines at the end of a file are not part of it.

        Raises SecretUnavailable, which names the reference only.
        """
        secret = self._from_environment() if self.kind == "env" else self._from_file()
        if not secret:
            raise SecretUnavailable(
                f"the secret {self} is empty", hint=f"put the secret into {self}"
            )
        return secret

    def _from_environment(self) -> str:
        secret = os.environ.get(self.name)
        if secret is None:
            raise SecretUnavailable(
                f"the secret {self} cannot be read: the environment variable is not set",
                hint=f"set {self.name} where sqlbak runs",
            )
        return secret

    def _from_file(self) -> str:
        path = Path(self.name) if self.folder is None else self.folder / self.name
        try:
            with path.open("rb") as file:
                content = file.read(_LONGEST_BYTES + 1)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a path"
            raise SecretUnavailable(
                f"the secret {self} cannot be read: {reason}",
                hint=f"make {path} readable for the user that runs sqlbak",
            ) from error
        if len(content) > _LONGEST_BYTES:
            raise SecretUnavailable(
                f"the secret {self} is longer than {_LONGEST_BYTES} bytes",
                hint="name a file that holds only the secret",
            )
        try:
            return content.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            # The decoder's own error carries the bytes, so it is not kept as the cause.
            raise SecretUnavailable(
                f"the secret {self} is not UTF-8 text",
                hint="name a file that holds the secret as text",
            ) from None
