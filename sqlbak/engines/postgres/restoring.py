"""Restores a PostgreSQL cluster from a chain of recovery points: the one way in.

Order: check everything, unpack, then either lay out the whole log and say how to start, or run
the server up to the instant asked for, prove the state, and leave it running. Nothing is written
outside the target, and a state that is not proven is never promoted.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from psycopg.conninfo import make_conninfo

from sqlbak.engines.port import RestoreOutcome, RestoreStep, RestoreTarget
from sqlbak.engines.postgres.chain import Chain, check_target, checked_chain
from sqlbak.engines.postgres.clusterfiles import ClusterFiles
from sqlbak.engines.postgres.frames import FrameReader
from sqlbak.engines.postgres.programs import Programs, find_programs, reachable_programs
from sqlbak.engines.postgres.recovering import Recovery, socket_directory
from sqlbak.engines.postgres.recovery import (
    MINIMAL_CONFIGURATION,
    MINIMAL_HBA,
    StopPoint,
    absence_command,
    configuration_block,
    kept_settings,
    minimums,
    without_block,
)
from sqlbak.engines.postgres.replacing import beside, check_replaceable, set_aside
from sqlbak.engines.postgres.server import (
    ServerUser,
    choose_user,
    free_port,
    is_port_free,
    start_and_leave,
)
from sqlbak.engines.postgres.tablespaceplaces import INSIDE, TablespacePlaces, choose_places
from sqlbak.engines.postgres.timelines import format_lsn
from sqlbak.engines.postgres.unpack import (
    clear_directory,
    empty_directory,
    make_durable,
    target_errors,
    write_file,
)
from sqlbak.engines.postgres.walfeed import TablespaceInTheWay
from sqlbak.engines.postgres.walrecords import Record, TablespaceFinder
from sqlbak.errors import (
    Interrupted,
    RestoreFailed,
    ServerProgramMissing,
    SqlbakError,
    TargetNotUsable,
)
from sqlbak.model import LogPosition
from sqlbak.progress import Progress
from sqlbak.stopping import StopSignal

__all__ = ["restore_cluster"]

_HOME = "sqlbak"
_SPOOL_BYTES = 1 << 30


def restore_cluster(
    steps: Sequence[RestoreStep],
    *,
    stop_at: datetime | None,
    lineage: str,
    histories: Mapping[str, bytes],
    target: RestoreTarget,
    progress: Progress,
    stop: StopSignal,
    stop_lsn: int | None = None,
    feed_options: Mapping[str, Any] | None = None,
) -> RestoreOutcome:
    """Restore ``steps`` (a full, perhaps a differential of it, then logs) into ``target``.

    ``stop_at``: the state after every transaction that had ended by then, and nothing later;
    ``stop_lsn``: every record that ends at or before it, and nothing later; both None: everything
    in the chain. ``lineage``: the timeline to follow, whose history (and that of
    every other timeline ever seen) is in ``histories``. ``feed_options`` go to WalFeed.

    Raises Refused errors before anything is written; ObjectDamaged, TargetNotUsable or
    RestoreFailed while unpacking, with everything written removed again; RestoreFailed or
    RestoreNotProven from recovery, with the server stopped and its directory kept for a look.
    """
    directory = target.directory.absolute()
    chain = checked_chain(
        steps, stop_at=stop_at, lineage=lineage, histories=histories, stop_lsn=stop_lsn
    )
    user = choose_user(directory)
    spool = min(chain.log_bytes, 2 * _SPOOL_BYTES) if target.start else chain.log_bytes
    segment = chain.log.segment_size
    identifier = str(chain.full.facts["system_identifier"])
    if target.replaces:
        check_replaceable(directory, system_identifier=identifier)
    check_target(
        beside(directory) if target.replaces else directory,
        user=user,
        needed_bytes=chain.archives_bytes + spool + 2 * segment,
        is_started=target.start,
    )
    places = choose_places(chain, directory, target.tablespaces, user=user, is_started=target.start)
    if target.start and target.port is not None and not is_port_free(target.port):
        raise TargetNotUsable(
            f"port {target.port} of localhost is taken", hint="name another one, or none"
        )
    programs = _programs(chain.major, target, user)
    with FrameReader(stop) as frames, contextlib.ExitStack() as aside:
        stop_points, record = chain.stop_points(stop_at, frames)
        before = aside.enter_context(set_aside(directory)) if target.replaces else None
        existing = {place: place.is_dir() for place in (directory, *places.outside)}
        restore = _Restore(chain, directory, before, places, user, frames, progress, stop)
        with contextlib.ExitStack() as unfinished:
            for place in existing:
                unfinished.enter_context(empty_directory(place, user))
                unfinished.enter_context(target_errors(place))
            restore.unpack()
            if target.start:
                restore.prepare_start()
            else:
                created = restore.lay_out_log(stop_points[0])
            progress.phase("flush")
            for place in existing:
                make_durable(place, stop=stop)
        if not target.start:
            return restore.left_stopped(stop_points[0], programs, created)
        assert programs is not None  # noqa: S101 - found above, or raised
        try:
            return restore.started(
                stop_points, record, programs, target.port, dict(feed_options or {})
            )
        except (Interrupted, TablespaceInTheWay):
            for place, existed in existing.items():
                clear_directory(place, and_itself=not existed)
            raise
        except SqlbakError as error:
            if before is None:
                error.advise(f"{_listed(existing)} is kept for a look and is no usable database")
            raise


def _listed(places: Iterable[Path]) -> str:
    return ", ".join(map(str, places))


def _programs(major: int, target: RestoreTarget, user: ServerUser) -> Programs | None:
    """The server's programs; None where they are not there, nor needed or asked for."""
    try:
        programs = find_programs(major, explicit=target.program_dir)
        if target.start:
            programs = reachable_programs(programs, uid=user.uid, gid=user.gid)
            for name in ("postgres", "pg_ctl"):
                programs.path(name)
    except ServerProgramMissing:
        if target.start or target.program_dir is not None:
            raise
        return None
    return programs


