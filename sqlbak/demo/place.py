"""Where the demo lives on disk: a cluster, a vault, a policy file and a restored cluster."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlbak.engines.postgres.programs import Programs, reachable_programs
from sqlbak.engines.postgres.server import (
    Server,
    ServerUser,
    choose_user,
    free_port,
    initialise,
    socket_directory_fits,
    stop_server,
)
from sqlbak.errors import TargetNotUsable

__all__ = ["Place"]

_MARKER = "made-by-sqlbak-demo"

_POLICY = """\
# This is all that `sqlbak run` needs to protect a server. Change it, then: sqlbak validate
vaults:
  demo:
    url: file://{vault}
    redundancy: local
policies:
  every-night:
    vault: demo
    timezone: UTC
    full: "0 1 * * *"
    log: 15m
    retention: {{full: 30d, log: 15d}}
instances:
  bank:
    engine: postgres
    dsn: "{dsn}"
    policy: every-night
"""


@dataclass(frozen=True, slots=True)
class Place:
    """The demo's directory and the parts in it."""

    root: Path
    programs: Programs
    user: ServerUser
    port: int

    @classmethod
    def make(cls, root: Path | None, programs: Programs) -> Place:
        """An empty place at ``root``, after removing an earlier demo. TargetNotUsable when
        something else lies there, or the server's user cannot get there. None: ``./demo``, or a
        folder below the system's temporary directory when that user cannot get there (we are root,
        at home).
        """
        if root is None:
            root = Path("demo").absolute()
            if not _is_reachable(root):
                root = Path(tempfile.gettempdir()) / "sqlbak-demo"
        root = root.absolute()
        if root.exists() and any(root.iterdir()):
            if not (root / _MARKER).exists():
                raise TargetNotUsable(
                    f"{root} is not empty, and not an earlier demo",
                    hint="name another directory: sqlbak demo --directory DIR",
                )
            cls._clear(root, programs)
        choose_user(root / "cluster").check_reaches(root)
        root.mkdir(parents=True, exist_ok=True)
        (root / _MARKER).write_text("sqlbak demo removes this directory when it runs again\n")
        root.chmod(0o755)
        user = choose_user(root / "cluster")
        programs = reachable_programs(programs, uid=user.uid, gid=user.gid)
        return cls(root, programs, user, free_port())

    @staticmethod
    def _clear(root: Path, programs: Programs) -> None:
        for name in ("cluster", "restored"):
            if (root / name).exists():
                stop_server(programs, root / name, user=choose_user(root / name))
        shutil.rmtree(root)

    @property
    def policies(self) -> Path:
        """The folder with the policy file."""
        return self.root / "policies"

    @property
    def vault(self) -> Path:
        """The vault's folder."""
        return self.root / "vault"

    @property
    def restored(self) -> Path:
        """Where the demo restores to."""
        return self.root / "restored"

    def write_policy(self, dsn: str) -> Path:
        """Write the policy file and return its path."""
        self.policies.mkdir()
        path = self.policies / "bank.yaml"
        path.write_text(_POLICY.format(vault=self.vault, dsn=dsn))
        return path

    @contextmanager
    def cluster(self) -> Iterator[str]:
        """A new cluster that runs while inside; gives its connection string."""
        directory = self.root / "cluster"
        initialise(self.programs, directory, user=self.user, options=["--no-sync"])
        with self._socket_directory() as sockets:
            options = {
                "listen_addresses": "",
                "unix_socket_directories": str(sockets),
                "port": str(self.port),
                "track_commit_timestamp": "on",
                "shared_buffers": "64MB",
                "log_min_messages": "warning",
            }
            log = self.root / "cluster.log"
            with Server(self.programs, directory, user=self.user, log_path=log, options=options):
                yield f"host={sockets} port={self.port} user=postgres dbname=postgres"

    @contextmanager
    def _socket_directory(self) -> Iterator[Path]:
        """A private directory for the socket: beside the cluster where the path is short enough."""
        beside = self.root / "socket"
        if socket_directory_fits(beside):
            beside.mkdir(mode=0o700)
            self.user.own(beside)
            yield beside
            return
        with tempfile.TemporaryDirectory(prefix="sqlbak-demo-") as short:
            self.user.own(Path(short))
            yield Path(short)


def _is_reachable(root: Path) -> bool:
    try:
        choose_user(root / "cluster").check_reaches(root)
    except TargetNotUsable:
        return False
    return True
