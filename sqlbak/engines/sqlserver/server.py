"""What a SQL Server instance is, what it can do, and what its clock says."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlbak.engines.sqlserver.connection import Session, StatementFailed
from sqlbak.engines.sqlserver.rows import number, text
from sqlbak.engines.sqlserver.statements import Compression
from sqlbak.errors import FeatureUnsupported
from sqlbak.stopping import NEVER, StopSignal

__all__ = ["Clock", "Server", "read_clock", "read_server"]

_EXPRESS: Final = 4
_OLDEST: Final = 13
_RELEASES: Final = {13: "2016", 14: "2017", 15: "2019", 16: "2022", 17: "2025"}

_PROPERTIES: Final = (
    "SELECT CONVERT(nvarchar(128), SERVERPROPERTY('ProductVersion')) AS product_version,"
    " CONVERT(nvarchar(128), SERVERPROPERTY('Edition')) AS edition,"
    " CONVERT(nvarchar(128), SERVERPROPERTY('MachineName')) AS machine_name,"
    " CONVERT(nvarchar(128), SERVERPROPERTY('Collation')) AS collation,"
    " CONVERT(int, SERVERPROPERTY('EngineEdition')) AS engine_edition,"
    " CONVERT(int, SERVERPROPERTY('IsHadrEnabled')) AS is_hadr_enabled,"
    " CONVERT(nvarchar(128), @@SERVERNAME) AS server_name"
)


@dataclass(frozen=True, slots=True)
class Server:
    """One instance. ``platform`` is ``Windows`` or ``Linux``."""

    name: str
    version: str
    edition: str
    engine_edition: int
    platform: str
    collation: str
    is_hadr_enabled: bool

    @property
    def major(self) -> int:
        """13 is 2016, 17 is 2025."""
        return int(self.version.partition(".")[0])

    @property
    def release(self) -> str:
        """The year that people know it by."""
        return _RELEASES.get(self.major, self.version)

    @property
    def can_compress(self) -> bool:
        """Express and Web cannot (they restore compressed backups all the same). The engine edition
        that Web tells is that of Standard."""
        return self.engine_edition != _EXPRESS and not self.edition.startswith("Web")

    @property
    def is_case_sensitive(self) -> bool:
        """Whether databases may have names that differ in case only."""
        return "_CS" in self.collation or "_BIN" in self.collation

    def compression(self, wanted: str) -> Compression:
        """What ``wanted`` (auto, none, ms_xpress, zstd) means here. FeatureUnsupported where the
        server cannot do it; ``auto`` is the best that it can."""
        if wanted == "none" or (wanted == "auto" and not self.can_compress):
            return Compression.NONE
        if not self.can_compress:
            raise FeatureUnsupported(
                f"{self.name}: {self.edition} cannot compress backups",
                hint="write compression: none, or auto",
            )
        if wanted == "zstd" and self.major < 17:
            raise FeatureUnsupported(
                f"{self.name}: SQL Server {self.release} cannot compress with ZSTD (2025 can)",
                hint="write compression: auto",
            )
        return (
            Compression.ZSTD
            if self.major >= 17 and wanted in ("auto", "zstd")
            else Compression.DEFAULT
        )

    def document(self, clock: Clock) -> dict[str, Any]:
        """As it stands in manifests."""
        return {
            "name": self.name,
            "version": self.version,
            "edition": self.edition,
            "platform": self.platform,
            "collation": self.collation,
            "utc_offset_minutes": clock.utc_offset_minutes,
            "time_zone": clock.time_zone,
        }


@dataclass(frozen=True, slots=True)
class Clock:
    """The server's clock: ``utc`` now, how far its wall clock is ahead of UTC, and the name of its
    zone as the server has it (2022 and later; else None)."""

    utc: datetime
    utc_offset_minutes: int
    time_zone: str | None


def read_server(session: Session, *, stop: StopSignal = NEVER) -> Server:
    """Ask what the instance is. FeatureUnsupported for versions before 2016."""
    row = session.rows(_PROPERTIES, doing="asking for the version", stop=stop)[0]
    version = text(row, "product_version") or "0"
    found = Server(
        name=text(row, "server_name") or text(row, "machine_name") or session.where,
        version=version,
        edition=text(row, "edition") or "",
        engine_edition=number(row, "engine_edition") or 0,
        platform=_platform(session, version, stop),
        collation=text(row, "collation") or "",
        is_hadr_enabled=bool(number(row, "is_hadr_enabled")),
    )
    if found.major < _OLDEST:
        raise FeatureUnsupported(
            f"{session.where}: SQL Server {version} is older than 2016", hint="upgrade the server"
        )
    return found


def _platform(session: Session, version: str, stop: StopSignal) -> str:
    if int(version.partition(".")[0]) < 14:
        return "Windows"
    try:
        rows = session.rows(
            "SELECT host_platform FROM sys.dm_os_host_info", doing="asking for the host", stop=stop
        )
    except StatementFailed:
        return "unknown"  # needs VIEW SERVER STATE on some versions; only shown
    return (text(rows[0], "host_platform") or "unknown") if rows else "unknown"


def read_clock(session: Session, server: Server, *, stop: StopSignal = NEVER) -> Clock:
    """Ask for the time."""
    zone = (
        ", CONVERT(nvarchar(128), CURRENT_TIMEZONE_ID()) AS time_zone" if server.major >= 16 else ""
    )
    row = session.rows(
        "SELECT CONVERT(nvarchar(40), SYSUTCDATETIME(), 126) AS utc_now,"
        f" DATEPART(tz, SYSDATETIMEOFFSET()) AS utc_offset_minutes{zone}",
        doing="asking for the time",
        stop=stop,
    )[0]
    # Seven digits of a second; Python keeps six.
    written = (text(row, "utc_now") or "")[:26]
    return Clock(
        datetime.fromisoformat(written).replace(tzinfo=UTC),
        number(row, "utc_offset_minutes") or 0,
        text(row, "time_zone"),
    )
