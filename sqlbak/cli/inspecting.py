"""``sqlbak inspect``: what stands between a server and its backups."""

from __future__ import annotations

from typing import Any

import typer

from sqlbak.cli.output import instant
from sqlbak.cli.session import AsJson, Config, Item, session
from sqlbak.engines.port import Severity
from sqlbak.errors import ServerNotReady

__all__ = ["inspect"]


def inspect(
    context: typer.Context, item: Item = None, config: Config = None, as_json: AsJson = False
) -> None:
    """Look at an instance without changing it; name each problem and the line that mends it."""
    here = session(context, config, as_json=as_json)
    with here.fleet() as fleet:
        named = item is not None and "/" in item
        instance = fleet.item_named(item) if named else fleet.instance_named(item)
        inspection = fleet.inspect(instance)
    problems: list[dict[str, Any]] = [
        {
            "code": problem.code,
            "severity": problem.severity.value,
            "what": problem.what,
            "remedy": problem.remedy,
        }
        for problem in inspection.problems
    ]
    blocking = [p for p in inspection.problems if p.severity is Severity.BLOCKING]
    document = {
        "instance": instance,
        "engine": inspection.engine.value,
        "version": inspection.version,
        "server_clock": instant(inspection.server_clock),
        "ready": not blocking,
        "problems": problems,
        "facts": dict(inspection.facts),
    }
    here.output.text(f"{instance}: {inspection.engine.value} {inspection.version}")
    for problem in inspection.problems:
        here.output.text(f"{problem.severity.value}: {problem.what}")
        for line in problem.remedy.splitlines():
            here.output.text(f"    {line}")
    if blocking:
        here.output.document(document)
        raise typer.Exit(ServerNotReady.exit_code)
    here.output.document(document)
    here.output.text("ready for backups")
