"""One thing that is wrong with a setting: where in the document, what, and what to write."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SettingProblem", "quoted"]

_LONGEST_QUOTE = 60


@dataclass(frozen=True, slots=True)
class SettingProblem:
    """``location`` is the path of keys to the setting, e.g. ``("policies", "gold", "full")``.

    ``message`` says what is wrong and what to write instead; it never holds a secret.
    """

    location: tuple[str | int, ...]
    message: str


def quoted(text: str) -> str:
    """``text`` for a message: in quotes, printable ASCII escapes, cut when it is long."""
    if len(text) > _LONGEST_QUOTE:
        text = text[: _LONGEST_QUOTE - 3] + "..."
    return ascii(text) if not text.isprintable() else f"'{text}'"
