"""What every command needs: the shared options, and the fleet they lead to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from sqlbak.cli.output import Output
from sqlbak.fleet import Fleet
from sqlbak.policy.loading import LoadedConfiguration, load_configuration
from sqlbak.stopping import NEVER, StopSignal

__all__ = ["AsJson", "Config", "Item", "PgBin", "Quiet", "RootConfig", "Session", "session"]

DEFAULT_CONFIG = Path("policies")

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

    def load(self) -> LoadedConfiguration:
        """Read the policy files. Raises ConfigurationInvalid."""
        return load_configuration(self.config)

    def fleet(self, stop: StopSignal = NEVER) -> Fleet:
        """Everything that is configured, opened on demand; use it in a ``with`` block. ``stop``
        ends waits for a store.
        """
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
