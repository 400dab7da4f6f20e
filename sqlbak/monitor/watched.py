"""What status is decided from: everything known of one configured item, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlbak.engines.port import Inspection
from sqlbak.errors import SqlbakError
from sqlbak.model import Point, PointType
from sqlbak.monitor.holdings import NO_HOLDINGS, Holdings
from sqlbak.policy.schema import Policy
from sqlbak.vault.cancelled_slots import TypeSlot
from sqlbak.vault.job_records import JobRecord
from sqlbak.vault.vault_keys import NONE_MISSING, MissingKeys

__all__ = ["Look", "Watched"]


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the item's server, at ``looked_at``: what it said, or why it said nothing."""

    looked_at: datetime
    inspection: Inspection | None = None
    error: SqlbakError | None = None


@dataclass(frozen=True, slots=True)
class Watched:
    """All that is known of one configured item.

    Attributes:
        name: ``instance`` or ``instance/database``.
        item_id: its folder in the vault; None: nothing is stored of it.
        engine, policy_name, vault_name: as configured.
        holdings: what its recovery points amount to.
        failures: runs that failed since the newest recovery point of their type, newest first.
        foreign: the newest of its last runs that met somebody else's backup.
        cancelled: slots that somebody cancelled; asked for where one is not served only.
        running: since when a backup of each type runs.
        stale_jobs: how many jobs have a running record but no lease that is alive.
        incomplete: recovery points whose payload is not all there.
        look: at the server; None: it was not asked.
        vault_error: why the vault did not answer.
        key_error: why the vault's key cannot be read here.
        missing_keys: which keys of the vault its settings, which name some, do not lead to.
        refusal: why no backup is taken under its settings.
    """

    name: str
    engine: str
    policy_name: str
    policy: Policy
    vault_name: str
    item_id: str | None = None
    holdings: Holdings = NO_HOLDINGS
    failures: tuple[JobRecord, ...] = ()
    foreign: JobRecord | None = None
    cancelled: tuple[TypeSlot, ...] = ()
    running: Mapping[PointType, datetime] = field(default_factory=dict)
    stale_jobs: int = 0
    incomplete: tuple[Point, ...] = ()
    look: Look | None = None
    vault_error: SqlbakError | None = None
    key_error: SqlbakError | None = None
    missing_keys: MissingKeys = NONE_MISSING
    refusal: SqlbakError | None = None

    @property
    def instance(self) -> str:
        """The name of its server."""
        return self.name.partition("/")[0]

    @property
    def database(self) -> str | None:
        """The name of its database; None where the whole server is one item."""
        return self.name.partition("/")[2] or None

    @property
    def paused(self) -> Mapping[PointType, str]:
        """What cannot be taken of it as its owner keeps it, and why, as far as the server said."""
        if self.look is None or self.look.inspection is None:
            return {}
        items = self.look.inspection.items
        return next((one.paused for one in items if one.database in (None, self.database)), {})
