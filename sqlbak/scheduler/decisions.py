"""What the scheduler would do now, item by item, with reasons."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlbak.engines.port import DiscoveredItem, Inspection
from sqlbak.errors import ServerNotReady, SqlbakError
from sqlbak.fleet import Fleet, StoredItem, instance_of
from sqlbak.model import Point, PointType
from sqlbak.scheduler.admission import Waiting, admit
from sqlbak.scheduler.candidates import candidate_of, room_of
from sqlbak.scheduler.catalogs import items_by_name
from sqlbak.scheduler.conversions import ServerView, foreseen
from sqlbak.scheduler.due import DueJob, Protected, due
from sqlbak.stored_item import Served, newest_served
from sqlbak.vault.holder import holder_name, is_known_dead
from sqlbak.vault.lease import Leases

__all__ = ["Decision", "Decisions", "Trouble", "decide_all"]


@dataclass(frozen=True, slots=True)
class Decision:
    """One backup that is due.

    Attributes:
        job: what is due; ``job.asked`` where the calendar alone makes it a full.
        takes: what will be taken.
        converted: why it is a full, where something else was asked for.
        waiting: what it waits for; None: it starts.
    """

    job: DueJob
    takes: PointType
    converted: str | None = None
    waiting: Waiting | None = None

    @property
    def asked(self) -> PointType:
        """What the slot is for."""
        return self.job.asked or self.job.type


@dataclass(frozen=True, slots=True)
class Trouble:
    """What kept something of an item or instance from being decided, or would make it fail."""

    name: str
    error: SqlbakError


@dataclass(frozen=True, slots=True)
class Decisions:
    """All that is due now. ``idle``: the items of which nothing is."""

    at: datetime
    due: tuple[Decision, ...]
    idle: tuple[str, ...]
    troubles: tuple[Trouble, ...]


def decide_all(fleet: Fleet, now: datetime, *, jobs_at_once: int) -> Decisions:
    """Look at policies, vaults and the servers of what is due, and change nothing."""
    troubles: list[Trouble] = []
    vaults = _Vaults(fleet)
    jobs: dict[str, list[DueJob]] = {}
    served: dict[str, Served] = {}
    for name in _item_names(fleet, troubles):
        try:
            fleet.require_supported(name)
            served[name] = one = vaults.served(name)
        except SqlbakError as error:
            troubles.append(Trouble(name, error))
            continue
        protected = Protected(name, fleet.policy(name), one.points, one.cancelled)
        jobs[name] = due([protected], now)
    candidates = [candidate_of(fleet, job, now) for found in jobs.values() for job in found]
    admission = admit(candidates, [], room_of(fleet, jobs_at_once), now)
    waiting = {(one.job.item, one.job.type): one for one in admission.waiting}
    decisions = []
    for name, found in jobs.items():
        look = _Look(fleet, name, served[name].points, vaults, troubles)
        decisions += [look.decision(job, waiting.get((name, job.type))) for job in found]
    idle = tuple(name for name, found in jobs.items() if not found)
    return Decisions(now, tuple(decisions), idle, tuple(troubles))


def _item_names(fleet: Fleet, troubles: list[Trouble]) -> Iterator[str]:
    for instance in fleet.instances():
        try:
            yield from fleet.item_names(instance)
        except SqlbakError as error:
            troubles.append(Trouble(instance, error))


class _Vaults:
    """The vaults that exist, and their items by name; each is read once. A database is known by its
    identity, whatever its name was before."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._items: dict[str, dict[str, list[StoredItem]]] = {}

    def served(self, name: str) -> Served:
        """What serves slots of the item that has that name now."""
        if "/" in name:
            vault = self._fleet.existing_vault(self._fleet.policy(name).vault)
            return Served() if vault is None else self._fleet.served_in(vault, name)
        return newest_served(self.stored(name))

    def stored(self, name: str) -> list[StoredItem]:
        """The stored items of that name; none where there is no vault yet."""
        vault_name = self._fleet.policy(name).vault
        if vault_name not in self._items:
            vault = self._fleet.existing_vault(vault_name)
            self._items[vault_name] = {} if vault is None else items_by_name(vault)
        return self._items[vault_name].get(name, [])


@dataclass(slots=True)
class _Look:
    """One item; its server is asked only when something of it is due."""

    fleet: Fleet
    name: str
    points: tuple[Point, ...]
    vaults: _Vaults
    troubles: list[Trouble]
    _view: ServerView | None = None
    _is_looked: bool = False

    def decision(self, job: DueJob, waiting: Waiting | None) -> Decision:
        if job.asked is not None:
            return Decision(job, job.type, job.reason, waiting or self._held(job))
        view = None if job.type is PointType.FULL and not self.points else self.view()
        if view is None:
            return Decision(job, job.type, None, waiting or self._held(job))
        seen = foreseen(job.type, self.points, view)
        if seen.paused is not None:
            waiting = Waiting(job, f"until it can be taken: {seen.paused}")
        return Decision(job, seen.takes, seen.why, waiting or self._held(job))

    def view(self) -> ServerView | None:
        """What the server says now; None: it could not be asked, which is told."""
        if not self._is_looked:
            self._is_looked = True
            try:
                self._view = self._ask()
            except SqlbakError as error:
                self.troubles.append(Trouble(self.name, error))
        return self._view

    def _ask(self) -> ServerView:
        engine = self.fleet.engine(self.name)
        inspection = engine.inspect()
        found = _item_of(inspection, self.name)
        if self._is_another(inspection, found):
            # Another server answers under this name: it has no recovery points yet.
            self.points = ()
        return ServerView(inspection.engine, found, engine.oldest_log())

    def _is_another(self, inspection: Inspection, found: DiscoveredItem) -> bool:
        stored = self.vaults.stored(self.name)
        return bool(stored) and not any(
            one.item.engine is inspection.engine and one.item.identity == found.identity
            for one in stored
        )

    def _held(self, job: DueJob) -> Waiting | None:
        """Another process that works on it now."""
        kind = "log" if job.type is PointType.LOG else "data"
        for stored in self.vaults.stored(self.name):
            leases = Leases(stored.vault.store, holder=holder_name())
            record = leases.read(f"{stored.item.id}.{kind}")
            if record is None or record.is_free or is_known_dead(record.holder):
                continue
            since = f"{record.acquired_at:%Y-%m-%d %H:%M:%S}Z"
            return Waiting(job, f"for {record.who} ({record.purpose}) since {since}")
        return None


def _item_of(inspection: Inspection, name: str) -> DiscoveredItem:
    instance = instance_of(name)
    for found in inspection.items:
        if name == (instance if found.database is None else f"{instance}/{found.database}"):
            return found
    raise ServerNotReady(f"{name} is not there: the server does not tell of it")
