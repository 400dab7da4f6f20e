"""Restores a PostgreSQL cluster from a chain of recovery points: the one way in.

Order: check everything, lay out the files, then either the whole log and how to start, or run the
server up to the instant asked for, prove the state, and leave it running. Nothing is written
outside the target, no server can start on it before it is whole, and a state that is not proven
is never promoted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from sqlbak.engines.port import RestoreOutcome, RestoreStep, RestoreTarget
from sqlbak.engines.postgres.chain import Chain, check_target, checked_chain, held_bytes
from sqlbak.engines.postgres.claiming import CLAIM, clear_directory, empty_directory, used_directory
from sqlbak.engines.postgres.clusterfiles import CONTROL_FILE, ClusterFiles
from sqlbak.engines.postgres.configuring import configure
from sqlbak.engines.postgres.feeding import LogOrder, arrange_feed, is_fed
from sqlbak.engines.postgres.frames import FrameReader
from sqlbak.engines.postgres.ground import EmptyGround, UsedGround, write_file
from sqlbak.engines.postgres.logfiles import lay_out_histories, lay_out_log
from sqlbak.engines.postgres.nextsteps import LaidOut, left_stopped
from sqlbak.engines.postgres.programs import Programs, find_programs, reachable_programs
from sqlbak.engines.postgres.recovery import StopPoint, absence_command, kept_settings
from sqlbak.engines.postgres.replacing import beside, check_replaceable, set_aside
from sqlbak.engines.postgres.restoredcluster import RestoredCluster, ReusedFiles
from sqlbak.engines.postgres.reusing import (
    CountedSource,
    FetchCount,
    check_reusable,
    find_reusable,
    is_reusable_tablespace,
    withdraw_control_file,
)
from sqlbak.engines.postgres.server import ServerUser, choose_user, is_port_free
from sqlbak.engines.postgres.starting import Starting, prepare_start
from sqlbak.engines.postgres.tablespaceplaces import TablespacePlaces, choose_places
from sqlbak.engines.postgres.unpack import flush, make_durable, target_errors
from sqlbak.engines.postgres.walfeed import TablespaceInTheWay
from sqlbak.errors import (
    Interrupted,
    ServerProgramMissing,
    SqlbakError,
    TargetNotUsable,
    UsageError,
)
from sqlbak.progress import Progress
from sqlbak.stopping import StopSignal

__all__ = ["restore_cluster"]


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
    item_id: str = "",
    give_up_seconds: float = 60,
) -> RestoreOutcome:
    """Restore ``steps`` (a full, perhaps a differential of it, then logs) into ``target``.

    ``stop_at``: the state after every transaction that had ended by then, and nothing later;
    ``stop_lsn``: every record that ends at or before it, and nothing later; both None: everything
    in the chain. ``lineage``: the timeline to follow, whose history (and that of
    every other timeline ever seen) is in ``histories``. ``item_id``: by which the log can be found
    again, where it has more than fits ``target.log_space_bytes`` and is to be fed later.
    ``give_up_seconds``: after which a recovering server gives up when we are gone.

    Raises Refused errors before anything is written; ObjectDamaged, TargetNotUsable or
    RestoreFailed while unpacking, with everything written removed again (into a used directory:
    left as it is, to go on from); RestoreFailed or RestoreNotProven from recovery, with the server
    stopped and its directory kept for a look.
    """
    if target.replaces and target.reuses:
        raise UsageError("a directory is either set aside or reused, not both")
    count = FetchCount()
    if target.reuses:
        steps = [replace(step, source=CountedSource(step.source, count)) for step in steps]
    chain = checked_chain(
        steps, stop_at=stop_at, lineage=lineage, histories=histories, stop_lsn=stop_lsn
    )
    checked = _checked(chain, target)
    with FrameReader(stop) as frames, contextlib.ExitStack() as aside:
        stop_points, record = chain.stop_points(stop_at, frames)
        directory = checked.directory
        before = aside.enter_context(set_aside(directory)) if target.replaces else None
        cluster = RestoredCluster(chain, directory, checked.places, checked.user, before)
        layout = _Layout(cluster, frames, progress, stop, count, item_id)
        existing = {place: place.is_dir() for place in layout.tops}
        laid_out = layout.run(target, stop_points[0])
        if not target.start:
            return left_stopped(laid_out, stop_points[0], checked.programs, target.feed_command)
        assert checked.programs is not None  # noqa: S101 - found above, or raised
        starting = Starting(
            cluster=laid_out.cluster,
            record=record,
            programs=checked.programs,
            port=target.port,
            log_space_bytes=target.log_space_bytes,
            give_up_seconds=give_up_seconds,
            frames=frames,
            progress=progress,
            stop=stop,
        )
        try:
            return starting.run(stop_points)
        except (Interrupted, TablespaceInTheWay):
            if not target.reuses:
                for place, existed in existing.items():
                    clear_directory(place, and_itself=not existed)
            raise
        except SqlbakError as error:
            if before is None:
                kept = ", ".join(map(str, existing))
                error.advise(f"{kept} is kept for a look and is no usable database")
            raise


@dataclass(frozen=True, slots=True)
class _Checked:
    """What the checks found out. ``programs``: None where they are not there, nor needed."""

    directory: Path
    user: ServerUser
    places: TablespacePlaces
    programs: Programs | None


def _checked(chain: Chain, target: RestoreTarget) -> _Checked:
    """Everything that can be refused is refused here, before anything is touched."""
    directory = target.directory.absolute()
    identifier = str(chain.full.facts["system_identifier"])
    user = choose_user(directory)
    if target.replaces:
        check_replaceable(directory, system_identifier=identifier)
    if target.reuses:
        check_reusable(directory, system_identifier=identifier)
    log_bytes = chain.log_bytes
    if target.start or is_fed(chain.log, target):
        log_bytes = min(log_bytes, 2 * target.log_space_bytes)
    check_target(
        beside(directory) if target.replaces else directory,
        user=user,
        needed_bytes=chain.archives_bytes + log_bytes + 2 * chain.log.segment_size,
        is_started=target.start,
        held_bytes=held_bytes(directory) if target.reuses else None,
    )

    def is_reusable(place: Path) -> bool:
        return target.reuses and is_reusable_tablespace(
            place, directory, system_identifier=identifier
        )

    places = choose_places(
        chain,
        directory,
        target.tablespaces,
        user=user,
        is_started=target.start,
        is_reusable=is_reusable,
    )
    if target.start and target.port is not None and not is_port_free(target.port):
        raise TargetNotUsable(
            f"port {target.port} of localhost is taken", hint="name another one, or none"
        )
    return _Checked(directory, user, places, _programs(chain.major, target, user))


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
class _Layout:
    """Files, log and configuration of one cluster."""

    cluster: RestoredCluster
    frames: FrameReader
    progress: Progress
    stop: StopSignal
    count: FetchCount
    item_id: str

    @property
    def tops(self) -> tuple[Path, ...]:
        """Every directory that is restored and lies in no other one."""
        return (self.cluster.directory, *self.cluster.tablespaces.outside)

    def run(self, target: RestoreTarget, stop_point: StopPoint) -> LaidOut:
        """Write and flush everything, the control file last of all."""
        cluster = self.cluster
        directory, user = cluster.directory, cluster.user
        identifier = str(cluster.chain.full.facts["system_identifier"])
        files = self._files()
        found = None
        if target.reuses:
            found = find_reusable(
                cluster.chain,
                directory,
                files.archive_places(),
                self.tops,
                progress=self.progress,
                stop=self.stop,
            )
        with contextlib.ExitStack() as unfinished:
            if target.reuses:
                unfinished.enter_context(_saying_how_to_go_on(directory))
            for place in self.tops:
                if found is None:
                    claim = empty_directory(place, user, system_identifier=identifier)
                else:
                    check = found.check if place == directory else found.check_stopped
                    claim = used_directory(place, user, system_identifier=identifier, check=check)
                unfinished.enter_context(claim)
                unfinished.enter_context(target_errors(place))
            if found is not None:
                withdraw_control_file(directory)
                ground = UsedGround(
                    user,
                    directory,
                    cluster.tablespaces.outside,
                    keeps=found.kept_paths(),
                    spared=(CLAIM,),
                )
                files = replace(files, ground=ground, comparison=found.comparison)
            files_there = files.lay_out()
            log = self._finish(target, stop_point)
            self.progress.phase("flush")
            for place in self.tops:
                make_durable(place, stop=self.stop)
            write_file(directory / CONTROL_FILE, files_there.control_file, user)
            flush(directory / CONTROL_FILE)
            flush((directory / CONTROL_FILE).parent)
        if found is not None:
            reused = ReusedFiles(files_there.kept_bytes, self.count.size_bytes, found.note)
            cluster = replace(cluster, reused=reused)
        return LaidOut(cluster, *log)

    def _files(self) -> ClusterFiles:
        cluster = self.cluster
        return ClusterFiles(
            cluster.chain,
            cluster.directory,
            cluster.tablespaces.places,
            EmptyGround(cluster.user),
            self.frames,
            self.progress,
            self.stop,
        )

    def _finish(
        self, target: RestoreTarget, stop_point: StopPoint
    ) -> tuple[tuple[str, ...], LogOrder | None]:
        """The log, or the order to feed it, and the configuration for whoever starts the server;
        paths of tablespaces that the log creates."""
        cluster, log = self.cluster, self.cluster.chain.log
        if target.start:
            prepare_start(cluster)
            return (), None
        lay_out_histories(log, cluster.directory, cluster.user)
        created: tuple[str, ...] = ()
        order = None
        if is_fed(log, target):
            order = LogOrder.of(cluster.chain, self.item_id, target.log_space_bytes)
            command = arrange_feed(order, cluster, target.feed_command)
        else:
            created = lay_out_log(
                log,
                cluster.directory,
                user=cluster.user,
                frames=self.frames,
                progress=self.progress,
                stop=self.stop,
            )
            command = absence_command([name for name, _ in log.segments()][-1])
        settings = {
            **kept_settings(),
            "hot_standby": "on",
            "restore_command": command,
            **stop_point.settings(),
        }
        configure(cluster.directory, settings, cluster.user)
        return created, order


@contextlib.contextmanager
def _saying_how_to_go_on(directory: Path) -> Iterator[None]:
    """What is left of a directory that was being rewritten is no database."""
    try:
        yield
    except SqlbakError as error:
        if not (directory / CONTROL_FILE).exists():
            error.advise(
                f"{directory} is no database now: the same command again goes on from here"
            )
        raise
