"""Feeds log to a server that the operator starts: as far ahead of its replay as there is room.

A restore that is not started unpacks its whole log where that fits the room it may take. A longer
log is not unpacked: the cluster gets an order instead, which says what log it needs, and a
``restore_command`` that waits for whoever carries the order out. While nobody does, the server does
not start, and one that replays gives up: it never takes what it has for all there is.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from sqlbak.engines.port import RestoreStep, RestoreTarget
from sqlbak.engines.postgres.chain import Chain
from sqlbak.engines.postgres.frames import FrameReader
from sqlbak.engines.postgres.ground import write_file
from sqlbak.engines.postgres.restoredcluster import HOME, RestoredCluster
from sqlbak.engines.postgres.server import choose_user
from sqlbak.engines.postgres.timelines import format_lsn
from sqlbak.engines.postgres.walfeed import WalFeed
from sqlbak.engines.postgres.walsource import WalChain
from sqlbak.engines.postgres.walspool import WalSpool
from sqlbak.errors import RestoreFailed, TargetNotUsable
from sqlbak.model import PointType
from sqlbak.progress import Progress
from sqlbak.stopping import StopSignal

__all__ = ["LogOrder", "arrange_feed", "feed_cluster", "is_fed", "read_order"]

_ORDER = Path(HOME) / "feed.json"
_SPOOL = Path(HOME) / "feed"
_SIGNAL = "recovery.signal"
_FORMAT = 1
_LOOK_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class LogOrder:
    """Which log a cluster needs: ``[first_lsn, last_lsn)`` of ``lineage`` of the item, on top of
    these recovery points. ``log_space_bytes``: how much of it may lie ready."""

    item_id: str
    lineage: str
    full: str
    differential: str | None
    first_lsn: int
    last_lsn: int
    segment_size: int
    log_space_bytes: int

    @classmethod
    def of(cls, chain: Chain, item_id: str, log_space_bytes: int) -> Self:
        """The order for a chain's log."""
        return cls(
            item_id=item_id,
            lineage=str(chain.log.timeline),
            full=chain.full.point.id,
            differential=None if chain.differential is None else chain.differential.point.id,
            first_lsn=chain.log.first_lsn,
            last_lsn=chain.log.last_lsn,
            segment_size=chain.log.segment_size,
            log_space_bytes=log_space_bytes,
        )

    def written(self) -> bytes:
        """As a file."""
        return json.dumps({"format": _FORMAT, **asdict(self)}, indent=2).encode() + b"\n"


def is_fed(log: WalChain, target: RestoreTarget) -> bool:
    """Whether the log is too long to be unpacked as a whole."""
    segments = -(-log.last_lsn // log.segment_size) - log.first_lsn // log.segment_size
    return segments * log.segment_size > target.log_space_bytes


def arrange_feed(order: LogOrder, cluster: RestoredCluster, feed_command: Sequence[str]) -> str:
    """Leave the order in the cluster's directory; the ``restore_command`` that waits for it.

    Which timelines there are is known: their histories lie in pg_wal, and need nobody.
    """
    if cluster.home.is_dir():  # the source was itself restored once, and took this along
        shutil.rmtree(cluster.home)
    cluster.home.mkdir(mode=0o700)
    cluster.user.own(cluster.home)
    spool = _spool(cluster.directory, feed_command)
    spool.make()
    write_file(cluster.directory / _ORDER, order.written(), cluster.user)
    # The directory may be moved: servers run the command in it.
    return f"case %f in *.history) exit 1;; esac; {spool.restore_command(_SPOOL)}"


def _spool(directory: Path, feed_command: Sequence[str]) -> WalSpool:
    said = f"nobody feeds log to this server; run: {shlex.join([*feed_command, str(directory)])}"
    return WalSpool(directory / _SPOOL, choose_user(directory), said)


def read_order(directory: Path) -> LogOrder:
    """The order in ``directory``. TargetNotUsable when there is none, or nothing to be fed."""
    try:
        document = json.loads((directory / _ORDER).read_bytes())
        version = document.pop("format")
        if version != _FORMAT:
            raise TargetNotUsable(
                f"{directory / _ORDER} is of format {version}, which this version does not know",
                hint="upgrade sqlbak",
            )
        order = LogOrder(**document)
    except FileNotFoundError:
        raise TargetNotUsable(
            f"{directory} waits for no log",
            hint="only a restore without --start whose log is longer than --log-space needs this",
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise TargetNotUsable(f"{directory / _ORDER} cannot be read: {problem}") from None
    if not (directory / _SIGNAL).exists():
        raise TargetNotUsable(
            f"the server on {directory} has left recovery: it needs no log",
            hint="nothing is left to do",
        )
    return order


def feed_cluster(
    steps: Sequence[RestoreStep],
    directory: Path,
    *,
    histories: Mapping[str, bytes],
    feed_command: Sequence[str],
    log_space_bytes: int | None,
    progress: Progress,
    stop: StopSignal,
) -> LogOrder:
    """Carry out the order in ``directory`` with the log of ``steps``, until the server there has
    left recovery; then remove what was needed for it.

    Raises TargetNotUsable when it is fed already, or the log creates a tablespace; RestoreFailed
    when the steps lack some of the log; whatever the source raises; Interrupted. The server then
    gives up, and both can be started again.
    """
    order = read_order(directory)
    log = _log(order, steps, histories)
    spool = _spool(directory, feed_command)
    progress.phase("feed", order.last_lsn - order.first_lsn)
    with _alone(directory), FrameReader(stop) as frames:
        feed = WalFeed(
            log,
            spool,
            frames=frames,
            progress=progress,
            budget_bytes=log_space_bytes or order.log_space_bytes,
        )
        # The operator decides when this server leaves recovery.
        feed.permit_promotion()
        with feed:
            while (directory / _SIGNAL).exists():
                feed.check()
                stop.check()
                stop.wait(_LOOK_SECONDS)
        shutil.rmtree(directory / HOME)
    return order


def _log(order: LogOrder, steps: Sequence[RestoreStep], histories: Mapping[str, bytes]) -> WalChain:
    bases = [step for step in steps if step.point.type is not PointType.LOG]
    logs = [step for step in steps if step.point.type is PointType.LOG]
    log = WalChain(
        [*bases[-1:], *logs],
        lineage=order.lineage,
        histories=histories,
        segment_size=order.segment_size,
    )
    if log.first_lsn > order.first_lsn or log.last_lsn < order.last_lsn:
        raise RestoreFailed(
            f"the vault holds the log from {format_lsn(log.first_lsn)} to "
            f"{format_lsn(log.last_lsn)}, and the cluster needs it from "
            f"{format_lsn(order.first_lsn)} to {format_lsn(order.last_lsn)}",
            hint="restore the cluster again",
        )
    log.end_at(order.last_lsn)
    return log


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """TargetNotUsable when another process feeds this cluster."""
    descriptor = os.open(directory / _ORDER, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise TargetNotUsable(
            f"{directory} is fed already", hint="one process is enough: leave it running"
        ) from None
    try:
        yield
    finally:
        os.close(descriptor)
