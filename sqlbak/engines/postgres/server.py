"""Running a PostgreSQL server of our own: for the recovery of a restore, and for the demo.

PostgreSQL refuses to run as root; when we are root the server gets an unprivileged user, who then
owns the data. Nothing here knows what the server is for.
"""

from __future__ import annotations

import os
import pwd
import re
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sqlbak.engines.postgres.programs import Programs
from sqlbak.errors import EngineError, RestoreFailed, TargetNotUsable
from sqlbak.stopping import NEVER, StopSignal

__all__ = [
    "Server",
    "ServerUser",
    "choose_user",
    "free_port",
    "initialise",
    "is_port_free",
    "last_complaint",
    "socket_directory_fits",
    "start_and_leave",
    "stop_server",
]

_SOCKET_PATH_BYTES = 100  # sun_path holds 104 (BSD) or 108 (Linux) bytes
_APPEARS_SECONDS = 60.0
_COMPLAINT = re.compile(r"(?:FATAL|PANIC):\s+(.*)")
_DETAIL = re.compile(r"(?:DETAIL|HINT):\s+(.*)")


@dataclass(frozen=True, slots=True)
class ServerUser:
    """The operating-system user that runs the server and owns its files."""

    uid: int
    gid: int
    name: str

    @property
    def is_us(self) -> bool:
        """Whether this is the user that we run as."""
        return self.uid == os.geteuid()

    def run(
        self,
        command: Sequence[str | Path],
        *,
        cwd: Path | None = None,
        timeout_seconds: float = 600,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end as this user, with a clean environment; output is captured."""
        return subprocess.run(
            [str(word) for word in command],
            user=self.switch_uid,
            group=self.switch_gid,
            extra_groups=self.switch_groups,
            cwd=cwd or "/",
            env=_environment(self),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            umask=0o077,
            timeout=timeout_seconds,
            check=False,
        )

    def own(self, path: Path) -> None:
        """Give one file or directory to this user (links are not followed)."""
        if not self.is_us:
            os.lchown(path, self.uid, self.gid)

    def check_reaches(self, directory: Path) -> None:
        """TargetNotUsable unless this user may enter every directory above ``directory``."""
        if self.is_us:
            return
        for ancestor in reversed(directory.resolve().parents):
            if ancestor.exists() and self.run(["test", "-x", ancestor]).returncode != 0:
                raise TargetNotUsable(
                    f"the server will run as user {self.name}, who may not enter {ancestor}",
                    hint="PostgreSQL never runs as root: choose a directory that the user can "
                    f"reach, for instance below the home of {self.name}",
                )

    @property
    def switch_uid(self) -> int | None:
        """The user id that a child process must change to; None: it stays ours."""
        return None if self.is_us else self.uid

    @property
    def switch_gid(self) -> int | None:
        """The same for the group id."""
        return None if self.is_us else self.gid

    @property
    def switch_groups(self) -> tuple[int, ...] | None:
        """The same for the supplementary groups: none of root's are kept."""
        return None if self.is_us else ()


def choose_user(directory: Path) -> ServerUser:
    """Who runs a server on ``directory``: we ourselves, unless we are root; then the owner of
    the directory where that is somebody else, else ``postgres``, else ``nobody``."""
    if os.geteuid() != 0:
        return _user(os.geteuid())
    if directory.exists() and directory.stat().st_uid != 0:
        return _user(directory.stat().st_uid)
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return ServerUser(entry.pw_uid, entry.pw_gid, entry.pw_name)
    raise TargetNotUsable(
        f"no user can run the server on {directory}: neither postgres nor nobody exists",
        hint="create a user for PostgreSQL, or make the directory and give it to a user",
    )


def _user(uid: int) -> ServerUser:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return ServerUser(uid, os.getegid() if uid == os.geteuid() else uid, str(uid))
    return ServerUser(entry.pw_uid, entry.pw_gid, entry.pw_name)


def _environment(user: ServerUser) -> dict[str, str]:
    """Nothing of ours reaches the server: PG* variables would change it, secrets would leak."""
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
    return {"PATH": "/usr/bin:/bin", **kept, "LC_ALL": "C", "USER": user.name, "LOGNAME": user.name}


def free_port() -> int:
    """A TCP port of localhost that nobody listens on at this moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_port_free(port: int) -> bool:
    """Whether a server could listen on that TCP port of localhost at this moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def socket_directory_fits(directory: Path) -> bool:
    """Whether a server's socket file in ``directory`` is short enough for the operating system."""
    return len(os.fsencode(directory / ".s.PGSQL.65535")) <= _SOCKET_PATH_BYTES


def initialise(
    programs: Programs,
    directory: Path,
    *,
    user: ServerUser,
    superuser: str = "postgres",
    options: Sequence[str] = (),
) -> None:
    """Make a new, empty cluster (initdb) in ``directory``; ``options`` go to initdb as they are.
    Local connections are trusted: keep its socket directory private. EngineError if it fails."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    user.own(directory)
    done = user.run(
        [
            programs.path("initdb"),
            "--pgdata",
            directory,
            "--username",
            superuser,
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-instructions",
            *options,
        ]
    )
    if done.returncode != 0:
        raise EngineError(f"initdb failed in {directory}: {_last_line(done.stderr)}")


def _ending_with_us() -> list[str]:
    """Words that, before a command, make the kernel end it when we are killed: a server that is
    paused in recovery would else wait for ever. Empty where the system has no such thing."""
    setpriv = shutil.which("setpriv", path="/usr/bin:/bin")
    if sys.platform != "linux" or setpriv is None or Path(setpriv).resolve().name == "busybox":
        return []
    return [setpriv, "--pdeathsig", "QUIT", "--"]


def _option_words(options: Mapping[str, str]) -> list[str]:
    return [word for name, value in options.items() for word in ("-c", f"{name}={value}")]


class Server:
    """A postgres process that is our child: we see it end, and stop it when the block is left.
    On Linux it ends with the thread that started it, too."""

    def __init__(
        self,
        programs: Programs,
        directory: Path,
        *,
        user: ServerUser,
        log_path: Path,
        options: Mapping[str, str],
    ) -> None:
        self._programs = programs
        self._directory = directory
        self._user = user
        self._log_path = log_path
        self._options = dict(options)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; returns at once. Its log is appended to ``log_path``."""
        with self._log_path.open("ab") as log:
            self._user.own(self._log_path)
            self._process = subprocess.Popen(
                [
                    *_ending_with_us(),
                    str(self._programs.path("postgres")),
                    "-D",
                    str(self._directory),
                    *_option_words(self._options),
                ],
                user=self._user.switch_uid,
                group=self._user.switch_gid,
                extra_groups=self._user.switch_groups,
                cwd="/",
                env=_environment(self._user),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                umask=0o077,
                start_new_session=True,
            )

    def is_running(self) -> bool:
        """Whether the process is still there."""
        return self._process is not None and self._process.poll() is None

    def exit_code(self) -> int | None:
        """How it ended; None while it runs."""
        return None if self._process is None else self._process.poll()

    def stop(self, *, timeout_seconds: float = 300, is_clean: bool = True) -> None:
        """Stop it (fast shutdown: a clean end), harder when it does not answer, or at once: then
        its next start recovers as from a crash. Safe to call more than once."""
        process = self._process
        if process is None:
            return
        orders = ((signal.SIGINT, timeout_seconds), (signal.SIGQUIT, 30.0))
        for order, patience in orders if is_clean else orders[1:]:
            deadline = time.monotonic() + patience
            while (left := deadline - time.monotonic()) > 0:
                if process.poll() is not None:
                    return
                # Again and again: one that has only just begun does not listen yet, and where
                # ours is a background job of a shell, it ignores SIGINT until then.
                process.send_signal(order)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(min(left, 2.0))
        process.kill()
        process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: object, value: object, traceback: object) -> None:
        self.stop()


