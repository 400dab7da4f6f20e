"""The root of all errors."""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "SqlbakError",
]


class SqlbakError(Exception):
    """Something failed. ``message`` says what and where, ``hint`` says what to do about it."""

    code: ClassVar[str] = "failed"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message

    def advise(self, more: str) -> None:
        """Add to the hint what only a caller knows."""
        self.hint = f"{self.hint}; {more}" if self.hint else more
