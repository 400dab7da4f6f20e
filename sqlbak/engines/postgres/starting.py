"""Runs a restored cluster up to the instant asked for, has it proven, and leaves it running."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from psycopg.conninfo import make_conninfo

from sqlbak.engines.port import RestoreOutcome
from sqlbak.engines.postgres.configuring import configure, supply_configuration, write_minimal
from sqlbak.engines.postgres.frames import FrameReader
from sqlbak.engines.postgres.programs import Programs
from sqlbak.engines.postgres.recovering import Recovery, socket_directory
from sqlbak.engines.postgres.recovery import StopPoint, kept_settings
from sqlbak.engines.postgres.restoredcluster import RestoredCluster
from sqlbak.engines.postgres.server import free_port, start_and_leave
from sqlbak.engines.postgres.walrecords import Record
from sqlbak.errors import RestoreFailed
from sqlbak.model import LogPosition
from sqlbak.progress import Progress
from sqlbak.stopping import StopSignal

__all__ = ["Starting", "prepare_start"]


def prepare_start(cluster: RestoredCluster) -> None:
    """What is needed to start: the settings that stay, and a private place for ours."""
    configure(cluster.directory, kept_settings(), cluster.user)
    if cluster.home.is_dir():  # the source was itself restored once, and took this along
        shutil.rmtree(cluster.home)
    cluster.home.mkdir(mode=0o700)
    cluster.user.own(cluster.home)


@dataclass(frozen=True, slots=True)
class Starting:
    """One start. ``port``: on which it listens in the end (None: any). The rest as in
    ``Recovery``."""

    cluster: RestoredCluster
    record: Record
    programs: Programs
    port: int | None
    log_space_bytes: int
    give_up_seconds: float
    frames: FrameReader
    progress: Progress
    stop: StopSignal

    def run(self, stop_points: Sequence[StopPoint]) -> RestoreOutcome:
        """Recover, prove, promote, and start as a database of its own."""
        cluster = self.cluster
        recovery = Recovery(
            chain=cluster.chain,
            record=self.record,
            directory=cluster.directory,
            home=cluster.home,
            programs=self.programs,
            user=cluster.user,
            frames=self.frames,
            role=cluster.role,
            progress=self.progress,
            stop=self.stop,
            log_space_bytes=self.log_space_bytes,
            give_up_seconds=self.give_up_seconds,
        )
        reached = recovery.run_any(stop_points)
        self.progress.phase("start")
        segment_size = cluster.chain.log.segment_size
        supplied = supply_configuration(
            cluster.directory, cluster.chain.settings, segment_size, cluster.user
        )
        sockets = socket_directory(cluster.home, cluster.user)
        port = self.port if self.port is not None else free_port()
        options = {
            "port": str(port),
            "listen_addresses": "localhost",
            "unix_socket_directories": str(sockets),
            "data_directory": str(cluster.directory),
            "hba_file": str(cluster.directory / "pg_hba.conf"),
            "ident_file": str(cluster.directory / "pg_ident.conf"),
            "external_pid_file": "",
        }
        notes = self._start(options, recovery)
        steps = [
            f"It runs as user {cluster.user.name}, for this machine only (port {port} of localhost "
            f"and the socket in {sockets}); its log is {recovery.log_path}.",
            "Stop it with: "
            + shlex.join(
                [f"{self.programs.directory}/pg_ctl", "-D", str(cluster.directory), "stop"]
            ),
            *notes,
            *(f"The backup holds no {name}; a minimal one was written." for name in supplied),
            *cluster.warnings(),
        ]
        return RestoreOutcome(
            directory=cluster.directory,
            proven=True,
            reached=LogPosition(str(reached.timeline), reached.lsn),
            last_commit_at=reached.last_commit_at,
            connection=make_conninfo(
                host=str(sockets), port=port, user=cluster.role, dbname="postgres"
            ),
            next_steps=tuple(steps),
            facts={**cluster.facts(), "port": port},
        )

    def _start(self, options: Mapping[str, str], recovery: Recovery) -> list[str]:
        """Start under the cluster's own configuration; under a minimal one if that names things
        that this machine lacks. Returns what is to be said about it."""
        cluster = self.cluster

        def start(more: Mapping[str, str]) -> None:
            start_and_leave(
                self.programs,
                cluster.directory,
                user=cluster.user,
                log_path=recovery.log_path,
                options={**options, **more},
                stop=self.stop,
            )

        try:
            start({})
        except RestoreFailed as error:
            minimal = cluster.home / "postgresql.conf"
            segment_size = cluster.chain.log.segment_size
            write_minimal(minimal, cluster.chain.settings, segment_size, cluster.user)
            start(
                {
                    "config_file": str(minimal),
                    "shared_preload_libraries": "",
                    "ssl": "off",
                    "logging_collector": "off",
                    "shared_buffers": "128MB",
                    "huge_pages": "try",
                }
            )
            return [
                f"Its own configuration does not work on this machine ({error.message}); it runs "
                f"with {minimal}."
            ]
        return []
