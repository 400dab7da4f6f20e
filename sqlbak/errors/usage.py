"""The command line or the configuration is wrong; nothing was done."""

from __future__ import annotations

from collections.abc import Sequence

from sqlbak.errors.root import SqlbakError

__all__ = [
    "ConfigurationInvalid",
    "InputUnreadable",
    "NameNeeded",
    "SecretUnavailable",
    "UnknownName",
    "UsageError",
    "VaultKeyInvalid",
    "VaultKeyMissing",
]


class UsageError(SqlbakError):
    """The command line or the configuration is wrong; nothing was done."""

    code = "usage"
    exit_code = 2


class ConfigurationInvalid(UsageError):
    """The policy files break a rule. ``problems`` holds one ``file:line: …`` sentence for each."""

    code = "configuration_invalid"

    def __init__(self, problems: Sequence[str]) -> None:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(
            f"the configuration has {count}:\n" + "\n".join(f"  {p}" for p in problems),
            hint="mend the lines named above, then run: sqlbak validate",
        )
        self.problems = tuple(problems)


class UnknownName(UsageError):
    """A name on the command line stands for nothing that is configured or stored."""

    code = "unknown_name"

    def __init__(self, kind: str, name: str, choices: Sequence[str]) -> None:
        listed = ", ".join(sorted(choices)) if choices else "none exist"
        super().__init__(f"there is no {kind} {name!r}", hint=f"choices: {listed}")


class NameNeeded(UsageError):
    """A name was left out where several things could be meant."""

    code = "name_needed"

    def __init__(self, kind: str, choices: Sequence[str]) -> None:
        listed = ", ".join(sorted(choices)) if choices else "none exist"
        super().__init__(f"which {kind} is meant?", hint=f"name one of: {listed}")


class SecretUnavailable(UsageError):
    """An ``env:`` or ``file:`` reference could not be read. Never carries the secret itself."""

    code = "secret_unavailable"


class InputUnreadable(UsageError):
    """A file named on the command line cannot be read or understood."""

    code = "input_unreadable"


class VaultKeyInvalid(UsageError):
    """What a reference to a vault key leads to is no vault key. Never carries what was read."""

    code = "vault_key_invalid"


class VaultKeyMissing(UsageError):
    """Something in the vault is encrypted, and its settings do not name the key."""

    code = "vault_key_missing"
