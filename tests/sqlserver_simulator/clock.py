"""The server's clock: real or set by hand, skewed, in a zone with daylight saving."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

WINDOWS_ZONES = {
    "UTC": "UTC",
    "Europe/Berlin": "W. Europe Standard Time",
    "America/New_York": "Eastern Standard Time",
    "America/Los_Angeles": "Pacific Standard Time",
    "America/Sao_Paulo": "E. South America Standard Time",
    "Asia/Kolkata": "India Standard Time",
    "Australia/Sydney": "AUS Eastern Standard Time",
}


class ServerClock:
    """``zone`` is the server's zone; ``skew`` is how far its clock is ahead of true time.

    By default it follows the machine's clock; after ``set`` it stands still until ``advance``.
    """

    def __init__(self, zone: str = "UTC") -> None:
        self.zone = ZoneInfo(zone)
        self.skew = timedelta()
        self._fixed: datetime | None = None

    def set(self, moment: datetime) -> None:
        """Stand at this aware instant (true time; the skew is added when it is read)."""
        if moment.tzinfo is None:
            raise ValueError("the clock is set to aware instants only")
        self._fixed = moment.astimezone(UTC)

    def advance(self, **parts: float) -> None:
        """Move a clock that was set: ``clock.advance(seconds=90)``."""
        if self._fixed is None:
            raise ValueError("only a clock that was set can be advanced")
        self._fixed += timedelta(**parts)

    def run(self) -> None:
        """Follow the machine's clock again."""
        self._fixed = None

    def utc(self) -> datetime:
        """The server's idea of now, aware, UTC."""
        return (self._fixed or datetime.now(UTC)) + self.skew

    def local(self) -> datetime:
        """The server's wall clock, naive, to the microsecond."""
        return self.utc().astimezone(self.zone).replace(tzinfo=None)

    def offset(self) -> timedelta:
        """What the zone is ahead of UTC now."""
        return self.utc().astimezone(self.zone).utcoffset() or timedelta()

    def quarter_hours(self) -> int:
        """The offset in units of 15 minutes, as msdb.dbo.backupset.time_zone has it."""
        return int(self.offset() / timedelta(minutes=15))

    @property
    def windows_name(self) -> str:
        return WINDOWS_ZONES.get(self.zone.key, self.zone.key)


def on_datetime_grid(moment: datetime) -> datetime:
    """The nearest value that the type datetime can hold: .000, .003 or .007 ([D] datetime:
    "rounded to increments of .000, .003, or .007 seconds"; .999 becomes the next second)."""
    second = moment.replace(microsecond=0)
    ticks = (moment.microsecond * 3 + 5000) // 10000
    micro = (ticks * 10000 + 1) // 3
    return second + timedelta(
        microseconds=micro // 1000 * 1000 + (1000 if micro % 1000 > 499 else 0)
    )


def last_tick(moment: datetime) -> datetime:
    """The tick of 1/300 s that a log record carries: never later than the moment itself."""
    ticks = moment.microsecond * 3 // 10000
    second = moment.replace(microsecond=0)
    return on_datetime_grid(second + timedelta(microseconds=(ticks * 10000 + 1) // 3))
