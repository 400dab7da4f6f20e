"""Real S3 servers as processes of this machine, each on a free port of the loopback interface."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from sqlbak.vault.s3_options import S3Options

ACCESS_KEY = "sqlbak-test-key"
SECRET_KEY = "sqlbak-test-secret"
BUCKET = "vaults"
START_SECONDS = 60.0


@dataclass(slots=True)
class S3Server:
    """A running server with one bucket."""

    kind: str
    endpoint: str
    process: subprocess.Popen[bytes]
    ca_bundle: Path | None = None

    @property
    def options(self) -> S3Options:
        return S3Options(
            endpoint=self.endpoint,
            ca_bundle=self.ca_bundle,
            access_key=ACCESS_KEY,
            secret_key=SECRET_KEY,
            connect_timeout_seconds=10,
            read_timeout_seconds=60,
        )

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start_moto(
    directory: Path,
    *,
    certificate: Path | None = None,
    key: Path | None = None,
    ca_bundle: Path | None = None,
) -> S3Server:
    """moto's server; over TLS with a certificate."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    if certificate is not None:
        command += ["-c", str(certificate), "-k", str(key)]
    scheme = "https" if certificate is not None else "http"
    return _started("moto", command, f"{scheme}://127.0.0.1:{port}", directory, {}, ca_bundle)


def ministack_program() -> Path | None:
    """ministack's executable, from a virtual environment of its own (install_ministack.sh)."""
    named = os.environ.get("SQLBAK_TEST_MINISTACK")
    checkout = Path(__file__).parents[2]
    program = Path(named) if named else checkout / ".cache/ministack/bin/ministack"
    return program if program.exists() else None


def start_ministack(directory: Path, program: Path) -> S3Server:
    """ministack: atomic under races, refuses bad checksums."""
    port = free_port()
    settings = {"BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port)}
    endpoint = f"http://127.0.0.1:{port}"
    return _started("ministack", [str(program)], endpoint, directory, settings, None)


def rclone_program() -> Path | None:
    """The rclone of the test extra; the one of Debian cannot serve S3."""
    program = Path(sysconfig.get_path("scripts")) / "rclone"
    return program if program.exists() else None


def start_rclone(directory: Path, program: Path) -> S3Server:
    """rclone: knows no conditional writes, which a vault must notice."""
    port = free_port()
    (directory / "data").mkdir()
    command = [
        str(program), "serve", "s3", "--addr", f"127.0.0.1:{port}",
        "--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", str(directory / "data"),
    ]  # fmt: skip
    return _started("rclone", command, f"http://127.0.0.1:{port}", directory, {}, None)


def _started(
    kind: str,
    command: Sequence[str],
    endpoint: str,
    directory: Path,
    settings: Mapping[str, str],
    ca_bundle: Path | None,
) -> S3Server:
    log = directory / f"{kind}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env={**os.environ, "HOME": str(directory), "PYTHONWARNINGS": "ignore", **settings},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    server = S3Server(kind, endpoint, process, ca_bundle)
    try:
        make_bucket(server, log)
    except BaseException:
        server.stop()
        raise
    return server


def make_bucket(server: S3Server, log: Path) -> None:
    """Wait until the server answers, and make the bucket that the tests use."""
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=server.endpoint,
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        verify=None if server.ca_bundle is None else str(server.ca_bundle),
        config=Config(
            connect_timeout=2, read_timeout=10, retries={"total_max_attempts": 1},
            s3={"addressing_style": "path"},
        ),
    )  # fmt: skip
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            client.create_bucket(Bucket=BUCKET)
            client.close()
            return
        except (BotoCoreError, ClientError) as error:
            if server.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(
                    f"{server.kind} does not start: {error}\n{log.read_text(errors='replace')}"
                ) from error
        time.sleep(0.1)
