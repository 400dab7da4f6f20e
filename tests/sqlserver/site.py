"""A SQL Server, the folder through which backups reach it, a vault and a policy file: all that the
whole program needs. The server is the simulator, or a real one in a container."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sqlbak.cli.main import _run as run_program
from sqlbak.engines.port import DatabaseTarget
from sqlbak.fleet import Fleet
from sqlbak.jobs.backup import BackupOutcome, back_up
from sqlbak.model import Point, PointType
from sqlbak.policy.loading import load_configuration
from sqlbak.restore.databases import RestoredDatabase, restore_database_item
from sqlbak.vault.vault_key import VaultKey
from tests.sqlserver_simulator import Simulator

INSTANCE = "erp"
SERVER_FOLDER = "/var/opt/mssql/backup"
START = datetime(2026, 10, 20, 6, tzinfo=UTC)


@dataclass
class Site:
    """One server under one policy. Commits are noted with the server's instant (UTC)."""

    folder: Path
    host: str
    port: int
    password: str
    delivery: Path
    simulator: Simulator
    zone: str = "UTC"
    encryption: str = ""
    commits: dict[str, list[tuple[datetime, str]]] = field(default_factory=dict)

    def write_policy(self, user: str = "sa") -> Path:
        path = self.folder / "policies.yaml"
        path.write_text(
            f"""
vaults:
  main: {{url: "file://{self.folder / "vault"}", redundancy: local{self.encryption}}}
policies:
  gold:
    vault: main
    timezone: {self.zone}
    full: "0 1 * * sun"
    differential: "0 1 * * mon-sat"
    log: 15m
instances:
  {INSTANCE}:
    engine: sqlserver
    host: {self.host}
    port: {self.port}
    user: {user}
    password: env:ERP_PASSWORD
    tls: clear
    delivery: {{disk: {{server_path: {SERVER_FOLDER}, local_path: "{self.delivery}"}}}}
"""
        )
        return path

    def encrypt(self) -> None:
        """From now on backups are encrypted."""
        (self.folder / "vault.key").write_text(VaultKey.new().text())
        self.encryption = ", encryption: {key: file:vault.key}"
        self.write_policy()

    @contextmanager
    def fleet(self):
        with Fleet(load_configuration(self.folder / "policies.yaml").configuration) as fleet:
            yield fleet

    def backup(self, database: str, kind: str = "log", **options: Any) -> Point:
        return self.backup_outcome(database, kind, **options).points[-1]

    def backup_outcome(self, database: str, kind: str, **options: Any) -> BackupOutcome:
        with self.fleet() as fleet:
            return back_up(fleet, f"{INSTANCE}/{database}", PointType(kind), **options)

    def restore(
        self,
        database: str,
        to: datetime | str,
        name: str = "Copy",
        *,
        stop: Any = None,
        lineage: str | None = None,
        **target: Any,
    ) -> RestoredDatabase:
        asked = to if isinstance(to, str) else to.isoformat()
        options = {} if stop is None else {"stop": stop}
        with self.fleet() as fleet:
            return restore_database_item(
                fleet,
                f"{INSTANCE}/{database}",
                asked,
                target=lambda _source: DatabaseTarget(name, **target),
                server=lambda _item: fleet.restore_server(INSTANCE),
                lineage=lineage,
                **options,
            )

    def program(self, *words: str) -> int:
        """Run the whole program in this process; its exit code."""
        return run_program(["--config", str(self.folder / "policies.yaml"), *words])

    # the server ----------------------------------------------------------------------------
    def insert(self, database: str, value: str) -> datetime:
        """One transaction; the server's instant of it."""
        now = self.simulator.clock.utc()
        self.simulator.insert(database, value)
        self.commits.setdefault(database, []).append((now, value))
        return now

    def write_history(self, database: str, **options: Any) -> None:
        """A full, a differential and logs, a commit every minute."""
        self.simulator.create_database(database, **options)
        self.insert(database, "before")
        self.advance(minutes=1)
        self.backup(database, "full")
        for number in range(12):
            self.advance(seconds=60)
            self.insert(database, f"row {number}")
            if number == 5:
                self.advance(seconds=20)
                self.backup(database, "differential")
            if number % 3 == 2:
                self.advance(seconds=20)
                self.backup(database, "log")

    def rows(self, database: str) -> list[str]:
        return self.simulator.rows(database)

    def rows_at(self, database: str, instant: datetime) -> list[str]:
        """The oracle: what had been committed by then."""
        return [value for at, value in self.commits.get(database, []) if at <= instant]

    def state(self, database: str) -> str | None:
        found = self.simulator.instance.find(database)
        return None if found is None else found.state

    def drop(self, database: str) -> None:
        self.simulator.execute(f"DROP DATABASE [{database.replace(']', ']]')}]")

    def advance(self, **parts: float) -> datetime:
        self.simulator.clock.advance(**parts)
        return self.simulator.clock.utc()

    def leftovers(self) -> list[str]:
        """Files that nobody removed from the delivery folder."""
        return sorted(path.name for path in self.delivery.iterdir())


def said(capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], str]:
    """The document on stdout, and stderr."""
    out, err = capsys.readouterr()
    return (json.loads(out) if out.strip() else {}), err


__all__ = ["INSTANCE", "SERVER_FOLDER", "START", "Site", "said"]
