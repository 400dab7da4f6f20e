"""A simulated SQL Server with sqlbak beside it: policies, vault, the folder between them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from typer.testing import CliRunner

from sqlbak.cli.main import app
from sqlbak.engines.sqlserver.statements import literal
from sqlbak.fleet import Fleet, StoredItem
from sqlbak.jobs.backup import BackupOutcome, back_up
from sqlbak.model import Point, PointType
from sqlbak.policy.loading import load_configuration
from sqlbak.restore.executor import plan_item
from sqlbak.vault.manifest import Manifest
from tests.sqlserver_simulator import Simulator

SERVER_FOLDER = "/var/opt/mssql/backup"
FULL, DIFFERENTIAL, LOG = PointType.FULL, PointType.DIFFERENTIAL, PointType.LOG
ROOT = Path(__file__).parents[3]


@dataclass
class Site:
    """``folder`` is what the server knows as ``/var/opt/mssql/backup``."""

    root: Path
    vault: Path
    simulator: Simulator
    settings: dict[str, Any] = field(default_factory=dict)
    databases: dict[str, list[str]] = field(default_factory=dict)
    vault_settings: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.root / "folder"

    @property
    def policies(self) -> Path:
        return self.root / "policies.yaml"

    def write_policies(self, **policy: Any) -> None:
        server_folder = self.settings.get("server_path", SERVER_FOLDER)
        document = {
            "vaults": {
                "main": {"url": f"file://{self.vault}", "redundancy": "local"} | self.vault_settings
            },
            "policies": {
                "gold": {"vault": "main", "full": "0 1 * * sun", "log": "15m"}
                | {"differential": "0 1 * * mon-sat"}
                | policy
            },
            "instances": {
                "erp": {
                    "engine": "sqlserver",
                    "host": self.simulator.host,
                    "port": self.simulator.port,
                    "user": "sa",
                    "password": f"file:{self.root}/password",
                    "tls": "clear",
                    "policy": "gold",
                    "databases": {"exclude": ["master", "model", "msdb"]} | self.databases,
                    "delivery": {
                        "disk": {"server_path": server_folder, "local_path": str(self.folder)}
                    },
                }
                | {key: value for key, value in self.settings.items() if key != "server_path"}
            },
        }
        (self.root / "password").write_text(self.simulator.sa_password)
        self.policies.write_text(json.dumps(document))

    @contextmanager
    def fleet(self) -> Iterator[Fleet]:
        with Fleet(load_configuration(self.policies).configuration) as fleet:
            yield fleet

    def backup(self, name: str, kind: PointType, **options: Any) -> BackupOutcome:
        """One backup of ``erp/name``."""
        with self.fleet() as fleet:
            return back_up(fleet, f"erp/{name}", kind, **options)

    def point(self, name: str, kind: PointType, **options: Any) -> Point:
        """The same where exactly the kind asked for must come of it."""
        outcome = self.backup(name, kind, **options)
        assert [point.type for point in outcome.points] == [kind], outcome.notes
        return outcome.points[0]

    def stored(self, name: str) -> list[StoredItem]:
        with self.fleet() as fleet:
            return fleet.stored_items(f"erp/{name}")

    def points(self, name: str) -> list[Point]:
        """Of all items that have that name, oldest first."""
        found = [point for stored in self.stored(name) for point in stored.points()]
        return sorted(found, key=lambda point: (point.started_at, point.last_lsn))

    def manifest(self, name: str, point: Point) -> Manifest:
        for stored in self.stored(name):
            if any(one.id == point.id for one in stored.points()):
                return stored.vault.manifest(stored.item.id, point.id)
        raise AssertionError(f"{point.id} is not there")

    def files(self) -> list[str]:
        """What lies in the folder between the two."""
        return sorted(path.name for path in self.folder.iterdir())

    def restored(self, name: str, to: str = "latest", **options: Any) -> list[str]:
        """The rows of dbo.t that a restore of ``erp/name`` to ``to`` gives: planned by sqlbak,
        carried out by statements written here, in a database that is dropped again."""
        with self.fleet() as fleet:
            planned = plan_item(fleet, f"erp/{name}", to, **options)
            for number, step in enumerate(planned.plan.steps):
                facts, source = planned.stored.open_point(step)
                names = []
                for stream in facts["streams"]:
                    path = self.folder / f"restore-{number}-{stream}"
                    frames = range(len(source.frame_starts(stream)))
                    path.write_bytes(b"".join(source.read_frame(stream, at) for at in frames))
                    names.append(
                        f"DISK = N'{self.settings.get('server_path', SERVER_FOLDER)}"
                        f"{self.sign}{path.name}'"
                    )
                self._apply(step, facts, ", ".join(names), planned.plan.stop_at, number)
        self.simulator.execute("RESTORE DATABASE [restored] WITH RECOVERY")
        rows = self.simulator.rows("restored")
        self.simulator.execute("DROP DATABASE [restored]")
        for path in self.folder.glob("restore-*"):
            path.unlink()
        return rows

    @property
    def sign(self) -> str:
        return "\\" if "\\" in self.settings.get("server_path", "") else "/"

    def _apply(self, step: Point, facts: Any, devices: str, stop_at: Any, number: int) -> None:
        if step.type is LOG:
            stop = ""
            if stop_at is not None:
                local = stop_at.replace(tzinfo=None).isoformat(timespec="milliseconds")
                stop = f", STOPAT = '{local}'"
            self.simulator.execute(
                f"RESTORE LOG [restored] FROM {devices} WITH NORECOVERY, CHECKSUM{stop}"
            )
            return
        moves = "".join(
            f", MOVE {literal(row['LogicalName'])} TO N'{self._data_folder(row)}restored-{index}'"
            for index, row in enumerate(facts["file_list"])
        )
        self.simulator.execute(
            f"RESTORE DATABASE [restored] FROM {devices} WITH NORECOVERY, CHECKSUM{moves}"
        )

    def _data_folder(self, row: Any) -> str:
        path = row["PhysicalName"]
        return path[: path.rfind("\\") + 1] if self.sign == "\\" else "/var/opt/mssql/data/"

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """The program itself."""
        done = subprocess.run(
            self.command(*arguments), capture_output=True, text=True, cwd=ROOT, env=environment()
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def json(self, *arguments: str) -> Any:
        """What the program prints, run in this process."""
        done = CliRunner().invoke(
            app, ["--config", str(self.policies), *arguments, "--json"], catch_exceptions=False
        )
        return json.loads(done.stdout)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "sqlbak", "--config", str(self.policies), *arguments]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}


@contextmanager
def site_in(
    root: Path,
    *,
    databases: Sequence[str] = (),
    server_path: str = SERVER_FOLDER,
    settings: dict[str, Any] | None = None,
    **simulator: Any,
) -> Iterator[Site]:
    """A site that is up, with these databases (table dbo.t each, without rows)."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "folder").mkdir()
    memory = Path("/dev/shm")
    with (
        # Nothing here is about durability, and waiting for disks is most of the time otherwise.
        TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else root) as place,
        Simulator({server_path: root / "folder"}, **simulator) as server,
    ):
        site = Site(root, Path(place) / "vault", server, dict(settings or {}))
        if server_path != SERVER_FOLDER:
            site.settings["server_path"] = server_path
        for name in databases:
            server.create_database(name)
        site.write_policies()
        yield site