@dataclass(frozen=True, slots=True)
class _Restore:
    """The steps of one restore, in the order in which they are defined. ``before``: where the
    cluster lies that it replaces."""

    chain: Chain
    directory: Path
    before: Path | None
    tablespaces: TablespacePlaces
    user: ServerUser
    frames: FrameReader
    progress: Progress
    stop: StopSignal

    @property
    def home(self) -> Path:
        return self.directory / _HOME

    @property
    def role(self) -> str:
        return str(self.chain.base.facts.get("bootstrap_role") or "postgres")

    def unpack(self) -> None:
        """The cluster's files as they were at the base."""
        ClusterFiles(
            self.chain,
            self.directory,
            self.tablespaces.places,
            self.user,
            self.frames,
            self.progress,
            self.stop,
        ).lay_out()

    def _configure(self, settings: Mapping[str, str]) -> None:
        """Our lines at the end of postgresql.auto.conf, in place of those of an older restore."""
        path = self.directory / "postgresql.auto.conf"
        content = path.read_bytes() if path.exists() else b""
        path.unlink(missing_ok=True)
        write_file(path, without_block(content) + configuration_block(settings), self.user)
        for name in ("standby.signal", "recovery.signal"):
            (self.directory / name).unlink(missing_ok=True)
        write_file(self.directory / "recovery.signal", b"", self.user)

    def lay_out_log(self, stop_point: StopPoint) -> tuple[str, ...]:
        """The whole log in pg_wal, and the settings with which the server recovers by itself.
        Returns the paths of tablespaces that the log creates."""
        self.progress.phase("log", self.chain.log_bytes)
        folder = self.directory / "pg_wal"
        finder = TablespaceFinder(self.chain.log.segment_size)
        created: dict[str, int] = {}
        last_name = ""
        for last_name, lsn in self.chain.log.segments():
            path = folder / last_name
            write_file(path, b"", self.user)
            position = lsn
            with path.open("r+b", buffering=0) as out:
                for piece in self.chain.log.segment(self.frames, lsn):
                    self.stop.check()
                    behind = lsn + self.chain.log.segment_size
                    created |= dict.fromkeys(finder.feed(position, piece), behind)
                    position += len(piece)
                    self.progress.advance(len(piece))
                    while piece:
                        piece = piece[out.write(piece) :]
        for name, content in self.chain.log.history_files().items():
            write_file(folder / name, content, self.user)
        for path_text, behind in created.items():
            if Path(path_text).exists():
                raise TablespaceInTheWay(path_text, behind=behind)
        settings = {
            **kept_settings(),
            "hot_standby": "on",
            "restore_command": absence_command(last_name),
            **stop_point.settings(),
        }
        self._configure(settings)
        return tuple(created)

    def left_stopped(
        self, stop_point: StopPoint, programs: Programs | None, created: Sequence[str]
    ) -> RestoreOutcome:
        """What to tell the operator of a cluster that was not started."""
        binary = programs.directory if programs else f"<bin of PostgreSQL {self.chain.major}>"
        here = str(self.directory)
        start = ["-D", here, "-l", f"{here}/server.log", "-o", "-p PORT", "start"]
        # The files of tablespaces are checked where the server sees them, below pg_tblspc.
        moved = (INSIDE, "tablespace_map") if self.tablespaces.places else ()
        ignored = [f"--ignore={name}" for name in moved]
        where = (
            f"before the first transaction after {stop_point.time.isoformat()}"
            if stop_point.time is not None
            else f"at log position {format_lsn(self.chain.log.last_lsn)}"
        )
        steps = [
            f"Check the files: {shlex.join([f'{binary}/pg_verifybackup', *ignored, here])}",
            f"Start it as user {self.user.name}: {shlex.join([f'{binary}/pg_ctl', *start])}",
            f"It replays its log, stops {where}, and stays read-only there; tables that an "
            "unfinished transaction had locked stay locked meanwhile.",
            "Look at it: SELECT pg_get_wal_replay_pause_state(), pg_last_xact_replay_timestamp();",
            "Make it writable: SELECT pg_wal_replay_resume(); (it begins a new timeline)",
            *self._warnings(),
            *(f"Before starting, create the empty directory {path}" for path in created),
        ]
        if not (self.directory / "postgresql.conf").exists():
            steps.append(
                "The backup holds no postgresql.conf and pg_hba.conf (packages keep them "
                "elsewhere): put them there before starting."
            )
        return RestoreOutcome(
            directory=self.directory,
            proven=False,
            reached=None,
            last_commit_at=None,
            connection=None,
            next_steps=tuple(steps),
            facts=self._facts(),
        )

    def _warnings(self) -> list[str]:
        kept = [
            "archive_mode is off, subscriptions do not run and no standby is waited for: see the "
            f"end of {self.directory}/postgresql.auto.conf before this cluster takes over.",
        ]
        if self.tablespaces.are_inside:
            kept.append(f"Tablespaces were restored into {self.directory / INSIDE}.")
        if self.tablespaces.outside:
            kept.append(f"Tablespaces were restored into {_listed(self.tablespaces.outside)}.")
        if self.before is not None:
            kept.append(
                f"The cluster that was there before is kept in {self.before}: remove it when you "
                "do not want it back."
            )
        libraries = [s.get("shared_preload_libraries") for s in self.chain.settings]
        if libraries and libraries[-1]:
            kept.append(f"The source loads these libraries at start: {libraries[-1]}.")
        return kept

    def _facts(self) -> dict[str, Any]:
        facts = self.chain.steps[-1].facts
        return {
            "system_identifier": facts["system_identifier"],
            "server_version_num": facts["server_version_num"],
            "timeline": self.chain.log.timeline,
            "points": [step.point.id for step in self.chain.steps],
            "server_user": self.user.name,
            "set_aside": None if self.before is None else str(self.before),
            "tablespaces": {str(oid): str(place) for oid, place in self.tablespaces.places.items()},
        }

    def prepare_start(self) -> None:
        """What is needed to start: the settings that stay, and a private place for ours."""
        self._configure(kept_settings())
        if self.home.is_dir():  # the source was itself restored once, and took this along
            shutil.rmtree(self.home)
        self.home.mkdir(mode=0o700)
        self.user.own(self.home)

    def started(
        self,
        stop_points: Sequence[StopPoint],
        record: Record,
        programs: Programs,
        port: int | None,
        feed_options: dict[str, Any],
    ) -> RestoreOutcome:
        """Recover, prove, promote, and start as a database of its own."""
        recovery = Recovery(
            chain=self.chain,
            record=record,
            directory=self.directory,
            home=self.home,
            programs=programs,
            user=self.user,
            frames=self.frames,
            role=self.role,
            progress=self.progress,
            stop=self.stop,
            feed_options=feed_options,
        )
        reached = recovery.run_any(stop_points)
        self.progress.phase("start")
        supplied = self._supply_configuration()
        sockets = socket_directory(self.home, self.user)
        chosen = port if port is not None else free_port()
        options = {
            "port": str(chosen),
            "listen_addresses": "localhost",
            "unix_socket_directories": str(sockets),
            "data_directory": str(self.directory),
            "hba_file": str(self.directory / "pg_hba.conf"),
            "ident_file": str(self.directory / "pg_ident.conf"),
            "external_pid_file": "",
        }
        notes = self._start(programs, options, recovery.log_path)
        steps = [
            f"It runs as user {self.user.name}, for this machine only (port {chosen} of localhost "
            f"and the socket in {sockets}); its log is {recovery.log_path}.",
            "Stop it with: "
            + shlex.join([f"{programs.directory}/pg_ctl", "-D", str(self.directory), "stop"]),
            *notes,
            *(f"The backup holds no {name}; a minimal one was written." for name in supplied),
            *self._warnings(),
        ]
        return RestoreOutcome(
            directory=self.directory,
            proven=True,
            reached=LogPosition(str(reached.timeline), reached.lsn),
            last_commit_at=reached.last_commit_at,
            connection=make_conninfo(
                host=str(sockets), port=chosen, user=self.role, dbname="postgres"
            ),
            next_steps=tuple(steps),
            facts={**self._facts(), "port": chosen},
        )

    def _supply_configuration(self) -> list[str]:
        values = minimums(self.chain.settings, self.chain.log.segment_size)
        lines = [f"{name} = {value}\n" for name, value in values.items()]
        supplied = []
        for name, content in (
            ("postgresql.conf", MINIMAL_CONFIGURATION + "".join(lines)),
            ("pg_hba.conf", MINIMAL_HBA),
            ("pg_ident.conf", ""),
        ):
            if not (self.directory / name).exists():
                write_file(self.directory / name, content.encode(), self.user)
                supplied.append(name)
        return supplied

    def _start(self, programs: Programs, options: Mapping[str, str], log_path: Path) -> list[str]:
        """Start under the cluster's own configuration; under a minimal one if that names things
        that this machine lacks. Returns what is to be said about it."""

        def start(more: Mapping[str, str]) -> None:
            start_and_leave(
                programs,
                self.directory,
                user=self.user,
                log_path=log_path,
                options={**options, **more},
                stop=self.stop,
            )

        try:
            start({})
        except RestoreFailed as error:
            minimal = self.home / "postgresql.conf"
            values = minimums(self.chain.settings, self.chain.log.segment_size)
            lines = [f"{name} = {value}\n" for name, value in values.items()]
            with contextlib.suppress(FileNotFoundError):
                minimal.unlink()
            write_file(minimal, "".join(lines).encode(), self.user)
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