def start_and_leave(
    programs: Programs,
    directory: Path,
    *,
    user: ServerUser,
    log_path: Path,
    options: Mapping[str, str],
    timeout_seconds: float = 600,
    stop: StopSignal = NEVER,
) -> None:
    """Start a server that outlives us, and wait until it takes connections.

    RestoreFailed with the server's own words if it does not come up.
    """
    began_at = log_path.stat().st_size if log_path.exists() else 0
    done = user.run(
        [
            programs.path("pg_ctl"),
            "start",
            "--no-wait",
            "--silent",
            "--pgdata",
            directory,
            "--log",
            log_path,
            "--options",
            shlex.join(_option_words(options)),
        ]
    )
    deadline = time.monotonic() + timeout_seconds
    # Its pid file is the first thing that a server makes.
    appears_by = time.monotonic() + _APPEARS_SECONDS
    while done.returncode == 0 and time.monotonic() < deadline:
        state = _postmaster_state(directory)
        if state is None and time.monotonic() > appears_by:
            break
        if state in {"ready", "standby"}:
            return
        if state is None and last_complaint(log_path, began_at):
            break
        if stop.wait(0.05):
            stop_server(programs, directory, user=user)
            stop.check()
    else:
        if done.returncode == 0:
            stop_server(programs, directory, user=user)
    raise RestoreFailed(
        f"the server on {directory} did not start: "
        f"{last_complaint(log_path, began_at) or _last_line(done.stderr) or 'it gave no reason'}",
        hint=f"its log is {log_path}",
    )


def _postmaster_state(directory: Path) -> str | None:
    """The status line of postmaster.pid: starting, stopping, ready or standby."""
    try:
        lines = (directory / "postmaster.pid").read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return None
    return lines[7].strip() if len(lines) > 7 else "starting"


def stop_server(programs: Programs, directory: Path, *, user: ServerUser) -> None:
    """Stop the server that runs on ``directory``, cleanly; nothing happens when none does."""
    if not (directory / "postmaster.pid").exists():
        return
    done = user.run(
        [
            programs.path("pg_ctl"),
            "stop",
            "--silent",
            "--wait",
            "--mode=fast",
            "--pgdata",
            directory,
        ]
    )
    if done.returncode != 0 and (directory / "postmaster.pid").exists():
        raise EngineError(f"the server on {directory} did not stop: {_last_line(done.stderr)}")


def last_complaint(log_path: Path, since: int = 0) -> str | None:
    """The last FATAL or PANIC line that a server wrote after byte ``since`` of its log, with its
    detail or hint; lines about refused clients are passed over."""
    try:
        if not stat.S_ISREG(log_path.lstat().st_mode):
            return None
        with log_path.open("rb") as log:
            log.seek(since)
            lines = log.read().decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return None
    complaint: str | None = None
    for line, following in zip(lines, [*lines[1:], ""], strict=False):
        match = _COMPLAINT.search(line)
        if match and "the database system is" not in match[1]:
            detail = _DETAIL.search(following)
            complaint = match[1] + (f" ({detail[1]})" if detail else "")
    return complaint


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
