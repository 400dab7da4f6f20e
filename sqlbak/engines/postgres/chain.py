"""What a restore demands of its chain and of its target before it writes anything."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlbak.engines.port import RestoreStep
from sqlbak.engines.postgres.frames import FrameReader
from sqlbak.engines.postgres.recovery import StopPoint
from sqlbak.engines.postgres.server import ServerUser
from sqlbak.engines.postgres.timelines import format_lsn
from sqlbak.engines.postgres.walrecords import Record, last_record
from sqlbak.engines.postgres.walsource import WalChain
from sqlbak.errors import (
    FeatureUnsupported,
    InstantUnreachable,
    NothingToRestore,
    PositionUnreachable,
    RestoreFailed,
    TargetNotUsable,
)
from sqlbak.model import PointType

__all__ = ["Chain", "Tablespace", "archives_size", "check_target", "checked_chain", "held_bytes"]

_SPARE_BYTES = 64 << 20
_METHODS = frozenset({"pages", "native"})
_FOR_A_SHELL = re.compile(r"[\"$`\\\n\r]")


@dataclass(frozen=True, slots=True)
class Tablespace:
    """One tablespace of the base: its id, and where it lay on the source (relative: inside the
    data directory, allow_in_place_tablespaces)."""

    oid: int
    location: str

    @property
    def is_in_place(self) -> bool:
        """Whether it lies inside the data directory, and stays there."""
        return not Path(self.location).is_absolute()


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain that holds together: the steps, what they agree on, and their log as one."""

    full: RestoreStep
    differential: RestoreStep | None
    steps: tuple[RestoreStep, ...]
    major: int
    log: WalChain
    tablespaces: tuple[Tablespace, ...]

    @property
    def settings(self) -> list[Mapping[str, Any]]:
        """The source's settings as recorded with each step."""
        return [step.facts.get("settings", {}) for step in self.steps]

    @property
    def base(self) -> RestoreStep:
        """The step whose end is the earliest state that a server can reach: the differential
        where there is one, else the full."""
        return self.differential or self.full

    @property
    def logs(self) -> tuple[RestoreStep, ...]:
        """What follows the base."""
        return self.steps[1 if self.differential is None else 2 :]

    @property
    def bases(self) -> tuple[RestoreStep, ...]:
        """The full, and the differential where there is one."""
        return (self.full,) if self.differential is None else (self.full, self.differential)

    @property
    def archives_bytes(self) -> int:
        """Size of all archives; what they unpack to is no larger."""
        return sum(map(archives_size, self.bases))

    @property
    def log_bytes(self) -> int:
        """Size of the whole chain's log."""
        return self.log.last_lsn - self.log.first_lsn

    def last_record(self, frames: FrameReader) -> Record:
        """The last whole record of the chain. RestoreFailed if there is none after the base."""

        def read(first: int, last: int) -> bytes:
            return b"".join(self.log.read(frames, first, last))

        size, end = self.log.segment_size, self.log.last_lsn
        begin = max(self.log.first_lsn, (end - 1) - (end - 1) % size)
        while True:
            found = last_record(read, segment_size=size, begin=begin, end=end)
            if found is not None:
                return found
            if begin == self.log.first_lsn:
                raise RestoreFailed("the chain's log holds no whole record")
            begin = max(self.log.first_lsn, begin - size)

    def stop_points(
        self, stop_at: datetime | None, frames: FrameReader
    ) -> tuple[tuple[StopPoint, ...], Record]:
        """How recovery may be told to stop, the first choice first, and the last record.

        A time only works while a later commit lies in the log (recoveryStopsBefore looks at
        nothing else); where none does, the chain's end is that state. It is not the first choice
        even for a base alone: clients may have committed between the clock that was read for its
        end and that end.
        """
        record = self.last_record(frames)
        to_end = StopPoint(self.log.timeline, lsn=record.start, no_later_than=stop_at)
        if stop_at is None:
            return (to_end,), record
        to_time = StopPoint(self.log.timeline, time=stop_at, no_later_than=stop_at)
        return (to_time, to_end), record


def archives_size(step: RestoreStep) -> int:
    """Size in bytes of a base's archives and its manifest."""
    source = step.source
    return sum(
        source.size(name)
        for name in source.streams()
        if name.endswith(".tar") or name == "backup_manifest"
    )


