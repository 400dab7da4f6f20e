"""Everything that is configured, opened on demand: engines by instance, vaults by name.

This is where the configuration's words become engines and vaults; every use case starts here.

What is protected is called by an item name: ``instance`` for a PostgreSQL cluster,
``instance/database`` for a SQL Server database. Instance names hold no slash, so that whatever
stands behind the first one is the database's name.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Self

from sqlbak.configured_engines import (
    cluster_engine,
    database_engine,
    database_target,
    instance_inspection,
    instance_view,
    place_of,
)
from sqlbak.configured_vaults import ConfiguredVaults
from sqlbak.discovery import KNOWN_SECONDS, Discovery, NamesInUse
from sqlbak.engines.port import DiscoveredItem, Engine, Inspection
from sqlbak.engines.registry import InstanceView, SqlServerPlace
from sqlbak.errors import (
    FeatureUnsupported,
    NameNeeded,
    SqlbakError,
    UnknownName,
    UsageError,
    VaultMissing,
)
from sqlbak.model import EngineName, Item, Point
from sqlbak.policy.instance_settings import PostgresInstance, SqlServerInstance
from sqlbak.policy.schema import DEFAULT_POLICY_NAME, Configuration, Policy
from sqlbak.policy.unsupported import unsupported_for
from sqlbak.stopping import NEVER, StopSignal
from sqlbak.stored_item import Served, StoredItem, newest_name, newest_served
from sqlbak.twins import Sight, twin_problem
from sqlbak.vault.lease import Leases
from sqlbak.vault.retry import RetryPolicy
from sqlbak.vault.store import ObjectStore
from sqlbak.vault.throttle import BandwidthCap
from sqlbak.vault.vault import Vault

if TYPE_CHECKING:
    from sqlbak.engines.sqlserver.restoring import TargetServer

__all__ = ["Fleet", "StoredItem", "instance_of"]


_LISTED_SECONDS = 3.0


def instance_of(name: str) -> str:
    """The instance of an item name."""
    return name.partition("/")[0]


class Fleet:
    """The configured instances with their engines and vaults. Thread-safe; close it after use.

    ``retries`` says how often an unreachable store is tried again (None: the store's default), and
    ``stop`` ends the waits in between. ``bandwidth`` caps what is sent to all vaults together; each
    has its own cap by its settings.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        retries: RetryPolicy | None = None,
        stop: StopSignal = NEVER,
        bandwidth: BandwidthCap | None = None,
    ) -> None:
        self._configuration = configuration
        self._vaults = ConfiguredVaults(
            configuration, retries=retries, stop=stop, bandwidth=bandwidth
        )
        self._discovery = Discovery(self._look)
        self._listed: dict[str, tuple[float, list[str]]] = {}
        self._listed_after = -math.inf
        self._lock = threading.Lock()
        self._users = 0
        self._is_retired = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, value: object, traceback: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the vaults' connections."""
        self._vaults.close()

    def enter(self) -> None:
        """A job begins to use this fleet: ``close_when_idle`` waits for it."""
        with self._lock:
            self._users += 1

    def leave(self) -> None:
        """The job that entered is done."""
        with self._lock:
            self._users -= 1
            is_last = self._is_retired and self._users == 0
        if is_last:
            self.close()

    def close_when_idle(self) -> None:
        """Close as soon as no job uses this fleet: another one has taken over."""
        with self._lock:
            self._is_retired = True
            is_idle = self._users == 0
        if is_idle:
            self.close()

    @property
    def configuration(self) -> Configuration:
        """What the policy files say."""
        return self._configuration

    def instances(self) -> tuple[str, ...]:
        """The names of the instances, sorted."""
        return tuple(sorted(self._configuration.instances))

    def instance_named(self, name: str | None) -> str:
        """The instance meant by ``name``; None means the only one. UnknownName, NameNeeded."""
        names = self.instances()
        if name is None:
            if len(names) == 1:
                return names[0]
            raise NameNeeded("instance", names)
        if name not in names:
            raise UnknownName("instance", name, names)
        return name

    def item_names(self, instance: str) -> tuple[str, ...]:
        """The names of what is protected of one instance. A cluster is one item. A SQL Server
        instance is asked for its databases: ServerUnreachable, ServerRefused."""
        if not isinstance(self._configuration.instances[instance], SqlServerInstance):
            return (instance,)
        view = self._discovery.view(instance)
        return tuple(f"{instance}/{database}" for database in sorted(view.items))

    def item_named(self, name: str | None) -> str:
        """The item meant by ``name``; None, or an instance's name, means its only one. UnknownName,
        NameNeeded."""
        if name is not None and "/" in name:
            instance = self.instance_named(instance_of(name))
            names = self.item_names(instance)
            if name not in names:
                raise UnknownName("item", name, names)
            return name
        names = self.item_names(self.instance_named(name))
        if len(names) != 1:
            raise NameNeeded("item", names)
        return names[0]

    def policy(self, name: str) -> Policy:
        """The policy of an instance, or of an item of it."""
        return self._configuration.policy_for(instance_of(name))

    def policy_name(self, name: str) -> str:
        """What the policy of an instance or item is called."""
        return self._configuration.instances[instance_of(name)].policy or DEFAULT_POLICY_NAME

    def engine_name(self, name: str) -> EngineName:
        """Which engine an instance or item is of."""
        return EngineName(self._configuration.instances[instance_of(name)].engine)

    def zone(self, item: Item) -> tzinfo:
        """The zone in which the item's times are read; UTC when it is not configured any more."""
        if item.instance in self._configuration.instances:
            return self.policy(item.instance).zone
        return UTC

    def program_dir(self, item: Item) -> Path | None:
        """The folder of PostgreSQL's programs that the item's instance names (``pg_bin``), where
        it is on this machine: policies are shared by machines that differ."""
        settings = self._configuration.instances.get(item.instance)
        folder = settings.pg_bin if isinstance(settings, PostgresInstance) else None
        return folder if folder is not None and folder.is_dir() else None

    def engine(self, name: str) -> Engine:
        """The engine that backs up one item; connects only when used. SecretUnavailable."""
        instance = instance_of(name)
        settings = self._configuration.instances[instance]
        if isinstance(settings, SqlServerInstance):
            database = name.removeprefix(f"{instance}/")
            return database_engine(settings, self._place(instance, settings), database)
        return cluster_engine(settings, self.vault(instance).id)

    def inspect(self, name: str) -> Inspection:
        """What one item says of itself, or a SQL Server instance with all its databases."""
        settings = self._configuration.instances[instance_of(name)]
        if "/" in name or not isinstance(settings, SqlServerInstance):
            return self.with_twins(name, self.engine(name).inspect())
        place = self._place(name, settings)
        return self.with_twins(name, instance_inspection(settings, place))

    def with_twins(self, name: str, found: Inspection) -> Inspection:
        """The same, and which databases of availability groups another instance backs up already.
        The other instances are asked, where there is such a database; one that does not answer
        takes no backups either."""
        grouped = [item for item in found.items if item.group_database is not None]
        if not grouped:
            return found
        instance = instance_of(name)
        others = [
            Sight(other, item, bool(settings.replicas))
            for other, settings in self._configuration.instances.items()
            if other != instance and isinstance(settings, SqlServerInstance)
            for item in self._known_items(other)
        ]
        own = self._configuration.instances[instance]
        has_replicas = isinstance(own, SqlServerInstance) and bool(own.replicas)
        twins = [twin_problem(Sight(instance, item, has_replicas), others) for item in grouped]
        more = tuple(problem for problem in twins if problem is not None)
        return replace(found, problems=(*found.problems, *more))

    def _known_items(self, instance: str) -> Collection[DiscoveredItem]:
        try:
            return self._discovery.view(instance, age_seconds=KNOWN_SECONDS).items.values()
        except SqlbakError:
            return ()

    def _look(self, instance: str) -> InstanceView:
        settings = self._configuration.instances[instance]
        if not isinstance(settings, SqlServerInstance):
            raise TypeError(f"{instance} has no databases of its own")
        return instance_view(settings)

    def _place(self, instance: str, settings: SqlServerInstance) -> SqlServerPlace:
        # Asked first: it refuses what this version does not do.
        vault = self.vault(instance)
        s3 = self._configuration.vaults[self.policy(instance).vault].s3
        return place_of(settings, instance, vault.id, s3)

    def restore_server(self, instance: str) -> TargetServer:
        """Where databases are restored to on a SQL Server instance; connects only when used.
        UnknownName; UsageError for an instance of another engine; SecretUnavailable."""
        settings = self._configuration.instances[self.instance_named(instance)]
        if not isinstance(settings, SqlServerInstance):
            raise UsageError(
                f"{instance} is no SQL Server: its databases cannot be restored to",
                hint="name a SQL Server with --instance",
            )
        return database_target(settings, instance)

    def vault(self, name: str) -> Vault:
        """The vault of an instance or item, made if it does not exist yet. FeatureUnsupported when
        its settings ask for what this version does not do: then nothing is written there.
        """
        self.require_supported(name)
        return self._vaults.open(self.policy(name).vault, is_made=True)

    def require_supported(self, name: str) -> None:
        """FeatureUnsupported when the settings of an instance or item ask for what this version
        does not do."""
        instance = instance_of(name)
        if problems := unsupported_for(self._configuration, instance):
            raise FeatureUnsupported(
                f"{instance} is not backed up as its policy asks: "
                + "; ".join(problem.message for problem in problems),
                hint="sqlbak validate names the lines",
            )

    def points(self, name: str) -> tuple[Point, ...]:
        """The recovery points of the newest stored item of that name, by listing; none yet: ().
        A SQL Server database is known by its identity, whatever its name was before."""
        return self.served(name).points

    def served(self, name: str) -> Served:
        """The same, with the slots of it that were cancelled."""
        return self.served_in(self.vault(name), name)

    def served_in(self, vault: Vault, name: str) -> Served:
        """The same in a vault that was opened already."""
        instance = instance_of(name)
        if "/" in name:
            database = name.removeprefix(f"{instance}/")
            found = self._discovery.item(instance, database)
            if found is not None and found.identity:
                item = vault.find_item(
                    EngineName.SQLSERVER,
                    instance,
                    database,
                    found.identity,
                    configured_names=self.configured_names(),
                    known_ids=self._item_ids(vault),
                )
                return Served() if item is None else newest_served([StoredItem(vault, item)])
        return newest_served(self._stored_in(vault, name))

    def _item_ids(self, vault: Vault) -> list[str]:
        """The ids of a vault's items, listed at most a few seconds ago: one listing serves the
        hundreds of databases of a tick."""
        with self._lock:
            listed_at, ids = self._listed.get(vault.id, (-math.inf, []))
            is_void = listed_at <= self._listed_after
        if is_void or time.monotonic() - listed_at > _LISTED_SECONDS:
            listed_at, ids = time.monotonic(), vault.item_ids()
            with self._lock:
                self._listed[vault.id] = (listed_at, ids)
        return ids

    def expect_item(self, item_id: str | None) -> None:
        """An item has points now, and may have been made just before: a list of items without it is
        not used any more. None: some item."""
        with self._lock:
            if item_id is None or not any(item_id in ids for _, ids in self._listed.values()):
                self._listed_after = time.monotonic()

    def configured_names(self, name: str | None = None) -> Collection[str]:
        """The names of all configured instances and of the databases that SQL Server instances
        are known to have: a stored item under another name is a renamed one. ``name``: the item
        that it is about; its instance is asked for its databases."""
        if name is not None and "/" in name:
            self._discovery.view(instance_of(name))
        return NamesInUse(
            frozenset(self._configuration.instances),
            {
                name: self._discovery.known(name)
                for name, settings in self._configuration.instances.items()
                if isinstance(settings, SqlServerInstance)
            },
        )

    def stored_items(self, name: str | None) -> list[StoredItem]:
        """Stored items by name, instance or item id, in any configured vault; None: all of them.
        A database is found under the name that it has in its newest recovery point, too.

        Raises UnknownName when the name is neither stored nor configured.
        """
        found: list[StoredItem] = []
        for vault_name in sorted(self._configuration.vaults):
            try:
                vault = self._vaults.open(vault_name, is_made=False)
            except VaultMissing:
                continue  # nothing was ever backed up there
            found += [StoredItem(vault, item) for item in vault.items()]
        if name is None:
            return found
        wanted = [
            each for each in found if name in (each.item.name, each.item.id, each.item.instance)
        ]
        wanted = wanted or [each for each in found if newest_name(each, name) == name]
        if not wanted and instance_of(name) not in self._configuration.instances:
            known = {each.item.name for each in found} | set(self._configuration.instances)
            raise UnknownName("item", name, sorted(known))
        return wanted

    def vault_names(self) -> tuple[str, ...]:
        """The names of the configured vaults, sorted."""
        return tuple(sorted(self._configuration.vaults))

    def existing_vault(self, vault_name: str) -> Vault | None:
        """A configured vault, never made here; None when nothing was ever backed up there."""
        try:
            return self.stored_vault(vault_name)
        except VaultMissing:
            return None

    def _stored_in(self, vault: Vault, name: str) -> list[StoredItem]:
        return [StoredItem(vault, item) for item in vault.items() if item.name == name]

    def vault_named(self, name: str | None) -> str:
        """The vault meant by ``name``; None means the only one. UnknownName, NameNeeded."""
        names = sorted(self._configuration.vaults)
        if name is None and len(names) == 1:
            return names[0]
        if name is None:
            raise NameNeeded("vault", names)
        if name not in names:
            raise UnknownName("vault", name, names)
        return name

    def stored_vault(self, vault_name: str) -> Vault:
        """A configured vault by its own name; it is not made. VaultMissing."""
        return self._vaults.open(vault_name, is_made=False)

    def store(self, vault_name: str) -> ObjectStore:
        """The bare store of a configured vault; the caller closes it. SecretUnavailable."""
        return self._vaults.store_of(self._configuration.vaults[vault_name])

    def store_beside(self, vault_name: str, url: str) -> ObjectStore:
        """The bare store at ``url``, reached as the vault's own is; the caller closes it."""
        settings = self._configuration.vaults[vault_name]
        return self._vaults.store_of(settings.model_copy(update={"url": url}))

    def leases(self, name: str) -> Leases:
        """The leases of an instance's or item's vault, as this process sees them."""
        return self._vaults.leases(self.policy(name).vault)
