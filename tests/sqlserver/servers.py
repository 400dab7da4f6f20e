"""A SQL Server for the contract tests, spoken to over the wire alone: the simulator, or a real one
in a container. What runs against both says the same of both."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pymssql
import pytest

from tests.sqlserver_simulator import Simulator

FOLDER = "/var/opt/mssql/backup"
PASSWORD = "Str0ng!Passw0rd"
INSTANCE = "erp"
_READY_SECONDS = 180


@dataclass(frozen=True)
class Server:
    """Where it listens, and the folder that both sides see."""

    host: str
    port: int
    password: str
    delivery: Path
    tls: str
    is_real: bool

    @contextmanager
    def connected(self) -> Iterator[Any]:
        connection = pymssql.connect(
            server=self.host,
            port=str(self.port),
            user="sa",
            password=self.password,
            autocommit=True,
            encryption="off" if self.tls == "clear" else "require",
            tds_version="7.4",
            conn_properties="",
        )
        try:
            yield connection
        finally:
            connection.close()

    def rows(self, statement: str) -> list[dict[str, Any]]:
        """The rows of one statement; none for one that has none."""
        with self.connected() as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            names = [column[0] for column in cursor.description or ()]
            found = (
                [dict(zip(names, row, strict=True)) for row in cursor.fetchall()] if names else []
            )
            while cursor.nextset():
                pass
        return found

    def heard(self, statement: str) -> list[str]:
        """All that the server says while a statement runs, its errors too."""
        said: list[str] = []
        with self.connected() as connection, connection.cursor() as cursor:
            connection._conn.set_msghandler(
                lambda _state, _severity, _server, _procedure, _line, text: said.append(
                    text.decode()
                )
            )
            try:
                cursor.execute(statement)
                while cursor.nextset():
                    pass
            except pymssql.Error:
                pass  # its words were heard
        return said

    def run(self, *statements: str) -> None:
        with self.connected() as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
                while cursor.nextset():
                    pass

    def insert(self, database: str, value: str) -> datetime:
        """One committed transaction; an instant of the server (UTC) right after it."""
        self.run(f"INSERT INTO [{database}].dbo.t (v) VALUES (N'{value}')")
        return self.now()

    def values(self, database: str) -> list[str]:
        return [row["v"] for row in self.rows(f"SELECT v FROM [{database}].dbo.t ORDER BY id")]

    def now(self) -> datetime:
        row = self.rows("SELECT CONVERT(nvarchar(40), SYSUTCDATETIME(), 126) AS now")[0]
        return datetime.fromisoformat(row["now"][:26]).replace(tzinfo=UTC)

    def create(self, database: str) -> None:
        self.run(
            f"CREATE DATABASE [{database}]",
            f"ALTER DATABASE [{database}] SET RECOVERY FULL",
            f"CREATE TABLE [{database}].dbo.t (id int IDENTITY PRIMARY KEY, v nvarchar(100))",
        )

    def write_policy(self, folder: Path) -> Path:
        path = folder / "policies.yaml"
        path.write_text(
            f"""
vaults:
  main: {{url: "file://{folder / "vault"}", redundancy: local}}
policies:
  gold: {{vault: main, full: "0 1 * * sun", differential: "0 1 * * mon-sat", log: 15m}}
instances:
  {INSTANCE}:
    engine: sqlserver
    host: {self.host}
    port: {self.port}
    user: sa
    password: env:ERP_PASSWORD
    tls: {self.tls}
    delivery: {{disk: {{server_path: {FOLDER}, local_path: "{self.delivery}"}}}}
"""
        )
        os.environ["ERP_PASSWORD"] = self.password
        return path


@contextmanager
def simulated(folder: Path) -> Iterator[Server]:
    with Simulator({FOLDER: folder}) as simulator:
        yield Server(
            simulator.host, simulator.port, simulator.sa_password, folder, "clear", is_real=False
        )


@contextmanager
def contained(folder: Path, version: str) -> Iterator[Server]:
    """Microsoft's own image. Skips with the reason where there is no Docker."""
    engine = shutil.which("docker")
    if engine is None or subprocess.run([engine, "info"], capture_output=True).returncode:
        pytest.skip("needs a Docker engine")
    from testcontainers.core.container import DockerContainer

    # As our own user, so that what it writes can be read here.
    container = (
        DockerContainer(f"mcr.microsoft.com/mssql/server:{version}-latest")
        .with_env("ACCEPT_EULA", "Y")
        .with_env("MSSQL_PID", "Developer")
        .with_env("MSSQL_SA_PASSWORD", PASSWORD)
        .with_exposed_ports(1433)
        .with_volume_mapping(str(folder), FOLDER, "rw")
        .with_kwargs(user=f"{os.getuid()}:0")
    )
    with container:
        server = Server(
            container.get_container_host_ip(),
            int(container.get_exposed_port(1433)),
            PASSWORD,
            folder,
            "required",
            is_real=True,
        )
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            try:
                server.rows("SELECT 1 AS ready")
                break
            except pymssql.Error:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)
        yield server