def checked_chain(
    steps: Sequence[RestoreStep],
    *,
    stop_at: datetime | None,
    lineage: str,
    histories: Mapping[str, bytes],
    stop_lsn: int | None = None,
) -> Chain:
    """Check everything that the steps say of themselves once more, whoever planned them.

    Raises FeatureUnsupported, InstantUnreachable, PositionUnreachable, or RestoreFailed for steps
    that do not belong together.
    """
    if not steps:
        raise NothingToRestore("a restore needs at least a full backup")
    full, rest = steps[0], steps[1:]
    differential = rest[0] if rest and rest[0].point.type is PointType.DIFFERENTIAL else None
    logs = rest if differential is None else rest[1:]
    if full.point.type is not PointType.FULL or any(
        step.point.type is not PointType.LOG for step in logs
    ):
        raise RestoreFailed(
            "a restore takes exactly one full, then at most one differential, then logs"
        )
    for name in ("system_identifier", "wal_segment_size"):
        values = {step.facts[name] for step in steps}
        if len(values) > 1:
            raise RestoreFailed(
                f"the chain's recovery points differ in {name}: "
                + ", ".join(f"{step.facts[name]} in {step.point.id}" for step in steps)
            )
    majors = {int(step.facts["server_version_num"]) // 10000 for step in steps}
    if len(majors) > 1:
        raise RestoreFailed(f"the chain mixes PostgreSQL {' and '.join(map(str, sorted(majors)))}")
    base = full
    if differential is not None:
        _check_differential(differential, full)
        base = differential
    _check_instant(base, logs, stop_at)
    tablespaces = tuple(
        Tablespace(int(entry["oid"]), str(entry["location"]))
        for entry in base.facts.get("tablespaces", ())
    )
    for step in (full,) if base is full else (full, base):
        needed = ["base.tar", "backup_manifest"]
        needed += [f"{tablespace['oid']}.tar" for tablespace in step.facts.get("tablespaces", ())]
        for name in needed:
            if name not in step.source.streams():
                raise RestoreFailed(f"recovery point {step.point.id} has no {name}")
    log = WalChain(
        [base, *logs],  # the log of a full is of no use before a differential
        lineage=lineage,
        histories=histories,
        segment_size=int(full.facts["wal_segment_size"]),
    )
    if stop_lsn is not None:
        if not base.point.last_lsn <= stop_lsn <= log.last_lsn:
            raise PositionUnreachable(
                f"{format_lsn(stop_lsn)} is not covered by this chain, which reaches from "
                f"{format_lsn(base.point.last_lsn)} to {format_lsn(log.last_lsn)}"
            )
        # Records begin at multiples of 8; what fills up the one before belongs to it.
        log.end_at(max(stop_lsn - stop_lsn % 8, base.point.last_lsn))
    return Chain(full, differential, tuple(steps), majors.pop(), log, tablespaces)


def _check_differential(differential: RestoreStep, full: RestoreStep) -> None:
    """RestoreFailed unless it was made on this very full; FeatureUnsupported when by a method
    that a later version invented."""
    made = differential.facts.get("differential") or {}
    if made.get("method") not in _METHODS:
        raise FeatureUnsupported(
            f"recovery point {differential.point.id} was made by the method "
            f"{made.get('method')!r}, which this version does not know",
            hint="upgrade sqlbak",
        )
    expected = (full.point.id, full.facts["start_lsn"], int(full.facts["timeline"]))
    found = (made.get("base_id"), made.get("base_start_lsn"), int(made.get("base_timeline") or 0))
    if found != expected or differential.point.base_id != full.point.id:
        raise RestoreFailed(
            f"the differential {differential.point.id} builds on {made.get('base_id')}, which is "
            f"not the full {full.point.id} that it was to be laid over"
        )


def _check_instant(
    base: RestoreStep, logs: Sequence[RestoreStep], stop_at: datetime | None
) -> None:
    if stop_at is None:
        return
    earliest = base.point.reachable_from
    last = (logs[-1] if logs else base).point
    latest = max((at for at in (earliest, last.covers_until) if at is not None), default=None)
    if earliest is None or latest is None or not earliest <= stop_at <= latest:
        # PostgreSQL itself would, without a word, promote a later state than one asked for
        # before the base's end.
        raise InstantUnreachable(
            f"{stop_at.isoformat()} is not covered by this chain, which reaches from "
            f"{earliest and earliest.isoformat()} to {latest and latest.isoformat()}",
            nearest=[at for at in (earliest, latest) if at is not None],
        )


def check_target(
    directory: Path,
    *,
    user: ServerUser,
    needed_bytes: int,
    is_started: bool,
    held_bytes: int | None = None,
) -> None:
    """TargetNotUsable unless ``directory`` is absent or empty, can be written, is large enough
    and, where the server is to be started, can be reached by ``user``. ``held_bytes``: it may hold
    so many bytes, which will be kept or replaced. Nothing is changed."""
    if found := _FOR_A_SHELL.search(str(directory)):
        # pg_ctl hands the path to a shell, between double quotes.
        raise TargetNotUsable(
            f"{directory} holds the character {found[0]!r}, which PostgreSQL's own pg_ctl cannot "
            "have in a data directory's path",
            hint='any other path will do, without " $ ` \\ and line breaks',
        )
    if directory.is_symlink() or (directory.exists() and not directory.is_dir()):
        raise TargetNotUsable(f"{directory} is not a directory")
    is_used = held_bytes is not None
    if not is_used and directory.is_dir() and (names := sorted(os.listdir(directory))):  # noqa: PTH208
        raise TargetNotUsable(
            f"{directory} is not empty: it holds {names[0]}"
            + (f" and {len(names) - 1} more" if len(names) > 1 else ""),
            hint="restore into a directory of its own; below a mount point, into one level deeper",
        )
    place = directory
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise TargetNotUsable(f"{place} cannot be written, so {directory} cannot be made there")
    if is_started:
        user.check_reaches(directory)
    free = shutil.disk_usage(place).free
    needed_bytes = max(needed_bytes - (held_bytes or 0), 0)
    if free < needed_bytes + _SPARE_BYTES:
        raise TargetNotUsable(
            f"{directory} needs {_size(needed_bytes + _SPARE_BYTES)} and its file system has "
            f"{_size(free)} free",
            hint="restore to a larger file system",
        )


def held_bytes(directory: Path) -> int:
    """How much room the files below ``directory`` take that a restore may keep or replace."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                status = (Path(folder) / name).lstat()
            except FileNotFoundError:
                continue
            if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
                total += status.st_blocks * 512
    return total


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
