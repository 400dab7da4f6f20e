"""What to tell the operator of a cluster that was restored and not started."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from sqlbak.engines.port import RestoreOutcome
from sqlbak.engines.postgres.programs import Programs
from sqlbak.engines.postgres.recovery import StopPoint
from sqlbak.engines.postgres.restoredcluster import RestoredCluster
from sqlbak.engines.postgres.tablespaceplaces import INSIDE
from sqlbak.engines.postgres.timelines import format_lsn

__all__ = ["left_stopped"]


def left_stopped(
    cluster: RestoredCluster,
    stop_point: StopPoint,
    programs: Programs | None,
    created: Sequence[str],
) -> RestoreOutcome:
    """What to tell the operator of a cluster that was not started."""
    binary = programs.directory if programs else f"<bin of PostgreSQL {cluster.chain.major}>"
    here = str(cluster.directory)
    start = ["-D", here, "-l", f"{here}/server.log", "-o", "-p PORT", "start"]
    # The files of tablespaces are checked where the server sees them, below pg_tblspc.
    moved = (INSIDE, "tablespace_map") if cluster.tablespaces.places else ()
    ignored = [f"--ignore={name}" for name in moved]
    where = (
        f"before the first transaction after {stop_point.time.isoformat()}"
        if stop_point.time is not None
        else f"at log position {format_lsn(cluster.chain.log.last_lsn)}"
    )
    steps = [
        f"Check the files: {shlex.join([f'{binary}/pg_verifybackup', *ignored, here])}",
        f"Start it as user {cluster.user.name}: {shlex.join([f'{binary}/pg_ctl', *start])}",
        f"It replays its log, stops {where}, and stays read-only there; tables that an "
        "unfinished transaction had locked stay locked meanwhile.",
        "Look at it: SELECT pg_get_wal_replay_pause_state(), pg_last_xact_replay_timestamp();",
        "Make it writable: SELECT pg_wal_replay_resume(); (it begins a new timeline)",
        *cluster.warnings(),
        *(f"Before starting, create the empty directory {path}" for path in created),
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
        facts=cluster.facts(),
    )
