"""One database, and how its backups are taken, on each server that may take them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sqlbak.engines.sqlserver.address import ServerAddress
from sqlbak.engines.sqlserver.delivery import DiskFolder
from sqlbak.engines.sqlserver.groups import Member, View
from sqlbak.engines.sqlserver.url_delivery import UrlPlace

__all__ = ["ReplicaPlace", "Source"]


@dataclass(frozen=True, slots=True)
class ReplicaPlace:
    """One server of the instance's availability groups, under its own name, and the folder that
    its backups go through."""

    name: str
    address: ServerAddress
    folder: DiskFolder | UrlPlace


@dataclass(frozen=True, slots=True)
class Source:
    """One database and how its backups are taken.

    Attributes:
        replicas: the servers of its availability group, where it may be in one.
        compression: auto, none, ms_xpress or zstd.
        folder: where its backups are written to: a folder that both sides see, or the vault itself.
        stripes: files for each full and differential; None: by size.
        family: the database that is meant; another one under its name is refused. None: whichever.
    """

    address: ServerAddress
    folder: DiskFolder | UrlPlace
    database: str
    compression: str = "auto"
    stripes: int | None = None
    family: str | None = None
    replicas: tuple[ReplicaPlace, ...] = ()

    @property
    def where(self) -> str:
        """Server and database, for people."""
        return f"{self.address.where}/{self.database}"

    @property
    def members(self) -> tuple[Member, ...]:
        """The servers to ask about groups."""
        return tuple(Member(one.name, one.address) for one in self.replicas)

    def on(self, view: View) -> Source:
        """The same as it is taken on that server: directly, not through a listener that may lead
        elsewhere the next time."""
        names = (view.server.name.lower(), view.member.name.lower())
        place = next((one for one in self.replicas if one.name.lower() in names), None)
        if place is None:
            return self
        return replace(self, address=place.address, folder=place.folder)
