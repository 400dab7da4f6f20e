"""Runs in a process of its own: a list of statements as JSON a line on stdin, a line with what
ScriptDom makes of them on stdout.

For each statement ``{"errors": [...], "tree": ...}``. A node of the tree has its class under "is",
and its properties by name; values are text as ScriptDom has it, without quotes.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

_POSITIONS = {
    "StartOffset",
    "FragmentLength",
    "StartLine",
    "StartColumn",
    "FirstTokenIndex",
    "LastTokenIndex",
    "ScriptTokenStream",
}


def _runtime(folder: Path) -> None:
    os.environ["DOTNET_SYSTEM_GLOBALIZATION_INVARIANT"] = "1"
    sys.path.insert(0, str(folder))
    from clr_loader import get_coreclr

    config = {
        "runtimeOptions": {"framework": {"name": "Microsoft.NETCore.App", "version": "3.1.0"}}
    }
    with tempfile.NamedTemporaryFile("w", suffix=".runtimeconfig.json", delete=False) as file:
        json.dump(config, file)
    import pythonnet

    pythonnet.set_runtime(
        get_coreclr(runtime_config=file.name, dotnet_root=str(folder / "dotnetcore2" / "bin"))
    )
    import clr

    Path(file.name).unlink()
    tools = folder / "mssqlcli" / "mssqltoolsservice" / "bin"
    clr.AddReference(str(tools / "Microsoft.SqlServer.TransactSql.ScriptDom.dll"))


def _tree(value: Any) -> Any:
    import System

    if value is None or isinstance(value, bool | int | float | str):
        return value
    kind = value.GetType()
    if kind.IsEnum:
        return str(value)
    if System.Array[System.Object] and hasattr(value, "Count") and hasattr(value, "get_Item"):
        return [_tree(value[index]) for index in range(value.Count)]
    if not kind.FullName.startswith("Microsoft.SqlServer.TransactSql"):
        return str(value)
    node: dict[str, Any] = {"is": kind.Name}
    # The property's own value: its declared type would hide what the object really is.
    for each in kind.GetProperties():
        if each.Name in _POSITIONS or each.GetIndexParameters().Length:
            continue
        inner = each.GetValue(value)
        if inner is not None:
            node[each.Name] = _tree(inner)
    return node


def main() -> None:
    folder = Path(sys.argv[1]).absolute()
    _runtime(folder)
    from Microsoft.SqlServer.TransactSql.ScriptDom import TSql150Parser
    from System.IO import StringReader

    for line in sys.stdin:
        found = []
        for statement in json.loads(line):
            parsed = TSql150Parser(True).Parse(StringReader(statement), None)
            fragment, errors = parsed if isinstance(parsed, tuple) else (parsed, [])
            messages = [error.Message for error in errors]
            tree = None if messages else _tree(fragment)
            found.append({"errors": messages, "tree": tree})
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
