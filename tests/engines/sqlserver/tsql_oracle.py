"""Microsoft's own T-SQL parser as a witness: what it makes of our statements.

``parse`` asks ScriptDom in a process of its own. Where it is not
installed (``tests/engines/sqlserver/install_tsql_oracle.sh``), the tests that need it are skipped.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
FOLDER = Path(os.environ.get("SQLBAK_TEST_TSQL_ORACLE", ROOT / ".cache" / "tsql-oracle"))
CHILD = Path(__file__).with_name("scriptdom_child.py")

needs_oracle = pytest.mark.skipif(
    not (FOLDER / "complete").is_file(),
    reason="Microsoft's T-SQL parser is not there: tests/engines/sqlserver/install_tsql_oracle.sh",
)

ZSTD = "COMPRESSION (ALGORITHM = ZSTD)"
"""Newer than every ScriptDom that can be had; stands for plain COMPRESSION here."""

REGION = re.compile(
    r"""(?:,| WITH) (?:BACKUP|RESTORE)_OPTIONS = N'{"s3": {"region": "[a-z0-9-]+"}}'"""
)
"""Newer, too, and always the last option; it is left out here."""

URL = "URL = N's3://"
"""As new; stands for a file of that name here."""


@dataclass(frozen=True)
class Meaning:
    """One statement as ScriptDom understands it. ``options``: name to value, None without one;
    ``moves``: logical name to path; ``devices``: kind and name each."""

    kind: str
    database: str | None
    devices: tuple[tuple[str, str], ...]
    options: dict[str, str | None]
    moves: dict[str, str]


@cache
def _child() -> subprocess.Popen[str]:
    """Starting .NET takes two seconds: once for all tests."""
    child = subprocess.Popen(
        [sys.executable, "-I", str(CHILD), str(FOLDER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    atexit.register(child.communicate)
    return child


def parse(statements: Sequence[str]) -> list[tuple[list[str], Any]]:
    """For each statement its errors, and the tree of the one statement in it (None with errors)."""
    known = [each.replace(ZSTD, "COMPRESSION") for each in statements]
    asked = [REGION.sub("", each.replace(URL, "DISK = N's3://")) for each in known]
    child = _child()
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(json.dumps(asked) + "\n")
    child.stdin.flush()
    answer = child.stdout.readline()
    assert answer, "the parser's process died"
    found: list[tuple[list[str], Any]] = []
    for each in json.loads(answer):
        node = None
        if each["tree"] is not None:
            batches = each["tree"]["Batches"]
            assert len(batches) == 1
            assert len(batches[0]["Statements"]) == 1, "more than one statement"
            node = batches[0]["Statements"][0]
        found.append((each["errors"], node))
    return found


def meaning(node: Any) -> Meaning:
    """What a BACKUP or RESTORE says."""
    options: dict[str, str | None] = {}
    moves: dict[str, str] = {}
    for option in node["Options"]:
        if option["is"] == "MoveRestoreOption":
            moves[option["LogicalFileName"]["Value"]] = option["OSFileName"]["Value"]
        elif option["is"] == "StopRestoreOption":
            assert not option.get("IsStopAt")
            options[option["OptionKind"]] = option["Mark"]["Value"]
        else:
            value = option.get("Value")
            assert option["OptionKind"] not in options, "an option is said twice"
            options[option["OptionKind"]] = None if value is None else value["Value"]
    name = node.get("DatabaseName")
    kind = node["is"] if "Kind" not in node else f"{node['is']} {node['Kind']}"
    devices = tuple((one["DeviceType"], one["PhysicalDevice"]["Value"]) for one in node["Devices"])
    return Meaning(kind, name and name["Value"], devices, options, moves)
