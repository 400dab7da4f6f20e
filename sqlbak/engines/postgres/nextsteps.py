"""What to tell the operator of a cluster that was restored and not started."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from sqlbak.engines.port import RestoreOutcome
from sqlbak.engines.postgres.feeding import LogOrder
from sqlbak.engines.postgres.programs import Programs
from sqlbak.engines.postgres.recovery import StopPoint
from sqlbak.engines.postgres.restoredcluster import HOME, RestoredCluster
from sqlbak.engines.postgres.startcheck import check_start
from sqlbak.engines.postgres.tablespaceplaces import INSIDE
from sqlbak.engines.postgres.timelines import format_lsn

__all__ = ["LaidOut", "left_stopped"]


@dataclass(frozen=True, slots=True)
class LaidOut:
    """A whole directory. ``created``: paths of tablespaces that its log creates. ``order``: the log
    to be fed to it; None: it has all of it."""

    cluster: RestoredCluster
    created: tuple[str, ...]
    order: LogOrder | None


def left_stopped(
    laid_out: LaidOut,
    stop_point: StopPoint,
    programs: Programs | None,
    feed_command: Sequence[str],
) -> RestoreOutcome:
    """What to tell the operator of a cluster that was not started."""
    cluster, order = laid_out.cluster, laid_out.order
    binary = programs.directory if programs else f"<bin of PostgreSQL {cluster.chain.major}>"
    here = str(cluster.directory)
    # The files of tablespaces are checked where the server sees them, below pg_tblspc.
    moved = (INSIDE, "tablespace_map") if cluster.tablespaces.places else ()
    ignored = [f"--ignore={name}" for name in moved]
    if order is not None:
        ignored += [f"--ignore={HOME}", "--no-parse-wal"]
    check = check_start(cluster.directory, programs, cluster.user)
    options = " ".join(["-p PORT", check.options()]).strip()
    start = ["-D", here, "-l", f"{here}/server.log", "-o", options, "start"]
    where = (
        f"before the first transaction after {stop_point.time.isoformat()}"
        if stop_point.time is not None
        else f"at log position {format_lsn(cluster.chain.log.last_lsn)}"
    )
    steps = [
        f"Check the files: {shlex.join([f'{binary}/pg_verifybackup', *ignored, here])}",
        *_feeding(laid_out, feed_command),
        f"Start it as user {cluster.user.name}: {shlex.join([f'{binary}/pg_ctl', *start])}",
        *check.findings,
        f"It replays its log, stops {where}, and stays read-only there; tables that an "
        "unfinished transaction had locked stay locked meanwhile.",
        "Look at it: SELECT pg_get_wal_replay_pause_state(), pg_last_xact_replay_timestamp();",
        "Make it writable: SELECT pg_wal_replay_resume(); (it begins a new timeline)",
        *cluster.warnings(),
        *(f"Before starting, create the empty directory {path}" for path in laid_out.created),
    ]
    if not (cluster.directory / "postgresql.conf").exists():
        steps.append(
            "The backup holds no postgresql.conf and pg_hba.conf (packages keep them "
            "elsewhere): put them there before starting."
        )
    return RestoreOutcome(
        directory=cluster.directory,
        proven=False,
        reached=None,
        last_commit_at=None,
        connection=None,
        next_steps=tuple(steps),
        facts={**cluster.facts(), "fed": order is not None},
    )


def _feeding(laid_out: LaidOut, feed_command: Sequence[str]) -> list[str]:
    order = laid_out.order
    if order is None:
        return []
    command = shlex.join([*feed_command, str(laid_out.cluster.directory)])
    mebibytes = (order.last_lsn - order.first_lsn) >> 20
    return [
        f"Its log has {mebibytes} MiB, more than the {order.log_space_bytes >> 20} MiB that may be "
        f"unpacked (--log-space). Keep this running in a second terminal: {command}",
        "Until the server is writable it needs that; without it, it does not start, or gives up. "
        "It ends by itself.",
    ]
