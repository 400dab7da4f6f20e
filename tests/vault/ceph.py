"""Ceph with its S3 gateway, as processes of this machine: a monitor, one store in memory, and the
gateway, out of a folder that install_ceph.sh fills. The strictest S3 server that can be had: it
checks signatures and upload numbers, and decides between racing writers.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.vault.s3_servers import (
    ACCESS_KEY,
    SECRET_KEY,
    START_SECONDS,
    S3Server,
    free_port,
    make_bucket,
)

CAPABILITIES = {
    "mon.": {"mon": "allow *"},
    "client.admin": {"mon": "allow *", "osd": "allow *", "mgr": "allow *"},
    "osd.0": {"mon": "allow profile osd", "osd": "allow *"},
}
"""Who may do what, by name: one keyring serves all three."""


def ceph_folder() -> Path | None:
    """Where install_ceph.sh put it, or nothing."""
    named = os.environ.get("SQLBAK_TEST_CEPH")
    folder = Path(named) if named else Path(__file__).parents[2] / ".cache/ceph"
    return folder if (folder / "usr/bin/radosgw").exists() else None


def configuration(home: Path, libraries: Path, monitor: str, gateway_port: int) -> str:
    """One copy of everything, no log files of their own, nothing outside ``home``."""
    return f"""[global]
fsid = {uuid.uuid4()}
mon host = {monitor}
public addr = 127.0.0.1
ms bind msgr1 = false
keyring = {home}/keyring
plugin dir = {libraries}/ceph
osd class dir = {libraries}/rados-classes
erasure code dir = {libraries}/ceph/erasure-code
compressor dir = {libraries}/ceph/compressor
run dir = {home}
admin socket =
pid file =
log file = {home}/$name.log
mon cluster log file = {home}/cluster.log
log to stderr = false
debug rgw = 0
mon data = {home}/mon
mon data avail crit = 0
mon data avail warn = 0
mon allow pool size one = true
mon max pg per osd = 1000
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 4
osd pool default pgp num = 4
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd data = {home}/osd
osd objectstore = memstore
memstore device bytes = 4294967296
rgw data = {home}/rgw
rgw frontends = beast endpoint=127.0.0.1:{gateway_port}
rgw thread pool size = 32
rgw dynamic resharding = false
rgw run sync thread = false
"""


@dataclass(slots=True)
class CephServer(S3Server):
    """``process`` is the gateway. Nothing of it outlives a test run, so all are killed."""

    home: Path = field(kw_only=True)
    others: list[subprocess.Popen[bytes]] = field(kw_only=True)

    def stop(self) -> None:
        for process in (self.process, *reversed(self.others)):
            process.kill()
            process.wait()
        shutil.rmtree(self.home, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Programs:
    """The unpacked programs, run by their own loader with their own libraries."""

    folder: Path
    home: Path

    @property
    def libraries(self) -> Path:
        return next(self.folder.glob("usr/lib/*/libc.so.6")).parent

    def command(self, program: str, *words: str) -> list[str]:
        loader = next(self.folder.glob("lib64/ld-linux*.so.*"))
        path = f"{self.libraries}/ceph:{self.libraries}"
        return [str(loader), "--library-path", path, f"{self.folder}/usr/bin/{program}", *words]

    def run(self, program: str, *words: str) -> None:
        done = subprocess.run(
            self.command(program, *words), capture_output=True, env=self.environment, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"{program} {words}: {done.stderr.decode(errors='replace')}")

    def start(self, program: str, *words: str) -> subprocess.Popen[bytes]:
        with (self.home / f"{program}.out").open("ab") as output:
            return subprocess.Popen(
                self.command(program, "-c", f"{self.home}/ceph.conf", "-f", *words),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        return {**kept, "HOME": str(self.home), "PYTHONHOME": f"{self.folder}/usr"}


def start_ceph(folder: Path) -> CephServer:
    """All three, with one user and one bucket."""
    home = Path(tempfile.mkdtemp(prefix="sqlbak-ceph-"))
    programs = Programs(folder, home)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        endpoint = _start(programs, processes)
        server = CephServer("ceph", endpoint, processes[-1], home=home, others=processes[:-1])
        make_bucket(server, home / "client.admin.log")
    except BaseException:
        for process in processes:
            process.kill()
            process.wait()
        shutil.rmtree(home, ignore_errors=True)
        raise
    return server


def _start(programs: Programs, processes: list[subprocess.Popen[bytes]]) -> str:
    home = programs.home
    monitor, port = f"v2:127.0.0.1:{free_port()}", free_port()
    for name in ("mon", "osd", "rgw"):
        (home / name).mkdir()
    settings = configuration(home, programs.libraries, monitor, port)
    (home / "ceph.conf").write_text(settings)
    fsid = settings.split()[3]
    configured = ("-c", f"{home}/ceph.conf")
    _make_keyring(programs)
    programs.run(
        "monmaptool", "--create", "--addv", "a", f"[{monitor}]", "--fsid", fsid, f"{home}/monmap"
    )
    mkfs = ("--mkfs", "-i", "a", "--monmap", f"{home}/monmap", "--keyring", f"{home}/keyring")
    programs.run("ceph-mon", *configured, *mkfs)
    processes.append(programs.start("ceph-mon", "-i", "a"))
    store = str(uuid.uuid4())
    python = next(programs.folder.glob("usr/bin/python3.*")).name
    ceph = (f"{programs.folder}/usr/bin/ceph", *configured, "--connect-timeout", "30")
    programs.run(python, *ceph, "osd", "new", store)
    programs.run("ceph-osd", *configured, "-i", "0", "--mkfs", "--osd-uuid", store)
    processes.append(programs.start("ceph-osd", "-i", "0"))
    processes.append(programs.start("radosgw", "-n", "client.admin"))
    keys = ("--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY)
    _until(
        lambda: programs.run(
            "radosgw-admin", *configured, "-n", "client.admin", "user", "create",
            "--uid", "tests", "--display-name", "tests", *keys,
        )
    )  # fmt: skip
    return f"http://127.0.0.1:{port}"


def _make_keyring(programs: Programs) -> None:
    file = f"{programs.home}/keyring"
    for number, (name, allowed) in enumerate(CAPABILITIES.items()):
        capabilities: Sequence[str] = [
            word for kind, what in allowed.items() for word in ("--cap", kind, what)
        ]
        create = ["--create-keyring"] if number == 0 else []
        programs.run("ceph-authtool", *create, file, "--gen-key", "-n", name, *capabilities)


def _until(deed: Callable[[], None]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return deed()
        except RuntimeError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
