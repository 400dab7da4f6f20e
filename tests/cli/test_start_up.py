"""A command brings along what it needs and no more: scripts call the short ones again and again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sqlbak.cli.commands import COMMANDS
from sqlbak.cli.main import app

SERVICE = ("sqlbak.scheduler", "sqlbak.monitor", "sqlbak.jobs", "sqlbak.demo")
LIBRARIES = (
    "cryptography",
    "apprise",
    "boto3",
    "prometheus_client",
    "procrastinate",
    "pymssql",
    "structlog",
)
DRIVERS = ("psycopg", "sqlbak.engines.postgres", "sqlbak.engines.sqlserver")
FILES = ("pydantic", "ruamel", "sqlbak.policy", "sqlbak.vault")

PROGRAM = """
import json, sys
from sqlbak.cli.main import main
try:
    main(sys.argv[2:])
except SystemExit as ended:
    code = ended.code
with open(sys.argv[1], "w") as file:
    json.dump({"code": code, "modules": sorted(sys.modules)}, file)
"""


def ended(folder: Path, *words: str) -> tuple[int, set[str]]:
    """How a run of sqlbak ended, and the modules that it had imported by then."""
    told = folder / "told.json"
    subprocess.run([sys.executable, "-c", PROGRAM, told, *words], capture_output=True, check=True)
    document = json.loads(told.read_text())
    return document["code"] or 0, set(document["modules"])


@pytest.fixture
def policies(tmp_path: Path) -> str:
    file = tmp_path / "policies.yaml"
    file.write_text(
        f'vaults: {{main: {{url: "file://{tmp_path}/vault", redundancy: local}}}}\n'
        "instances: {orders: {engine: postgres, dsn: env:ORDERS_DSN}}\n"
    )
    return str(file)


def test_a_command_imports_what_it_needs_and_no_more(tmp_path: Path, policies: str) -> None:
    (tmp_path / "empty").mkdir()
    for code, words, unwanted in (
        (0, ["--version"], (*SERVICE, *LIBRARIES, *DRIVERS, *FILES)),
        (0, ["list"], (*SERVICE, *LIBRARIES, *DRIVERS)),
        (0, ["windows"], (*SERVICE, *LIBRARIES, *DRIVERS)),
        (3, ["feed", str(tmp_path / "empty")], (*SERVICE, *LIBRARIES)),
        (0, ["validate"], ("sqlbak.monitor", "sqlbak.jobs", *LIBRARIES, *DRIVERS)),
        (0, ["jobs"], ("sqlbak.scheduler", *LIBRARIES, *DRIVERS)),
    ):
        told, modules = ended(tmp_path, "--config", policies, *words)
        assert told == code, words
        assert not modules & set(unwanted), words


def test_every_command_is_where_it_is_looked_for() -> None:
    from typer.main import get_command

    group = get_command(app)
    names = group.list_commands(None)  # type: ignore[attr-defined]
    assert names == list(COMMANDS)
    for name in names:
        command = group.get_command(None, name)  # type: ignore[attr-defined]
        assert command.name == name
        assert command.help
