"""What every command needs: the shared options, and the fleet they lead to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sqlbak.cli.output import Output
from sqlbak.errors import UsageError
from sqlbak.stopping import NEVER, StopSignal

if TYPE_CHECKING:
    from sqlbak.fleet import Fleet
    from sqlbak.policy.loading import LoadedConfiguration
    from sqlbak.restore.downloaded import DownloadedItem

__all__ = [
    "AsJson",
    "Config",
    "FromFolder",
    "Item",
    "LogSpace",
    "PgBin",
    "Quiet",
    "RootConfig",
    "Session",
    "VaultKeys",
    "VaultName",
    "session",
    "size_option",
]

DEFAULT_CONFIG = Path("policies")
_SHIFTS = {"MiB": 20, "GiB": 30, "TiB": 40}
_SIZE = re.compile(r"([1-9][0-9]{0,6}) ?(MiB|GiB|TiB)")

_CONFIG_HELP = "Policy file or folder of policy files (default: $SQLBAK_CONFIG, else ./policies)."
Config = Annotated[Path | None, typer.Option("--config", metavar="PATH", help=_CONFIG_HELP)]
# Only before the command: there the variable stands behind what is written in either place.
RootConfig = Annotated[
    Path | None,
    typer.Option("--config", envvar="SQLBAK_CONFIG", metavar="PATH", help=_CONFIG_HELP),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout, text on stderr.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]
PgBin = Annotated[
    Path | None,
    typer.Option("--pg-bin", metavar="DIR", help="Where PostgreSQL's own programs are."),
]
FromFolder = Annotated[
    Path | None,
    typer.Option(
        "--from",
        metavar="FOLDER",
        help="A downloaded copy of the vault's items/<item> folder; needs no vault and no policy.",
    ),
]
VaultKeys = Annotated[
    list[str] | None,
    typer.Option(
        "--vault-key",
        metavar="REF",
        help="With --from, where the vault is encrypted: env:NAME or file:PATH of its key. May be "
        "repeated.",
    ),
]
LogSpace = Annotated[
    str | None,
    typer.Option(
        "--log-space",
        metavar="SIZE",
        help="How much log may lie on disk ahead of its replay, such as 512MiB or 20GiB (1GiB).",
    ),
]
VaultName = Annotated[
    str | None, typer.Argument(metavar="[VAULT]", help="A vault of the policy files.")
]
Item = Annotated[
    str | None,
    typer.Argument(
        metavar="[ITEM]", help="An instance; may be left out where only one can be meant."
    ),
]


@dataclass(slots=True)
class Session:
    """The shared options of one command run, from before or after the command's name."""

    config: Path
    output: Output
    quiet: bool

    def own_command(self, name: str, folder: DownloadedItem | None) -> tuple[str, ...]:
        """Another command of ours that works on the same vaults, or on the same ``folder``, for
        the operator to run from anywhere."""
        if folder is not None:
            keys = [word for key in folder.keys for word in ("--vault-key", str(key))]
            return ("sqlbak", name, "--from", str(folder.folder.absolute()), *keys)
        return ("sqlbak", name, "--config", str(self.config.absolute()))

    @staticmethod
    def folder(source: Path | None, vault_keys: Sequence[str] | None) -> DownloadedItem | None:
        """What --from names, with the keys of --vault-key; None: the vaults are meant.
        UsageError."""
        from sqlbak.policy.secret_reference import SecretReference
        from sqlbak.restore.downloaded import DownloadedItem

        if source is None and vault_keys:
            raise UsageError(
                "--vault-key goes with --from only",
                hint="the keys of a vault stand in its settings, under encryption",
            )
        try:
            keys = tuple(SecretReference.parse(key).absolute() for key in vault_keys or ())
        except ValueError as error:
            raise UsageError(f"--vault-key: {error}") from None
        return None if source is None else DownloadedItem(source, keys)

    def load(self) -> LoadedConfiguration:
        """Read the policy files. Raises ConfigurationInvalid."""
        # Not every command reads them.
        from sqlbak.policy.loading import load_configuration

        return load_configuration(self.config)

    def fleet(self, stop: StopSignal = NEVER) -> Fleet:
        """Everything that is configured, opened on demand; use it in a ``with`` block. ``stop``
        ends waits for a store.
        """
        from sqlbak.fleet import Fleet

        return Fleet(self.load().configuration, stop=stop)


def session(
    context: typer.Context,
    config: Path | None = None,
    *,
    as_json: bool = False,
    quiet: bool = False,
) -> Session:
    """Join the options given after the command with those given before it."""
    before = context.find_root().obj or {}
    path = config or before.get("config") or DEFAULT_CONFIG
    return Session(
        config=path,
        output=Output(as_json=as_json or bool(before.get("json"))),
        quiet=quiet or bool(before.get("quiet")),
    )


def size_option(name: str, text: str | None) -> int | None:
    """The bytes that ``text`` stands for. UsageError when it is no size."""
    if text is None:
        return None
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{name} {text}: not a size", hint=f"write {name} 512MiB, or 20GiB")
    return int(match[1]) << _SHIFTS[match[2]]
