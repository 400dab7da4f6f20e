"""The commands of ``sqlbak`` by name. The module of a command is imported when that command is
asked for, so that a short one does not pay for what scheduler, monitor and restores bring along.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

__all__ = ["COMMANDS", "CommandsOnDemand"]

COMMANDS: Final = {
    "validate": "validating:validate",
    "run": "serving:run",
    "worker": "queueing:worker",
    "queue": "queueing:show_queue",
    "ship": "shipping:ship",
    "backup": "backing_up:backup",
    "list": "listing:list_points",
    "windows": "listing:list_windows",
    "status": "status:status",
    "jobs": "jobs:jobs",
    "notify": "notify:notify",
    "plan": "planning:plan_restore",
    "restore": "restoring:restore",
    "adopt": "adopting:adopt_backups",
    "feed": "feeding:feed",
    "inspect": "inspecting:inspect",
    "vault": "vaults:app",
    "key": "keys:app",
    "demo": "demonstrating:demo",
}
"""Where each lives: a module of this package, and a function or a group of commands in it. In the
order in which help shows them."""


class CommandsOnDemand(TyperGroup):
    """The group of all commands."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names; nothing is imported for it."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name; None: there is none."""
        del ctx
        if cmd_name not in self.commands and cmd_name in COMMANDS:
            self.commands[cmd_name] = _loaded(cmd_name)
        return self.commands.get(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As typer does it; for a name that is none it compares all of them."""
        if args[0] not in COMMANDS:
            for name in COMMANDS:
                self.get_command(ctx, name)
        return super().resolve_command(ctx, args)


def _loaded(name: str) -> TyperCommand | TyperGroup:
    module, _, attribute = COMMANDS[name].partition(":")
    found = getattr(import_module(f"sqlbak.cli.{module}"), attribute)
    outer = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    if isinstance(found, typer.Typer):
        outer.add_typer(found, name=name)
    else:
        outer.command(name)(found)
    # With a callback it is a group, whatever it holds; the command in it is the one asked for.
    outer.callback()(_nothing)
    group = typer.main.get_command(outer)
    assert isinstance(group, TyperGroup)  # noqa: S101 - typer makes a group where a callback is
    command = group.commands[name]
    assert isinstance(command, TyperCommand | TyperGroup)  # noqa: S101 - as every command of typer's
    return command


def _nothing() -> None:
    """The callback of a group that only one command is taken from."""
