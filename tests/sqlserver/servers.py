"""A SQL Server for the contract tests, spoken to over the wire alone: the simulator, or a real one
in a container. What runs against both says the same of both."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pymssql
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.sqlserver_simulator import Simulator
from tests.vault.certificates import make_certificates
from tests.vault.s3_servers import ACCESS_KEY, BUCKET, SECRET_KEY, start_moto

FOLDER = "/var/opt/mssql/backup"
PASSWORD = "Str0ng!Passw0rd"
INSTANCE = "erp"
_READY_SECONDS = 180


@dataclass(frozen=True)
class BucketPlace:
    """A bucket that the server writes into: its S3 server as sqlbak and as SQL Server reach it."""

    endpoint: str
    host: str
    bucket: str
    access_key: str
    secret_key: str
    ca_file: Path | None = None

    @property
    def url(self) -> str:
        """The vault as the server knows it."""
        return f"s3://{self.host}/{self.bucket}/contract"

    @property
    def vault(self) -> str:
        """The settings of a vault in it."""
        os.environ["CONTRACT_ACCESS"] = self.access_key
        os.environ["CONTRACT_SECRET"] = self.secret_key
        authority = "" if self.ca_file is None else f', ca_file: "{self.ca_file}"'
        return (
            f'{{url: "s3://{self.bucket}/contract", redundancy: local, s3: '
            f'{{endpoint: "{self.endpoint}", access_key: "env:CONTRACT_ACCESS", '
            f'secret_key: "env:CONTRACT_SECRET"{authority}}}}}'
        )


@dataclass(frozen=True)
class Server:
    """Where it listens, and the folder that both sides see; or the ``bucket`` instead of it."""

    host: str
    port: int
    password: str
    delivery: Path
    tls: str
    is_real: bool
    bucket: BucketPlace | None = None

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
        vault = f'{{url: "file://{folder / "vault"}", redundancy: local}}'
        delivery = f'{{disk: {{server_path: {FOLDER}, local_path: "{self.delivery}"}}}}'
        if self.bucket is not None:
            vault, delivery = self.bucket.vault, f'{{url: "{self.bucket.url}"}}'
        path.write_text(
            f"""
vaults:
  main: {vault}
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
    delivery: {delivery}
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
def simulated_with_bucket(folder: Path) -> Iterator[Server]:
    """The simulator, which speaks plain http to an S3 server of this machine."""
    with start_moto(folder) as moto:
        host = "s3.example.com:9000"
        place = BucketPlace(moto.endpoint, host, BUCKET, ACCESS_KEY, SECRET_KEY)
        with Simulator({FOLDER: folder}, s3_endpoints={host: moto.endpoint}) as simulator:
            yield Server(
                simulator.host,
                simulator.port,
                simulator.sa_password,
                folder,
                "clear",
                is_real=False,
                bucket=place,
            )


@contextmanager
def contained_with_bucket(folder: Path, version: str) -> Iterator[Server]:
    """Microsoft's own image beside MinIO's, which it trusts. Skips where there is no Docker."""
    _require_docker()
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.network import Network

    made = make_certificates(folder, names=("minio", "localhost"))
    (folder / "certs").mkdir()
    shutil.copy(made.server, folder / "certs" / "public.crt")
    shutil.copy(made.server_key, folder / "certs" / "private.key")
    (folder / "authorities").mkdir()
    # Read once, when the server starts.
    shutil.copy(made.authority, folder / "authorities" / "contract.crt")
    access, secret = "contractkey", "contractsecret0"
    with Network() as network:
        minio = (
            DockerContainer("minio/minio:latest")
            .with_command("server /data --certs-dir /certs")
            .with_env("MINIO_ROOT_USER", access)
            .with_env("MINIO_ROOT_PASSWORD", secret)
            .with_volume_mapping(str(folder / "certs"), "/certs", "ro")
            .with_network(network)
            .with_network_aliases("minio")
            .with_exposed_ports(9000)
        )
        with minio, contained(folder, version, network, folder / "authorities") as server:
            endpoint = f"https://localhost:{minio.get_exposed_port(9000)}"
            place = BucketPlace(endpoint, "minio:9000", BUCKET, access, secret, made.authority)
            _make_bucket(place)
            yield replace(server, bucket=place)


def _make_bucket(place: BucketPlace) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=place.endpoint,
        aws_access_key_id=place.access_key,
        aws_secret_access_key=place.secret_key,
        region_name="us-east-1",
        verify=str(place.ca_file),
    )
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        try:
            client.create_bucket(Bucket=place.bucket)
            return
        except (BotoCoreError, ClientError):
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def _require_docker() -> None:
    engine = shutil.which("docker")
    if engine is None or subprocess.run([engine, "info"], capture_output=True).returncode:
        pytest.skip("needs a Docker engine")


@contextmanager
def contained(
    folder: Path, version: str, network: Any = None, authorities: Path | None = None
) -> Iterator[Server]:
    """Microsoft's own image. Skips with the reason where there is no Docker. ``authorities``: a
    folder of certificates that it trusts."""
    _require_docker()
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
    if network is not None:
        container = container.with_network(network)
    if authorities is not None:
        place = "/var/opt/mssql/security/ca-certificates"
        container = container.with_volume_mapping(str(authorities), place, "ro")
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
