"""How long restoring a recovery point takes, by estimate: what chains are compared by. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlbak.model import Point, PointType

__all__ = ["DEFAULT_RATES", "RestoreRates"]

_MICROSECONDS = 1_000_000


@dataclass(frozen=True, slots=True)
class RestoreRates:
    """How fast a restore goes. Bytes are those that are fetched, as they are stored.

    Attributes:
        data_bytes_per_second: of fulls and differentials, fetched and unpacked.
        log_bytes_per_second: of log, fetched and replayed.
        microseconds_a_step: what each step costs besides, however small it is.
    """

    data_bytes_per_second: int
    log_bytes_per_second: int
    microseconds_a_step: int

    def microseconds(self, point: Point) -> int:
        """What one step takes; whole numbers, so that sums do not depend on their order."""
        is_log = point.type is PointType.LOG
        rate = self.log_bytes_per_second if is_log else self.data_bytes_per_second
        return self.microseconds_a_step + point.size_bytes * _MICROSECONDS // rate


DEFAULT_RATES: Final = RestoreRates(
    data_bytes_per_second=30_000_000,
    log_bytes_per_second=10_000_000,
    microseconds_a_step=20_000,
)
"""Fixed and not measured where sqlbak runs, so that one catalog gives one plan on every machine and
every day. Of PostgreSQL on two cores, where log of small transactions took two to three times as
long as data; the ratio decides, not the rates."""
