"""One cluster that is being restored: its parts, and what is to be told of it in any case."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlbak.engines.postgres.chain import Chain
from sqlbak.engines.postgres.server import ServerUser
from sqlbak.engines.postgres.tablespaceplaces import INSIDE, TablespacePlaces

__all__ = ["HOME", "RestoredCluster", "ReusedFiles"]

HOME = "sqlbak"
"""Our own folder in the data directory, for what a recovery needs."""


@dataclass(frozen=True, slots=True)
class ReusedFiles:
    """What a restore into a used directory kept and fetched, in bytes before compression; log is
    not counted. ``note``: why nothing could be kept, if so."""

    kept_bytes: int
    fetched_bytes: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class RestoredCluster:
    """``before``: where the cluster lies that this one replaces; ``reused``: set where it was
    restored into a used directory."""

    chain: Chain
    directory: Path
    tablespaces: TablespacePlaces
    user: ServerUser
    before: Path | None = None
    reused: ReusedFiles | None = None

    @property
    def home(self) -> Path:
        """Our own folder."""
        return self.directory / HOME

    @property
    def role(self) -> str:
        """The superuser that every cluster has."""
        return str(self.chain.base.facts.get("bootstrap_role") or "postgres")

    def warnings(self) -> list[str]:
        """Sentences for the operator."""
        kept = [
            "archive_mode is off, subscriptions do not run and no standby is waited for: see the "
            f"end of {self.directory}/postgresql.auto.conf before this cluster takes over.",
        ]
        if self.tablespaces.are_inside:
            kept.append(f"Tablespaces were restored into {self.directory / INSIDE}.")
        if self.tablespaces.outside:
            listed = ", ".join(map(str, self.tablespaces.outside))
            kept.append(f"Tablespaces were restored into {listed}.")
        if self.before is not None:
            kept.append(
                f"The cluster that was there before is kept in {self.before}: remove it when you "
                "do not want it back."
            )
        if self.reused is not None and self.reused.note:
            kept.append(f"Nothing of what was there could be kept; {self.reused.note}.")
        libraries = [s.get("shared_preload_libraries") for s in self.chain.settings]
        if libraries and libraries[-1]:
            kept.append(f"The source loads these libraries at start: {libraries[-1]}.")
        return kept

    def facts(self) -> dict[str, Any]:
        """JSON values about it."""
        facts = self.chain.steps[-1].facts
        found = {
            "system_identifier": facts["system_identifier"],
            "server_version_num": facts["server_version_num"],
            "timeline": self.chain.log.timeline,
            "points": [step.point.id for step in self.chain.steps],
            "server_user": self.user.name,
            "set_aside": None if self.before is None else str(self.before),
            "tablespaces": {str(oid): str(place) for oid, place in self.tablespaces.places.items()},
        }
        if self.reused is not None:
            found["reused"] = {
                "kept_bytes": self.reused.kept_bytes,
                "fetched_bytes": self.reused.fetched_bytes,
                "note": self.reused.note or None,
            }
        return found
