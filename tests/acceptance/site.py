"""A whole small installation for tests: a policy file, a vault, and sqlbak as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

__all__ = ["Answer", "Site", "encrypted_site", "kill_hard"]

COMMAND = (sys.executable, "-m", "sqlbak")


@dataclass(frozen=True)
class Answer:
    """What one run of the program gave."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The JSON document on stdout."""
        loaded: dict[str, Any] = json.loads(self.out)
        return loaded

    def ok(self) -> dict[str, Any]:
        """The document, after making sure that the run succeeded."""
        assert self.code == 0, f"exit {self.code}\n{self.err}\n{self.out}"
        return self.document


@dataclass
class Site:
    """One instance called ``orders`` under one policy."""

    root: Path
    dsn: str
    vault_url: str = ""
    policy: str = 'full: "0 1 * * *"\n    log: 15m'
    vault_options: str = ""
    instance_options: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.vault_url = self.vault_url or f"file://{self.root}/vault"
        self.config = self.root / "policies"
        self.config.mkdir(exist_ok=True)
        (self.config / "orders.yaml").write_text(self.text())

    def text(self) -> str:
        """The policy file."""
        return (
            f"vaults:\n  main:\n    url: {self.vault_url}\n    redundancy: local\n"
            f"{self.vault_options}"
            f"policies:\n  gold:\n    vault: main\n    {self.policy}\n"
            f"instances:\n  orders:\n    engine: postgres\n    dsn: env:ORDERS_DSN\n"
            f"    policy: gold\n{self.instance_options}"
        )

    @property
    def environ(self) -> dict[str, str]:
        """The environment of the program."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "SQLBAK", "AWS"))}
        return {
            **kept,
            "SQLBAK_CONFIG": str(self.config),
            "ORDERS_DSN": self.dsn,
            **self.environment,
        }

    def run(self, *words: str | Path, timeout: float = 180, as_json: bool = True) -> Answer:
        """Run the program to its end."""
        command = [*COMMAND, *map(str, words), *(["--json"] if as_json else [])]
        done = subprocess.run(
            command, capture_output=True, text=True, env=self.environ, timeout=timeout, check=False
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def start(self, *words: str | Path) -> subprocess.Popen[str]:
        """Begin a run, in a session of its own so that it can be killed with all its children."""
        return subprocess.Popen(
            [*COMMAND, *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environ,
            start_new_session=True,
        )

    def backup(self, kind: str, *more: str) -> dict[str, Any]:
        """Take a backup; its recovery point."""
        point: dict[str, Any] = self.run("backup", "orders", "--type", kind, *more).ok()["point"]
        return point

    def windows(self) -> list[tuple[datetime, datetime]]:
        """The windows, as pairs of instants."""
        found = self.run("windows", "orders").ok()["windows"]
        return [
            (datetime.fromisoformat(one["from"]), datetime.fromisoformat(one["to"]))
            for one in found
        ]

    def restore(self, to: str, into: Path, *more: str | Path) -> Answer:
        """Restore; the caller looks at the answer."""
        return self.run("restore", "orders", "--to", to, "--into", into, *more)


def encrypted_site(root: Path, dsn: str, **more: Any) -> Site:
    """A site whose vault is encrypted with the key in ``root/vault.key``."""
    Site(root, dsn).run("key", "new", root / "vault.key").ok()
    options = "    encryption: {key: file:../vault.key}\n"
    return Site(root, dsn, vault_options=options, **more)


def kill_hard(process: subprocess.Popen[str], also: Sequence[int] = ()) -> None:
    """kill -9, and wait for the end."""
    for pid in (process.pid, *also):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.communicate()
