"""Backup sets that SQL Server writes into the vault itself, as objects of the recovery point.

The server knows the vault by a URL of its own, ``s3://host/bucket/prefix``; what follows are the
vault's own keys. So a point stays one thing: what retention, deletion and the sweep see is all that
there is. Source: Microsoft, "SQL Server backup to URL for S3-compatible object storage".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlbak.engines.port import PayloadSink, PlacedSink
from sqlbak.engines.sqlserver.statements import MAX_DEVICES, Device, DeviceKind
from sqlbak.errors import BackupFailed, ObjectNotFound, UsageError
from sqlbak.model import PointType
from sqlbak.progress import Progress
from sqlbak.stopping import StopSignal

__all__ = [
    "MAX_URL",
    "PART_BYTES",
    "UrlFiles",
    "UrlPlace",
    "bucket_of",
    "credential_for",
    "is_whole_set",
    "stripes_for",
]

PART_BYTES: Final = 20 << 20
"""MAXTRANSFERSIZE: of an S3 upload's parts, and the most that SQL Server takes. It takes more than
its default of 10 MiB only with COMPRESSION."""

_MAX_PARTS: Final = 10_000
_BYTES_A_STRIPE: Final = 150 << 30
"""What is planned for one URL: parts may be smaller than MAXTRANSFERSIZE, so that 10,000 of them
hold less than 195 GiB."""

_MAX_BYTES_A_STRIPE: Final = _MAX_PARTS * PART_BYTES * 9 // 10
"""What one URL is trusted to hold when there can be no more of them."""

MAX_URL: Final = 254
"""Characters of a URL that can be relied on; the limit is 259 with what SQL Server puts around."""

_NAME: Final = re.compile(r"(?P<number>[0-9]{1,2})of(?P<count>[0-9]{1,2})\.(?:bak|trn)")


@dataclass(frozen=True, slots=True)
class UrlPlace:
    """The vault as the server addresses it, without a slash at the end. ``region``: see Device."""

    url: str
    region: str | None = None

    def device(self, key: str) -> Device:
        """An object of the vault as the server names it. UsageError where the name is too long."""
        name = f"{self.url}/{key}"
        if len(name) > MAX_URL:
            raise UsageError(
                f"the URL {name[:60]}… has {len(name)} characters",
                hint=f"SQL Server takes {MAX_URL}: choose a shorter prefix for the vault, or "
                "delivery.disk",
            )
        return Device(DeviceKind.URL, name, self.region)

    def files(self, sink: PlacedSink, kind: PointType, token: str, count: int) -> UrlFiles:
        """The objects that a new backup set will have. A log's are kept for a later run when no
        point comes of them, until the server says that it wrote none."""
        ending = "trn" if kind is PointType.LOG else "bak"
        names = [f"{number}of{count}.{ending}" for number in range(1, count + 1)]
        devices = tuple(self.device(sink.place(name)) for name in names)
        sink.keep(kind is PointType.LOG)
        return UrlFiles(kind, token, tuple(names), devices, sink)

    def left(self, keys: Sequence[str]) -> LeftObjects:
        """Objects of a log that a dead run had written."""
        return LeftObjects(tuple(self.device(key) for key in keys))

    def taken_over(self, sink: PlacedSink, point_id: str, names: Sequence[str]) -> UrlFiles:
        """The same, copied as those of a new point."""
        devices = tuple(self.device(sink.take_over(point_id, name)) for name in names)
        return UrlFiles(PointType.LOG, "", tuple(names), devices, sink)


@dataclass(frozen=True, slots=True)
class LeftObjects:
    """Objects of a dead run that are there, to look at. Implements delivery.ReadableFiles."""

    devices: tuple[Device, ...]
    are_whole: bool = True

    def are_there(self) -> bool:
        """They were listed."""
        return True


@dataclass(frozen=True, slots=True)
class UrlFiles:
    """The objects of one backup set. Implements delivery.SetFiles."""

    type: PointType
    token: str
    streams: tuple[str, ...]
    devices: tuple[Device, ...]
    sink: PlacedSink

    @property
    def shown(self) -> str:
        """See SetFiles.shown."""
        return self.devices[0].name

    @property
    def facts(self) -> dict[str, object]:
        """See SetFiles.facts."""
        return {
            "delivery": "url",
            "urls": [device.name for device in self.devices],
            "region": self.devices[0].region,
        }

    @property
    def after_commit(self) -> None:
        """They stay where they are."""
        return None

    def are_there(self) -> bool:
        """See SetFiles.are_there. Raises what keeps the store from telling."""
        try:
            for name in self.streams:
                self.sink.note(name)
        except ObjectNotFound:
            return False
        return True

    @property
    def are_whole(self) -> bool:
        """See SetFiles.are_whole: an upload that is not finished shows no object."""
        return True

    def refused(self) -> None:
        """See SetFiles.refused: what the server left of its uploads is removed."""
        self.remove()

    def remove(self) -> None:
        """Delete them, and the parts of those that are not whole."""
        self.sink.discard()

    def ship(self, sink: PayloadSink, *, progress: Progress, stop: StopSignal) -> int:
        """Note what the store says of each. BackupFailed when one is not in the vault."""
        del sink, progress
        total = 0
        for name, device in zip(self.streams, self.devices, strict=True):
            stop.check()
            try:
                total += self.sink.note(name)
            except ObjectNotFound as missing:
                raise BackupFailed(
                    f"the server wrote {device.name}, but the vault has no {missing.key}",
                    hint="delivery.url must be the vault's bucket and prefix",
                ) from missing
        return total


def is_whole_set(names: Iterable[str]) -> bool:
    """Whether objects of these names are all that one backup set was written to."""
    found = [match for name in names if (match := _NAME.fullmatch(name))]
    counts = {int(match["count"]) for match in found}
    numbers = {int(match["number"]) for match in found}
    return len(counts) == 1 and numbers == set(range(1, counts.pop() + 1))


def stripes_for(size_bytes: int, wanted: int | None) -> int | None:
    """Over how many URLs a backup of at most that size is striped, ``wanted`` at least; None: more
    than there can be of them."""
    count = max(-(-size_bytes // _BYTES_A_STRIPE), wanted or 1, 1)
    if count <= MAX_DEVICES:
        return count
    return MAX_DEVICES if size_bytes <= MAX_DEVICES * _MAX_BYTES_A_STRIPE else None


def credential_for(names: Sequence[str], url: str) -> str | None:
    """The credential that the server takes for a URL: the longest that its path begins with."""
    low = url.casefold()
    fits = [
        name
        for name in names
        if low == (plain := name.rstrip("/").casefold()) or low.startswith(f"{plain}/")
    ]
    return max(fits, key=len, default=None)


def bucket_of(url: str, bucket: str | None = None) -> str:
    """What a credential for a URL is best named: its host, and the bucket where that is in the
    path. ``bucket``: which one it is, where that is known."""
    host, _, path = url.removeprefix("s3://").partition("/")
    if bucket is not None and host.lower().startswith(f"{bucket.lower()}."):
        return f"s3://{host}"
    first = path.partition("/")[0]
    return f"s3://{host}/{first}" if first else f"s3://{host}"
