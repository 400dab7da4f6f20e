"""The ``sqlbak`` program: errors become exit codes here.

Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 refused, 4 protection at risk,
130 interrupted.
"""

from __future__ import annotations

import sys
import traceback
from typing import Annotated

import typer
from typer.exceptions import TyperException

from sqlbak import __version__
from sqlbak.cli.commands import CommandsOnDemand
from sqlbak.cli.output import Output
from sqlbak.cli.session import AsJson, Quiet, RootConfig
from sqlbak.errors import Interrupted, SqlbakError, UsageError

__all__ = ["app", "main"]

app = typer.Typer(
    name="sqlbak",
    cls=CommandsOnDemand,
    help="Backups of PostgreSQL and SQL Server by policy, and restores to the second.",
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,
    rich_markup_mode=None,
)


def _print_version(value: bool) -> None:
    if value:
        sys.stdout.write(f"sqlbak {__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    config: RootConfig = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    version: Annotated[  # noqa: ARG001 - acts in its callback
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    context.obj = {"config": config, "json": as_json, "quiet": quiet}


def main(arguments: list[str] | None = None) -> None:
    """Run one command and exit with the code that the contract gives its outcome."""
    words = sys.argv[1:] if arguments is None else arguments
    sys.exit(_run(words))


def _run(words: list[str]) -> int:
    output = Output(as_json="--json" in words)
    if not words:
        app(args=["--help"], standalone_mode=False, prog_name="sqlbak")
        return UsageError.exit_code
    try:
        result = app(args=words, standalone_mode=False, prog_name="sqlbak")
    except SqlbakError as error:
        output.error(error)
        return error.exit_code
    except TyperException as error:
        output.error(UsageError(error.format_message(), hint="see: sqlbak --help"))
        return UsageError.exit_code
    except (typer.Abort, KeyboardInterrupt):
        output.error(Interrupted())
        return Interrupted.exit_code
    except BrokenPipeError:
        # The reader of our output went away; there is nobody left to tell.
        sys.stderr.close()
        return 1
    except Exception as error:  # noqa: BLE001 - the edge: a defect must still end in one clear line
        traceback.print_exc(file=sys.stderr)
        output.error(
            SqlbakError(
                f"a defect in sqlbak: {type(error).__name__}",
                hint="please report it with the lines above; no recovery point was harmed by it",
            )
        )
        return 1
    return result if isinstance(result, int) else 0


if __name__ == "__main__":
    main()
